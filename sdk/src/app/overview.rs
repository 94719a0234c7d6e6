//! What can be seen of running listeners, and done to them, from beside.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use futures_util::future::join_all;

use crate::contract::{Broker, Error, ErrorKind, Spec, Status};
use crate::engine::{ListenerState, Work};
use crate::meter::{Counts, Depths, INTERVAL, OWN_INTERVAL, Subject};

/// How long a broker may take to tell its depths, where nobody waits for it.
pub(super) const PATIENCE: Duration = Duration::from_secs(10);

/// The listeners of an app and their brokers.
pub(crate) struct Overview {
    pub(super) listeners: Vec<Started>,
    pub(super) brokers: BTreeMap<String, Arc<dyn Broker>>,
}

/// A listener that was started.
pub(super) struct Started {
    /// Its broker's name; empty for the one in `BROKER_URL`.
    pub(super) broker: String,
    pub(super) system: &'static str,
    pub(super) spec: Spec,
    pub(super) work: Arc<Work>,
    /// Held by each step of a replay or purge, so that one that was broken off is over before the next begins.
    pub(super) resolving: Arc<tokio::sync::Mutex<()>>,
}

/// How a listener is and what it has done.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct ListenerStatus {
    /// Its name.
    pub name: String,
    /// Its topic.
    pub topic: String,
    /// Its consumer group.
    pub group: String,
    /// Its dead-letter topic.
    pub dead_letter_topic: String,
    /// The broker it is on, such as `kafka`.
    pub system: &'static str,
    /// How it is.
    pub state: ListenerState,
    /// The last thing that went wrong with its subscription.
    pub last_error: Option<String>,
    /// Why an attempt failed last, and which.
    pub last_failure: Option<String>,
    /// Deliveries that this process holds unsettled.
    pub in_flight: usize,
    /// What it has done since it was started.
    pub counts: Counts,
}

impl Overview {
    pub(crate) fn status(&self) -> Vec<ListenerStatus> {
        self.listeners.iter().map(Started::status).collect()
    }

    pub(super) fn listener(&self, name: &str) -> Option<&Started> {
        self.listeners
            .iter()
            .find(|listener| &*listener.spec.listener == name)
    }

    /// False where there is no listener of this name.
    pub(crate) fn pause(&self, name: &str, paused: bool) -> bool {
        let listener = self.listener(name);
        listener
            .map(|listener| listener.work.health.pause(paused))
            .is_some()
    }

    /// The depths of every listener, in the order of [`Overview::status`]. Brokers are asked side by side, each once for all
    /// of its own, and each may take so long.
    pub(crate) async fn depths(&self, patience: Duration) -> Vec<Result<Status, Error>> {
        let asked = self.brokers.iter().map(async |(name, broker)| {
            let (places, specs): (Vec<usize>, Vec<Spec>) = self
                .listeners
                .iter()
                .enumerate()
                .filter(|(_, listener)| listener.broker == *name)
                .map(|(place, listener)| (place, listener.spec.clone()))
                .unzip();
            if specs.is_empty() {
                return Vec::new();
            }
            let told = tokio::time::timeout(patience, broker.status(&specs)).await;
            let told = match told.unwrap_or_else(|_| Err(no_answer("in time"))) {
                Ok(statuses) => statuses.into_iter().map(Ok).collect(),
                Err(error) => vec![Err(error); places.len()],
            };
            places.into_iter().zip(told).collect()
        });
        let mut answers: Vec<_> = self
            .listeners
            .iter()
            .map(|_| Err(no_answer("for this listener")))
            .collect();
        for (place, answer) in join_all(asked).await.into_iter().flatten() {
            answers[place] = answer;
        }
        answers
    }

    /// Sets the gauges again and again.
    pub(super) async fn keep_gauges(self: Arc<Self>) {
        let gauges: Vec<Depths> = self
            .listeners
            .iter()
            .map(|listener| Depths::new(listener.subject()))
            .collect();
        tokio::join!(self.tell_own(&gauges), self.tell_depths(&gauges));
    }

    /// What this process knows: not held up by a broker that does not answer.
    async fn tell_own(&self, gauges: &[Depths]) {
        let mut ticks = every(OWN_INTERVAL);
        loop {
            ticks.tick().await;
            for (listener, gauges) in self.listeners.iter().zip(gauges) {
                let work = &listener.work;
                gauges.here(work.health.state().flows(), work.settles.unsettled());
            }
        }
    }

    /// What brokers tell.
    async fn tell_depths(&self, gauges: &[Depths]) {
        let mut ticks = every(INTERVAL);
        loop {
            ticks.tick().await;
            let depths = self.depths(PATIENCE).await;
            for ((listener, gauges), depth) in self.listeners.iter().zip(gauges).zip(depths) {
                if let Err(error) = &depth {
                    let name = &listener.spec.listener;
                    tracing::debug!(listener = %name, "the broker does not tell its depths: {error}");
                }
                gauges.set(depth.ok().as_ref());
            }
        }
    }
}

fn every(interval: Duration) -> tokio::time::Interval {
    let mut ticks = tokio::time::interval(interval);
    ticks.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    ticks
}

fn no_answer(what: &str) -> Error {
    Error::new(
        ErrorKind::Unavailable,
        format!("the broker did not tell its depths {what}"),
    )
}

impl Started {
    fn subject(&self) -> Subject<'_> {
        Subject {
            system: self.system,
            topic: self.spec.topic(),
            group: &self.spec.group,
            listener: &self.spec.listener,
        }
    }

    fn status(&self) -> ListenerStatus {
        let Self { spec, work, .. } = self;
        ListenerStatus {
            name: spec.listener.to_string(),
            topic: spec.topic().to_string(),
            group: spec.group.to_string(),
            dead_letter_topic: spec.dead_letter.as_deref().unwrap_or_default().to_owned(),
            system: self.system,
            state: work.health.state(),
            last_error: work.health.last_error(),
            last_failure: work.meter.last_failure(),
            in_flight: work.settles.unsettled(),
            counts: work.meter.counts(),
        }
    }
}

impl ListenerState {
    /// Whether messages flow.
    pub(crate) fn flows(&self) -> bool {
        *self == Self::Ready
    }
}
