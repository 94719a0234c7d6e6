//! The broker's URL, read once into settings.

use std::time::Duration;

use postrider_contract::{BrokerUrl, Client, Error, ErrorKind, names};
use rdkafka::ClientConfig;
use rdkafka::config::RDKafkaLogLevel;

const DEFAULT_PORT: u16 = 9092;
/// Broker-side requests answer within this, or the connection counts as dead.
const SOCKET_TIMEOUT_MS: &str = "10000";

/// Everything that the URL decides. Holds secrets: no `Debug`.
#[derive(Clone)]
pub(crate) struct Settings {
    common: ClientConfig,
    /// Where it connects, as it may be shown.
    pub(crate) shown: String,
    pub(crate) client: Client,
    pub(crate) partitions: i32,
    pub(crate) retry_partitions: i32,
    pub(crate) replication: i32,
    pub(crate) connect_timeout: Duration,
    pub(crate) publish_timeout: Duration,
    pub(crate) session_timeout: Duration,
    pub(crate) revoke_timeout: Duration,
    pub(crate) commit_interval: Duration,
    pub(crate) prefetch: usize,
    pub(crate) max_payload: usize,
    isolation: &'static str,
    protocol: &'static str,
    linger: Duration,
    compression: &'static str,
}

impl Settings {
    /// Reads a URL.
    ///
    /// # Errors
    /// Everything that is wrong with it; no socket is opened.
    pub(crate) fn read(url: &BrokerUrl, client: Client) -> Result<Self, Error> {
        let mut options = url.options();
        let mut common = ClientConfig::new();
        let seconds = Duration::from_secs;
        let tls = url.scheme == "kafkas";
        let sasl = options.one_of(
            "sasl",
            None,
            &[
                ("plain", Some("PLAIN")),
                ("scram-sha-256", Some("SCRAM-SHA-256")),
                ("scram-sha-512", Some("SCRAM-SHA-512")),
            ],
        );
        let ca = options.text("ca");
        let certificate = options.text("certificate");
        let key = options.text("key");
        let settings = Self {
            shown: url.to_string(),
            partitions: options.number("partitions", 6, 1, 10_000) as i32,
            retry_partitions: options.number("retry_partitions", 2, 1, 1_000) as i32,
            replication: options.with("replication", -1, "a whole number from 1 to 32", |text| {
                text.parse().ok().filter(|n| (1..=32).contains(n))
            }),
            connect_timeout: options.timeout("connect_timeout", seconds(10)),
            publish_timeout: options.timeout("publish_timeout", seconds(30)),
            session_timeout: options.duration("session_timeout", seconds(15)),
            revoke_timeout: options.duration("revoke_timeout", seconds(5)),
            commit_interval: options.duration("commit_interval", Duration::from_millis(100)),
            prefetch: options.number("prefetch", 4 << 20, 1 << 10, 1 << 30) as usize,
            max_payload: options.number("max_payload", 1_000_000, 1, 64_000_000) as usize,
            isolation: options.one_of(
                "isolation",
                "read_committed",
                &[
                    ("read_committed", "read_committed"),
                    ("read_uncommitted", "read_uncommitted"),
                ],
            ),
            protocol: options.one_of(
                "group_protocol",
                "classic",
                &[("classic", "classic"), ("consumer", "consumer")],
            ),
            linger: options.duration("linger", Duration::from_millis(1)),
            compression: options.one_of(
                "compression",
                "none",
                &["none", "gzip", "snappy", "lz4", "zstd"].map(|word| (word, word)),
            ),
            common: ClientConfig::new(),
            client,
        };
        options.finish()?;

        if url.path.as_deref().is_some_and(|path| !path.is_empty()) {
            return Err(config(
                "the Kafka URL has a path: write kafka://host:port,host2:port?option=value",
            ));
        }
        if url.hosts.is_empty() {
            return Err(config("the Kafka URL names no host: write kafka://host:9092"));
        }
        if tls && !cfg!(feature = "tls") {
            return Err(config(
                "kafkas:// needs TLS: build with the cargo feature `kafka-tls` (`tls` of postrider-kafka)",
            ));
        }
        if !tls && (ca.is_some() || certificate.is_some() || key.is_some()) {
            return Err(config(
                "the options `ca`, `certificate` and `key` belong to kafkas://, this URL is kafka://",
            ));
        }
        if settings.protocol == "consumer" && url.options().text("session_timeout").is_some() {
            return Err(config(
                "with group_protocol=consumer the broker has the session timeout (`group.consumer.session.timeout.ms`): \
                 leave out the option `session_timeout`",
            ));
        }
        common.set("bootstrap.servers", bootstrap(url));
        set_tls(&mut common, ca.as_deref(), certificate.as_deref(), key.as_deref());
        let protocol = match (set_sasl(&mut common, url, sasl)?, tls) {
            (true, true) => "sasl_ssl",
            (true, false) => "sasl_plaintext",
            (false, true) => "ssl",
            (false, false) => "plaintext",
        };
        common.set("security.protocol", protocol);
        if protocol == "sasl_plaintext" {
            tracing::warn!("credentials for Kafka travel unencrypted: use kafkas://");
        }
        common
            .set("client.id", client_id(&settings.client))
            .set("socket.timeout.ms", SOCKET_TIMEOUT_MS)
            .set("socket.keepalive.enable", "true")
            .set("reconnect.backoff.ms", "100")
            .set("reconnect.backoff.max.ms", "2000")
            .set("topic.metadata.refresh.interval.ms", "10000")
            // Idle connections are closed by the broker: no event for a human.
            .set("log.connection.close", "false")
            // rdkafka asks the `log` crate otherwise, which nobody has set up.
            .set_log_level(RDKafkaLogLevel::Info);
        Ok(Self { common, ..settings })
    }

    /// For clients that only ask.
    pub(crate) fn asking(&self) -> ClientConfig {
        let mut config = self.common.clone();
        config.set("allow.auto.create.topics", "false");
        config
    }

    /// For administration.
    pub(crate) fn administration(&self) -> ClientConfig {
        self.common.clone()
    }

    /// For publishing.
    pub(crate) fn producer(&self) -> ClientConfig {
        let mut config = self.common.clone();
        config
            .set("enable.idempotence", "true")
            .set("acks", "all")
            .set("message.timeout.ms", millis(self.publish_timeout))
            .set("linger.ms", millis(self.linger))
            .set("compression.type", self.compression)
            // What Java's clients do: programs in every language agree on where a key goes.
            .set("partitioner", "murmur2_random")
            // Sizes are checked by the publisher and by the broker for each topic; this is for one batch of everything.
            .set("message.max.bytes", "100000000")
            // A topic's limit is for what the broker is sent of it at once.
            .set("batch.size", self.ordinary_record().min(1_000_000).to_string())
            .set("queue.buffering.max.kbytes", "131072")
            .set("queue.buffering.max.messages", "200000")
            // Topics are made on purpose, see `topics.rs`: one that is missing was deleted, and is soon given up.
            .set("topic.metadata.propagation.max.ms", "3000")
            .set("allow.auto.create.topics", "false");
        config
    }

    /// For members of a group.
    pub(crate) fn member(&self, group: &str) -> ClientConfig {
        let mut config = self.consumer(group);
        // A few lines every ten seconds: they tell a topic's id, see `incarnation.rs`, and what has no leader. Those on the
        // group, some for each heartbeat and commit, tell that there is nothing for a member, which the older protocol makes
        // an event.
        let debug = if self.protocol == "consumer" {
            "metadata,cgrp"
        } else {
            "metadata"
        };
        config.set("debug", debug).set_log_level(RDKafkaLogLevel::Debug);
        config
    }

    /// For reading or writing a group's positions from outside.
    pub(crate) fn consumer(&self, group: &str) -> ClientConfig {
        let mut config = self.asking();
        config
            .set("group.id", group)
            .set("group.protocol", self.protocol)
            .set("enable.auto.commit", "false")
            .set("enable.auto.offset.store", "false")
            .set("auto.offset.reset", "earliest")
            .set("isolation.level", self.isolation)
            // A request that waits holds up what is asked of other partitions meanwhile.
            .set("fetch.wait.max.ms", "50")
            .set("fetch.max.bytes", "1048576")
            .set("fetch.queue.backoff.ms", "5")
            .set("queued.max.messages.kbytes", "2048");
        if self.protocol == "classic" {
            let heartbeat =
                (self.session_timeout / 5).clamp(Duration::from_millis(200), Duration::from_secs(3));
            let longest = self.session_timeout.max(Duration::from_secs(300));
            config
                .set("partition.assignment.strategy", "cooperative-sticky")
                .set("session.timeout.ms", millis(self.session_timeout))
                .set("max.poll.interval.ms", millis(longest))
                .set("heartbeat.interval.ms", millis(heartbeat));
        }
        config
    }

    /// For reading a range of a topic without any group.
    pub(crate) fn reader(&self) -> ClientConfig {
        let mut config = self.consumer("postrider-reader");
        config
            .set("group.protocol", "classic")
            .set("enable.partition.eof", "true")
            // A range that is read is there: a request that waits for more only holds up the next range.
            .set("fetch.wait.max.ms", "1");
        config
    }
}

/// `host:port` of every broker named.
fn bootstrap(url: &BrokerUrl) -> String {
    let address = |(host, port): &(String, Option<u16>)| {
        let port = port.unwrap_or(DEFAULT_PORT);
        if host.contains(':') {
            format!("[{host}]:{port}")
        } else {
            format!("{host}:{port}")
        }
    };
    url.hosts.iter().map(address).collect::<Vec<_>>().join(",")
}

fn set_tls(common: &mut ClientConfig, ca: Option<&str>, certificate: Option<&str>, key: Option<&str>) {
    if !cfg!(feature = "tls") {
        return;
    }
    // `probe` finds the system's certificates, which a vendored OpenSSL does not know of.
    common.set("ssl.ca.location", ca.unwrap_or("probe"));
    common.set("enable.ssl.certificate.verification", "true");
    common.set("ssl.endpoint.identification.algorithm", "https");
    if let Some(certificate) = certificate {
        common.set("ssl.certificate.location", certificate);
    }
    if let Some(key) = key {
        common.set("ssl.key.location", key);
    }
}

/// Whether there are credentials.
fn set_sasl(common: &mut ClientConfig, url: &BrokerUrl, mechanism: Option<&str>) -> Result<bool, Error> {
    let (user, password) = match (&url.user, &url.password) {
        (None, None) if mechanism.is_none() => return Ok(false),
        (Some(user), Some(password)) => (user, password),
        _ => {
            return Err(config(
                "SASL needs a user and a password: write kafka://user:password@host:9092",
            ));
        }
    };
    let mechanism = mechanism.unwrap_or("PLAIN");
    if mechanism != "PLAIN" && !cfg!(feature = "tls") {
        return Err(config(
            "SCRAM needs the cargo feature `kafka-tls` (`tls` of postrider-kafka), also without TLS",
        ));
    }
    common
        .set("sasl.mechanism", mechanism)
        .set("sasl.username", user)
        .set("sasl.password", password.expose());
    Ok(true)
}

/// The broker logs it and takes few characters for granted.
fn client_id(client: &Client) -> String {
    let legal = |c: char| c.is_ascii_alphanumeric() || matches!(c, '.' | '_' | '-');
    let name = format!("{}.{}", client.application, client.instance);
    name.chars()
        .map(|c| if legal(c) { c } else { '_' })
        .take(200)
        .collect()
}

impl Settings {
    /// How large a record of an application's topic may be: the payload with its key and headers.
    pub(crate) fn ordinary_record(&self) -> usize {
        self.max_payload + names::HEADROOM
    }

    /// How large a copy of such a record may be, with the headers that it gains.
    pub(crate) fn internal_record(&self) -> usize {
        self.ordinary_record() + names::HEADROOM
    }
}

fn millis(duration: Duration) -> String {
    duration.as_millis().to_string()
}

fn config(text: &'static str) -> Error {
    Error::new(ErrorKind::Config, text)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(url: &str) -> Result<Settings, Error> {
        let client = Client {
            application: "shop front".into(),
            instance: "i1".into(),
        };
        Settings::read(&url.parse()?, client)
    }

    #[test]
    fn hosts_and_options() {
        let settings = read("kafka://a,b:1,[::1]:2?partitions=3&session_timeout=6s").unwrap();
        assert_eq!(settings.partitions, 3);
        let config = settings.consumer("g");
        assert_eq!(config.get("bootstrap.servers"), Some("a:9092,b:1,[::1]:2"));
        assert_eq!(config.get("session.timeout.ms"), Some("6000"));
        assert_eq!(config.get("client.id"), Some("shop_front.i1"));
        assert_eq!(config.get("security.protocol"), Some("plaintext"));
    }

    #[test]
    fn refuses_with_a_way_out() {
        for (url, part) in [
            ("kafka://", "names no host"),
            ("kafka://h/path", "has a path"),
            ("kafka://h?partitions=0", "from 1 to 10000"),
            ("kafka://h?nonsense=1", "known options"),
            ("kafka://user@h", "needs a user and a password"),
            ("kafka://h?sasl=plain", "needs a user and a password"),
            ("kafka://h?ca=/x", "belong to kafkas://"),
            (
                "kafka://h?group_protocol=consumer&session_timeout=6s",
                "leave out",
            ),
        ] {
            let error = read(url).err().unwrap();
            assert!(error.to_string().contains(part), "{url}: {error}");
        }
    }

    #[test]
    fn credentials_are_not_shown() {
        let settings = read("kafka://u:hunter2@h").unwrap();
        let config = settings.producer();
        assert_eq!(config.get("sasl.mechanism"), Some("PLAIN"));
        assert!(!format!("{config:?} {}", settings.shown).contains("hunter2"));
    }

    #[cfg(not(feature = "tls"))]
    #[test]
    fn tls_needs_its_feature() {
        assert!(
            read("kafkas://h")
                .err()
                .unwrap()
                .to_string()
                .contains("kafka-tls")
        );
        let scram = read("kafka://u:p@h?sasl=scram-sha-256").err().unwrap();
        assert!(scram.to_string().contains("kafka-tls"));
    }
}
