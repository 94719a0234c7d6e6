//! A broker of a test's own, which it may restart, kill and freeze.

use std::net::TcpListener;
use std::path::PathBuf;
use std::process::Command;
use std::sync::atomic::{AtomicU16, Ordering};

use postrider_contract::BrokerUrl;

use super::fence::Fence;

pub struct OwnBroker {
    state: PathBuf,
    port: u16,
    /// What it takes for a proxy's port, and the one that a proxy there passes on to.
    proxied: (u16, u16),
    settings: Vec<(&'static str, String)>,
}

impl OwnBroker {
    /// Starts one on free ports, and waits until it answers.
    pub fn start() -> Self {
        let ports = free_ports();
        let state = std::env::temp_dir().join(super::unique("postrider-kafka"));
        let own = Self {
            settings: vec![
                ("POSTRIDER_TEST_STATE", state.display().to_string()),
                ("POSTRIDER_TEST_KAFKA_PORT", ports[0].to_string()),
                ("POSTRIDER_TEST_KAFKA_CONTROLLER_PORT", ports[1].to_string()),
                ("POSTRIDER_TEST_KAFKA_BEHIND_PROXY_PORT", ports[2].to_string()),
                ("POSTRIDER_TEST_KAFKA_PROXY_PORT", ports[3].to_string()),
            ],
            proxied: (ports[3], ports[2]),
            state,
            port: ports[0],
        };
        own.up();
        own
    }

    /// Its URL with more options.
    pub fn url_with(&self, options: &str) -> BrokerUrl {
        super::with_options(&format!("kafka://127.0.0.1:{}", self.port), options)
    }

    /// A proxy before it, and the URL that leads through the proxy.
    pub async fn fenced(&self, options: &str) -> (Fence, BrokerUrl) {
        let (port, to) = self.proxied;
        let url = super::with_options(&format!("kafka://127.0.0.1:{port}"), options);
        (Fence::start(port, to).await, url)
    }

    /// Runs a verb on it, such as `kill`, and fails if that fails.
    pub fn verb(&self, verb: &str) {
        self.ctl(&[verb, "kafka"]);
    }

    /// Starts it again and waits until it answers.
    pub fn up(&self) {
        self.verb("start");
        self.verb("wait");
    }

    fn ctl(&self, arguments: &[&str]) {
        let ctl = concat!(env!("CARGO_MANIFEST_DIR"), "/../../tests/brokers/ctl");
        let output = Command::new(ctl)
            .args(arguments)
            .envs(self.settings.iter().map(|(name, value)| (*name, value.as_str())))
            .output()
            .expect("tests/brokers/ctl runs");
        assert!(
            output.status.success(),
            "ctl {arguments:?}: {}{}",
            String::from_utf8_lossy(&output.stdout),
            String::from_utf8_lossy(&output.stderr)
        );
    }
}

/// Below the range that the system gives to outgoing connections: while the broker is down, a client that tries to reach
/// it would otherwise be given its port one day, and connect to itself. Apart from where other adapters' tests look, too.
fn free_ports() -> [u16; 4] {
    // The brokers of one process do not even look at each other's.
    static NEXT: AtomicU16 = AtomicU16::new(0);
    let start = std::process::id() as u16 % 2_900;
    let free = || {
        (0..900).find_map(|_| {
            let port = 29_700 + (start + NEXT.fetch_add(1, Ordering::Relaxed) * 4) % 2_900;
            TcpListener::bind(("127.0.0.1", port)).ok().map(|_| port)
        })
    };
    [(); 4].map(|()| free().expect("a free port"))
}

impl Drop for OwnBroker {
    fn drop(&mut self) {
        // A second panic would hide the first.
        let cleaned = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| self.verb("clean")));
        let _ = std::fs::remove_dir_all(&self.state);
        assert!(std::thread::panicking() || cleaned.is_ok());
    }
}
