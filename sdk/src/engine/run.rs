//! One listener from its first delivery to its last settlement.

use std::sync::Arc;
use std::time::Duration;

use tokio::task::{JoinError, JoinSet};
use tokio::time::{Instant, MissedTickBehavior, sleep_until};
use tokio_util::sync::CancellationToken;
use tracing::Instrument;

use super::lane::refused;
use super::settles::{Kind, Verdicts};
use super::{Lane, ListenerState, Work};
use crate::contract::{
    Backoff, Delivery, Error, ErrorKind, Event, Receiver, Settled, Settlement, Settler, Subscription, Verdict,
};
use crate::meter::{Tally, TopicMeter, What};
use crate::publisher::is_hopeless;
use crate::trace;

/// What is tried again when it could not be settled waits between these.
const RESETTLE: Backoff = Backoff::new(Duration::from_millis(100), Duration::from_secs(10));

/// Receives until `drain` is cancelled, lets running handlers finish, gives back what was not started, and settles
/// everything. `Work::cut_off` bounds the handlers; where the subscription ends by itself, so does the drain's deadline.
///
/// # Errors
/// The subscription ended by itself.
pub(crate) async fn run(
    work: Arc<Work>,
    subscription: Subscription,
    lane: Lane,
    drain: CancellationToken,
) -> Result<(), Error> {
    let _alive = Alive(&work);
    let Subscription { receiver, settler } = subscription;
    let settled = CancellationToken::new();
    let receiving = receive(&work, receiver, &*settler, &drain, &settled);
    let working = async {
        work_lanes(&work, lane).await;
        work.settles.close();
    };
    let settling = async {
        let settle = |kind| settle(&work, &*settler, kind);
        tokio::join!(settle(Kind::Plain), settle(Kind::Emitting));
        settled.cancel();
    };
    let (result, (), ()) = tokio::join!(receiving, working, settling);
    work.health.set(ListenerState::Stopped(None));
    result
}

/// Runs the lanes: a single one within this task, several as tasks of their own.
async fn work_lanes(work: &Arc<Work>, lane: Lane) {
    if work.options.concurrency == 1 {
        return lane(work.clone(), 0).await;
    }
    let queues = work.queues.len();
    let mut lanes = JoinSet::new();
    for n in 0..work.options.concurrency {
        lanes.spawn(lane(work.clone(), n % queues));
    }
    while let Some(ended) = lanes.join_next().await {
        // As with a single one: a lane that is gone would keep its deliveries without a word.
        if let Err(Ok(panic)) = ended.map_err(JoinError::try_into_panic) {
            std::panic::resume_unwind(panic);
        }
    }
}

async fn receive(
    work: &Work,
    mut receiver: Box<dyn Receiver>,
    settler: &dyn Settler,
    drain: &CancellationToken,
    settled: &CancellationToken,
) -> Result<(), Error> {
    let mut deliveries = Vec::new();
    let mut paused = work.health.watch_paused();
    let mut extend = work.options.lease.map(|lease| {
        let mut ticks = tokio::time::interval(lease / 3);
        ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        ticks
    });
    let mut held = Vec::new();
    let mut sorted = vec![Vec::new(); work.queues.len()];
    let (mut open, mut draining, mut told) = (true, false, false);
    let mut result = Ok(());
    // Told once.
    let mut wants_keys = work.settles.together;
    // When handlers are cut off, once the subscription has ended.
    let mut over = None;
    loop {
        if !open && !draining {
            draining = true;
            give_back(work);
        }
        // Here alone, so that no change is missed that comes while something else is at work.
        let is_paused = *paused.borrow_and_update();
        if !draining && is_paused != told {
            receiver.pause(is_paused).await;
            told = is_paused;
        }
        let room = if draining || is_paused { 0 } else { room(work) };
        tokio::select! {
            biased;
            () = settled.cancelled() => return result,
            () = drain.cancelled(), if !draining => {
                draining = true;
                receiver.pause(true).await;
                give_back(work);
            }
            Ok(()) = paused.changed(), if !draining => {}
            () = tick(&mut extend) => {
                work.settles.held(&mut held);
                if !held.is_empty() {
                    settler.extend(&held).await;
                    held.clear();
                }
            }
            () = work.settles.freed.notified() => {
                let emptied = work.settles.emptied();
                if !emptied.is_empty() {
                    settler.released(&emptied).await;
                }
            }
            () = sleep_until(over.unwrap_or_else(Instant::now)), if over.is_some() => {
                over = None;
                work.cut_off.cancel();
            }
            event = receiver.next(room, &mut deliveries), if open => match event {
                Ok(Event::Deliveries) => {
                    wants_keys = wants_keys && all_have_keys(work, &deliveries);
                    accept(work, &mut deliveries, &mut sorted, draining);
                }
                Ok(Event::Closed) if draining => open = false,
                Ok(Event::Closed) => {
                    let error = Error::new(ErrorKind::Closed, "the broker was closed from this side");
                    over = Some(ends(work, &error));
                    open = false;
                }
                Ok(event) => news(work, event),
                Err(error) => {
                    tracing::error!(listener = %work.scope.listener, "the subscription has ended: {error}");
                    over = Some(ends(work, &error));
                    result = Err(error);
                    open = false;
                }
            },
        }
    }
}

/// The subscription has ended by itself: says so, and when handlers are cut off.
fn ends(work: &Work, error: &Error) -> Instant {
    work.health.set(ListenerState::Stopped(Some(error.to_string())));
    Instant::now() + work.options.drain_deadline
}

/// Where the task ends by a panic of something that is not a handler, its listener does not go on looking ready.
struct Alive<'a>(&'a Work);

impl Drop for Alive<'_> {
    fn drop(&mut self) {
        if std::thread::panicking() {
            let reason = "its task panicked".to_owned();
            self.0.health.set(ListenerState::Stopped(Some(reason)));
        }
    }
}

/// How many deliveries to ask for. Not a few while the lanes still have work: a batch is cheaper.
fn room(work: &Work) -> usize {
    let free = work.options.in_flight.saturating_sub(work.settles.unsettled());
    let idle = || work.queues.iter().any(|queue| queue.waiting() == 0);
    if free * 2 >= work.options.in_flight || idle() {
        free
    } else {
        0
    }
}

async fn tick(ticks: &mut Option<tokio::time::Interval>) {
    match ticks {
        Some(ticks) => drop(ticks.tick().await),
        None => std::future::pending().await,
    }
}

/// Whether order can be kept over retries; says so where it cannot.
fn all_have_keys(work: &Work, deliveries: &[Delivery]) -> bool {
    let all = deliveries.iter().all(|delivery| delivery.message.key.is_some());
    if !all {
        tracing::warn!(
            listener = %work.scope.listener,
            "a message came without a key: `ordered` keeps no order among such when they are retried, and few are handled at \
             once; have their sender set a key (`#[message(key = …)]`, `.key(…)`)",
        );
    }
    all
}

/// Hands deliveries to their queues, through `sorted` where there are several.
fn accept(work: &Work, deliveries: &mut Vec<Delivery>, sorted: &mut [Vec<Delivery>], draining: bool) {
    work.meter.received(deliveries.len());
    let scope = &work.scope;
    trace::received(
        scope.publisher.system(),
        &work.policy.topic,
        &scope.group,
        deliveries,
    );
    work.settles.received(deliveries);
    if draining {
        for delivery in deliveries.drain(..) {
            work.settles
                .push(delivery.token, What::Released, Verdict::Release);
        }
    } else if let [queue] = &work.queues[..] {
        queue.push(deliveries);
    } else {
        for delivery in deliveries.drain(..) {
            sorted[work.queue_of(&delivery)].push(delivery);
        }
        for (queue, deliveries) in work.queues.iter().zip(sorted) {
            if !deliveries.is_empty() {
                queue.push(deliveries);
            }
        }
    }
}

fn news(work: &Work, event: Event) {
    let listener = &work.scope.listener;
    match event {
        Event::Ready => {
            tracing::info!(%listener, "receiving");
            if matches!(work.health.state(), ListenerState::Degraded(_)) {
                work.meter.reconnected();
            }
            work.health.set(ListenerState::Ready);
        }
        Event::Degraded(error) => {
            tracing::warn!(%listener, "not receiving, being mended: {error}");
            work.health.set(ListenerState::Degraded(error.to_string()));
        }
        Event::Gap { lost } => {
            tracing::warn!(%listener, lost, "messages were lost that the broker could not keep");
            work.meter.lost(lost.unwrap_or(1));
        }
        Event::Revoked { lanes, deadline } => {
            tracing::debug!(%listener, ?lanes, ?deadline, "lanes are taken away");
            // Marked first: what a lane has taken and not started is dropped by that lane.
            work.settles.revoke(&lanes);
            for queue in &work.queues {
                work.settles
                    .done(&queue.discard(|token| lanes.contains(&token.lane)));
            }
        }
        _ => {}
    }
}

/// Releases what was not started and lets the lanes end.
fn give_back(work: &Work) {
    for delivery in work.queues.iter().flat_map(super::Queue::close) {
        work.settles
            .push(delivery.token, What::Released, Verdict::Release);
    }
}

/// Something that a handler publishes with its acknowledgement.
struct Emitted {
    meter: Arc<TopicMeter>,
    /// Of the acknowledgement among the verdicts.
    index: usize,
    /// Among what that emits.
    place: usize,
}

/// What handlers publish. Not retries and dead letters: those are counted as such.
fn published(work: &Work, verdicts: &Verdicts, into: &mut Vec<Emitted>) {
    for (index, settlement) in verdicts.batch.iter().enumerate() {
        if let Verdict::Ack { emit } = &settlement.verdict
            && !emit.is_empty()
            && verdicts.whats[index] == What::Handled
        {
            let sent = work.scope.publisher.sent();
            into.extend(emit.iter().enumerate().map(|(place, outgoing)| Emitted {
                meter: sent.to(&outgoing.to),
                index,
                place,
            }));
        }
    }
}

/// Carries verdicts of a kind to the broker, all that may go at once, and tries again what it could not carry out.
async fn settle(work: &Work, settler: &dyn Settler, kind: Kind) {
    let (mut verdicts, mut answers) = (Verdicts::default(), Vec::new());
    let mut tokens = Vec::new();
    let mut emitted = Vec::new();
    let mut failed: Vec<(Settlement, What)> = Vec::new();
    let mut failed_emitting: Vec<(Delivery, u32)> = Vec::new();
    let (mut failures, mut again) = (0, None::<Instant>);
    loop {
        // Where order is kept, nothing goes before what could not be carried out.
        let open = if work.settles.together && !failed.is_empty() {
            work.settles.is_open()
        } else {
            work.settles.take(kind, &mut verdicts)
        };
        if again.is_some_and(|at| at <= Instant::now()) {
            again = None;
            for (Settlement { token, verdict }, what) in failed.drain(..) {
                verdicts.add(token, what, verdict);
            }
            verdicts.emitting.append(&mut failed_emitting);
        }
        if verdicts.batch.is_empty() {
            // Past the deadline what cannot be settled is left to the broker, which delivers it again.
            if !open && (failed.is_empty() || work.cut_off.is_cancelled()) {
                return;
            }
            tokio::select! {
                () = work.settles.arrived(kind), if open => {}
                () = sleep_until(again.unwrap_or_else(Instant::now)), if again.is_some() => {}
                () = work.cut_off.cancelled(), if !open => {}
            }
            continue;
        }
        tokens.extend(verdicts.batch.iter().map(|settlement| settlement.token));
        published(work, &verdicts, &mut emitted);
        let begin = Instant::now();
        #[cfg(feature = "otel")]
        let span = {
            let scope = &work.scope;
            let topic = &work.policy.topic;
            work.links
                .settle(scope.publisher.system(), topic, &scope.group, &tokens)
        };
        #[cfg(not(feature = "otel"))]
        let span = tracing::Span::none();
        settler
            .settle(&mut verdicts.batch, &mut answers)
            .instrument(span)
            .await;
        let took = begin.elapsed();
        verdicts.batch.clear();
        for Emitted { meter, index, place } in emitted.drain(..) {
            match answers.get(index) {
                Some(Settled::Done) => meter.confirmed(true),
                Some(Settled::Unreceived(places)) => meter.confirmed(!places.contains(&place)),
                _ => {}
            }
        }
        let mut reason = None;
        let mut tally = Tally::default();
        for (index, (answer, &what)) in answers.iter_mut().zip(&verdicts.whats).enumerate() {
            match answer {
                Settled::Stale => tally.stale += 1,
                Settled::Failed(..) => {
                    // To the front, away from those that are done: it stays unsettled.
                    tokens.swap(index, tally.failed as usize);
                    tally.failed += 1;
                    if let Settled::Failed(settlement, error) = std::mem::replace(answer, Settled::Stale) {
                        let of = |(delivery, _): &(Delivery, u32)| delivery.token == settlement.token;
                        let emitting = verdicts.emitting.iter().position(of);
                        match (
                            emitting.map(|at| verdicts.emitting.swap_remove(at)),
                            &settlement.verdict,
                        ) {
                            (Some((delivery, attempt)), Verdict::Ack { emit })
                                if is_hopeless(&error, emit) =>
                            {
                                refused(work, delivery, attempt, emit, &error);
                            }
                            (emitting, _) => {
                                failed_emitting.extend(emitting);
                                failed.push((settlement, what));
                                reason = Some(error);
                            }
                        }
                    }
                }
                _ => tally.settled[what as usize] += 1,
            }
        }
        answers.clear();
        verdicts.whats.clear();
        verdicts.emitting.clear();
        work.meter.settled(&tally, took);
        work.settles.done(&tokens[tally.failed as usize..]);
        tokens.clear();
        match reason {
            Some(error) => {
                failures += 1;
                again = Some(Instant::now() + RESETTLE.wait(failures));
                tracing::warn!(listener = %work.scope.listener, failures, "could not settle, will try again: {error}");
                work.health.settling(kind, Some(error.to_string()));
            }
            None if failures > 0 && failed.is_empty() => {
                failures = 0;
                work.health.settling(kind, None);
            }
            None => {}
        }
    }
}
