//! How long handlers take, without a look at the clock for each of those that take no time.

use std::time::{Duration, Instant};

use super::Meter;

/// How many handlers are timed together as long as all of them together are this fast. It is the first bucket of the
/// histogram, so that each of them falls there too, whatever its share was: count, sum and buckets are exact.
const RUN: u32 = 16;
/// See [`RUN`].
pub(crate) const FIRST_BUCKET: Duration = Duration::from_millis(1);
/// For so long handlers that are fast may hold their thread, one after the other.
pub(crate) const LONG: Duration = Duration::from_millis(10);

/// Times the handlers of one lane.
pub(crate) struct Stopwatch {
    since: Instant,
    /// When its thread was let go of last.
    held: Instant,
    /// Handlers that have ended since.
    run: u32,
    /// How many may end before the clock is looked at.
    most: u32,
    /// The handler that runs has waited.
    waited: bool,
    is_slow: bool,
}

impl Stopwatch {
    pub(crate) fn new() -> Self {
        Self {
            since: Instant::now(),
            held: Instant::now(),
            run: 0,
            most: 1,
            waited: false,
            is_slow: false,
        }
    }

    /// The next handler starts now. Its thread was let go of where its lane `waited`, and always after what was slow.
    pub(crate) fn start(&mut self, waited: bool) {
        self.since = Instant::now();
        if waited || self.is_slow {
            self.held = self.since;
        }
        (self.waited, self.is_slow) = (false, false);
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
        self.most = 1;
        self.waited = true;
    }

    /// Counts what has ended.
    pub(crate) fn look(&mut self, meter: &Meter) {
        let run = std::mem::take(&mut self.run);
        if run == 0 {
            return;
        }
        let now = Instant::now();
        let took = now - self.since;
        self.since = now;
        // Step by step: where some are slow, not many of them come before the next look.
        self.most = if took < FIRST_BUCKET {
            RUN.min(self.most * 2)
        } else {
            1
        };
        let each = took / run;
        if std::mem::take(&mut self.waited) {
            self.held = now;
            self.most = 1;
        }
        self.is_slow = now > self.held && (each >= FIRST_BUCKET || now - self.held >= LONG);
        meter.processed(each, run);
    }

    /// How many a lane takes at once where others wait for work too: one where its handlers are slow or wait.
    pub(crate) fn most(&self) -> usize {
        if self.most == 1 { 1 } else { RUN as usize }
    }

    /// Whether what ended held its thread for long, and never let go of it: others wait for their turn.
    #[inline]
    pub(crate) fn is_slow(&self) -> bool {
        self.is_slow
    }
}
