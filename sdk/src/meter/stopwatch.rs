//! How long handlers take, without a look at the clock for each of those that take no time.

use std::time::{Duration, Instant};

use super::Meter;

/// How many handlers are timed together as long as all of them together are this fast. It is the first bucket of the
/// histogram, so that each of them falls there too, whatever its share was: count, sum and buckets are exact.
const RUN: u32 = 16;
/// See [`RUN`].
pub(crate) const FIRST_BUCKET: Duration = Duration::from_millis(1);

/// Times the handlers of one lane.
pub(crate) struct Stopwatch {
    since: Instant,
    /// Handlers that have ended since.
    run: u32,
    /// How many may end before the clock is looked at.
    most: u32,
    exports: bool,
}

impl Stopwatch {
    pub(crate) fn new(meter: &Meter) -> Self {
        Self {
            since: Instant::now(),
            run: 0,
            most: if meter.exports { RUN } else { u32::MAX },
            exports: meter.exports,
        }
    }

    /// The next handler starts now.
    pub(crate) fn start(&mut self) {
        if self.exports {
            self.since = Instant::now();
        }
    }

    /// A handler has ended, and the next starts now.
    #[inline]
    pub(crate) fn ended(&mut self, meter: &Meter) {
        self.run += 1;
        if self.run >= self.most {
            self.look(meter);
        }
    }

    /// The handler that runs now waits: it is timed alone.
    pub(crate) fn waits(&mut self, meter: &Meter) {
        self.look(meter);
        if self.exports {
            self.most = 1;
        }
    }

    /// Counts what has ended.
    pub(crate) fn look(&mut self, meter: &Meter) {
        let run = std::mem::take(&mut self.run);
        if run == 0 || !self.exports {
            return;
        }
        let now = Instant::now();
        let took = now - self.since;
        self.since = now;
        self.most = if took < FIRST_BUCKET { RUN } else { 1 };
        meter.processed(took / run, run);
    }
}
