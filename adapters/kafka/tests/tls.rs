//! `kafkas://` and SCRAM against real listeners: encrypted and known, or refused at once.
#![cfg(feature = "tls")]

mod support;

use std::path::PathBuf;
use std::process::Command;
use std::sync::Arc;
use std::time::{Duration, Instant};

use postrider_contract::{Broker, BrokerUrl, Error, ErrorKind};
use postrider_own_broker::{OwnBroker, Port, Server};
use support::{PATIENCE, client, open, publish, spec, text, unique};

/// Certificates of one authority, in a directory that goes with this.
struct Authority(PathBuf);

impl Authority {
    fn new() -> Self {
        let own = Self(std::env::temp_dir().join(unique("tls")));
        std::fs::create_dir_all(&own.0).unwrap();
        own.openssl("req -x509 -newkey rsa:2048 -nodes -keyout ca.key -out ca.pem -subj /CN=tests -days 2");
        own
    }

    /// A certificate for a name, good for so many days, with its key before it, as Kafka reads them.
    fn issue(&self, file: &str, name: &str, days: i32) {
        self.openssl(&format!(
            "req -newkey rsa:2048 -nodes -keyout {file}.key -out {file}.csr -subj /CN=postrider"
        ));
        std::fs::write(self.0.join("names"), format!("subjectAltName={name}\n")).unwrap();
        self.openssl(&format!(
            "x509 -req -in {file}.csr -CA ca.pem -CAkey ca.key -CAcreateserial -out {file}.pem -extfile names -days {days}"
        ));
        let read = |ending| std::fs::read_to_string(self.0.join(format!("{file}.{ending}"))).unwrap();
        std::fs::write(self.0.join(format!("{file}.both")), read("key") + &read("pem")).unwrap();
    }

    fn path(&self, file: &str) -> String {
        self.0.join(file).display().to_string()
    }

    fn openssl(&self, arguments: &str) {
        let output = Command::new("openssl")
            .args(arguments.split(' '))
            .current_dir(&self.0)
            .output()
            .expect("the openssl command makes the certificates");
        let told = String::from_utf8_lossy(&output.stderr);
        assert!(output.status.success(), "{told}");
    }
}

impl Drop for Authority {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.0);
    }
}

/// A broker with a listener of each kind, and the certificates.
struct Encrypted {
    own: OwnBroker,
    authority: Authority,
    /// A certificate of the authority for this host.
    good: Port,
    /// One for another host.
    elsewhere: Port,
    /// One that is over.
    expired: Port,
    /// One for this host, and clients need theirs.
    mutual: Port,
    /// One for this host, and SCRAM.
    scram: Port,
}

impl Encrypted {
    fn start() -> Self {
        let authority = Authority::new();
        authority.issue("good", "IP:127.0.0.1", 2);
        authority.issue("elsewhere", "DNS:elsewhere.example", 2);
        authority.issue("expired", "IP:127.0.0.1", -1);
        let [good, elsewhere, expired, mutual, scram] = [(); 5].map(|()| Port::free());
        let own = OwnBroker::prepare(Server::Kafka);
        let ways = [
            ("GOOD", "good", &good),
            ("ELSEWHERE", "elsewhere", &elsewhere),
            ("EXPIRED", "expired", &expired),
            ("MUTUAL", "good", &mutual),
            ("SCRAM", "good", &scram),
        ];
        let mut listeners = vec![format!("CLIENT://127.0.0.1:{}", own.port())];
        let mut protocols = vec!["CLIENT:PLAINTEXT,CONTROLLER:PLAINTEXT".to_owned()];
        let mut settings = vec![
            "ssl.keystore.type=PEM".to_owned(),
            "ssl.truststore.type=PEM".to_owned(),
            format!("ssl.truststore.location={}", authority.path("ca.pem")),
            "listener.name.mutual.ssl.client.auth=required".to_owned(),
            "listener.name.scram.sasl.enabled.mechanisms=SCRAM-SHA-512".to_owned(),
            "listener.name.scram.scram-sha-512.sasl.jaas.config=\
             org.apache.kafka.common.security.scram.ScramLoginModule required;"
                .to_owned(),
        ];
        for (name, certificate, port) in ways {
            listeners.push(format!("{name}://127.0.0.1:{port}"));
            let sasl = if name == "SCRAM" { "SASL_" } else { "" };
            protocols.push(format!("{name}:{sasl}SSL"));
            settings.push(format!(
                "listener.name.{}.ssl.keystore.location={}",
                name.to_lowercase(),
                authority.path(&format!("{certificate}.both"))
            ));
        }
        let listeners = listeners.join(",");
        settings.extend([
            format!("advertised.listeners={listeners}"),
            format!(
                "listeners={listeners},CONTROLLER://127.0.0.1:{}",
                own.controller_port()
            ),
            format!("listener.security.protocol.map={}", protocols.join(",")),
        ]);
        let own = own.with("POSTRIDER_TEST_KAFKA_SETTINGS", settings.join("\n"));
        own.up();
        Self {
            own,
            authority,
            good,
            elsewhere,
            expired,
            mutual,
            scram,
        }
    }

    /// The option that trusts the authority.
    fn trusted(&self) -> String {
        format!("&ca={}", self.authority.path("ca.pem"))
    }
}

async fn connect(at: &str, options: &str) -> Result<Arc<dyn Broker>, Error> {
    let url: BrokerUrl = format!("{at}?session_timeout=6s{options}").parse().unwrap();
    postrider_kafka::connect(&url, client("tls")).await
}

/// Publishes, and receives that.
async fn works(at: &str, options: &str) {
    let broker = connect(at, options).await.unwrap();
    let topic = unique("tls");
    let mut listener = open(&broker, spec(&topic, "g")).await;
    publish(&broker, &topic, &["secret"]).await;
    let got = listener.one().await;
    assert_eq!(text(&got), "secret");
    listener.ack(&got).await;
    broker.close(PATIENCE).await.unwrap();
}

/// A connection is refused with this kind of error, and text in it.
async fn refused(what: &str, at: &str, options: &str, kind: ErrorKind, part: &str) {
    let begun = Instant::now();
    let error = connect(at, options).await.err().expect(what);
    println!("{what}, after {:?}: {error}", begun.elapsed());
    assert_eq!(error.kind(), kind, "{what}: {error}");
    assert!(error.to_string().contains(part), "{what}: {error}");
    let retried = kind == ErrorKind::Unavailable;
    assert!(retried || begun.elapsed() < Duration::from_secs(5), "{what}");
}

#[tokio::test(flavor = "multi_thread")]
async fn encrypted_and_known_or_refused() {
    use ErrorKind::{Config, Denied, Unavailable};
    let kafka = Encrypted::start();
    let (trusted, stranger) = (kafka.trusted(), Authority::new());
    let at = |port: u16| format!("kafkas://127.0.0.1:{port}");
    let (good, mutual) = (at(kafka.good.number()), at(kafka.mutual.number()));
    works(&good, &trusted).await;
    let file = |file| kafka.authority.path(file);
    let ours = format!("&certificate={}&key={}", file("good.pem"), file("good.key"));
    works(&mutual, &format!("{trusted}{ours}")).await;

    stranger.issue("good", "IP:127.0.0.1", 2);
    let others = format!("&ca={}", stranger.path("ca.pem"));
    let (pem, key) = (stranger.path("good.pem"), stranger.path("good.key"));
    let unknown = format!("{trusted}&certificate={pem}&key={key}");
    let (elsewhere, expired) = (at(kafka.elsewhere.number()), at(kafka.expired.number()));
    refused("an authority that nobody knows", &good, "", Denied, "option `ca`").await;
    refused("another authority", &good, &others, Denied, "option `ca`").await;
    refused("another host", &elsewhere, &trusted, Denied, "another host").await;
    refused("one that is over", &expired, &trusted, Denied, "not valid now").await;
    refused("none of ours", &mutual, &trusted, Denied, "`certificate`").await;
    refused("ours is not known", &mutual, &unknown, Denied, "`certificate`").await;
    refused("no such file", &good, "&ca=/nowhere.pem", Config, "`ca`").await;
    let plain = at(kafka.own.port());
    let brief = format!("{trusted}&connect_timeout=2s");
    refused("TLS to plaintext", &plain, &brief, Unavailable, "closed by peer").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn scram_over_tls() {
    let kafka = Encrypted::start();
    let secret = "SCRAM-SHA-512=[iterations=4096,password=hunter2]";
    let user = ["--entity-type", "users", "--entity-name", "shop"];
    kafka
        .own
        .cli(&[&["configs", "--alter", "--add-config", secret], &user[..]].concat());
    let options = format!("{}&sasl=scram-sha-512", kafka.trusted());
    let at = |user: &str| format!("kafkas://{user}@127.0.0.1:{}", kafka.scram);
    works(&at("shop:hunter2"), &options).await;
    for user in ["shop:hunter1", "nobody:hunter2"] {
        refused(
            user,
            &at(user),
            &options,
            ErrorKind::Denied,
            "Authentication failed",
        )
        .await;
    }
    let weaker = options.replace("512", "256");
    let text = "mechanism";
    refused(
        "another mechanism",
        &at("shop:hunter2"),
        &weaker,
        ErrorKind::Denied,
        text,
    )
    .await;
}
