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
