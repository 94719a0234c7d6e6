use std::time::Duration;

/// Growing waits with jitter and a cap.
///
/// Exponential: `base + random(0 .. min(cap, base * 2^n) - base)`. Linear: `base * n + random(0 .. base)`, at most `cap`. Where
/// both ends are the same the wait is fixed.
///
/// ```
/// # use postrider_contract::Backoff;
/// # use std::time::Duration;
/// let backoff = Backoff::new(Duration::from_millis(200), Duration::from_secs(30));
/// assert!(backoff.wait(1) >= Duration::from_millis(200));
/// assert!(backoff.wait(40) <= Duration::from_secs(30));
/// ```
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Backoff {
    /// The shortest wait.
    pub base: Duration,
    /// The longest wait.
    pub cap: Duration,
    /// How it gets from the one to the other.
    pub growth: Growth,
}

/// How waits grow.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Growth {
    /// Each is up to twice as long as the one before.
    Exponential,
    /// Each is longer than the one before by the first.
    Linear,
}

impl Backoff {
    /// What adapters use to reconnect: 100 ms to 10 s.
    pub const RECONNECT: Self = Self::new(Duration::from_millis(100), Duration::from_secs(10));

    /// Exponential waits between `base` and `cap`.
    pub const fn new(base: Duration, cap: Duration) -> Self {
        Self {
            base,
            cap,
            growth: Growth::Exponential,
        }
    }

    /// Linear waits between `base` and `cap`.
    pub const fn linear(base: Duration, cap: Duration) -> Self {
        Self {
            base,
            cap,
            growth: Growth::Linear,
        }
    }

    /// The wait after failure number `n` (from 1), drawn at random.
    pub fn wait(&self, n: u32) -> Duration {
        let (floor, ceiling) = (self.floor(n), self.ceiling(n));
        floor + ceiling.saturating_sub(floor).mul_f64(fastrand::f64())
    }

    /// The shortest wait that can follow failure number `n`.
    fn floor(&self, n: u32) -> Duration {
        let least = self.base.min(self.cap);
        match self.growth {
            Growth::Exponential => least,
            // At the cap too there is room for jitter.
            Growth::Linear => {
                let step = self.base.saturating_mul(n);
                step.min(self.cap.saturating_sub(self.base)).max(least)
            }
        }
    }

    /// The longest wait that can follow failure number `n`.
    pub fn ceiling(&self, n: u32) -> Duration {
        let factor = match self.growth {
            Growth::Exponential => 1u32.checked_shl(n).unwrap_or(u32::MAX),
            Growth::Linear => n.saturating_add(1),
        };
        self.base.saturating_mul(factor).min(self.cap)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    #[test]
    fn stays_between_base_and_cap() {
        let waits = (
            1u64..=u64::MAX / 2,
            0u64..=u64::MAX / 2,
            1u32..=u32::MAX,
            bolero::produce::<bool>(),
        );
        let check = |&(base, extra, n, linear): &(u64, u64, u32, bool)| {
            let make = if linear { Backoff::linear } else { Backoff::new };
            let backoff = make(Duration::from_millis(base), Duration::from_millis(base + extra));
            let wait = backoff.wait(n);
            assert!(wait >= backoff.base);
            assert!(wait >= backoff.floor(n));
            assert!(wait <= backoff.ceiling(n));
            assert!(backoff.ceiling(n) <= backoff.cap);
        };
        bolero::check!().with_generator(waits).for_each(check);
    }

    #[test]
    fn linear_waits_grow_by_the_first() {
        let seconds = Duration::from_secs;
        let backoff = Backoff::linear(seconds(2), seconds(9));
        let spans: Vec<_> = (1..=5)
            .map(|n| (backoff.floor(n).as_secs(), backoff.ceiling(n).as_secs()))
            .collect();
        assert_eq!(spans, [(2, 4), (4, 6), (6, 8), (7, 9), (7, 9)]);
        let fixed = Backoff::linear(seconds(3), seconds(3));
        assert_eq!((fixed.wait(1), fixed.wait(50)), (seconds(3), seconds(3)));
    }
}
