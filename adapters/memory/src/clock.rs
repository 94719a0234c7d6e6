//! From the caller's wall clock to tokio's, which tests can stop and move.

use std::time::{Duration, SystemTime};

use tokio::time::Instant;

/// A delay this long is as good as none that ends: it keeps the arithmetic within range.
const LONGEST: Duration = Duration::from_secs(100 * 365 * 24 * 3600);

/// When a message is due that must not be delivered before `time`; `None` is at once.
pub(crate) fn due(time: SystemTime) -> Option<Instant> {
    // The wall clock is read first: what passes between the two readings makes it later, never early.
    let wait = time.duration_since(SystemTime::now()).ok()?;
    (!wait.is_zero()).then(|| Instant::now() + wait.min(LONGEST))
}
