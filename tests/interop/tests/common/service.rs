//! Services as processes of their own.

use std::os::unix::process::ExitStatusExt;
use std::path::PathBuf;
use std::process::{Child, Command, ExitStatus};
use std::time::{Duration, Instant};

use postrider::Registration;
use postrider::prelude::*;
use postrider_interop::Effects;

const SIGABRT: i32 = 6;

/// A consumer group of its own on one broker, and the service that is its instance.
pub(crate) struct Service {
    pub(crate) url: String,
    program: &'static str,
    name: String,
    effects: PathBuf,
}

impl Service {
    /// Of this program, an executable of this crate.
    pub(crate) fn new(program: &'static str, url: String) -> Self {
        let name = format!("interop-{}", uuid::Uuid::now_v7().simple());
        let effects = std::env::temp_dir().join(&name);
        Self {
            url,
            program,
            name,
            effects,
        }
    }

    pub(crate) fn app(&self, listeners: Vec<Registration>) -> App {
        let app = App::new(&self.url).unwrap().name(&self.name);
        app.state(Effects::new(&self.effects)).listen(listeners)
    }

    /// Declares the group, so that it sees what is published from now on.
    pub(crate) async fn declare(&self, listeners: Vec<Registration>) {
        let running = self.app(listeners).start().await.unwrap();
        running.ready().await.unwrap();
        running.shutdown().await.unwrap();
    }

    pub(crate) fn start(&self) -> Process {
        Process(self.command().spawn().unwrap())
    }

    /// Handlers are cut off so soon after a signal.
    pub(crate) fn start_with_deadline(&self, deadline: &str) -> Process {
        let mut command = self.command();
        command.env("POSTRIDER__APP__DRAIN_DEADLINE", deadline);
        Process(command.spawn().unwrap())
    }

    fn command(&self) -> Command {
        let mut command = Command::new(self.program);
        command
            .env("BROKER_URL", &self.url)
            .env("POSTRIDER__APP__NAME", &self.name)
            .env("EFFECTS", &self.effects);
        command
    }

    pub(crate) fn effects(&self, effect: &str) -> Vec<u32> {
        let text = std::fs::read_to_string(&self.effects).unwrap_or_default();
        text.lines()
            .filter_map(|line| line.strip_prefix(effect)?.trim().parse().ok())
            .collect()
    }

    pub(crate) async fn wait(&self, effect: &str, count: usize) {
        // As long as it goes on, it has time.
        let (mut moved, mut before) = (Instant::now(), 0);
        loop {
            let seen = self.effects(effect).len();
            if seen >= count {
                return;
            }
            if seen > before {
                (moved, before) = (Instant::now(), seen);
            }
            assert!(
                moved.elapsed() < Duration::from_secs(40),
                "{seen} of {count} {effect}s in time"
            );
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    }
}

impl Drop for Service {
    fn drop(&mut self) {
        let _ = std::fs::remove_file(&self.effects);
    }
}

/// Killed when the test ends, however it ends.
pub(crate) struct Process(Child);

impl Process {
    /// The process's number.
    pub(crate) fn id(&self) -> u32 {
        self.0.id()
    }

    /// Whether it has ended by an abort, which is the only way that it may.
    pub(crate) fn has_aborted(&mut self) -> bool {
        let Some(status) = self.0.try_wait().unwrap() else {
            return false;
        };
        assert_eq!(status.signal(), Some(SIGABRT), "{status}");
        true
    }

    pub(crate) fn signal(&self, signal: &str) {
        let kill = format!("kill -{signal} {}", self.0.id());
        assert!(Command::new("sh").arg("-c").arg(kill).status().unwrap().success());
    }

    pub(crate) fn is_running(&mut self) -> bool {
        self.0.try_wait().unwrap().is_none()
    }

    pub(crate) async fn exit(&mut self, within: Duration) -> ExitStatus {
        let begin = Instant::now();
        loop {
            if let Some(status) = self.0.try_wait().unwrap() {
                return status;
            }
            assert!(begin.elapsed() < within, "still running after {within:?}");
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}
