//! Which messages may be the end of the process, and what is done about them.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use tokio::sync::{Mutex, OwnedMutexGuard};

/// Past this many redeliveries without a verdict, a message is dead-lettered: it probably kills the process.
pub(super) const CRASH_LOOP: u32 = 20;

/// A message that was delivered more often than this without a verdict may be the one that ends the process.
pub(super) const SUSPECT: u32 = 5;

/// What all listeners of an app know of messages that may be the end of their process.
#[derive(Debug, Default)]
pub(crate) struct Suspects {
    /// Held while one is handled.
    turn: Arc<Mutex<()>>,
    given_up: AtomicBool,
}

impl Suspects {
    /// Whether one that came too often may be given up: the first in this process. Where many came as often, they were fetched
    /// beside the one that ended the processes before, which is gone now: the others are tried, one at a time. If there is
    /// another, it is the first in the next process.
    pub(super) fn may_give_up(&self) -> bool {
        !self.given_up.swap(true, Ordering::Relaxed)
    }

    /// Waits until no other is handled.
    pub(crate) async fn turn(&self) -> OwnedMutexGuard<()> {
        self.turn.clone().lock_owned().await
    }
}
