//! A broker of a test's own, which it may restart, kill and freeze.

use std::net::TcpListener;
use std::path::PathBuf;
use std::process::Command;
use std::sync::atomic::{AtomicU16, Ordering};

use postrider_contract::BrokerUrl;

pub struct OwnBroker {
    state: PathBuf,
    port: u16,
    settings: Vec<(&'static str, String)>,
}

impl OwnBroker {
    /// Starts one on free ports, and waits until it answers.
    pub fn start() -> Self {
        let ports = free_ports();
        let state = std::env::temp_dir().join(super::unique("postrider-rabbitmq"));
        let own = Self {
            settings: vec![
                ("POSTRIDER_TEST_STATE", state.display().to_string()),
                ("POSTRIDER_TEST_RABBITMQ_PORT", ports[0].to_string()),
                ("POSTRIDER_TEST_RABBITMQ_NODE_PORT", ports[1].to_string()),
                ("POSTRIDER_TEST_RABBITMQ_EPMD_PORT", ports[2].to_string()),
            ],
            state,
            port: ports[0],
        };
        own.ctl(&["start", "rabbitmq"]);
        own.ctl(&["wait", "rabbitmq"]);
        own
    }

    pub fn url(&self) -> BrokerUrl {
        self.url_with("")
    }

    /// The URL as text, for another client library.
    pub fn url_text(&self) -> String {
        format!("amqp://guest:guest@127.0.0.1:{}/postrider", self.port)
    }

    /// The URL with a query.
    pub fn url_with(&self, query: &str) -> BrokerUrl {
        (self.url_text() + query).parse().expect("a URL")
    }

    /// Runs a verb on it, such as `kill`, and fails if that fails.
    pub fn verb(&self, verb: &str) {
        self.ctl(&[verb, "rabbitmq"]);
    }

    /// Starts it again and waits until it answers.
    pub fn up(&self) {
        self.verb("start");
        self.verb("wait");
    }

    /// Runs rabbitmqctl.
    pub fn rabbitmqctl(&self, arguments: &[&str]) -> String {
        let mut all = vec!["cli", "rabbitmq"];
        all.extend(arguments);
        self.ctl(&all)
    }

    fn ctl(&self, arguments: &[&str]) -> String {
        let ctl = concat!(env!("CARGO_MANIFEST_DIR"), "/../../tests/brokers/ctl");
        let output = Command::new(ctl)
            .args(arguments)
            .envs(self.settings.iter().map(|(name, value)| (*name, value.as_str())))
            .output()
            .expect("tests/brokers/ctl runs");
        let text = String::from_utf8_lossy(&output.stdout).into_owned();
        assert!(
            output.status.success(),
            "ctl {arguments:?}: {text}{}",
            String::from_utf8_lossy(&output.stderr)
        );
        text
    }
}

/// Below the range that the system gives to outgoing connections: while the broker is down, a client that tries to reach
/// it would otherwise be given its port one day, and connect to itself.
pub fn free_ports() -> [u16; 3] {
    // Each call looks elsewhere: a broker that was just told its ports may not have taken them yet.
    static CALLS: AtomicU16 = AtomicU16::new(0);
    let calls = CALLS.fetch_add(1, Ordering::Relaxed);
    let start = (std::process::id() as u16 % 8_000 + calls * 97) % 8_000;
    let mut free = (0..8_000u16)
        .map(|n| 21_000 + (start + n * 3) % 8_000)
        .filter_map(|port| {
            // Held together, so that they differ.
            Some((port, TcpListener::bind(("127.0.0.1", port)).ok()?))
        });
    let mut next = || free.next().expect("a free port");
    let sockets = [next(), next(), next()];
    sockets.map(|(port, _)| port)
}

impl Drop for OwnBroker {
    fn drop(&mut self) {
        if !std::thread::panicking() {
            self.ctl(&["clean", "rabbitmq"]);
            let _ = std::fs::remove_dir_all(&self.state);
            return;
        }
        // A second panic would hide the first.
        let _ = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| self.ctl(&["clean", "rabbitmq"])));
    }
}
