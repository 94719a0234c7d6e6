//! A publisher without an app.

use std::sync::Arc;

use super::running;
use crate::config::Config;
use crate::contract::{Broker, Error, ErrorKind, Topology};
use crate::{Publisher, connect};

impl Publisher {
    /// A publisher of its own on the broker at `url`. Of the configuration the application's name, `topology` and `metrics` hold
    /// for it as for an app.
    ///
    /// An app without listeners is one with health and an operations endpoint: `App::from_env()?.start()`, and
    /// [`Running::publisher`](crate::Running::publisher).
    ///
    /// # Errors
    /// The URL or the configuration is wrong, or the broker cannot be reached or refuses.
    pub async fn connect(url: &str) -> Result<Self, Error> {
        Self::configured(url, &Config::load()?).await
    }

    /// A publisher of its own on the broker that `BROKER_URL` names.
    ///
    /// # Errors
    /// As [`Publisher::connect`].
    pub async fn from_env() -> Result<Self, Error> {
        Self::connect(&connect::url_from_env()?).await
    }

    async fn configured(url: &str, config: &Config) -> Result<Self, Error> {
        let mut problems = Vec::new();
        let metrics = config.metrics(&mut problems).unwrap_or(true);
        let topology = config.topology(&mut problems).unwrap_or(Topology::Declare);
        running::refuse(&problems, ErrorKind::Config)?;
        let client = connect::client(&super::application(None, config));
        let broker = connect::connect(url, client).await?;
        say(&broker, topology).await?;
        Ok(Self::new(broker, metrics))
    }
}

/// Says only who may make what: without listeners nothing is made.
pub(super) async fn say(broker: &Arc<dyn Broker>, topology: Topology) -> Result<(), Error> {
    let Err(problems) = broker.plan(&[], topology).await else {
        return Ok(());
    };
    let problems: Vec<String> = problems.iter().map(ToString::to_string).collect();
    running::refuse(&problems, ErrorKind::Topology)
}
