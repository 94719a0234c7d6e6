//! What the URL says.

use std::sync::Arc;
use std::time::Duration;

use lapin::types::ShortString;
use postrider_contract::{BrokerUrl, Client, Error, ErrorKind, Options, Secret};

use crate::layout::{EXCHANGE, Layout};

/// The largest message that RabbitMQ takes by default (4.x; earlier versions take more).
const LARGEST: u64 = 16 * 1024 * 1024;

/// Everything that is fixed once connected.
pub(crate) struct Settings {
    /// The URL as it may be shown.
    pub(crate) shown: String,
    pub(crate) hosts: Vec<(String, u16)>,
    pub(crate) vhost: String,
    pub(crate) user: String,
    pub(crate) password: Secret,
    pub(crate) external: bool,
    pub(crate) heartbeat: u16,
    pub(crate) connect_timeout: Duration,
    pub(crate) publish_timeout: Duration,
    pub(crate) consumer_timeout: Duration,
    pub(crate) max_payload: usize,
    pub(crate) layout: Layout,
    pub(crate) tls: Option<TlsFiles>,
    pub(crate) client: Client,
}

/// Where certificates are read from.
#[derive(Debug, Default, Clone)]
#[cfg_attr(not(feature = "tls"), allow(dead_code, reason = "read with TLS alone"))]
pub(crate) struct TlsFiles {
    pub(crate) ca: Option<String>,
    pub(crate) certificate: Option<String>,
    pub(crate) key: Option<String>,
}

impl Settings {
    pub(crate) fn read(url: &BrokerUrl, client: Client) -> Result<Arc<Self>, Error> {
        let tls = match url.scheme.as_str() {
            "amqp" => false,
            "amqps" => true,
            other => {
                return Err(config(format!(
                    "the RabbitMQ adapter takes amqp:// and amqps://, not {other}://"
                )));
            }
        };
        if tls && !cfg!(feature = "tls") {
            return Err(config(
                "amqps:// needs the cargo feature `tls`: without it nothing would be encrypted",
            ));
        }
        let mut options = url.options();
        let exchange = options.with(
            "exchange",
            EXCHANGE.to_owned(),
            "1 to 100 of A-Z a-z 0-9 . _ -",
            exchange,
        );
        let heartbeat = options.duration_from("heartbeat", Duration::from_secs(10), Duration::from_secs(1));
        let settings = Self {
            shown: url.to_string(),
            hosts: hosts(url, if tls { 5671 } else { 5672 }),
            vhost: url
                .path
                .clone()
                .filter(|path| !path.is_empty())
                .unwrap_or_else(|| "/".into()),
            user: url.user.clone().unwrap_or_else(|| "guest".into()),
            password: url.password.clone().unwrap_or_else(|| Secret::new("guest")),
            external: options.one_of("auth", false, &[("plain", false), ("external", true)]),
            heartbeat: u16::try_from(heartbeat.as_secs()).unwrap_or(u16::MAX),
            connect_timeout: options.timeout("connect_timeout", Duration::from_secs(10)),
            publish_timeout: options.timeout("publish_timeout", Duration::from_secs(30)),
            consumer_timeout: options.duration("consumer_timeout", Duration::from_secs(30 * 60)),
            max_payload: options.number("max_payload", 1_000_000, 1, LARGEST) as usize,
            layout: Layout::new(exchange),
            tls: tls.then(|| files(&mut options)),
            client,
        };
        options.finish()?;
        if ShortString::try_new(settings.vhost.as_str()).is_err() {
            return Err(config("the virtual host in the URL is longer than 255 bytes"));
        }
        if let Some(files) = &settings.tls
            && files.certificate.is_some() != files.key.is_some()
        {
            return Err(config(
                "options `cert_file` and `key_file` belong together: give both",
            ));
        }
        Ok(Arc::new(settings))
    }
}

fn hosts(url: &BrokerUrl, port: u16) -> Vec<(String, u16)> {
    if url.hosts.is_empty() {
        return vec![("127.0.0.1".into(), port)];
    }
    let host = |(host, own): &(String, Option<u16>)| (host.clone(), own.unwrap_or(port));
    url.hosts.iter().map(host).collect()
}

fn files(options: &mut Options) -> TlsFiles {
    TlsFiles {
        ca: options.text("ca_file"),
        certificate: options.text("cert_file"),
        key: options.text("key_file"),
    }
}

fn exchange(name: &str) -> Option<String> {
    let legal = |c: char| c.is_ascii_alphanumeric() || matches!(c, '.' | '_' | '-');
    let ours = name.starts_with("postrider.") || name.starts_with("amq.");
    (!name.is_empty() && name.len() <= 100 && !ours && name.chars().all(legal)).then(|| name.to_owned())
}

fn config(text: impl Into<std::borrow::Cow<'static, str>>) -> Error {
    Error::new(ErrorKind::Config, text)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(url: &str) -> Result<Arc<Settings>, Error> {
        let client = Client {
            application: "shop".into(),
            instance: "1".into(),
        };
        Settings::read(&url.parse().unwrap(), client)
    }

    #[test]
    fn defaults() {
        let settings = read("amqp://").unwrap();
        assert_eq!(settings.hosts, [("127.0.0.1".to_owned(), 5672)]);
        assert_eq!((settings.vhost.as_str(), settings.user.as_str()), ("/", "guest"));
        assert_eq!(settings.max_payload, 1_000_000);
        assert_eq!(read("amqp://h/").unwrap().vhost, "/");
        assert_eq!(read("amqp://h/%2Fprod").unwrap().vhost, "/prod");
    }

    #[test]
    fn several_hosts() {
        let settings = read("amqp://a,b:1").unwrap();
        assert_eq!(settings.hosts, [("a".to_owned(), 5672), ("b".to_owned(), 1)]);
    }

    #[test]
    fn mistakes_are_found_before_a_socket_is_opened() {
        let long = format!("amqp://h/{}", "x".repeat(256));
        for url in [
            "amqp://h?exchange=a%20b",
            "amqp://h?exchange=postrider.inbox",
            "amqp://h?ca_file=x",
            "amqp://h?nonsense=1",
            "kafka://h",
            &long,
        ] {
            let error = read(url).err().unwrap();
            assert_eq!(error.kind(), ErrorKind::Config, "{url}: {error}");
        }
    }

    #[test]
    #[cfg(not(feature = "tls"))]
    fn tls_without_its_feature_is_refused() {
        assert!(read("amqps://h").err().unwrap().to_string().contains("`tls`"));
    }

    #[test]
    #[cfg(feature = "tls")]
    fn tls_has_its_own_port_and_files() {
        let settings = read("amqps://h?ca_file=/x.pem").unwrap();
        assert_eq!(settings.hosts, [("h".to_owned(), 5671)]);
        assert!(read("amqps://h?cert_file=/x.pem").is_err());
    }
}
