//! The counters of one listener: read by [`Running::status`](crate::Running::status) and exported.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, SystemTime};

use metrics::{Counter, Histogram, Label, counter, histogram};

use super::{labels, names};
use crate::contract::{self, Delivery, Value};
use crate::listener::{Outcome, Reason};
use crate::publisher::millis;

/// How much of an error's text is kept, in characters.
const LONGEST_FAILURE: usize = 500;

/// What a settlement was for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum What {
    Handled,
    Retried,
    DeadLettered,
    Released,
    Duplicate,
}

/// A batch of settlements, counted: by [`What`], in its order.
#[derive(Debug, Default)]
pub(crate) struct Tally {
    pub(crate) settled: [u64; 5],
    pub(crate) stale: u64,
    pub(crate) failed: u64,
}

/// What the series of a listener are about.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Subject<'a> {
    pub(crate) system: &'static str,
    pub(crate) topic: &'a str,
    pub(crate) group: &'a str,
    pub(crate) listener: &'a str,
}

impl Subject<'_> {
    pub(super) fn labels(&self) -> Vec<Label> {
        vec![
            Label::new(labels::SYSTEM, self.system),
            Label::new(labels::TOPIC, self.topic.to_owned()),
            Label::new(labels::GROUP, self.group.to_owned()),
            Label::new(labels::LISTENER, self.listener.to_owned()),
        ]
    }

    fn labels_with(&self, name: &'static str, value: &'static str) -> Vec<Label> {
        let mut labels = self.labels();
        labels.push(Label::new(name, value));
        labels
    }
}

/// The counters of one listener; their handles are resolved once, at start-up.
pub(crate) struct Meter {
    received: Pair,
    attempts: Pair,
    /// In the order of [`What`].
    settled: [Pair; 5],
    stale: Pair,
    lost: Pair,
    reconnects: Pair,
    settle_failures: Pair,
    failures: Vec<(Reason, Counter)>,
    last_failure: Mutex<Option<String>>,
    process_duration: Histogram,
    settle_duration: Histogram,
    received_size: Histogram,
    handled_size: Histogram,
    settled_size: Histogram,
    retry_age: Histogram,
}

struct Pair {
    value: AtomicU64,
    exported: Counter,
}

impl Pair {
    fn new(exported: Counter) -> Self {
        // Known as zero from the start: the first that is counted is then a rise too.
        exported.increment(0);
        Self {
            value: AtomicU64::new(0),
            exported,
        }
    }

    fn add(&self, count: u64) {
        if count == 0 {
            return;
        }
        self.value.fetch_add(count, Ordering::Relaxed);
        self.exported.increment(count);
    }

    fn get(&self) -> u64 {
        self.value.load(Ordering::Relaxed)
    }
}

/// What one listener has done since it was started.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Counts {
    /// Deliveries received, redeliveries too.
    pub received: u64,
    /// Attempts that came to an outcome.
    pub attempts: u64,
    /// Deliveries acknowledged as done.
    pub handled: u64,
    /// Failed attempts that were tried again.
    pub retried: u64,
    /// Deliveries given up.
    pub dead_lettered: u64,
    /// Deliveries given back with the attempt not used up.
    pub released: u64,
    /// Messages acknowledged without calling the handler because they were handled before (`dedup`).
    pub duplicates: u64,
    /// Settlements that came after their connection or partition was gone.
    pub stale: u64,
    /// Messages known to be lost where the broker cannot keep them.
    pub lost: u64,
    /// Times that messages flowed again after they had not.
    pub reconnects: u64,
}

impl Meter {
    pub(crate) fn new(subject: Subject<'_>, exports: bool) -> Self {
        let counter = |name: &'static str| {
            if exports {
                counter!(name, subject.labels())
            } else {
                Counter::noop()
            }
        };
        let received = if exports {
            counter!(names::CONSUMED, subject.labels_with(labels::OPERATION, "receive"))
        } else {
            Counter::noop()
        };
        let histogram = |name: &'static str, operation: Option<&'static str>| match operation {
            _ if !exports => Histogram::noop(),
            Some(operation) => histogram!(name, subject.labels_with(labels::OPERATION, operation)),
            None => histogram!(name, subject.labels()),
        };
        let failures = |reason: Reason| {
            let counter = if exports {
                counter!(
                    names::FAILURES,
                    subject.labels_with(labels::ERROR, reason.as_str())
                )
            } else {
                Counter::noop()
            };
            counter.increment(0);
            (reason, counter)
        };
        let pair = |name| Pair::new(counter(name));
        Self {
            received: Pair::new(received),
            attempts: pair(names::ATTEMPTS),
            settled: [
                pair(names::HANDLED),
                pair(names::RETRIED),
                pair(names::DEAD_LETTERED),
                pair(names::RELEASED),
                pair(names::DUPLICATES),
            ],
            stale: pair(names::STALE),
            lost: pair(names::LOST),
            reconnects: pair(names::RECONNECTS),
            settle_failures: pair(names::SETTLE_FAILURES),
            failures: Reason::ALL.into_iter().map(failures).collect(),
            last_failure: Mutex::default(),
            process_duration: histogram(names::PROCESS_DURATION, Some("process")),
            settle_duration: histogram(names::OPERATION_DURATION, Some("settle")),
            received_size: histogram(names::BATCH_SIZE, Some("receive")),
            handled_size: histogram(names::BATCH_SIZE, Some("process")),
            settled_size: histogram(names::BATCH_SIZE, Some("settle")),
            retry_age: histogram(names::RETRY_AGE, None),
        }
    }

    pub(crate) fn received(&self, count: usize) {
        self.received.add(count as u64);
        self.received_size.record(count as f64);
    }

    /// So many attempts came to an outcome.
    pub(crate) fn attempted(&self, count: u64) {
        self.attempts.add(count);
    }

    /// A failed attempt, or one after the first: few enough to be looked at one by one.
    #[cold]
    pub(crate) fn troubled(&self, delivery: &Delivery, attempt: u32, outcome: &Outcome) {
        if let Outcome::Failed(error) = outcome {
            let same = |(reason, _): &&(Reason, Counter)| *reason == error.reason();
            if let Some((_, counter)) = self.failures.iter().find(same) {
                counter.increment(1);
            }
            let id = delivery.message.headers.get_str(contract::names::MESSAGE_ID);
            let text: String = error.to_string().chars().take(LONGEST_FAILURE).collect();
            let text = format!(
                "{}: {text} (attempt {attempt} at message {})",
                error.reason(),
                id.unwrap_or("without an id")
            );
            *self.last_failure.lock().unwrap_or_else(PoisonError::into_inner) = Some(text);
        }
        // Behind the first attempt the header is ours: of the return path, or of what was held here.
        if attempt > 1 {
            let first = delivery.message.headers.get(contract::names::FIRST_FAILURE);
            if let Some(first) = first.and_then(Value::as_i64) {
                let age = millis(SystemTime::now()).saturating_sub(first).max(0);
                self.retry_age.record(age as f64 / 1000.0);
            }
        }
    }

    /// It comes again without being settled.
    pub(crate) fn held(&self, what: What) {
        self.settled[what as usize].add(1);
    }

    /// A run of `count` handlers, none of which took longer than the first bucket unless it is alone.
    pub(super) fn processed(&self, each: Duration, count: u32) {
        self.process_duration
            .record_many(each.as_secs_f64(), count as usize);
    }

    /// A handler of a batch.
    pub(crate) fn processed_batch(&self, took: Duration, count: usize) {
        self.process_duration.record(took.as_secs_f64());
        self.handled_size.record(count as f64);
    }

    pub(crate) fn settled(&self, tally: &Tally, took: Duration) {
        for (pair, &count) in self.settled.iter().zip(&tally.settled) {
            pair.add(count);
        }
        self.stale.add(tally.stale);
        self.settle_failures.add(tally.failed);
        let count = tally.settled.iter().sum::<u64>() + tally.stale + tally.failed;
        self.settled_size.record(count as f64);
        self.settle_duration.record(took.as_secs_f64());
    }

    pub(crate) fn lost(&self, count: u64) {
        self.lost.add(count);
    }

    pub(crate) fn reconnected(&self) {
        self.reconnects.add(1);
    }

    /// Why an attempt failed last, and which.
    pub(crate) fn last_failure(&self) -> Option<String> {
        let last = self.last_failure.lock().unwrap_or_else(PoisonError::into_inner);
        last.clone()
    }

    pub(crate) fn counts(&self) -> Counts {
        let settled = |what: What| self.settled[what as usize].get();
        Counts {
            received: self.received.get(),
            attempts: self.attempts.get(),
            handled: settled(What::Handled),
            retried: settled(What::Retried),
            dead_lettered: settled(What::DeadLettered),
            released: settled(What::Released),
            duplicates: settled(What::Duplicate),
            stale: self.stale.get(),
            lost: self.lost.get(),
            reconnects: self.reconnects.get(),
        }
    }
}
