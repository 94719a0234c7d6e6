//! Which messages may be the end of the process, and what is done about them.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use tokio::sync::OwnedMutexGuard;

/// Past this many redeliveries without a verdict, a message is dead-lettered: it probably kills the process.
pub(super) const CRASH_LOOP: u32 = 20;

/// A message that was delivered more often than this without a verdict may be the one that ends the process.
pub(super) const SUSPECT: u32 = 5;

/// A process that has lived for so long since it gave one up has tried what came with it.
const NEXT: Duration = Duration::from_secs(3600);

/// What all listeners of an app know of messages that may be the end of their process.
#[derive(Debug, Default)]
pub(crate) struct Suspects {
    /// Held while one is handled.
    turn: Arc<tokio::sync::Mutex<()>>,
    /// When one was given up.
    given_up: Mutex<Option<Instant>>,
}

impl Suspects {
    /// Whether one that came too often may be given up: the first in this process. Where many came as often, they were fetched
    /// beside the one that ended the processes before, which is gone now: the others are tried, one at a time. If there is
    /// another, it is the first in the next process.
    pub(super) fn may_give_up(&self) -> bool {
        let mut given_up = self.given_up.lock().unwrap_or_else(PoisonError::into_inner);
        let may = given_up.is_none_or(|at| at.elapsed() >= NEXT);
        if may {
            *given_up = Some(Instant::now());
        }
        may
    }

    /// Waits until no other is handled.
    pub(crate) async fn turn(&self) -> OwnedMutexGuard<()> {
        self.turn.clone().lock_owned().await
    }
}
