//! A lane of a listener that takes batches.

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::{Duration, Instant};

use tracing::Instrument;

use super::alone::turn;
use super::{admitted_by_rate, finish, leave};
use crate::contract::{Delivery, Verdict};
use crate::engine::Work;
use crate::engine::queue::Queue;
use crate::listener::{Batch, Context, FromBatch, FromPayload, IntoBatchOutcome, Many, Outcome};
use crate::meter::{LONG, What};
use crate::middleware::{Admission, caught, guarded};
use crate::trace;

/// The whole loop of a lane for a listener that takes batches.
pub(in crate::engine) async fn many<L: Many>(work: Arc<Work>, queue: usize) {
    let queue = &work.queues[queue];
    let Batch { size, wait } = work.options.batch.unwrap_or(Batch {
        size: 1,
        wait: Duration::ZERO,
    });
    let mut gathered = VecDeque::with_capacity(size as usize);
    let mut held = Instant::now();
    loop {
        if let Some(breaker) = &work.breaker {
            breaker.ready(queue.closed()).await;
        }
        queue
            .pop_many(size as usize, wait, &mut gathered, || work.idle())
            .await;
        if queue.is_closed() {
            return release(&work, &mut gathered);
        }
        if let (Some(breaker), Some(first)) = (&work.breaker, gathered.front()) {
            let mut others = gathered.split_off(breaker.pass_of(first.token, gathered.len()));
            queue.put_back(&mut others);
            release(&work, &mut others);
            if gathered.is_empty() {
                continue;
            }
        }
        handle_many::<L>(&work, queue, &mut gathered).await;
        if held.elapsed() >= LONG {
            // It may never have waited, and what receives and settles is in the same task.
            tokio::task::yield_now().await;
            held = Instant::now();
        }
    }
}

/// Gives back to the broker what no handler has started.
fn release(work: &Work, deliveries: &mut VecDeque<Delivery>) {
    for delivery in deliveries.drain(..) {
        work.settles
            .push(delivery.token, What::Released, Verdict::Release);
    }
}

async fn handle_many<L: Many>(work: &Arc<Work>, queue: &Queue, gathered: &mut VecDeque<Delivery>) {
    if !admitted_by_rate(work, queue, gathered.len()).await {
        release(work, gathered);
        return;
    }
    // What does not decode or is not admitted is given up alone; the others go on together.
    let mut innocents = Vec::with_capacity(gathered.len());
    // But for those that may be the end of the process.
    let mut suspects = Vec::new();
    for delivery in gathered.drain(..) {
        let attempt = queue.start(&delivery);
        if work.settles.is_revoked(delivery.token) {
            leave(work, delivery.token);
            continue;
        }
        let cx = Context::new(delivery, attempt, work.scope.clone());
        let taken = || {
            let item = <L::Items as FromBatch>::Item::from_payload(&cx)?;
            L::admit(&cx).map(|()| item)
        };
        let admitted = work.policy.admit(&cx.delivery);
        match admitted.and_then(|admission| Ok((admission, caught(taken)?))) {
            Ok((Admission::Free, item)) => innocents.push((cx, item)),
            Ok((Admission::Alone, item)) => suspects.push((cx, item)),
            Err(error) => finish(work, queue, cx.delivery, attempt, Outcome::Failed(error)),
        }
    }
    if suspects.is_empty() {
        return call::<L>(work, queue, innocents).await;
    }
    // First what is innocent: it is settled before the next one may end the process.
    call_alone::<L>(work, queue, innocents).await;
    fastrand::shuffle(&mut suspects);
    for suspect in suspects {
        call_alone::<L>(work, queue, vec![suspect]).await;
    }
}

/// Calls the handler while no suspect is handled elsewhere, unless the drain comes first.
async fn call_alone<L: Many>(work: &Work, queue: &Queue, batch: Vec<(Context, Item<L>)>) {
    match turn(work, queue).await {
        Ok(_alone) => call::<L>(work, queue, batch).await,
        Err(_) => {
            for (cx, _) in batch {
                finish(work, queue, cx.delivery, cx.attempt, Outcome::Release);
            }
        }
    }
}

type Item<L> = <<L as Many>::Items as FromBatch>::Item;

/// Calls the handler once, with what was not taken away meanwhile.
async fn call<L: Many>(work: &Work, queue: &Queue, mut batch: Vec<(Context, Item<L>)>) {
    batch.retain(|(cx, _)| {
        let is_revoked = work.settles.is_revoked(cx.delivery.token);
        if is_revoked {
            leave(work, cx.delivery.token);
        }
        !is_revoked
    });
    let (contexts, items): (Vec<Context>, Vec<Item<L>>) = batch.into_iter().unzip();
    let Some(first) = contexts.first() else { return };
    let call = L::call(first, L::Items::from_items(items), contexts.len());
    let begin = Instant::now();
    let call = call.instrument(trace::process_many(first, &contexts));
    let ended = guarded(call, work.options.timeout, &work.cut_off, || ()).await;
    let count = contexts.len();
    work.meter.processed_batch(begin.elapsed(), count);
    let outcomes = match ended {
        Ok(outcomes) => outcomes,
        Err(Outcome::Failed(error)) => Err::<(), _>(error).into_outcomes(count),
        Err(_) => contexts.iter().map(|_| Outcome::Release).collect(),
    };
    for (cx, outcome) in contexts.into_iter().zip(outcomes) {
        finish(work, queue, cx.delivery, cx.attempt, outcome);
    }
}
