//! A Redis of a test's own, which it may kill.

use std::net::TcpListener;
use std::path::PathBuf;
use std::process::Command;

pub(crate) struct OwnRedis {
    state: PathBuf,
    port: u16,
}

impl OwnRedis {
    /// Starts one and waits until it answers.
    pub(crate) fn start() -> Self {
        let name = format!("postrider-dedup-{}", uuid::Uuid::now_v7().simple());
        // Below the range of outgoing connections, which must not take the port while the server is down.
        let begin = 21_000 + (std::process::id() as u16 % 5_000);
        let is_free = |port: &u16| TcpListener::bind(("127.0.0.1", *port)).is_ok();
        let own = Self {
            state: std::env::temp_dir().join(name),
            port: (begin..32_000).find(is_free).unwrap(),
        };
        own.ctl("start");
        own.ctl("wait");
        own
    }

    pub(crate) fn url(&self) -> String {
        self.ctl("url")
    }

    /// Runs a verb on it, such as `kill`.
    pub(crate) fn ctl(&self, verb: &str) -> String {
        let ctl = concat!(env!("CARGO_MANIFEST_DIR"), "/../tests/brokers/ctl");
        let output = Command::new(ctl)
            .args([verb, "redis"])
            .env("POSTRIDER_TEST_STATE", &self.state)
            .env("POSTRIDER_TEST_REDIS_PORT", self.port.to_string())
            .output()
            .unwrap();
        let text = String::from_utf8_lossy(&output.stdout).trim().to_owned();
        let error = String::from_utf8_lossy(&output.stderr);
        assert!(output.status.success(), "ctl {verb} redis: {text}{error}");
        text
    }
}

impl Drop for OwnRedis {
    fn drop(&mut self) {
        let _ = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| self.ctl("clean")));
        let _ = std::fs::remove_dir_all(&self.state);
    }
}
