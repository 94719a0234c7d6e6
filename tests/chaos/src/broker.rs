//! A broker of a round's own: on its own ports, in the round's directory, to be broken at will.

use std::ops::Deref;
use std::path::Path;

use postrider_own_broker::Server;
use tokio::process::Command;

use crate::Result;
use crate::system::System;

pub(crate) struct OwnBroker {
    server: Server,
    own: postrider_own_broker::OwnBroker,
}

impl OwnBroker {
    /// Finds a place for one; [`OwnBroker::up`] starts it.
    pub(crate) fn prepare(system: System, directory: &Path) -> Result<Self> {
        let server = system.server();
        let mut own = postrider_own_broker::OwnBroker::prepare_in(server, &directory.join("brokers"));
        if server == Server::Rabbitmq {
            let advanced = directory.join("advanced.config");
            // What waits in the ladder of delays is not looked at again for three minutes otherwise: the adapter's
            // documentation says so, and recommends this.
            std::fs::create_dir_all(directory)?;
            std::fs::write(
                &advanced,
                "[{rabbit, [{dead_letter_worker_publisher_confirm_timeout, 5000}]}].\n",
            )?;
            own = own.with("RABBITMQ_ADVANCED_CONFIG_FILE", advanced.display().to_string());
        }
        Ok(Self { server, own })
    }

    /// Starts it (again) and waits until it answers.
    pub(crate) async fn up(&self) -> Result<()> {
        self.verb("start").await?;
        self.verb("wait").await
    }

    /// Runs a verb of tests/brokers/ctl on it, such as `kill`.
    pub(crate) async fn verb(&self, verb: &str) -> Result<()> {
        self.ctl(&[verb, self.server.name()]).await.map(drop)
    }

    /// Runs its own command line.
    pub(crate) async fn cli(&self, arguments: &[&str]) -> Result<String> {
        self.ctl(&[&["cli", self.server.name()], arguments].concat())
            .await
    }

    async fn ctl(&self, arguments: &[&str]) -> Result<String> {
        let output = Command::from(self.own.command(arguments))
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

impl Deref for OwnBroker {
    type Target = postrider_own_broker::OwnBroker;

    fn deref(&self) -> &Self::Target {
        &self.own
    }
}
