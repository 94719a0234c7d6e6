//! The lease of an ordered group's one reader, and the sessions that it is given to.

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{SystemTime, UNIX_EPOCH};

/// Where the lease lies, and the session that asks for it.
///
/// A command whose sender has given up on it may still reach the server, long afterwards: it lay in a buffer on the way. So
/// each session has a number, and the lease tells which one holds it. What an earlier one sent does nothing from then on.
#[derive(Debug)]
pub(crate) struct Lease {
    pub(crate) key: String,
    session: AtomicU64,
}

impl Lease {
    pub(crate) fn new(key: String) -> Self {
        Self {
            key,
            session: AtomicU64::new(0),
        }
    }

    /// Another session begins.
    pub(crate) fn begin(&self) {
        self.session.store(next(), Ordering::Relaxed);
    }

    /// The number of the last session that began.
    pub(crate) fn session(&self) -> u64 {
        self.session.load(Ordering::Relaxed)
    }

    /// How the lease names its holder, if it is this session of this consumer.
    pub(crate) fn holder(&self, consumer: &str) -> String {
        format!("{} {consumer}", self.session())
    }
}

/// More than every number before, those of this consumer's former processes included: microseconds of the wall clock. Where
/// that was set back, a session waits until the former one's lease ends, like another instance.
fn next() -> u64 {
    static LAST: AtomicU64 = AtomicU64::new(0);
    let now = SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .map_or(0, |since| since.as_micros() as u64);
    let mut number = LAST.load(Ordering::Relaxed);
    loop {
        let more = now.max(number + 1);
        match LAST.compare_exchange_weak(number, more, Ordering::Relaxed, Ordering::Relaxed) {
            Ok(_) => return more,
            Err(other) => number = other,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_session_has_a_greater_number() {
        let lease = Lease::new("key".into());
        let mut last = lease.session();
        for _ in 0..1_000 {
            lease.begin();
            assert!(lease.session() > last);
            last = lease.session();
        }
        assert_eq!(lease.holder("a b"), format!("{last} a b"));
        // What a script compares is a floating-point number.
        assert!(last < 1 << 53);
    }
}
