//! The publisher's process: sends at a steady rate, and writes down what the broker confirmed.

use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use postrider::{Error, ErrorKind, Message as _, Publisher};
use tokio::task::JoinSet;
use tokio::time::{Instant, sleep, sleep_until};

use crate::Result;
use crate::journal::Journal;
use crate::process::input_ended;
use crate::system::System;
use crate::work::{Fate, Step, Work};

/// Sends that may be under way at once. Each sends one after the other, so that a key has an order.
pub(crate) const LANES: u64 = 24;
/// Every fourth lane is of messages whose order is kept.
const ORDERED: u64 = 4;

/// Whether an id is of a message whose order is kept, and among which others.
pub(crate) fn ordered_lane(system: System, id: u64) -> Option<u64> {
    let lane = id % LANES;
    (system.is_ordered() && lane.is_multiple_of(ORDERED)).then_some(lane)
}

/// The ids of each topic: what flows on one says nothing of the other.
pub(crate) fn topics_ids(system: System) -> Vec<impl Fn(u64) -> bool> {
    let kinds: &[bool] = if system.is_ordered() {
        &[false, true]
    } else {
        &[false]
    };
    let of_kind = |&kind: &bool| move |id| ordered_lane(system, id).is_some() == kind;
    kinds.iter().map(of_kind).collect()
}

/// Sends until its standard input ends, then finishes what is under way.
pub(crate) async fn publish(system: System, url: &str, journal: &Path, rate: u64) -> Result<()> {
    let publisher = Publisher::connect(url).await?;
    let lanes = Arc::new(Lanes {
        system,
        publisher: publisher.clone(),
        journal: Journal::open(journal)?,
        is_over: AtomicBool::new(false),
        pause: Duration::from_secs(LANES) / rate.max(1) as u32,
    });
    let mut tasks = JoinSet::new();
    for lane in 0..LANES {
        tasks.spawn(lanes.clone().send(lane));
    }
    let _ = input_ended().await;
    lanes.is_over.store(true, Ordering::Relaxed);
    while let Some(ended) = tasks.join_next().await {
        ended??;
    }
    publisher.close(Duration::from_secs(5)).await?;
    Ok(())
}

struct Lanes {
    system: System,
    publisher: Publisher,
    journal: Journal,
    is_over: AtomicBool,
    pause: Duration,
}

impl Lanes {
    fn is_over(&self) -> bool {
        self.is_over.load(Ordering::Relaxed)
    }

    async fn send(self: Arc<Self>, lane: u64) -> Result<()> {
        // Not all at once.
        let mut next = Instant::now() + self.pause * lane as u32 / LANES as u32;
        let mut id = lane;
        while !self.is_over() {
            sleep_until(next).await;
            // What was missed during a fault is not caught up with.
            next = Instant::now() + self.pause;
            self.one(id, lane).await?;
            id += LANES;
        }
        Ok(())
    }

    /// Sends one message, again under the same id as long as its fate is unknown.
    async fn one(&self, id: u64, lane: u64) -> Result<()> {
        self.journal.sent(id)?;
        loop {
            match self.attempt(id, lane).await {
                Ok(()) => return Ok(self.journal.confirmed(id)?),
                Err(error) if error.kind() == ErrorKind::NoReceiver => {
                    return Ok(self.journal.unreceived(id)?);
                }
                Err(error) => {
                    self.journal.unconfirmed(id, error.kind().as_str())?;
                    eprintln!("{id}: {error:?}");
                    if self.is_over() {
                        return Ok(());
                    }
                    sleep(Duration::from_millis(100)).await;
                }
            }
        }
    }

    async fn attempt(&self, id: u64, lane: u64) -> std::result::Result<(), Error> {
        let fate = Fate::of(id);
        let draft = |topic: &'static str| self.publisher.topic(topic).id(format!("chaos-{id}"));
        if ordered_lane(self.system, id).is_some() {
            return draft(Step::TOPIC).send(&Step { id, lane, fate }).await;
        }
        let mut draft = draft(Work::TOPIC);
        if !self.system.is_durable() {
            // So that what nobody can have received is known from the start.
            draft = draft.require_receiver();
        }
        draft.send(&Work { id, lane, fate }).await
    }
}
