//! What is published: counted by topic.

use std::collections::HashMap;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError, RwLock};
use std::time::Duration;

use metrics::{Counter, Histogram, counter, histogram};

use super::{labels, names};
use crate::contract::{Address, Error, ErrorKind, Receipt};

/// How many topics have series of their own. A topic can be any text that a program makes up: the rest share one.
const MOST_TOPICS: usize = 200;
/// The label of the rest.
const OTHERS: &str = "_OTHER";

/// The counters of everything that is published on one broker.
pub(crate) struct Sent {
    system: &'static str,
    topics: RwLock<HashMap<Arc<str>, Arc<TopicMeter>>>,
    /// What was asked for last, most likely the next, too.
    recent: Mutex<Option<(Arc<str>, Arc<TopicMeter>)>>,
    others: Arc<TopicMeter>,
    duration: Histogram,
    size: Histogram,
    exports: bool,
}

/// The counters of one topic.
pub(crate) struct TopicMeter {
    system: &'static str,
    topic: Arc<str>,
    sent: Counter,
    unreceived: Counter,
    /// It was logged that nobody receives it.
    is_told: AtomicBool,
    exports: bool,
}

impl Sent {
    pub(crate) fn new(system: &'static str, exports: bool) -> Self {
        let operation = |name: &'static str| {
            if exports {
                histogram!(name, labels::SYSTEM => system, labels::OPERATION => "send")
            } else {
                Histogram::noop()
            }
        };
        Self {
            system,
            topics: RwLock::default(),
            recent: Mutex::default(),
            others: Arc::new(TopicMeter::new(system, OTHERS.into(), false)),
            duration: operation(names::OPERATION_DURATION),
            size: operation(names::BATCH_SIZE),
            exports,
        }
    }

    /// The counters for what goes to this address.
    pub(crate) fn to(&self, address: &Address) -> Arc<TopicMeter> {
        let Address::Topic(topic) = address else {
            return self.others.clone();
        };
        // Never waited for: looking it up costs less.
        if let Ok(recent) = self.recent.try_lock()
            && let Some((name, meter)) = &*recent
            && name == topic
        {
            return meter.clone();
        }
        let meter = self.look_up(topic);
        if let Ok(mut recent) = self.recent.try_lock() {
            *recent = Some((topic.clone(), meter.clone()));
        }
        meter
    }

    fn look_up(&self, topic: &Arc<str>) -> Arc<TopicMeter> {
        let topics = self.topics.read().unwrap_or_else(PoisonError::into_inner);
        if let Some(known) = topics.get(topic) {
            return known.clone();
        }
        drop(topics);
        let mut topics = self.topics.write().unwrap_or_else(PoisonError::into_inner);
        let label = if topics.len() < MOST_TOPICS {
            topic.clone()
        } else if let Some(others) = topics.get(OTHERS) {
            return others.clone();
        } else {
            OTHERS.into()
        };
        let meter = || Arc::new(TopicMeter::new(self.system, label.clone(), self.exports));
        topics.entry(label.clone()).or_insert_with(meter).clone()
    }

    /// A batch was sent.
    pub(crate) fn batch(&self, count: usize, took: Duration) {
        self.size.record(count as f64);
        self.duration.record(took.as_secs_f64());
    }
}

impl TopicMeter {
    fn new(system: &'static str, topic: Arc<str>, exports: bool) -> Self {
        let (sent, unreceived) = if exports {
            let topic = topic.to_string();
            (
                counter!(names::SENT, labels::SYSTEM => system, labels::TOPIC => topic.clone(), labels::OPERATION => "send"),
                counter!(names::UNRECEIVED, labels::SYSTEM => system, labels::TOPIC => topic),
            )
        } else {
            (Counter::noop(), Counter::noop())
        };
        unreceived.increment(0);
        Self {
            system,
            topic,
            sent,
            unreceived,
            is_told: AtomicBool::new(false),
            exports,
        }
    }

    /// One was confirmed, whether somebody receives it or not.
    pub(crate) fn confirmed(&self, is_received: bool) {
        self.sent.increment(1);
        if !is_received {
            self.unreceived.increment(1);
            if !self.is_told.swap(true, Ordering::Relaxed) {
                tracing::warn!(topic = %self.topic, "nobody receives this topic: what is sent to it is gone");
            }
        }
    }

    /// What became of one.
    pub(crate) fn count(&self, answer: &Result<Receipt, Error>) {
        match answer {
            Ok(receipt) => self.confirmed(receipt.received),
            Err(error) => self.failed(error.kind()),
        }
    }

    fn failed(&self, kind: ErrorKind) {
        if self.exports {
            let topic = self.topic.to_string();
            let error = kind.as_str();
            counter!(
                names::SENT, labels::SYSTEM => self.system, labels::TOPIC => topic, labels::OPERATION => "send",
                labels::ERROR => error,
            )
            .increment(1);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn hostile_topics_share_one_series() {
        let sent = Sent::new("memory", true);
        for n in 0..1000 {
            sent.to(&Address::Topic(format!("hostile.{n}").into()));
        }
        assert_eq!(sent.topics.read().unwrap().len(), MOST_TOPICS + 1);
        assert_eq!(&*sent.to(&Address::Topic("hostile.999".into())).topic, OTHERS);
        assert_eq!(&*sent.to(&Address::Topic("hostile.7".into())).topic, "hostile.7");
    }
}
