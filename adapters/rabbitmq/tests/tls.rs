//! `amqps://` against a real listener: encrypted or refused, never in plaintext.

mod support;

use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use postrider_contract::{BrokerUrl, Error, ErrorKind};
use postrider_own_broker::Port;
use support::own::OwnBroker;
use support::{client, unique};

/// Certificates of one authority, made with the openssl command.
struct Authority {
    at: PathBuf,
}

impl Authority {
    fn new() -> Self {
        let at = std::env::temp_dir().join(unique("postrider-tls"));
        std::fs::create_dir_all(&at).unwrap();
        let own = Self { at };
        own.openssl(&[
            "req",
            "-x509",
            "-newkey",
            "rsa:2048",
            "-nodes",
            "-keyout",
            "ca.key",
            "-out",
            "ca.pem",
            "-days",
            "2",
            "-subj",
            "/CN=postrider tests",
            "-addext",
            "basicConstraints=critical,CA:TRUE",
        ]);
        own
    }

    /// A certificate for a name, good for so many days.
    fn issue(&self, file: &str, names: &str, days: &str) {
        let (key, request, certificate) = (
            format!("{file}.key"),
            format!("{file}.csr"),
            format!("{file}.pem"),
        );
        self.openssl(&[
            "req",
            "-newkey",
            "rsa:2048",
            "-nodes",
            "-keyout",
            &key,
            "-out",
            &request,
            "-subj",
            "/CN=broker",
        ]);
        std::fs::write(self.at.join("extensions"), format!("subjectAltName={names}\n")).unwrap();
        self.openssl(&[
            "x509",
            "-req",
            "-in",
            &request,
            "-CA",
            "ca.pem",
            "-CAkey",
            "ca.key",
            "-CAcreateserial",
            "-out",
            &certificate,
            "-days",
            days,
            "-extfile",
            "extensions",
        ]);
    }

    fn path(&self, file: &str) -> String {
        self.at.join(file).display().to_string()
    }

    fn openssl(&self, arguments: &[&str]) {
        let output = Command::new("openssl")
            .args(arguments)
            .current_dir(&self.at)
            .output()
            .expect("the openssl command is needed for this test");
        assert!(
            output.status.success(),
            "{}",
            String::from_utf8_lossy(&output.stderr)
        );
    }
}

impl Drop for Authority {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(Path::new(&self.at));
    }
}

/// Opens a TLS listener on a running broker.
fn listen(own: &OwnBroker, port: &Port, authority: &Authority, file: &str) -> u16 {
    let port = port.number();
    let start = format!(
        "ssl:start(), rabbit_networking:start_ssl_listener({{\"127.0.0.1\", {port}, auto}}, [{{certfile, \"{}\"}}, \
         {{keyfile, \"{}\"}}, {{versions, ['tlsv1.2', 'tlsv1.3']}}], 2).",
        authority.path(&format!("{file}.pem")),
        authority.path(&format!("{file}.key")),
    );
    own.rabbitmqctl(&["eval", &start]);
    port
}

async fn connect(port: u16, query: &str) -> Result<(), Error> {
    let url: BrokerUrl = format!("amqps://guest:guest@127.0.0.1:{port}/postrider?connect_timeout=5s{query}")
        .parse()
        .unwrap();
    let broker = postrider_rabbitmq::connect(&url, client("tests")).await?;
    broker
        .plan(&[], postrider_contract::Topology::Declare)
        .await
        .unwrap();
    broker.close(Duration::from_secs(5)).await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn encrypted_or_refused() {
    let own = OwnBroker::start();
    let authority = Authority::new();
    let trusted = format!("&ca_file={}", authority.path("ca.pem"));
    authority.issue("good", "IP:127.0.0.1,DNS:localhost", "2");
    authority.issue("elsewhere", "DNS:elsewhere.example", "2");
    authority.issue("expired", "IP:127.0.0.1", "0");
    let ports = [(); 3].map(|()| Port::free());
    let good = listen(&own, &ports[0], &authority, "good");

    connect(good, &trusted)
        .await
        .expect("a certificate of a trusted authority for this host");

    let stranger = Authority::new();
    let plain = own.url().hosts[0].1.expect("a port");
    let elsewhere = listen(&own, &ports[1], &authority, "elsewhere");
    let expired = listen(&own, &ports[2], &authority, "expired");
    tokio::time::sleep(Duration::from_secs(2)).await;
    for (what, port, query) in [
        ("an unknown authority", good, String::new()),
        (
            "another authority",
            good,
            format!("&ca_file={}", stranger.path("ca.pem")),
        ),
        ("another host's certificate", elsewhere, trusted.clone()),
        ("an expired certificate", expired, trusted.clone()),
        ("plaintext where TLS was asked for", plain, trusted.clone()),
    ] {
        let error = connect(port, &query).await.expect_err(what);
        println!("{what}: {error}");
        assert_eq!(error.kind(), ErrorKind::Denied, "{what}: {error}");
    }
    let missing = connect(good, "&ca_file=/nowhere.pem").await.unwrap_err();
    assert_eq!(missing.kind(), ErrorKind::Config, "{missing}");
}
