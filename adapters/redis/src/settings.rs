//! What the URL says.

use std::time::Duration;

use postrider_contract::{BrokerUrl, Error, ErrorKind, Options, Secret};

/// The transports, by URL scheme.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Transport {
    Streams,
    PubSub,
}

/// Files for TLS beyond the system's own roots.
#[cfg_attr(
    not(feature = "tls"),
    allow(dead_code, reason = "a TLS scheme is refused without the feature")
)]
#[derive(Debug, Clone, Default)]
pub(crate) struct Tls {
    pub(crate) authority: Option<String>,
    pub(crate) certificate: Option<String>,
    pub(crate) key: Option<String>,
}

/// Everything the URL says, checked.
#[derive(Debug, Clone)]
pub(crate) struct Settings {
    /// The address as it may be shown.
    pub(crate) shown: String,
    pub(crate) transport: Transport,
    pub(crate) hosts: Vec<(String, u16)>,
    pub(crate) tls: Option<Tls>,
    pub(crate) user: Option<String>,
    pub(crate) password: Option<Secret>,
    pub(crate) database: i64,
    pub(crate) connect_timeout: Duration,
    pub(crate) publish_timeout: Duration,
    pub(crate) max_payload: usize,
    pub(crate) lease: Duration,
    pub(crate) retention: Duration,
    pub(crate) wait_replicas: u64,
    pub(crate) assume_durable: bool,
    /// Pub/Sub: how long a claim outlives its message.
    pub(crate) claim_window: Duration,
    /// Pub/Sub: how many messages may wait between socket and inbox.
    pub(crate) queue: usize,
}

const SECOND: Duration = Duration::from_secs(1);

impl Settings {
    pub(crate) fn read(url: &BrokerUrl) -> Result<Self, Error> {
        let (transport, secure) = match url.scheme.as_str() {
            "redis" => (Transport::Streams, false),
            "rediss" => (Transport::Streams, true),
            "redis+pubsub" => (Transport::PubSub, false),
            "rediss+pubsub" => (Transport::PubSub, true),
            other => return Err(config(format!("{other}:// is not a Redis scheme"))),
        };
        if secure && !cfg!(feature = "tls") {
            return Err(config(format!(
                "{}:// needs TLS, which is not compiled in: add the cargo feature `tls`",
                url.scheme
            )));
        }
        let mut options = url.options();
        let settings = Self {
            shown: url.to_string(),
            transport,
            hosts: hosts(url),
            tls: secure.then(|| tls(&mut options)),
            user: url.user.clone(),
            password: url.password.clone(),
            database: database(url)?,
            connect_timeout: options.timeout("connect_timeout", 10 * SECOND),
            publish_timeout: options.timeout("publish_timeout", 30 * SECOND),
            max_payload: options.number("max_payload", 1_000_000, 1, 500_000_000) as usize,
            lease: options.duration("lease", 30 * SECOND),
            retention: options.duration("retention", 600 * SECOND),
            wait_replicas: options.number("wait_replicas", 0, 0, 100),
            assume_durable: options.flag("assume_durable", false),
            claim_window: match transport {
                Transport::Streams => 60 * SECOND,
                Transport::PubSub => options.duration("claim_window", 60 * SECOND),
            },
            queue: match transport {
                Transport::Streams => 0,
                Transport::PubSub => options.number("queue", 10_000, 1, 10_000_000) as usize,
            },
        };
        options.finish()?;
        // The longest is known to scripts/lead.lua as well.
        if !(SECOND..=3600 * SECOND).contains(&settings.lease) {
            return Err(config("the Redis URL's option `lease` is not within 1s and 1h"));
        }
        if settings.user.is_some() && settings.password.is_none() {
            return Err(config(
                "the Redis URL has a user without a password: write user:password@host, or :password@host for the default user",
            ));
        }
        Ok(settings)
    }
}

fn hosts(url: &BrokerUrl) -> Vec<(String, u16)> {
    if url.hosts.is_empty() {
        return vec![("127.0.0.1".to_owned(), 6379)];
    }
    url.hosts
        .iter()
        .map(|(host, port)| (host.clone(), port.unwrap_or(6379)))
        .collect()
}

fn database(url: &BrokerUrl) -> Result<i64, Error> {
    match url.path.as_deref() {
        None | Some("") => Ok(0),
        Some(path) => path.parse().ok().filter(|&number| number >= 0).ok_or_else(|| {
            config(
                "the Redis URL's path is not a database number: write redis://host:6379/2, or no path for 0",
            )
        }),
    }
}

fn tls(options: &mut Options) -> Tls {
    Tls {
        authority: options.text("ca_file"),
        certificate: options.text("cert_file"),
        key: options.text("key_file"),
    }
}

fn config(text: impl Into<std::borrow::Cow<'static, str>>) -> Error {
    Error::new(ErrorKind::Config, text)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(url: &str) -> Result<Settings, Error> {
        Settings::read(&url.parse().unwrap())
    }

    #[test]
    fn reads_all_of_it() {
        let settings = read("redis://us:pw@one:1,two/3?lease=2s&retention=1h&wait_replicas=2").unwrap();
        assert_eq!(settings.hosts, [("one".to_owned(), 1), ("two".to_owned(), 6379)]);
        assert_eq!((settings.database, settings.wait_replicas), (3, 2));
        assert_eq!(settings.lease, 2 * SECOND);
        assert_eq!(settings.transport, Transport::Streams);
        assert!(!format!("{settings:?}").contains("pw"));
    }

    #[test]
    fn refuses_what_it_does_not_know() {
        for (url, says) in [
            ("redis://h?queue=5", "`queue` is unknown"),
            ("redis+pubsub://h?lease=1", "`lease` is not a duration"),
            ("redis://h?lease=2h", "`lease` is not within"),
            ("redis://h/orders", "database number"),
            ("redis://user@h", "user without a password"),
        ] {
            let error = read(url).unwrap_err();
            assert_eq!(error.kind(), ErrorKind::Config);
            assert!(error.to_string().contains(says), "{error}");
        }
    }

    #[cfg(not(feature = "tls"))]
    #[test]
    fn tls_needs_its_feature() {
        let error = read("rediss://h").unwrap_err();
        assert!(error.to_string().contains("cargo feature `tls`"), "{error}");
    }
}
