//! A histogram with fixed buckets: recording many equal values costs as much as one, and nothing is kept of each.

use std::sync::atomic::{AtomicU64, Ordering};

use metrics::{HistogramFn, Unit};

use crate::meter::FIRST_BUCKET;

/// In seconds: OpenTelemetry's advice for messaging, with a finer begin and, for the age of retries, a longer end.
const SECONDS: [f64; 19] = [
    0.001, 0.005, 0.01, 0.025, 0.05, 0.075, 0.1, 0.25, 0.5, 0.75, 1.0, 2.5, 5.0, 7.5, 10.0, 30.0, 60.0,
    600.0, 3600.0,
];
const _: () = assert!(
    FIRST_BUCKET.as_millis() == 1,
    "the stopwatch relies on the first bucket"
);
/// Of anything else.
const COUNTS: [f64; 12] = [
    1.0, 2.0, 4.0, 8.0, 16.0, 32.0, 64.0, 128.0, 256.0, 512.0, 1024.0, 4096.0,
];

pub(super) struct Buckets {
    bounds: &'static [f64],
    /// One more than there are bounds.
    counts: Vec<AtomicU64>,
    /// The bits of an `f64`.
    sum: AtomicU64,
}

/// What a histogram holds: bounds with the count of what is not above them, the count of all, the sum.
pub(super) struct Held {
    pub(super) up_to: Vec<(f64, u64)>,
    pub(super) count: u64,
    pub(super) sum: f64,
}

impl Buckets {
    pub(super) fn new(unit: Option<Unit>) -> Self {
        let bounds: &[f64] = if unit == Some(Unit::Seconds) {
            &SECONDS
        } else {
            &COUNTS
        };
        Self {
            bounds,
            counts: (0..=bounds.len()).map(|_| AtomicU64::new(0)).collect(),
            sum: AtomicU64::new(0),
        }
    }

    pub(super) fn held(&self) -> Held {
        let mut count = 0;
        let mut up_to = Vec::with_capacity(self.bounds.len());
        for (n, bucket) in self.counts.iter().enumerate() {
            count += bucket.load(Ordering::Relaxed);
            up_to.extend(self.bounds.get(n).map(|&bound| (bound, count)));
        }
        Held {
            up_to,
            count,
            sum: f64::from_bits(self.sum.load(Ordering::Relaxed)),
        }
    }
}

impl HistogramFn for Buckets {
    fn record(&self, value: f64) {
        self.record_many(value, 1);
    }

    fn record_many(&self, value: f64, count: usize) {
        let bucket = self.bounds.partition_point(|&bound| bound < value);
        self.counts[bucket].fetch_add(count as u64, Ordering::Relaxed);
        let added = |sum| Some((f64::from_bits(sum) + value * count as f64).to_bits());
        let _ = self.sum.fetch_update(Ordering::Relaxed, Ordering::Relaxed, added);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn values_fall_into_the_bucket_that_is_not_below_them() {
        let buckets = Buckets::new(Some(Unit::Seconds));
        buckets.record_many(0.001, 3);
        buckets.record(0.002);
        buckets.record(1e9);
        let held = buckets.held();
        assert_eq!(held.up_to[..2], [(0.001, 3), (0.005, 4)]);
        assert_eq!(held.up_to.last(), Some(&(3600.0, 4)));
        assert_eq!(held.count, 5);
        assert!((held.sum - (1e9 + 0.005)).abs() < 1e-6);
    }
}
