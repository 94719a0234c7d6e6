//! What the broker itself says of a listener's backlog, as gauges.

use std::time::Duration;

use metrics::{Gauge, gauge};

use super::{Subject, names};
use crate::contract::Status;

/// How often brokers are asked.
pub(crate) const INTERVAL: Duration = Duration::from_secs(5);

/// How often the gauges of what this process knows are set.
pub(crate) const OWN_INTERVAL: Duration = Duration::from_secs(1);

/// The gauges of one listener.
pub(crate) struct Depths {
    ready: Gauge,
    in_flight: Gauge,
    waiting: Gauge,
    unsettled: Gauge,
    retrying: Gauge,
    dead: Gauge,
}

impl Depths {
    pub(crate) fn new(subject: Subject<'_>) -> Self {
        let gauge = |name: &'static str| gauge!(name, subject.labels());
        let this = Self {
            ready: gauge(names::READY),
            in_flight: gauge(names::IN_FLIGHT),
            waiting: gauge(names::WAITING),
            unsettled: gauge(names::UNSETTLED),
            retrying: gauge(names::RETRYING),
            dead: gauge(names::DEAD),
        };
        this.set(None);
        this
    }

    /// What this process knows.
    pub(crate) fn here(&self, ready: bool, in_flight: usize) {
        self.ready.set(f64::from(u8::from(ready)));
        self.in_flight.set(in_flight as f64);
    }

    /// What the broker answered. What it cannot tell, or did not answer, is no number.
    pub(crate) fn set(&self, status: Option<&Status>) {
        let status = status.copied().unwrap_or_default();
        let number = |count: Option<u64>| count.map_or(f64::NAN, |count| count as f64);
        self.waiting.set(number(status.waiting));
        self.unsettled.set(number(status.unsettled));
        self.retrying.set(number(status.retrying));
        self.dead.set(number(status.dead));
    }
}

/// A process may go on without its listeners: they are not left looking as they were.
impl Drop for Depths {
    fn drop(&mut self) {
        self.here(false, 0);
        self.set(None);
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;
    use std::sync::atomic::{AtomicU64, Ordering};

    use super::*;

    #[test]
    fn nothing_is_told_of_a_listener_that_is_gone() {
        let values: [Arc<AtomicU64>; 6] = Default::default();
        let [ready, in_flight, waiting, unsettled, retrying, dead] =
            values.each_ref().map(|value| Gauge::from_arc(value.clone()));
        let depths = Depths {
            ready,
            in_flight,
            waiting,
            unsettled,
            retrying,
            dead,
        };
        let told = || {
            values
                .each_ref()
                .map(|value| f64::from_bits(value.load(Ordering::Relaxed)).to_string())
        };
        depths.here(true, 3);
        depths.set(Some(&Status {
            waiting: Some(7),
            ..Status::default()
        }));
        assert_eq!(told(), ["1", "3", "7", "NaN", "NaN", "NaN"]);
        drop(depths);
        assert_eq!(told(), ["0", "0", "NaN", "NaN", "NaN", "NaN"]);
    }
}
