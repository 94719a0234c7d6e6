//! The client library's errors as the contract's.

use postrider_contract::{Error, ErrorKind};

/// Reply codes of AMQP 0-9-1, section 1.2.
pub(crate) const CONTENT_TOO_LARGE: u16 = 311;
/// A name or permission was refused.
pub(crate) const ACCESS_REFUSED: u16 = 403;
/// There is no such exchange or queue.
pub(crate) const NOT_FOUND: u16 = 404;
/// It exists and differs.
pub(crate) const PRECONDITION_FAILED: u16 = 406;
/// The virtual host is missing or refused.
pub(crate) const NOT_ALLOWED: u16 = 530;
/// The broker is too old for it.
pub(crate) const NOT_IMPLEMENTED: u16 = 540;

/// The broker's reply code, where it closed a channel or connection with one.
pub(crate) fn reply_code(error: &lapin::Error) -> Option<u16> {
    match error.kind() {
        lapin::ErrorKind::ProtocolError(error) => Some(error.get_id()),
        _ => None,
    }
}

/// Whether there is no such queue, as opposed to one whose node is down or starting, which has the same code.
pub(crate) fn is_no_queue(error: &lapin::Error) -> bool {
    reply_code(error) == Some(NOT_FOUND) && text(error).contains("no queue")
}

/// Whether there is no such exchange.
pub(crate) fn is_no_exchange(error: &lapin::Error) -> bool {
    reply_code(error) == Some(NOT_FOUND) && text(error).contains("no exchange")
}

/// Whether a channel was closed because something on it was unsettled for too long.
pub(crate) fn is_overdue(error: &lapin::Error) -> bool {
    let text = text(error);
    reply_code(error) == Some(PRECONDITION_FAILED)
        && text.contains("delivery acknowledgement")
        && text.contains("timed out")
}

/// The largest payload that the broker takes, where it closed a channel because of a larger one.
pub(crate) fn largest(error: &lapin::Error) -> Option<usize> {
    let text = text(error);
    let (_, largest) = text.rsplit_once("max size ")?;
    let said = reply_code(error) == Some(PRECONDITION_FAILED) && text.contains("message size ");
    largest.parse().ok().filter(|_| said)
}

/// What failed, in one line: `doing` says at what.
pub(crate) fn error(doing: &str, error: &lapin::Error) -> Error {
    Error::new(kind(error), format!("{doing}: {}", text(error)))
}

/// The broker's own words where there are some.
pub(crate) fn text(error: &lapin::Error) -> String {
    let text = match error.kind() {
        lapin::ErrorKind::ProtocolError(error) => error.get_message().to_string(),
        lapin::ErrorKind::InvalidConnectionState(_) | lapin::ErrorKind::InvalidChannelState(..) => {
            "the connection is closed".into()
        }
        _ => error.to_string(),
    };
    text.replace(['\r', '\n'], " ")
}

fn kind(error: &lapin::Error) -> ErrorKind {
    match error.kind() {
        lapin::ErrorKind::ProtocolError(error) => match error.get_id() {
            // Too many connections, channels or users: others may go, such as those that the broker still takes for alive.
            NOT_ALLOWED if is_full(error.get_message().as_str()) => ErrorKind::Unavailable,
            ACCESS_REFUSED | NOT_ALLOWED => ErrorKind::Denied,
            PRECONDITION_FAILED => ErrorKind::Topology,
            CONTENT_TOO_LARGE => ErrorKind::TooLarge,
            NOT_IMPLEMENTED => ErrorKind::Unsupported,
            // `NOT_FOUND` too: it is also said of a queue whose node is starting.
            _ => ErrorKind::Unavailable,
        },
        // rustls reports every failed handshake so: trying again does not help.
        lapin::ErrorKind::IOError(error) if error.kind() == std::io::ErrorKind::InvalidData => {
            ErrorKind::Denied
        }
        lapin::ErrorKind::AuthProviderError(_) => ErrorKind::Denied,
        _ => ErrorKind::Unavailable,
    }
}

/// As in "user connection limit (10) is reached".
fn is_full(text: &str) -> bool {
    text.contains("limit") && text.contains("reached")
}

/// This side was closed.
pub(crate) fn closed() -> Error {
    Error::new(
        ErrorKind::Closed,
        "the connection to RabbitMQ was closed from this side",
    )
}

#[cfg(test)]
mod tests {
    use lapin::protocol::{AMQPError, AMQPErrorKind, AMQPHardError};

    use super::*;

    #[test]
    fn a_limit_passes_and_wrong_credentials_do_not() {
        for (text, expected) in [
            (
                "NOT_ALLOWED - Connection refused for user 'shop': user connection limit (10) is reached",
                ErrorKind::Unavailable,
            ),
            (
                "NOT_ALLOWED - access to vhost 'limits' refused for user 'shop'",
                ErrorKind::Denied,
            ),
        ] {
            let hard = AMQPErrorKind::Hard(AMQPHardError::NOTALLOWED);
            let refused = AMQPError::new(hard, text.into());
            let refused = lapin::Error::from(lapin::ErrorKind::ProtocolError(refused));
            assert_eq!(error("connecting", &refused).kind(), expected, "{text}");
        }
    }
}
