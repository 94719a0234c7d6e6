//! The handling of a listener with `dedup`: at most once, as far as the marks tell.

use std::future::{Future, poll_fn};
use std::pin::pin;
use std::task::Poll;

use super::Lane;
use crate::contract::Verdict;
use crate::listener::{Context, Outcome, Single};
use crate::meter::What;
use crate::middleware::Look;

impl Lane<'_> {
    /// Calls the handler unless the message is a duplicate, which is `None`, and marks it when it has succeeded.
    pub(super) async fn once<L: Single>(&mut self, cx: &Context) -> Option<Outcome> {
        let (work, queue) = (self.work, self.queue);
        let Some(dedup) = &work.dedup else {
            return Some(self.call::<L>(cx).await);
        };
        let id = match dedup.id(cx) {
            Ok(id) => id,
            Err(error) => return Some(Outcome::Failed(error)),
        };
        let told = |reason| work.health.marks(reason);
        let claim = match self.waiting(dedup.look(id, queue.closed(), told)).await {
            Look::New(claim) => claim,
            Look::Duplicate => {
                tracing::debug!(
                    topic = cx.topic(),
                    group = cx.group(),
                    message_id = cx.message_id(),
                    "a duplicate: it was handled before",
                );
                return None;
            }
            Look::Stopped => return Some(Outcome::Release),
        };
        let outcome = self.call::<L>(cx).await;
        self.stopwatch.ended(&work.meter);
        let Outcome::Ack { emit } = outcome else {
            return Some(outcome);
        };
        let publisher = &work.scope.publisher;
        let done = dedup.done(claim, emit, publisher, &work.cut_off, told);
        Some(self.waiting(done).await)
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
            breaker.note(&Outcome::Release);
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
                self.stopwatch.start();
                value
            }
        }
    }
}
