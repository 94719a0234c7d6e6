//! A Redis of a test's own, which it may kill, freeze and set up as it likes.

use std::net::TcpListener;
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

pub struct Own {
    pub port: u16,
    directory: PathBuf,
    settings: Vec<String>,
    child: Option<Child>,
}

impl Own {
    /// Starts one that keeps what it is told, with these settings on top, as on redis-server's command line.
    pub fn start(settings: &[&str]) -> Self {
        let port = free_port();
        let directory = std::env::temp_dir().join(format!("postrider-redis-{port}-{:x}", fastrand::u64(..)));
        std::fs::create_dir_all(&directory).unwrap();
        let mut own = Self {
            port,
            directory,
            settings: settings.iter().map(|&setting| setting.to_owned()).collect(),
            child: None,
        };
        own.up();
        own
    }

    pub fn directory(&self) -> &std::path::Path {
        &self.directory
    }

    /// Starts it (again) and waits until it takes connections.
    pub fn up(&mut self) {
        let mut command = Command::new("redis-server");
        command.args(["--bind", "127.0.0.1", "--port", &self.port.to_string()]);
        command.args([
            "--dir",
            &self.directory.display().to_string(),
            "--appendonly",
            "yes",
            "--save",
            "",
        ]);
        command
            .args(&self.settings)
            .stdout(Stdio::null())
            .stderr(Stdio::null());
        let child = command
            .spawn()
            .expect("redis-server is installed: these tests start one of their own");
        self.child = Some(child);
        let until = Instant::now() + Duration::from_secs(20);
        while std::net::TcpStream::connect(("127.0.0.1", self.port)).is_err() {
            assert!(
                Instant::now() < until,
                "the test's own redis-server does not come up"
            );
            std::thread::sleep(Duration::from_millis(20));
        }
    }

    /// Ends it with SIGKILL.
    pub fn kill(&mut self) {
        if let Some(mut child) = self.child.take() {
            child.kill().unwrap();
            child.wait().unwrap();
        }
    }

    /// Freezes it: connections stay open, nothing answers.
    pub fn pause(&self) {
        self.signal("-STOP");
    }

    pub fn resume(&self) {
        self.signal("-CONT");
    }

    fn signal(&self, signal: &str) {
        let id = self.child.as_ref().unwrap().id().to_string();
        assert!(
            Command::new("kill")
                .args([signal, &id])
                .status()
                .unwrap()
                .success()
        );
    }

    /// Its URL, with credentials before the host and a query after it.
    pub fn url(&self, scheme: &str, credentials: &str, query: &str) -> String {
        format!("{scheme}://{credentials}127.0.0.1:{}{query}", self.port)
    }

    pub fn streams(&self, query: &str) -> String {
        self.url("redis", "", query)
    }

    pub fn pub_sub(&self, query: &str) -> String {
        self.url("redis+pubsub", "", query)
    }

    pub async fn raw(&self) -> redis::aio::MultiplexedConnection {
        super::raw_at(&self.streams("")).await
    }

    /// Runs a command as the administrator; `words` are its words.
    pub async fn tell(&self, words: &str) -> redis::Value {
        let mut words = words.split(' ');
        let mut command = redis::cmd(words.next().unwrap());
        for word in words {
            command.arg(word);
        }
        command.query_async(&mut self.raw().await).await.unwrap()
    }
}

/// Below the range that the system gives to outgoing connections: while the server is down, a client that tries to reach
/// it would otherwise be given its port one day, and connect to itself.
fn free_port() -> u16 {
    loop {
        let port = fastrand::u16(12_000..20_000);
        if TcpListener::bind(("127.0.0.1", port)).is_ok() {
            return port;
        }
    }
}

impl Drop for Own {
    fn drop(&mut self) {
        if let Some(child) = &self.child {
            // A frozen process does not die of a pipe, and is killed all the same.
            let _ = Command::new("kill")
                .args(["-CONT", &child.id().to_string()])
                .status();
        }
        self.kill();
        let _ = std::fs::remove_dir_all(&self.directory);
    }
}
