//! What Redis says went wrong, as the contract's kinds.

use std::time::Duration;

use postrider_contract::{Error, ErrorKind};
use redis::{RedisError, ServerError, Value};

/// What came of talking to the server.
#[derive(Debug, Clone)]
pub(crate) struct Failure {
    pub(crate) error: Error,
    /// It may have arrived there and been carried out.
    pub(crate) sent: bool,
    /// This connection is of no use any more.
    pub(crate) broken: bool,
}

impl Failure {
    /// Nothing was sent.
    pub(crate) fn before(error: Error) -> Self {
        Self {
            error,
            sent: false,
            broken: false,
        }
    }

    /// No answer within this time.
    pub(crate) fn silent(after: Duration) -> Self {
        Self {
            error: unavailable(format!("Redis did not answer within {after:?}")),
            sent: true,
            broken: true,
        }
    }

    /// What the client library reports of a command.
    pub(crate) fn of(error: &RedisError) -> Self {
        let server = ServerError::try_from(error.clone());
        Self {
            error: match &server {
                Ok(answer) => from_server(answer),
                Err(_) => unavailable(format!(
                    "the connection to Redis broke: {}",
                    one_line(&error.to_string())
                )),
            },
            sent: server.is_err(),
            broken: server.is_err(),
        }
    }
}

/// An error reply, as the contract's error.
pub(crate) fn from_server(answer: &ServerError) -> Error {
    let details = answer.details().unwrap_or_default();
    from_code(answer.code(), details)
}

/// The error that a script caught: one text, the code first.
pub(crate) fn from_text(text: &str) -> Error {
    let (code, details) = text.split_once(' ').unwrap_or((text, ""));
    from_code(code.trim_start_matches('-'), details)
}

/// The code of the error itself: before Redis 7 a script reports a command's error behind its own words.
pub(crate) fn code<'a>(code: &'a str, details: &str) -> &'a str {
    let inner = [
        "OOM",
        "READONLY",
        "NOPERM",
        "WRONGTYPE",
        "NOGROUP",
        "MISCONF",
        "CROSSSLOT",
    ];
    match code {
        "ERR" => inner
            .into_iter()
            .find(|inner| details.starts_with(inner) || details.contains(&format!(": -{inner} ")))
            .unwrap_or(code),
        _ => code,
    }
}

fn from_code(outer: &str, details: &str) -> Error {
    use ErrorKind::{Denied, Internal, Rejected, Topology, Unavailable, Unsupported};
    let code = code(outer, details);
    let (kind, what) = match code {
        "WRONGPASS" => (Denied, "Redis refused the user or password"),
        "NOAUTH" => (
            Denied,
            "Redis wants a password: write it into the URL, redis://:password@host",
        ),
        "NOPERM" => (Denied, "Redis does not allow this user what is needed"),
        "LOADING" => (Unavailable, "Redis is loading its data"),
        "READONLY" => (
            Unavailable,
            "this Redis is a replica and takes no writes: connect to its primary",
        ),
        "MASTERDOWN" => (Unavailable, "this Redis replica has lost its primary"),
        "OOM" => (Unavailable, "Redis is at its maxmemory and takes no more"),
        "MISCONF" => (Unavailable, "Redis cannot write to its disk and takes no more"),
        "NOREPLICAS" => (
            Unavailable,
            "Redis has fewer replicas than it is told to write with",
        ),
        "BUSY" => (Unavailable, "Redis is busy with a script"),
        "TRYAGAIN" | "NOSCRIPT" => (Unavailable, "Redis asks to try again"),
        "UNBLOCKED" if details.contains("instance state changed") => (
            Unavailable,
            "this Redis has become a replica: another is the primary now",
        ),
        "UNBLOCKED" => (Topology, "the topic's stream was deleted"),
        "NOGROUP" => (Topology, "the topic's stream or the consumer group is not there"),
        "WRONGTYPE" => (Topology, "a key of this topic is something else than it must be"),
        "MOVED" | "ASK" | "CROSSSLOT" | "CLUSTERDOWN" => (
            Unsupported,
            "this is a Redis Cluster, which is not supported: use a single primary",
        ),
        "ERR" if details.contains("max number of clients") => {
            (Unavailable, "Redis has no room for more clients")
        }
        "ERR" if details.contains("AUTH") && details.contains("without any password") => (
            Denied,
            "the URL has a password, but this Redis has none configured",
        ),
        "ERR" if details.contains("DB index") => (ErrorKind::Config, "Redis has no database of this number"),
        "ERR" if details.contains("unknown command") => (
            Unsupported,
            "Redis does not know a command (6.2 or later is needed)",
        ),
        "ERR" if details.contains("string exceeds maximum") => (Rejected, "Redis refused the message"),
        _ => (Internal, "Redis answered with an error"),
    };
    Error::new(
        kind,
        format!("{what} ({})", one_line(&format!("{code} {details}"))),
    )
}

/// Whether the server certainly did nothing and may do it in a moment.
pub(crate) fn not_yet(error: &ServerError) -> bool {
    matches!(
        error.code(),
        "LOADING" | "READONLY" | "MASTERDOWN" | "TRYAGAIN" | "BUSY"
    )
}

/// The value of a reply, or the error that it is.
pub(crate) fn checked(reply: Value) -> Result<Value, Error> {
    match reply {
        Value::ServerError(error) => Err(from_server(&error)),
        value => Ok(value),
    }
}

/// An error of this kind.
pub(crate) fn unavailable(text: impl Into<std::borrow::Cow<'static, str>>) -> Error {
    Error::new(ErrorKind::Unavailable, text)
}

/// The adapter and the server disagree about a reply.
pub(crate) fn unexpected(what: &'static str) -> Error {
    Error::new(ErrorKind::Internal, what)
}

/// Server text is shown on one line, and not all of it: it can quote arguments.
fn one_line(text: &str) -> String {
    let short: String = text.chars().take(160).collect();
    short.replace(char::is_control, " ").trim().to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn kinds() {
        for (text, kind) in [
            ("WRONGPASS invalid username-password pair", ErrorKind::Denied),
            ("NOAUTH Authentication required.", ErrorKind::Denied),
            ("NOPERM this user has no permissions", ErrorKind::Denied),
            (
                "LOADING Redis is loading the dataset in memory",
                ErrorKind::Unavailable,
            ),
            (
                "OOM command not allowed when used memory > 'maxmemory'.",
                ErrorKind::Unavailable,
            ),
            (
                "MISCONF Redis is configured to save RDB snapshots",
                ErrorKind::Unavailable,
            ),
            (
                "READONLY You can't write against a read only replica.",
                ErrorKind::Unavailable,
            ),
            (
                "NOGROUP No such key 'a' or consumer group 'b'",
                ErrorKind::Topology,
            ),
            (
                "UNBLOCKED force unblock from blocking operation, instance state changed (master -> replica?)",
                ErrorKind::Unavailable,
            ),
            ("UNBLOCKED the stream key no longer exists", ErrorKind::Topology),
            ("ERR max number of clients reached", ErrorKind::Unavailable),
            (
                "ERR Error running script (call to f_1): @user_script:1: -OOM command not allowed",
                ErrorKind::Unavailable,
            ),
            ("MOVED 3999 127.0.0.1:6381", ErrorKind::Unsupported),
            ("ERR something", ErrorKind::Internal),
        ] {
            let error = from_text(text);
            assert_eq!(error.kind(), kind, "{error}");
            assert!(!error.to_string().contains('\n'));
        }
    }

    #[test]
    fn the_error_within_a_script_is_the_one() {
        let before_redis_7 = "Error running script (call to f_1): @user_script:1: -READONLY You can't write";
        assert_eq!(code("ERR", before_redis_7), "READONLY");
        assert_eq!(code("READONLY", "You can't write"), "READONLY");
        assert_eq!(code("ERR", "something"), "ERR");
    }

    /// What the server says is short and one line of plain text in our errors, whatever it quotes.
    #[test]
    fn no_text_of_the_server_breaks_a_line() {
        bolero::check!().with_type::<String>().for_each(|text| {
            for text in [text.clone(), format!("ERR {text}"), format!("-OOM {text}")] {
                let error = from_text(&text).to_string();
                assert!(
                    error.len() < 1_000 && !error.contains(char::is_control),
                    "{error:?}"
                );
            }
        });
    }
}
