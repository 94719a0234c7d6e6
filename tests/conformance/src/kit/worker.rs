//! A handler that works beside the case.

use std::collections::{BTreeMap, BTreeSet};
use std::ops::Range;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use postrider_contract::{Bytes, Settled, Verdict};
use tokio::sync::Notify;
use tokio::task::JoinHandle;

use crate::kit::{Subscribed, eventually, id};

/// What workers handled, in the order in which they did. Clones share it.
#[derive(Clone, Default)]
pub struct Log(Arc<Mutex<Vec<Handled>>>);

#[derive(Debug)]
struct Handled {
    by: &'static str,
    id: String,
    key: Option<Bytes>,
    done: bool,
}

/// Handles and acknowledges until it is stopped.
pub struct Worker {
    stop: Arc<Notify>,
    task: JoinHandle<Subscribed>,
}

impl Worker {
    /// Handles one by one, in order, taking `pace` for each.
    pub fn start(by: &'static str, mut sub: Subscribed, log: &Log, pace: Duration) -> Self {
        let (stop, log) = (Arc::new(Notify::new()), log.clone());
        let stopped = stop.clone();
        let task = tokio::spawn(async move {
            loop {
                let deliveries = tokio::select! {
                    () = stopped.notified() => return sub,
                    some = sub.some(16) => some,
                };
                for delivery in deliveries {
                    let place = log.begin(by, id(&delivery.message), delivery.message.key.clone());
                    if !pace.is_zero() {
                        tokio::time::sleep(pace).await;
                    }
                    let settled = sub.settle([(delivery.token, Verdict::ACK)]).await;
                    match settled.as_slice() {
                        [Settled::Done] => log.done(place),
                        [Settled::Stale] => (),
                        other => panic!("an acknowledgement is {other:?}"),
                    }
                }
            }
        });
        Self { stop, task }
    }

    /// Stops after what it has taken.
    pub async fn stop(self) -> Subscribed {
        self.stop.notify_one();
        match self.task.await {
            Ok(sub) => sub,
            Err(failed) => std::panic::resume_unwind(failed.into_panic()),
        }
    }
}

impl Log {
    fn with<T>(&self, look: impl FnOnce(&mut Vec<Handled>) -> T) -> T {
        look(&mut self.0.lock().unwrap_or_else(PoisonError::into_inner))
    }

    fn begin(&self, by: &'static str, id: String, key: Option<Bytes>) -> usize {
        self.with(|all| {
            let done = false;
            all.push(Handled { by, id, key, done });
            all.len() - 1
        })
    }

    fn done(&self, place: usize) {
        self.with(|all| all[place].done = true);
    }

    /// How many different messages were handled and acknowledged.
    pub fn distinct(&self) -> usize {
        self.with(|all| done_ids(all).len())
    }

    /// How many this worker began.
    pub fn begun_by(&self, by: &str) -> usize {
        self.with(|all| all.iter().filter(|handled| handled.by == by).count())
    }

    /// Waits until this many different messages were handled and acknowledged.
    pub async fn until(&self, count: usize, patience: Duration) {
        let what = format!("of {count} messages these many were handled");
        eventually(&what, patience, || async { self.distinct() }, |&n| n >= count).await;
    }

    /// Every numbered message of the range was acknowledged, and only once: where no fault was injected.
    pub fn assert_once(&self, range: Range<usize>) {
        self.with(|all| {
            let mut counts: BTreeMap<String, usize> = range.map(|n| (format!("id-{n}"), 0)).collect();
            for handled in all.iter().filter(|handled| handled.done) {
                *counts.entry(handled.id.clone()).or_default() += 1;
            }
            let wrong: Vec<_> = counts.iter().filter(|(_, n)| **n != 1).collect();
            assert!(wrong.is_empty(), "acknowledged not once but: {wrong:?}");
        });
    }

    /// Every numbered message of the range was acknowledged; answers how often one was begun again.
    pub fn assert_complete(&self, range: Range<usize>) -> usize {
        self.with(|all| {
            let done = done_ids(all);
            let ids = range.map(|n| format!("id-{n}"));
            let lost: Vec<_> = ids.filter(|id| !done.contains(id.as_str())).collect();
            assert!(lost.is_empty(), "lost: {lost:?}");
            let distinct: BTreeSet<_> = all.iter().map(|handled| &handled.id).collect();
            all.len() - distinct.len()
        })
    }

    /// For each key, ids were first begun in the order of their numbers.
    pub fn assert_order_by_key(&self) {
        self.with(|all| {
            let mut seen = BTreeSet::new();
            let mut last: BTreeMap<_, (usize, &str)> = BTreeMap::new();
            for handled in all.iter().filter(|handled| seen.insert(&handled.id)) {
                let number: usize = handled.id[3..].parse().expect("an id of ours");
                let Some((before, by)) = last.insert(&handled.key, (number, handled.by)) else {
                    continue;
                };
                let (key, by) = (&handled.key, format!("{by}, then {}", handled.by));
                assert!(
                    before < number,
                    "key {key:?}: {number} came after {before} ({by})"
                );
            }
        });
    }
}

fn done_ids(all: &[Handled]) -> BTreeSet<&str> {
    let done = all.iter().filter(|handled| handled.done);
    done.map(|handled| &*handled.id).collect()
}
