//! What a URL sets.

use std::time::Duration;

use postrider_contract::{BrokerUrl, Error, ErrorKind};

/// Everything that a URL says.
pub(crate) struct Settings {
    /// The broker's name; empty for `memory://`.
    pub(crate) name: String,
    pub(crate) capacity: Option<usize>,
    pub(crate) retain: Option<usize>,
    pub(crate) connection: ConnectionSettings,
}

/// What each connection sets for itself.
#[derive(Clone, Copy)]
pub(crate) struct ConnectionSettings {
    pub(crate) max_payload: usize,
    pub(crate) publish_timeout: Duration,
}

/// What belongs to the broker.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Limits {
    /// How many messages may wait for one group.
    pub(crate) capacity: usize,
    /// How many messages each topic keeps for groups to come.
    pub(crate) retain: usize,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            capacity: 1_000_000,
            retain: 0,
        }
    }
}

impl Default for ConnectionSettings {
    fn default() -> Self {
        Self {
            max_payload: 1_000_000,
            publish_timeout: Duration::from_secs(30),
        }
    }
}

impl Settings {
    pub(crate) fn read(url: &BrokerUrl) -> Result<Self, Error> {
        if !crate::SCHEMES.contains(&url.scheme.as_str()) {
            return Err(config("the embedded broker's URL begins with memory://"));
        }
        let bare = url.user.is_none()
            && url.password.is_none()
            && url.path.as_deref().unwrap_or_default().is_empty()
            && url.hosts.len() <= 1
            && url.hosts.iter().all(|(_, port)| port.is_none());
        if !bare {
            return Err(config(
                "a memory:// URL takes a name and options only: write memory://name?option=value",
            ));
        }
        let standard = ConnectionSettings::default();
        let mut options = url.options();
        let count =
            |from: usize| move |text: &str| text.parse().ok().filter(|&n: &usize| n >= from).map(Some);
        let settings = Self {
            name: url
                .hosts
                .first()
                .map(|(name, _)| name.clone())
                .unwrap_or_default(),
            capacity: options.with("capacity", None, "a whole number from 1", count(1)),
            retain: options.with("retain", None, "a whole number from 0", count(0)),
            connection: ConnectionSettings {
                max_payload: options.number("max_payload", standard.max_payload as u64, 1, 1 << 40) as usize,
                publish_timeout: options.timeout("publish_timeout", standard.publish_timeout),
            },
        };
        options.timeout("connect_timeout", Duration::from_secs(10));
        options.finish()?;
        Ok(settings)
    }
}

pub(crate) fn config(text: impl Into<std::borrow::Cow<'static, str>>) -> Error {
    Error::new(ErrorKind::Config, text)
}
