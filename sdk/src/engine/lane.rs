//! A lane: one line of work. Takes deliveries, runs the pipeline around the handler, and leaves verdicts.

mod alone;
mod many;
mod once;

use std::collections::VecDeque;
use std::sync::Arc;

use tracing::Instrument;

use self::alone::Alone;
pub(super) use self::many::many;
use super::Work;
use super::queue::{Kept, Queue};
use super::settles::{Sorted, Verdicts};
use crate::contract::{Delivery, Error, Outgoing, Token, Verdict, names};
use crate::listener::{AckMode, Acker, Context, HandlerError, Outcome, Reason, Single, Sink};
use crate::meter::{Stopwatch, What};
use crate::middleware::{Admission, Decision, Hold, Next, guarded};
use crate::publisher;
use crate::trace;

/// The whole loop of a lane for a listener that takes one message at a time.
pub(super) async fn single<L: Single>(work: Arc<Work>, queue: usize) {
    let alone = work.options.concurrency == work.queues.len();
    let mut lane = Lane {
        work: &work,
        queue: &work.queues[queue],
        chunk: VecDeque::new(),
        verdicts: Sorted::new(work.settles.together),
        stopwatch: Stopwatch::new(),
        attempts: 0,
        alone: None,
    };
    loop {
        if let Some(breaker) = &work.breaker {
            breaker.ready(lane.queue.closed()).await;
        }
        let most = if alone { usize::MAX } else { lane.stopwatch.most() };
        let waited = lane.queue.pop_chunk(most, &mut lane.chunk, || work.idle()).await;
        if lane.chunk.is_empty() {
            return;
        }
        lane.stopwatch.start(waited);
        let mut place = None;
        while !lane.chunk.is_empty() {
            lane.handle_first::<L>(&mut place).await;
            if lane.alone.is_some() {
                lane.alone = None;
            }
            if lane.queue.wants_back() || lane.stopwatch.is_slow() {
                lane.put_back();
            }
        }
        lane.settle();
        if lane.stopwatch.is_slow() {
            tokio::task::yield_now().await;
        }
    }
}

/// One line of work: what it has taken and not started, and verdicts it has not handed on.
struct Lane<'a> {
    work: &'a Arc<Work>,
    queue: &'a Queue,
    chunk: VecDeque<Delivery>,
    verdicts: Sorted,
    stopwatch: Stopwatch,
    /// Attempts that came to an outcome and are not counted yet.
    attempts: u64,
    /// Held while a message is handled that may be the end of the process.
    alone: Option<Alone>,
}

impl Lane<'_> {
    /// Handles the first of the chunk. It is moved once, to the `place` where the handler sees it.
    async fn handle_first<L: Single>(&mut self, place: &mut Option<Context>) {
        let work = self.work;
        if let (Some(breaker), Some(first)) = (&work.breaker, self.chunk.front())
            && !breaker.pass(first.token)
        {
            return self.wait();
        }
        let Some(delivery) = self.chunk.pop_front() else {
            return;
        };
        let attempt = self.queue.start(&delivery);
        let cx = Context::renewed(place, delivery, attempt, &work.scope);
        let mut refused = match work.policy.admit(&cx.delivery) {
            Ok(Admission::Free) => None,
            Ok(Admission::Alone) if self.goes_behind(cx) => return,
            Ok(Admission::Alone) => Box::pin(self.wait_to_be_alone()).await,
            Err(error) => Some(Outcome::Failed(error)),
        };
        if refused.is_none() && work.limiter.is_some() && !self.wait_for_rate().await {
            refused = Some(Outcome::Release);
        }
        let mut claim = None;
        if refused.is_none()
            && let Some(dedup) = &work.dedup
        {
            match Box::pin(self.look(dedup, cx)).await {
                Ok(Some(new)) => claim = Some((dedup, new)),
                Ok(None) => return self.duplicate(cx, attempt),
                Err(outcome) => refused = Some(outcome),
            }
        }
        let outcome = match refused {
            Some(outcome) => outcome,
            None if work.settles.is_revoked(cx.delivery.token) => return leave(work, cx.delivery.token),
            None => {
                if work.options.ack == AckMode::Manual {
                    cx.acker = Some(Acker::new(cx.delivery.clone(), attempt, work.clone()));
                }
                let mut outcome = self.call::<L>(cx).await;
                self.stopwatch.ended(&work.meter);
                if let Some((dedup, claim)) = claim {
                    outcome = Box::pin(self.mark(dedup, claim, outcome)).await;
                }
                match &cx.acker {
                    None => outcome,
                    Some(acker) if !acker.is_taken() => outcome,
                    Some(acker) if acker.close() => unsettled(outcome),
                    Some(_) => return settled_before(work, &cx.delivery, attempt, &outcome),
                }
            }
        };
        self.attempts += note(work, &cx.delivery, attempt, &outcome);
        match work.policy.decide(&mut cx.delivery, attempt, outcome) {
            Decision::Settle(what, verdict) => {
                let is_emitting = Verdicts::is_emitting(what, &verdict);
                self.verdicts.add(cx.delivery.token, what, verdict);
                if is_emitting && let Some(cx) = place.take() {
                    self.verdicts.publishes(cx.delivery, attempt);
                }
            }
            Decision::Hold(hold) => keep(work, self.queue, cx.delivery.clone(), hold),
        }
    }

    /// Waits for the listener's rate; false where the drain came first.
    async fn wait_for_rate(&mut self) -> bool {
        self.wait();
        let admitted = admitted_by_rate(self.work, self.queue, 1).await;
        self.stopwatch.start(true);
        admitted
    }

    async fn call<L: Single>(&mut self, cx: &Context) -> Outcome {
        let Work {
            options,
            cut_off,
            middleware,
            ..
        } = &**self.work;
        let span = trace::process(cx);
        let ended = if middleware.is_empty() && span.is_disabled() {
            guarded(L::call(cx), options.timeout, cut_off, || self.wait()).await
        } else {
            let next = Next::new(middleware, &|cx| Box::pin(L::call(cx)));
            let handled = next.run(cx).instrument(span.clone());
            guarded(handled, options.timeout, cut_off, || self.wait()).await
        };
        let (Ok(mut outcome) | Err(mut outcome)) = ended;
        trace::ended(&span, &cx.delivery, &mut outcome);
        #[cfg(feature = "otel")]
        if cx.acker.is_none() {
            self.work.links.add(cx.delivery.token, &span);
        }
        outcome
    }

    /// Before waiting: others may have what was not started, and no verdict waits with it.
    fn wait(&mut self) {
        self.stopwatch.waits(&self.work.meter);
        self.put_back();
        self.settle();
    }

    /// Gives up what was not started: to the queue, or to the broker where that is closed.
    fn put_back(&mut self) {
        self.queue.put_back(&mut self.chunk);
        for delivery in self.chunk.drain(..) {
            self.verdicts
                .add(delivery.token, What::Released, Verdict::Release);
        }
    }

    fn settle(&mut self) {
        self.stopwatch.look(&self.work.meter);
        self.work.meter.attempted(std::mem::take(&mut self.attempts));
        self.work.settles.push_all(&mut self.verdicts);
    }
}

/// A manual handler that failed after it had settled.
fn settled_before(work: &Work, delivery: &Delivery, attempt: u32, outcome: &Outcome) {
    if let Outcome::Failed(error) = outcome {
        tracing::warn!(
            topic = %delivery.topic, group = %work.scope.group, attempt,
            message_id = delivery.message.headers.get_str(names::MESSAGE_ID),
            "the handler failed after it had settled; it is not tried again: {error}",
        );
    }
}

/// A manual handler that ended without settling failed, whatever it returned.
fn unsettled(outcome: Outcome) -> Outcome {
    match outcome {
        Outcome::Ack { .. } => {
            let text = "the handler of a manual listener ended without settling: call `ack.ack().await`";
            Outcome::Failed(HandlerError::with_reason(Reason::Unsettled, text))
        }
        other => other,
    }
}

/// Waits for the listener's rate; false where the drain came first.
async fn admitted_by_rate(work: &Work, queue: &Queue, count: usize) -> bool {
    let Some(limiter) = &work.limiter else { return true };
    let ready = async {
        for _ in 0..count {
            limiter.until_ready().await;
        }
    };
    tokio::select! {
        biased;
        () = ready => true,
        () = queue.closed() => false,
    }
}

/// Counts what is rare, and says how many attempts this outcome is the end of.
#[expect(clippy::inline_always, reason = "once for each message")]
#[inline(always)]
fn note(work: &Work, delivery: &Delivery, attempt: u32, outcome: &Outcome) -> u64 {
    #[cfg(feature = "testing")]
    if let Some(tap) = work.scope.publisher.tap() {
        tap.ended(&work.scope.listener, delivery, attempt, outcome);
    }
    learn(work, delivery, attempt, outcome)
}

#[expect(clippy::inline_always, reason = "once for each message")]
#[inline(always)]
fn learn(work: &Work, delivery: &Delivery, attempt: u32, outcome: &Outcome) -> u64 {
    if let Some(breaker) = &work.breaker
        && let Some(change) = breaker.note(delivery.token, outcome)
    {
        work.health.breaker(change);
    }
    match outcome {
        Outcome::Ack { .. } if attempt == 1 => 1,
        Outcome::Release => 0,
        _ => {
            work.meter.troubled(delivery, attempt, outcome);
            1
        }
    }
}

fn finish(work: &Work, queue: &Queue, delivery: Delivery, attempt: u32, outcome: Outcome) {
    work.meter.attempted(note(work, &delivery, attempt, &outcome));
    carry_out(work, queue, delivery, attempt, outcome);
}

/// Does what an outcome leads to.
fn carry_out(work: &Work, queue: &Queue, mut delivery: Delivery, attempt: u32, outcome: Outcome) {
    match work.policy.decide(&mut delivery, attempt, outcome) {
        Decision::Settle(what, verdict) => work.settles.push_for(delivery, attempt, what, verdict),
        Decision::Hold(hold) => keep(work, queue, delivery, hold),
    }
}

/// The broker refuses for good what a handler publishes. Its attempt is counted already.
#[cold]
pub(super) fn refused(
    work: &Work,
    delivery: Delivery,
    attempt: u32,
    #[cfg_attr(
        not(feature = "testing"),
        expect(unused_variables, reason = "tests look at it")
    )]
    emit: &[Outgoing],
    error: &Error,
) {
    let outcome = publisher::refused(error);
    #[cfg(feature = "testing")]
    if let Some(tap) = work.scope.publisher.tap() {
        tap.refused(&work.scope.listener, &delivery, attempt, emit, &outcome);
    }
    learn(work, &delivery, attempt, &outcome);
    let queue = &work.queues[work.queue_of(&delivery)];
    carry_out(work, queue, delivery, attempt, outcome);
}

/// Leaves what was not started to whoever has its lane now, who gets it again.
#[cold]
fn leave(work: &Work, token: Token) {
    if let Some(breaker) = &work.breaker {
        // It may have been the one that was let through.
        breaker.note(token, &Outcome::Release);
    }
    work.settles.done(&[token]);
}

/// Keeps a delivery in the process for its next attempt.
fn keep(work: &Work, queue: &Queue, delivery: Delivery, hold: Hold) {
    let token = delivery.token;
    match queue.keep(&work.settles, delivery, hold.attempt, hold.wait) {
        Kept::Held => work.meter.held(hold.what),
        Kept::Closed => work.settles.push(token, What::Released, Verdict::Release),
        Kept::Revoked => work.settles.done(&[token]),
    }
}

impl Sink for Work {
    fn settle(&self, delivery: &Delivery, attempt: u32, outcome: Outcome) {
        finish(
            self,
            &self.queues[self.queue_of(delivery)],
            delivery.clone(),
            attempt,
            outcome,
        );
    }
}

impl Work {
    /// A lane has nothing to do: more may be fetched than while it had.
    fn idle(&self) {
        self.settles.freed.notify_one();
    }

    /// The queue of a delivery: with order, always the same for one key.
    pub(super) fn queue_of(&self, delivery: &Delivery) -> usize {
        if self.queues.len() == 1 {
            return 0;
        }
        let hash = match &delivery.message.key {
            Some(key) => key.iter().fold(0xcbf2_9ce4_8422_2325_u64, |hash, byte| {
                // FNV-1a: short keys, no secret, the same in every run.
                (hash ^ u64::from(*byte)).wrapping_mul(0x0100_0000_01b3)
            }),
            // Without a key, a lane of the adapter (a partition) keeps its order.
            None => u64::from(delivery.token.lane),
        };
        (hash % self.queues.len() as u64) as usize
    }
}
