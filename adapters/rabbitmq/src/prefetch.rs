//! How many deliveries may be unsettled at once.
//!
//! The server closes a channel whose oldest delivery has been unsettled for longer than its consumer timeout, and counts a
//! redelivery of everything that was sent on it, also of what no handler has started. Enough of them, and a message is given
//! up as one that ends its process. So after such an end half as much is fetched, down to one, until it is seen that twice
//! as much would be settled in time.

use std::sync::atomic::{AtomicU16, AtomicU64, Ordering};
use std::time::Duration;

use tokio::time::{Instant, sleep};

/// How often is looked at how much was settled, at least and at most.
const LOOK: (Duration, Duration) = (Duration::from_millis(10), Duration::from_secs(1));

/// The prefetch of one subscription.
#[derive(Debug)]
pub(crate) struct Prefetch {
    most: u16,
    now: AtomicU16,
    acknowledged: AtomicU64,
}

impl Prefetch {
    /// As the listener wishes.
    pub(crate) fn new(in_flight: u32) -> Self {
        let most = u16::try_from(in_flight).unwrap_or(u16::MAX).max(1);
        Self {
            most,
            now: AtomicU16::new(most),
            acknowledged: AtomicU64::new(0),
        }
    }

    pub(crate) fn now(&self) -> u16 {
        self.now.load(Ordering::Relaxed)
    }

    /// Whether less is fetched than the listener wishes.
    pub(crate) fn is_reduced(&self) -> bool {
        self.now() < self.most
    }

    /// Something was unsettled for too long.
    pub(crate) fn halve(&self) {
        self.now.store((self.now() / 2).max(1), Ordering::Relaxed);
    }

    pub(crate) fn double(&self) {
        let doubled = self.now().saturating_mul(2).min(self.most);
        self.now.store(doubled, Ordering::Relaxed);
    }

    /// Notes what was acknowledged.
    pub(crate) fn acknowledge(&self, count: u64) {
        self.acknowledged.fetch_add(count, Ordering::Relaxed);
    }

    /// Waits until three times the prefetch was acknowledged within the timeout, and one more: while twice as much is fetched by
    /// a consumer that takes over, the former one's is unsettled as well, and so many acknowledgements show one handling less.
    pub(crate) async fn could_be_twice(&self, timeout: Duration) {
        let look = (timeout / 8).clamp(LOOK.0, LOOK.1);
        let needed = 3 * u64::from(self.now()) + 1;
        loop {
            let (since, before) = (Instant::now(), self.acknowledged.load(Ordering::Relaxed));
            loop {
                sleep(look).await;
                if since.elapsed() > timeout {
                    break;
                }
                if self.acknowledged.load(Ordering::Relaxed) - before >= needed {
                    return;
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn stays_between_one_and_the_wish() {
        let prefetch = Prefetch::new(5);
        let mut seen = vec![prefetch.now()];
        for change in [Prefetch::halve, Prefetch::halve, Prefetch::halve] {
            change(&prefetch);
            seen.push(prefetch.now());
        }
        assert!(prefetch.is_reduced());
        for _ in 0..3 {
            prefetch.double();
            seen.push(prefetch.now());
        }
        assert_eq!(seen, [5, 2, 1, 1, 2, 4, 5]);
        assert!(!prefetch.is_reduced());
        assert_eq!(Prefetch::new(0).now(), 1);
        assert_eq!(Prefetch::new(1 << 20).now(), u16::MAX);
    }

    #[tokio::test(start_paused = true)]
    async fn grows_where_three_times_as_much_is_settled_in_time() {
        const TIMEOUT: Duration = Duration::from_secs(60);
        let prefetch = Prefetch::new(10);
        prefetch.halve();
        let settling = async |wait: Duration| {
            for _ in 0..40 {
                sleep(wait).await;
                prefetch.acknowledge(1);
            }
        };
        // Fifteen of them in 60 s, then twenty.
        tokio::select! {
            () = prefetch.could_be_twice(TIMEOUT) => panic!("too slow"),
            () = settling(Duration::from_secs(4)) => {}
        }
        tokio::select! {
            () = prefetch.could_be_twice(TIMEOUT) => {}
            () = settling(Duration::from_secs(3)) => panic!("fast enough"),
        }
    }
}
