//! Dead letters of an app that is not running here.

use super::{App, brokers, check, publisher, running};
use crate::connect;
use crate::contract::{Error, ErrorKind};
use crate::dead_letters::DeadLetters;
use crate::engine::Registration;

impl App {
    /// The dead letters of one of its listeners, on a connection of its own. Nothing is consumed and nothing is declared; the
    /// app itself may be running elsewhere, or nowhere. [`DeadLetters::close`] it afterwards.
    ///
    /// Dead letters are found by the listener's group. Where the listener names none, that is the application's name, so say
    /// which: with [`App::name`] or `POSTRIDER__APP__NAME`.
    ///
    /// # Errors
    /// There is no such listener, neither it nor the app says which group it is, configuration is wrong, or the broker cannot be
    /// reached.
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
        if resolved.group.is_none() && self.name.is_none() && config.name().is_none() {
            // This program's own name would be taken, and nothing found where that is another than the service's.
            problems.push(format!(
                "listener `{listener}` names no group, so it is the name of the application that runs it, which this app does \
                 not say: give it with `.name(…)`, POSTRIDER__APP__NAME or the listener's `group`"
            ));
        }
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
        publisher::say(&broker, topology).await?;
        let letters = broker.dead_letters(&topic, &source, &group);
        let letters = DeadLetters::new(letters, [topic, source, group]);
        Ok(letters.of_broadcast(resolved.settings.broadcast).owning(own))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::Config;
    use crate::contract::Bytes;
    use crate::{listener, listeners};

    #[listener(topic = "letters.order")]
    async fn unnamed(_: Bytes) {}

    #[listener(topic = "letters.order", group = "ledger")]
    async fn named(_: Bytes) {}

    #[tokio::test]
    async fn whose_dead_letters_they_are_is_said_or_refused() {
        let app = || App::bare("memory://letters-of-whom").listen(listeners![unnamed, named]);
        let error = app().dead_letters("unnamed").await.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Config);
        let text = error.to_string();
        assert!(
            text.contains("`unnamed`") && text.contains("POSTRIDER__APP__NAME"),
            "{text}"
        );
        assert_eq!(app().dead_letters("named").await.unwrap().group(), "ledger");

        let letters = app().name("shop").dead_letters("unnamed").await.unwrap();
        assert_eq!(
            (letters.group(), letters.topic()),
            ("shop", "letters.order.shop.dlq")
        );
        for (name, group) in [("APP__NAME", "shop"), ("UNNAMED__GROUP", "report")] {
            let variable = (format!("POSTRIDER__{name}"), group.to_owned());
            let mut app = app();
            app.config = Some(Config::of_variables([variable].into_iter()));
            assert_eq!(app.dead_letters("unnamed").await.unwrap().group(), group);
        }
    }
}
