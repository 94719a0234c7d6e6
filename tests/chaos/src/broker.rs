//! A broker of a round's own: on its own ports, in its own directory, to be broken at will.

use std::net::TcpListener;
use std::path::Path;
use std::process::Stdio;

use tokio::process::Command;

use crate::Result;
use crate::system::System;

pub(crate) struct OwnBroker {
    server: &'static str,
    /// Where clients connect.
    pub(crate) port: u16,
    /// Where a proxy passes on to.
    pub(crate) behind_port: u16,
    /// Where the proxy listens.
    pub(crate) proxy_port: u16,
    settings: Vec<(&'static str, String)>,
}

impl OwnBroker {
    /// Finds a place for one; [`OwnBroker::up`] starts it.
    pub(crate) fn prepare(system: System, directory: &Path) -> Result<Self> {
        let [port, second, third, proxy_port] = free_ports()?;
        let state = directory.join("brokers");
        let mut settings = vec![
            // Containers are one set for all: they cannot be of one's own.
            ("POSTRIDER_BROKERS", "native".to_owned()),
            ("POSTRIDER_TEST_STATE", state.display().to_string()),
        ];
        let number = |name, port: u16| (name, port.to_string());
        let mut behind_port = port;
        match system {
            System::Kafka => {
                behind_port = third;
                settings.extend([
                    number("POSTRIDER_TEST_KAFKA_PORT", port),
                    number("POSTRIDER_TEST_KAFKA_CONTROLLER_PORT", second),
                    number("POSTRIDER_TEST_KAFKA_BEHIND_PROXY_PORT", third),
                    number("POSTRIDER_TEST_KAFKA_PROXY_PORT", proxy_port),
                ]);
            }
            System::Rabbitmq => {
                let advanced = directory.join("advanced.config");
                // What waits in the ladder of delays is not looked at again for three minutes otherwise: the adapter's
                // documentation says so, and recommends this.
                std::fs::create_dir_all(directory)?;
                std::fs::write(
                    &advanced,
                    "[{rabbit, [{dead_letter_worker_publisher_confirm_timeout, 5000}]}].\n",
                )?;
                settings.extend([
                    number("POSTRIDER_TEST_RABBITMQ_PORT", port),
                    number("POSTRIDER_TEST_RABBITMQ_NODE_PORT", second),
                    number("POSTRIDER_TEST_RABBITMQ_EPMD_PORT", third),
                    ("RABBITMQ_ADVANCED_CONFIG_FILE", advanced.display().to_string()),
                ]);
            }
            System::Redis | System::RedisPubsub => {
                settings.push(number("POSTRIDER_TEST_REDIS_PORT", port));
            }
        }
        Ok(Self {
            server: system.server(),
            port,
            behind_port,
            proxy_port,
            settings,
        })
    }

    /// Starts it (again) and waits until it answers.
    pub(crate) async fn up(&self) -> Result<()> {
        self.verb("start").await?;
        self.verb("wait").await
    }

    /// Runs a verb of tests/brokers/ctl on it, such as `kill`.
    pub(crate) async fn verb(&self, verb: &str) -> Result<()> {
        self.ctl(&[verb, self.server]).await.map(drop)
    }

    /// Runs its own command line.
    pub(crate) async fn cli(&self, arguments: &[&str]) -> Result<String> {
        let mut all = vec!["cli", self.server];
        all.extend(arguments);
        self.ctl(&all).await
    }

    async fn ctl(&self, arguments: &[&str]) -> Result<String> {
        let ctl = std::env::var("POSTRIDER_TEST_CTL")
            .unwrap_or_else(|_| concat!(env!("CARGO_MANIFEST_DIR"), "/../brokers/ctl").to_owned());
        let output = Command::new(ctl)
            .args(arguments)
            .envs(self.settings.iter().map(|(name, value)| (*name, value)))
            .stdin(Stdio::null())
            // An interrupt is for the driver: what it undoes must not be cut short.
            .process_group(0)
            .output()
            .await?;
        let text = String::from_utf8_lossy(&output.stdout).into_owned();
        if output.status.success() {
            return Ok(text);
        }
        let error = String::from_utf8_lossy(&output.stderr);
        Err(format!("ctl {}: {text}{error}", arguments.join(" ")).into())
    }
}

/// Below the range that the system gives to outgoing connections: while the broker is down, a client that tries to reach
/// it would otherwise be given its port one day, and connect to itself. Apart from where the adapters' tests look, too.
fn free_ports() -> Result<[u16; 4]> {
    const FIRST: u16 = 13_000;
    const COUNT: u16 = 7_000;
    // Drawn anew each time: another driver that looks at this moment looks elsewhere.
    let start = fastrand::u16(..COUNT);
    let mut free = (0..COUNT).filter_map(|step| {
        let port = FIRST + (start + step) % COUNT;
        TcpListener::bind(("127.0.0.1", port)).ok().map(|_| port)
    });
    let mut ports = [0; 4];
    for port in &mut ports {
        *port = free.next().ok_or("no port is free")?;
    }
    Ok(ports)
}
