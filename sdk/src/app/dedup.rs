//! Where each listener with `dedup` keeps its marks.

use std::collections::BTreeMap;
use std::sync::Arc;

use super::check::Planned;
use crate::connect;
use crate::contract::{Broker, DedupScope, DedupStore, Error, ErrorKind};
use crate::dedup::MemoryStore;
use crate::middleware::{PATIENCE, silent};

/// What the app was told.
#[derive(Default)]
pub(super) enum Given {
    /// Nothing: the broker's own store, or this process's memory.
    #[default]
    Nothing,
    Store(Arc<dyn DedupStore>),
    Url(String),
}

impl Given {
    /// Adds what is wrong with it before any socket is opened.
    pub(super) fn check(&self, problems: &mut Vec<String>) {
        if let Self::Url(url) = self
            && !connect::is_memory(url)
            && let Err(error) = connect::check_url(url)
        {
            problems.push(format!("the URL of the marks of `dedup`: {error}"));
        }
    }
}

/// The stores of an app.
#[derive(Default)]
pub(super) struct Stores {
    /// By the listener's name.
    of: BTreeMap<Arc<str>, Arc<dyn DedupStore>>,
    /// A connection that only they use.
    own: Option<Arc<dyn Broker>>,
}

impl Stores {
    pub(super) fn of(&self, listener: &str) -> Option<&Arc<dyn DedupStore>> {
        self.of.get(listener)
    }

    /// Finds each listener's store and asks it something, so that one that cannot be reached or refuses shows at once.
    pub(super) async fn open(
        planned: &[Planned],
        brokers: &BTreeMap<String, Arc<dyn Broker>>,
        given: Given,
        application: &str,
    ) -> Result<Self, Error> {
        let mut this = Self::default();
        if planned.iter().all(|listener| !listener.has_dedup()) {
            return Ok(this);
        }
        let for_all = match given {
            Given::Nothing => None,
            Given::Store(store) => Some(store),
            Given::Url(url) => Some(this.connect(&url, application).await?),
        };
        let mut memory = None;
        for listener in planned.iter().filter(|listener| listener.has_dedup()) {
            let own = || brokers.get(&listener.broker)?.dedup_store();
            let store = for_all.clone().or_else(own).unwrap_or_else(|| {
                let memory = memory.get_or_insert_with(|| Arc::new(MemoryStore::new()));
                memory.clone()
            });
            this.of.insert(listener.spec.listener.clone(), store);
        }
        match this.ask(planned).await {
            Ok(()) => Ok(this),
            Err(error) => {
                this.close().await;
                Err(error)
            }
        }
    }

    async fn connect(&mut self, url: &str, application: &str) -> Result<Arc<dyn DedupStore>, Error> {
        if connect::is_memory(url) {
            return Ok(Arc::new(MemoryStore::new()));
        }
        let broker = connect::connect(url, connect::client(application)).await?;
        let system = broker.capabilities().system;
        let store = broker.dedup_store();
        self.own = Some(broker);
        if store.is_none() {
            self.close().await;
        }
        store.ok_or_else(|| {
            let text = format!("{system} cannot keep the marks of `dedup`: name a Redis, or memory://");
            Error::new(ErrorKind::Unsupported, text)
        })
    }

    async fn ask(&self, planned: &[Planned]) -> Result<(), Error> {
        for Planned { spec, .. } in planned {
            let Some(store) = self.of(&spec.listener) else {
                continue;
            };
            let scope = DedupScope {
                topic: spec.topic(),
                group: &spec.group,
            };
            let asked = tokio::time::timeout(PATIENCE, store.seen(scope, b"start-up")).await;
            if let Err(error) = asked.unwrap_or_else(|_| Err(silent())) {
                let text = format!(
                    "listener `{}`: the marks of what it has handled cannot be looked at ({})",
                    spec.listener,
                    store.describe()
                );
                return Err(Error::new(error.kind(), text).with_source(error));
            }
        }
        Ok(())
    }

    /// Ends the connection that only they use.
    pub(super) async fn close(&self) {
        if let Some(broker) = &self.own {
            let _ = broker.close(std::time::Duration::from_secs(1)).await;
        }
    }
}
