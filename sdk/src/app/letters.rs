//! Dead letters of an app that is not running here.

use super::{App, brokers, check, running};
use crate::connect;
use crate::contract::{Error, ErrorKind};
use crate::dead_letters::DeadLetters;
use crate::engine::Registration;

impl App {
    /// The dead letters of one of its listeners, on a connection of its own. Nothing is consumed and nothing is declared; the
    /// app itself may be running elsewhere, or nowhere. [`DeadLetters::close`] it afterwards.
    ///
    /// # Errors
    /// There is no such listener, configuration is wrong, or the broker cannot be reached.
    pub async fn dead_letters(&self, listener: &str) -> Result<DeadLetters, Error> {
        let nothing = crate::config::Config::default();
        let config = self.config.as_ref().unwrap_or(&nothing);
        let names: Vec<&str> = self.registrations.iter().map(Registration::name).collect();
        let Some(registration) = self.registrations.iter().find(|known| known.name() == listener) else {
            let text = format!(
                "there is no listener `{listener}`; listeners: {}; add it with `.listen(…)`",
                names.join(", ")
            );
            return Err(Error::new(ErrorKind::Config, text));
        };
        let mut problems = config.unknown(&names);
        let resolved = config.resolve(&registration.settings, &mut problems);
        let topology = config.topology(&mut problems).unwrap_or(self.topology);
        let name = resolved.settings.broker.unwrap_or_default();
        let urls = brokers::urls(
            self.url.clone(),
            self.brokers.clone(),
            &self.registrations,
            config,
            &mut problems,
        );
        let Some(url) = urls.get(name) else {
            let text = format!("listener `{listener}`: there is no broker `{name}`");
            return Err(Error::new(ErrorKind::Config, text));
        };
        running::refuse(&problems, ErrorKind::Config)?;

        let application = super::application(self.name.clone(), config);
        let (source, group, topic) = check::addresses(&resolved, &application);
        let connected = self.connected.clone().filter(|_| name.is_empty());
        let (broker, own) = match connected {
            Some(broker) => (broker, None),
            None => {
                let broker = connect::connect(url, connect::client(&application)).await?;
                (broker.clone(), Some(broker))
            }
        };
        // Says only who may make what; without listeners nothing is made.
        if let Err(problems) = broker.plan(&[], topology).await {
            let problems: Vec<String> = problems.iter().map(ToString::to_string).collect();
            running::refuse(&problems, ErrorKind::Topology)?;
        }
        let letters = broker.dead_letters(&topic, &source, &group);
        let letters = DeadLetters::new(letters, [topic, source, group]);
        Ok(letters.of_broadcast(resolved.settings.broadcast).owning(own))
    }
}
