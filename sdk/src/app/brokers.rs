//! Which brokers an app uses: their URLs, and the connections to them.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use super::check::Planned;
use super::running;
use super::sharing::{self, Places};
use crate::config::Config;
use crate::connect;
use crate::contract::{Broker, BrokerUrl, Error, ErrorKind};
use crate::engine::Registration;

/// The URL of every broker by its name; the one in `BROKER_URL` has none. Configuration goes first, for those that the app or
/// one of its listeners names, in whatever case.
pub(super) fn urls(
    url: String,
    mut brokers: BTreeMap<String, String>,
    registrations: &[Registration],
    config: &Config,
    problems: &mut Vec<String>,
) -> BTreeMap<String, String> {
    let mut named: BTreeSet<String> = brokers.keys().cloned().collect();
    let of_listeners = registrations.iter().filter_map(|known| known.settings.broker);
    named.extend(of_listeners.map(str::to_owned));
    for (name, url) in config.brokers() {
        let known: Vec<_> = named
            .iter()
            .filter(|known| known.eq_ignore_ascii_case(name))
            .collect();
        if known.is_empty() {
            problems.push(format!(
                "a URL is configured for the broker `{name}`, which neither a listener nor `.broker(…)` names; named brokers: \
                 {named:?}"
            ));
        }
        for known in known {
            brokers.insert(known.clone(), url.to_owned());
        }
    }
    brokers.insert(String::new(), url);
    brokers
}

/// Where each broker is, whatever it is called and whoever connects to it how.
fn places(urls: &BTreeMap<String, String>, is_connected: bool) -> Places {
    let of_url = |(name, url): (&String, &String)| {
        let mut url: BrokerUrl = url.parse().ok().filter(|_| !(is_connected && name.is_empty()))?;
        url.hosts.sort();
        // Shown without users and options.
        Some((name.clone(), url.to_string()))
    };
    urls.iter().filter_map(of_url).collect()
}

/// The brokers that no listener names, enabled or not: what is named for publishing alone.
pub(super) fn without_listeners(
    urls: &BTreeMap<String, String>,
    registrations: &[Registration],
) -> BTreeSet<String> {
    let is_named = |name: &&String| {
        registrations
            .iter()
            .any(|known| known.settings.broker == Some(&***name))
    };
    urls.keys().filter(|name| !is_named(name)).cloned().collect()
}

/// Connects to every broker that a listener or a publisher uses. The main one always is. Listeners that share what they may not
/// are refused, where two names are one broker.
pub(super) async fn open(
    urls: &BTreeMap<String, String>,
    mut connected: Option<Arc<dyn Broker>>,
    planned: &[Planned],
    to_publish: &BTreeSet<String>,
    application: &str,
) -> Result<BTreeMap<String, Arc<dyn Broker>>, Error> {
    let places = places(urls, connected.is_some());
    running::refuse(&sharing::problems(planned, &places), ErrorKind::Config)?;
    let mut brokers = BTreeMap::new();
    for (name, url) in urls {
        let used = name.is_empty()
            || to_publish.contains(name)
            || planned.iter().any(|listener| listener.broker == *name);
        if !used {
            continue;
        }
        let broker = match connected.take_if(|_| name.is_empty()) {
            Some(broker) => broker,
            None => {
                let connecting = connect::connect(url, connect::client(application));
                connecting.await.map_err(|error| of_broker(name, error))?
            }
        };
        brokers.insert(name.clone(), broker);
    }
    Ok(brokers)
}

/// Says which broker an error is about, where it is not the one in `BROKER_URL`.
fn of_broker(name: &str, error: Error) -> Error {
    if name.is_empty() {
        return error;
    }
    Error::new(error.kind(), format!("broker `{name}`")).with_source(error)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::contract::Bytes;
    use crate::{listener, listeners};

    #[test]
    fn a_configured_broker_is_one_that_is_named() {
        let config = |name: &str| {
            let variable = (format!("POSTRIDER__BROKER__{name}__URL"), "memory://b".to_owned());
            Config::of_variables([variable].into_iter())
        };
        let named = || BTreeMap::from([("Audit".to_owned(), "memory://a".to_owned())]);
        let mut problems = Vec::new();
        let found = urls(String::new(), named(), &[], &config("AUDIT"), &mut problems);
        assert_eq!((&*found["Audit"], found.len()), ("memory://b", 2));
        assert!(problems.is_empty());
        let found = urls(String::new(), named(), &[], &config("AUDTI"), &mut problems);
        assert_eq!(found["Audit"], "memory://a");
        let [problem] = &problems[..] else {
            panic!("{problems:?}")
        };
        assert!(
            problem.contains("broker `audti`") && problem.contains("Audit"),
            "{problem}"
        );
    }

    #[listener(topic = "broker.order", group = "one")]
    async fn main_one(_: Bytes) {}

    #[listener(topic = "broker.order", group = "one", broker = "audit")]
    async fn audit_one(_: Bytes) {}

    #[listener(topic = "broker.order", group = "one", broker = "audit", broadcast)]
    async fn audit_copies(_: Bytes) {}

    #[listener(
        topic = "broker.dead",
        group = "two",
        broker = "audit",
        dead_letter = "broker.round"
    )]
    async fn back(_: Bytes) {}

    #[listener(topic = "broker.round", group = "two", dead_letter = "broker.dead")]
    async fn forth(_: Bytes) {}

    async fn refusal(audit: &str, listeners: Vec<Registration>) -> String {
        let app = crate::App::bare("memory://two-names");
        let started = app
            .name("shop")
            .broker("audit", audit)
            .listen(listeners)
            .start()
            .await;
        started.map_or_else(|error| error.to_string(), |_| "it started".to_owned())
    }

    #[tokio::test]
    async fn two_names_of_one_url_are_one_broker() {
        let same = "memory://two-names";
        assert_eq!(
            refusal(same, listeners![main_one, audit_one]).await,
            "listener `audit_one`: `main_one` has the same topic `broker.order` and group `one` on the same broker (`BROKER_URL` \
             and `audit`), so they would take each other's messages: give one another group"
        );
        let text = refusal(same, listeners![main_one, audit_copies]).await;
        assert!(
            text.contains("their dead letters could not be told apart"),
            "{text}"
        );
        let text = refusal(same, listeners![back, forth]).await;
        assert!(
            text.contains("broker.dead -> broker.round -> broker.dead"),
            "{text}"
        );
        for listeners in [listeners![main_one, audit_one], listeners![back, forth]] {
            assert_eq!(refusal("memory://another", listeners).await, "it started");
        }
    }

    #[listener(topic = "broker.order", broker = "audit", enabled = false)]
    async fn disabled(_: Bytes) {}

    #[tokio::test]
    async fn a_broker_without_listeners_is_published_to() {
        let app = |listeners| {
            let app = crate::App::bare("memory://to-publish").name("shop");
            let app = app.broker("audit", "memory://to-publish-audit");
            app.listen(listeners).start()
        };
        let running = app(listeners![main_one]).await.unwrap();
        let audit = running.publisher_on("audit").expect("it is named");
        audit.topic("audit").send_json(&7).await.unwrap();
        running.shutdown().await.unwrap();
        audit.topic("audit").send_json(&7).await.unwrap_err();
        // It may be out of reach where its listeners are.
        let running = app(listeners![disabled]).await.unwrap();
        assert!(running.publisher_on("audit").is_none());
        running.shutdown().await.unwrap();
    }

    #[test]
    fn where_a_broker_is_tells_neither_who_connects_nor_how() {
        let urls = BTreeMap::from(
            [
                ("", "kafka://u:hunter2@a:1,b:2?client_id=x"),
                ("same", "kafka://b:2,a:1"),
                ("other", "kafka://b:2,a:3"),
            ]
            .map(|(name, url)| (name.to_owned(), url.to_owned())),
        );
        let found = places(&urls, false);
        assert_eq!(found[""], "kafka://a:1,b:2");
        assert_eq!(found["same"], found[""]);
        assert_ne!(found["other"], found[""]);
        assert!(!places(&urls, true).contains_key(""), "it is connected elsewhere");
    }
}
