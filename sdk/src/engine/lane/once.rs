//! The handling of a listener with `dedup`: at most once, as far as the marks tell.

use std::future::{Future, poll_fn};
use std::pin::pin;
use std::task::Poll;

use super::Lane;
use crate::contract::Verdict;
use crate::listener::{Context, Outcome};
use crate::meter::What;
use crate::middleware::{Claim, Dedup, Look};

impl<'a> Lane<'a> {
    /// The right to handle the message; `None` if it was handled before.
    ///
    /// # Errors
    /// What it comes to where it cannot be told, or will not be.
    pub(super) async fn look(
        &mut self,
        dedup: &'a Dedup,
        cx: &Context,
    ) -> Result<Option<Claim<'a>>, Outcome> {
        let (work, queue) = (self.work, self.queue);
        let id = dedup.id(cx).map_err(Outcome::Failed)?;
        let told = |reason| work.health.marks(reason);
        match self.waiting(dedup.look(id, queue.closed(), told)).await {
            Look::New(claim) => Ok(Some(claim)),
            Look::Duplicate => {
                tracing::debug!(
                    topic = cx.topic(),
                    group = cx.group(),
                    message_id = cx.message_id(),
                    "a duplicate: it was handled before",
                );
                Ok(None)
            }
            Look::Stopped => Err(Outcome::Release),
        }
    }

    /// Marks what was handled with success, once what that publishes is confirmed.
    pub(super) async fn mark(&mut self, dedup: &Dedup, claim: Claim<'a>, outcome: Outcome) -> Outcome {
        let work = self.work;
        let emit = match outcome {
            Outcome::Ack { emit } => emit,
            other => return other,
        };
        let told = |reason| work.health.marks(reason);
        let unconfirmed = |reason| work.health.publishing(reason);
        let publisher = &work.scope.publisher;
        let done = dedup.done(claim, emit, publisher, &work.cut_off, told, unconfirmed);
        self.waiting(done).await
    }

    /// Acknowledges what was handled before. It is no attempt, and tells nothing of what the handler depends on.
    pub(super) fn duplicate(&mut self, cx: &Context, attempt: u32) {
        let work = self.work;
        #[cfg(feature = "testing")]
        if let Some(tap) = work.scope.publisher.tap() {
            tap.duplicate(&work.scope.listener, &cx.delivery, attempt);
        }
        let _ = attempt;
        if let Some(breaker) = &work.breaker {
            breaker.note(cx.delivery.token, &Outcome::Release);
        }
        let acknowledged = Verdict::Ack { emit: Vec::new() };
        self.verdicts
            .add(cx.delivery.token, What::Duplicate, acknowledged);
    }

    /// Where it is not ready at once, others may have what was not started meanwhile, and it is no time of a handler.
    async fn waiting<T>(&mut self, future: impl Future<Output = T>) -> T {
        let mut future = pin!(future);
        let at_once = poll_fn(|task| Poll::Ready(future.as_mut().poll(task))).await;
        match at_once {
            Poll::Ready(value) => value,
            Poll::Pending => {
                self.wait();
                let value = future.await;
                self.stopwatch.start(true);
                value
            }
        }
    }
}
