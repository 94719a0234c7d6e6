use std::collections::BTreeMap;
use std::fmt::{self, Display};
use std::str::FromStr;
use std::time::Duration;

use percent_encoding::percent_decode_str;

use crate::{Error, ErrorKind};

/// A broker's URL: `scheme://user:password@host:port,host2:port/path?option=value`.
///
/// Several hosts are allowed, each part is percent-decoded, and neither `Debug` nor any error shows the password.
#[derive(Clone, PartialEq, Eq)]
pub struct BrokerUrl {
    /// In lower case.
    pub scheme: String,
    /// The user's name.
    pub user: Option<String>,
    /// The password.
    pub password: Option<Secret>,
    /// Host and port, in the order written. An IPv6 address stands without its brackets.
    pub hosts: Vec<(String, Option<u16>)>,
    /// What stands between the first `/` after the hosts and the `?`, without that `/`; `None` where there is none.
    pub path: Option<String>,
    query: Vec<(String, String)>,
}

/// Text that neither `Debug` nor `Display` shows.
#[derive(Clone, PartialEq, Eq)]
pub struct Secret(String);

impl Secret {
    /// Hides this text.
    pub fn new(text: impl Into<String>) -> Self {
        Self(text.into())
    }

    /// The text itself: for the client library alone.
    pub fn expose(&self) -> &str {
        &self.0
    }
}

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("***")
    }
}

impl fmt::Debug for BrokerUrl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // Option values may hold secrets too.
        Display::fmt(self, f)
    }
}

/// The address as it may be shown: scheme, hosts and path, no credentials, no options.
impl Display for BrokerUrl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}://", self.scheme)?;
        for (n, (host, port)) in self.hosts.iter().enumerate() {
            if n > 0 {
                f.write_str(",")?;
            }
            if host.contains(':') {
                write!(f, "[{host}]")?;
            } else {
                f.write_str(host)?;
            }
            if let Some(port) = port {
                write!(f, ":{port}")?;
            }
        }
        match &self.path {
            Some(path) => write!(f, "/{path}"),
            None => Ok(()),
        }
    }
}

impl FromStr for BrokerUrl {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self, Error> {
        let (scheme, rest) = text.split_once("://").ok_or_else(|| {
            config("the broker URL has no scheme: write it as scheme://host:port, such as memory://")
        })?;
        let legal = |c: char| c.is_ascii_alphanumeric() || matches!(c, '+' | '-' | '.');
        if scheme.is_empty() || !scheme.chars().all(legal) {
            return Err(config(
                "the broker URL's scheme is not made of letters, digits, + - .",
            ));
        }
        if rest.contains('#') {
            return Err(config(
                "the broker URL contains a `#`: in a password it is written %23",
            ));
        }
        // A `/` or `?` in a password must be encoded, or what follows it would be taken for a path or an option, and shown.
        // An `@` often is not encoded: the last one before the path counts.
        let behind = rest.find(['/', '?']).map_or("", |at| &rest[at..]);
        if behind.contains('@') {
            return Err(config(
                "the broker URL contains an `@` behind a `/` or `?`: in a password they are written %2F and %3F, and an `@` \
                 in a path or an option is written %40",
            ));
        }
        let (rest, query) = rest.split_once('?').unwrap_or((rest, ""));
        let (authority, path) = match rest.split_once('/') {
            Some((authority, path)) => (authority, Some(decode(path)?)),
            None => (rest, None),
        };
        let (user_info, hosts) = match authority.rsplit_once('@') {
            Some((user_info, hosts)) => (Some(user_info), hosts),
            None => (None, authority),
        };
        let (user, password) = match user_info.map(|info| info.split_once(':').unwrap_or((info, ""))) {
            None => (None, None),
            Some((user, password)) => (present(user)?, present(password)?.map(Secret)),
        };
        Ok(Self {
            scheme: scheme.to_ascii_lowercase(),
            user,
            password,
            hosts: hosts
                .split(',')
                .filter(|host| !host.is_empty())
                .map(host_port)
                .collect::<Result<_, _>>()?,
            path,
            query: pairs(query)?,
        })
    }
}

impl BrokerUrl {
    /// The options of the query, to be read one by one and then [finished](Options::finish).
    pub fn options(&self) -> Options {
        Options {
            scheme: self.scheme.clone(),
            left: self.query.iter().cloned().collect(),
            known: Vec::new(),
            problems: repeated(&self.query),
        }
    }
}

/// Reads typed options from a URL's query and collects every mistake.
#[derive(Debug)]
pub struct Options {
    scheme: String,
    left: BTreeMap<String, String>,
    known: Vec<&'static str>,
    problems: Vec<String>,
}

/// A duration such as `200ms`, `30s`, `5m`, `24h`. `5M`, which is five months elsewhere and was meant to be minutes, is none.
pub fn parse_duration(text: &str) -> Option<Duration> {
    humantime::parse_duration(text)
        .ok()
        .filter(|_| !text.contains('M'))
}

impl Options {
    /// The option as text, `None` where it is not given.
    pub fn text(&mut self, name: &'static str) -> Option<String> {
        self.known.push(name);
        self.left.remove(name)
    }

    /// The option as a duration such as `200ms`, `30s`, `5m`, `24h`.
    pub fn duration(&mut self, name: &'static str, default: Duration) -> Duration {
        self.with(name, default, "a duration such as 200ms, 30s, 5m", |text| {
            parse_duration(text)
        })
    }

    /// The option as a duration that is not shorter than this.
    pub fn duration_from(&mut self, name: &'static str, default: Duration, least: Duration) -> Duration {
        let allowed = format!(
            "a duration such as 5s, of at least {}",
            humantime::format_duration(least)
        );
        self.with(name, default, &allowed, |text| {
            parse_duration(text).filter(|given| *given >= least)
        })
    }

    /// How long is waited for something: as a duration of at least a millisecond.
    pub fn timeout(&mut self, name: &'static str, default: Duration) -> Duration {
        self.duration_from(name, default, Duration::from_millis(1))
    }

    /// The option as a number within `from..=to`.
    pub fn number(&mut self, name: &'static str, default: u64, from: u64, to: u64) -> u64 {
        let allowed = format!("a whole number from {from} to {to}");
        self.with(name, default, &allowed, |text| {
            text.parse().ok().filter(|n| (from..=to).contains(n))
        })
    }

    /// The option as `true` or `false`.
    pub fn flag(&mut self, name: &'static str, default: bool) -> bool {
        self.one_of(name, default, &[("true", true), ("false", false)])
    }

    /// The option as one of a few words.
    pub fn one_of<T: Clone>(&mut self, name: &'static str, default: T, words: &[(&str, T)]) -> T {
        let allowed = words
            .iter()
            .map(|(word, _)| *word)
            .collect::<Vec<_>>()
            .join(" or ");
        self.with(name, default, &allowed, |text| {
            words
                .iter()
                .find(|(word, _)| *word == text)
                .map(|(_, value)| value.clone())
        })
    }

    /// The option read by `parse`; `allowed` says what it takes.
    pub fn with<T>(
        &mut self,
        name: &'static str,
        default: T,
        allowed: &str,
        parse: impl FnOnce(&str) -> Option<T>,
    ) -> T {
        let Some(text) = self.text(name) else {
            return default;
        };
        parse(&text).unwrap_or_else(|| {
            // The value is not shown: it might be a secret under the wrong name.
            self.problems.push(format!("option `{name}` is not {allowed}"));
            default
        })
    }

    /// The end of reading.
    ///
    /// # Errors
    /// Every option that is unknown, repeated or has a wrong value, and which options there are.
    pub fn finish(mut self) -> Result<(), Error> {
        self.problems
            .extend(self.left.keys().map(|name| format!("option `{name}` is unknown")));
        if self.problems.is_empty() {
            return Ok(());
        }
        self.known.sort_unstable();
        let known = if self.known.is_empty() {
            "none".to_owned()
        } else {
            self.known.join(", ")
        };
        Err(config(format!(
            "{}:// URL: {}; known options: {known}",
            self.scheme,
            self.problems.join(", ")
        )))
    }
}

fn host_port(text: &str) -> Result<(String, Option<u16>), Error> {
    let (host, port) = match text.strip_prefix('[') {
        Some(rest) => {
            let (host, rest) = rest
                .split_once(']')
                .ok_or_else(|| config("the broker URL has a `[` without its `]`"))?;
            let port = rest.strip_prefix(':');
            if port.is_none() && !rest.is_empty() {
                return Err(config(
                    "the broker URL has something other than a port behind a `]`",
                ));
            }
            (host, port)
        }
        None => match text.split_once(':') {
            Some((host, port)) => (host, Some(port)),
            None => (text, None),
        },
    };
    if host.is_empty() {
        return Err(config("the broker URL has a port without a host"));
    }
    let port = port
        .map(|port| port.parse().ok().filter(|&port| port > 0))
        .map(|port: Option<u16>| {
            port.ok_or_else(|| config("the broker URL's port is not a number from 1 to 65535"))
        })
        .transpose()?;
    Ok((decode(host)?, port))
}

fn pairs(query: &str) -> Result<Vec<(String, String)>, Error> {
    let pair = |part: &str| {
        let (name, value) = part.split_once('=').unwrap_or((part, "true"));
        Ok((decode(name)?, decode(value)?))
    };
    query
        .split('&')
        .filter(|part| !part.is_empty())
        .map(pair)
        .collect()
}

fn repeated(query: &[(String, String)]) -> Vec<String> {
    let again = |n: usize| query[..n].iter().any(|(name, _)| *name == query[n].0);
    (0..query.len())
        .filter(|&n| again(n))
        .map(|n| format!("option `{}` is given twice", query[n].0))
        .collect()
}

fn present(text: &str) -> Result<Option<String>, Error> {
    if text.is_empty() {
        Ok(None)
    } else {
        decode(text).map(Some)
    }
}

fn decode(text: &str) -> Result<String, Error> {
    let decoded = percent_decode_str(text).decode_utf8();
    decoded
        .map(Into::into)
        .map_err(|_| config("the broker URL has a %-sequence that is not UTF-8"))
}

fn config(text: impl Into<std::borrow::Cow<'static, str>>) -> Error {
    Error::new(ErrorKind::Config, text)
}

#[cfg(test)]
mod tests;
