//! Counting: one place, read by [`Running::status`](crate::Running::status) and exported through the `metrics` facade.

use std::sync::atomic::{AtomicU64, Ordering};

use metrics::{Counter, counter};

/// What a settlement was for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum What {
    Handled,
    Retried,
    DeadLettered,
    Released,
}

/// A batch of settlements, counted: by [`What`], in its order.
#[derive(Debug, Default)]
pub(crate) struct Tally {
    pub(crate) settled: [u64; 4],
    pub(crate) stale: u64,
}

/// The counters of one listener; their handles are resolved once, at start-up.
pub(crate) struct Meter {
    received: Pair,
    handled: Pair,
    retried: Pair,
    dead_lettered: Pair,
    released: Pair,
    stale: Pair,
    gaps: Pair,
}

struct Pair {
    value: AtomicU64,
    exported: Counter,
}

impl Pair {
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
    /// Deliveries acknowledged as done.
    pub handled: u64,
    /// Failed attempts that were tried again.
    pub retried: u64,
    /// Deliveries given up.
    pub dead_lettered: u64,
    /// Deliveries given back with the attempt not used up.
    pub released: u64,
    /// Settlements that came after their connection or partition was gone.
    pub stale: u64,
    /// Messages known to be lost where the broker cannot keep them.
    pub lost: u64,
}

impl Meter {
    pub(crate) fn new(system: &'static str, topic: &str, group: &str, listener: &str) -> Self {
        let pair = |name: &'static str| Pair {
            value: AtomicU64::new(0),
            exported: counter!(
                name,
                "messaging.system" => system,
                "messaging.destination.name" => topic.to_owned(),
                "messaging.consumer.group.name" => group.to_owned(),
                "postrider.listener" => listener.to_owned(),
            ),
        };
        Self {
            received: pair("messaging.client.consumed.messages"),
            handled: pair("postrider.handled"),
            retried: pair("postrider.retried"),
            dead_lettered: pair("postrider.dead_lettered"),
            released: pair("postrider.released"),
            stale: pair("postrider.stale"),
            gaps: pair("postrider.lost"),
        }
    }

    pub(crate) fn received(&self, count: usize) {
        self.received.add(count as u64);
    }

    pub(crate) fn settled(&self, tally: &Tally) {
        let pairs = [&self.handled, &self.retried, &self.dead_lettered, &self.released];
        for (pair, &count) in pairs.into_iter().zip(&tally.settled) {
            pair.add(count);
        }
        self.stale.add(tally.stale);
    }

    pub(crate) fn lost(&self, count: u64) {
        self.gaps.add(count);
    }

    pub(crate) fn counts(&self) -> Counts {
        Counts {
            received: self.received.get(),
            handled: self.handled.get(),
            retried: self.retried.get(),
            dead_lettered: self.dead_lettered.get(),
            released: self.released.get(),
            stale: self.stale.get(),
            lost: self.gaps.get(),
        }
    }
}
