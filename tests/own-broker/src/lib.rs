//! A broker of a test's own: on ports and in a directory that nobody else uses, to be killed, frozen and started again.
//!
//! It is a process of this machine, run by `tests/brokers/ctl`, also where the shared brokers are containers.

mod load;
mod ports;

use std::fmt::Write as _;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

pub use load::{Load, Seen};
pub use ports::Port;

/// Which broker.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Server {
    /// Apache Kafka: one node that is broker and controller.
    Kafka,
    /// RabbitMQ.
    Rabbitmq,
    /// Redis, which keeps what it is told.
    Redis,
}

impl Server {
    /// As `tests/brokers/ctl` calls it.
    pub fn name(self) -> &'static str {
        match self {
            Self::Kafka => "kafka",
            Self::Rabbitmq => "rabbitmq",
            Self::Redis => "redis",
        }
    }
}

/// A broker that nobody else uses. Dropped, it is gone with its data.
#[derive(Debug)]
pub struct OwnBroker {
    server: Server,
    ports: [Port; 4],
    settings: Vec<(&'static str, String)>,
    directory: PathBuf,
    is_kept: bool,
}

impl OwnBroker {
    /// Starts one and waits until it answers.
    pub fn start(server: Server) -> Self {
        let own = Self::prepare(server);
        own.up();
        own
    }

    /// A place for one; [`up`](Self::up) starts it.
    pub fn prepare(server: Server) -> Self {
        let name = format!("postrider-own-{}-{:x}", server.name(), fastrand::u64(..));
        Self::at(server, std::env::temp_dir().join(name), false)
    }

    /// The same in a directory that stays when this is dropped, as does the broker if it still runs.
    pub fn prepare_in(server: Server, directory: &Path) -> Self {
        Self::at(server, directory.to_owned(), true)
    }

    fn at(server: Server, directory: PathBuf, is_kept: bool) -> Self {
        let ports: [Port; 4] = std::array::from_fn(|_| Port::free());
        let variables: &[&str] = match server {
            Server::Kafka => &[
                "POSTRIDER_TEST_KAFKA_PORT",
                "POSTRIDER_TEST_KAFKA_CONTROLLER_PORT",
                "POSTRIDER_TEST_KAFKA_BEHIND_PROXY_PORT",
                "POSTRIDER_TEST_KAFKA_PROXY_PORT",
            ],
            Server::Rabbitmq => &[
                "POSTRIDER_TEST_RABBITMQ_PORT",
                "POSTRIDER_TEST_RABBITMQ_NODE_PORT",
                "POSTRIDER_TEST_RABBITMQ_EPMD_PORT",
            ],
            Server::Redis => &["POSTRIDER_TEST_REDIS_PORT"],
        };
        let mut settings = vec![
            // Containers are one set for all: they cannot be of one's own.
            ("POSTRIDER_BROKERS", "native".to_owned()),
            ("POSTRIDER_TEST_STATE", directory.display().to_string()),
        ];
        let numbers = ports.iter().map(|port| port.number().to_string());
        settings.extend(variables.iter().copied().zip(numbers));
        Self {
            server,
            ports,
            settings,
            directory,
            is_kept,
        }
    }

    /// Sets a variable of the environment that it is started in.
    #[must_use]
    pub fn with(mut self, variable: &'static str, value: impl Into<String>) -> Self {
        self.settings.push((variable, value.into()));
        self
    }

    /// Where clients connect, on 127.0.0.1.
    pub fn port(&self) -> u16 {
        self.ports[0].number()
    }

    /// Where the controller of Kafka listens.
    pub fn controller_port(&self) -> u16 {
        self.ports[1].number()
    }

    /// Where a proxy before it listens. Kafka tells clients that come by way of [`behind_port`](Self::behind_port) to go on
    /// by this one.
    pub fn proxy_port(&self) -> u16 {
        self.ports[3].number()
    }

    /// Where such a proxy passes on to.
    pub fn behind_port(&self) -> u16 {
        match self.server {
            Server::Kafka => self.ports[2].number(),
            Server::Rabbitmq | Server::Redis => self.port(),
        }
    }

    /// Where it keeps its data and its log.
    pub fn directory(&self) -> PathBuf {
        self.directory.join(self.server.name())
    }

    /// Starts it (again) and waits until it answers.
    pub fn up(&self) {
        self.verb("start");
        self.verb("wait");
    }

    /// Runs a verb of `tests/brokers/ctl` on it, such as `kill`, `pause`, `resume` or `url`; what it printed.
    ///
    /// # Panics
    /// It fails.
    pub fn verb(&self, verb: &str) -> String {
        self.ctl(&[verb, self.server.name()])
    }

    /// Runs its own command line, such as `rabbitmqctl`; what it printed.
    ///
    /// # Panics
    /// It fails.
    pub fn cli(&self, arguments: &[&str]) -> String {
        self.ctl(&[&["cli", self.server.name()], arguments].concat())
    }

    /// Has it write down what was declared, where a kill would take that along: RabbitMQ 3.10 writes down some half a second late
    /// that it has a new quorum queue, and killed before that answers nothing about the queue any more, to no client.
    ///
    /// # Panics
    /// It fails.
    pub fn write_down(&self) {
        if let Server::Rabbitmq = self.server {
            self.cli(&["eval", "[ok = dets:sync(Table) || Table <- dets:all()]."]);
        }
    }

    /// `tests/brokers/ctl` with these arguments, for this broker, to be run.
    pub fn command(&self, arguments: &[&str]) -> Command {
        let ctl = std::env::var("POSTRIDER_TEST_CTL")
            .unwrap_or_else(|_| concat!(env!("CARGO_MANIFEST_DIR"), "/../brokers/ctl").to_owned());
        let mut command = Command::new(ctl);
        command
            .args(arguments)
            .envs(self.settings.iter().map(|(name, value)| (*name, value)))
            .stdin(Stdio::null());
        command
    }

    #[track_caller]
    fn ctl(&self, arguments: &[&str]) -> String {
        match self.try_ctl(arguments) {
            Ok(text) => text,
            Err(error) => panic!("{error}"),
        }
    }

    fn try_ctl(&self, arguments: &[&str]) -> Result<String, String> {
        let mut told = format!("ctl {}: ", arguments.join(" "));
        let output = match self.command(arguments).output() {
            Ok(output) => output,
            Err(error) => return Err(told + &error.to_string()),
        };
        let text = String::from_utf8_lossy(&output.stdout).trim_end().to_owned();
        if output.status.success() {
            return Ok(text);
        }
        // Writing to a string cannot fail.
        let _ = write!(told, "{text}{}", String::from_utf8_lossy(&output.stderr));
        Err(told)
    }
}

impl Drop for OwnBroker {
    fn drop(&mut self) {
        if self.is_kept {
            return;
        }
        let cleaned = self.try_ctl(&["clean", self.server.name()]);
        let _ = std::fs::remove_dir_all(&self.directory);
        // A second panic would hide the first.
        if let Err(error) = cleaned
            && !std::thread::panicking()
        {
            panic!("{error}");
        }
    }
}
