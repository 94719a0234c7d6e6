use std::time::Duration;

/// Exponential waits with jitter and a cap: `base + random(0 .. min(cap, base * 2^n) - base)`.
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
}

impl Backoff {
    /// What adapters use to reconnect: 100 ms to 10 s.
    pub const RECONNECT: Self = Self::new(Duration::from_millis(100), Duration::from_secs(10));

    /// Waits between `base` and `cap`.
    pub const fn new(base: Duration, cap: Duration) -> Self {
        Self { base, cap }
    }

    /// The wait after failure number `n` (from 1), drawn at random.
    pub fn wait(&self, n: u32) -> Duration {
        let ceiling = self.ceiling(n);
        let spread = ceiling.saturating_sub(self.base);
        self.base.min(ceiling) + spread.mul_f64(fastrand::f64())
    }

    /// The longest wait that can follow failure number `n`.
    pub fn ceiling(&self, n: u32) -> Duration {
        let factor = 1u32.checked_shl(n).unwrap_or(u32::MAX);
        self.base.saturating_mul(factor).min(self.cap)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn stays_between_base_and_cap(base in 1u64..10_000, extra in 0u64..100_000, n in 1u32..80) {
            let backoff = Backoff::new(Duration::from_millis(base), Duration::from_millis(base + extra));
            let wait = backoff.wait(n);
            prop_assert!(wait >= backoff.base);
            prop_assert!(wait <= backoff.ceiling(n));
            prop_assert!(backoff.ceiling(n) <= backoff.cap);
        }
    }
}
