//! Which brokers an app uses: their URLs, and the connections to them.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use super::check::Planned;
use crate::config::Config;
use crate::connect;
use crate::contract::{Broker, Error};
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

/// Connects to every broker that a listener or a publisher uses. The main one always is.
pub(super) async fn open(
    urls: &BTreeMap<String, String>,
    mut connected: Option<Arc<dyn Broker>>,
    planned: &[Planned],
    application: &str,
) -> Result<BTreeMap<String, Arc<dyn Broker>>, Error> {
    let mut brokers = BTreeMap::new();
    for (name, url) in urls {
        let used = name.is_empty() || planned.iter().any(|listener| listener.broker == *name);
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
}
