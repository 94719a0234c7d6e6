//! A message that was often delivered without a verdict may be the one that ends the process. It is handled while no other such
//! message is: then what is handled before it is settled, and counted with it no more.

use std::time::Duration;

use tokio::runtime::Handle;
use tokio::sync::OwnedMutexGuard;

use super::Lane;
use crate::engine::Work;
use crate::engine::queue::Queue;
use crate::listener::{Context, Outcome};

/// How long the next one waits behind one that was handled: its verdict is with the broker then, also where positions are
/// committed now and then.
const SETTLED: Duration = Duration::from_millis(250);

/// So long one waits for another to be handled: what that waits for may be this one.
const PATIENCE: Duration = Duration::from_secs(60);

/// One in so many is not put behind the others: the first of many would nearly always be the first otherwise.
const BEHIND: u8 = 8;

/// The right to handle such a message. Others may some time after it was dropped.
pub(super) struct Alone(Option<OwnedMutexGuard<()>>);

impl Drop for Alone {
    fn drop(&mut self) {
        // Without a runtime the app is gone, and nobody waits.
        if let (Some(guard), Ok(runtime)) = (self.0.take(), Handle::try_current()) {
            runtime.spawn(async move {
                tokio::time::sleep(SETTLED).await;
                drop(guard);
            });
        }
    }
}

impl Lane<'_> {
    /// Whether it was put behind the others. Chance decides, so that each is sometimes before the one that ends the process,
    /// whatever their order. Where that is kept, none goes behind.
    pub(super) fn goes_behind(&self, cx: &Context) -> bool {
        // Another attempt is known here alone, and would be forgotten.
        let is_known = cx.attempt == cx.delivery.origin.attempt();
        let goes = is_known && fastrand::u8(..BEHIND) > 0 && self.queue.push_last(&cx.delivery);
        if let Some(breaker) = self.work.breaker.as_ref().filter(|_| goes) {
            // It may have been the one that was let through.
            breaker.note(cx.delivery.token, &Outcome::Release);
        }
        goes
    }

    /// Waits until it may be handled, or answers what it comes to where the drain came first.
    pub(super) async fn wait_to_be_alone(&mut self) -> Option<Outcome> {
        self.wait();
        let turn = turn(self.work, self.queue).await;
        self.stopwatch.start(true);
        match turn {
            Ok(alone) => {
                self.alone = alone;
                None
            }
            Err(outcome) => Some(outcome),
        }
    }
}

/// The right to handle one, or none where another takes too long; what it comes to where the drain came first.
pub(super) async fn turn(work: &Work, queue: &Queue) -> Result<Option<Alone>, Outcome> {
    tokio::select! {
        biased;
        () = queue.closed() => Err(Outcome::Release),
        guard = work.policy.suspects.turn() => Ok(Some(Alone(Some(guard)))),
        () = tokio::time::sleep(PATIENCE) => Ok(None),
    }
}
