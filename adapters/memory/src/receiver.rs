//! Taking deliveries.

use std::future::pending;
use std::sync::Arc;

use postrider_contract::{Delivery, Error, Event, Order, Position, Receiver, async_trait};
use tokio::time::{Instant, sleep_until};

use crate::settler::Handle;

pub(crate) struct MemoryReceiver {
    handle: Arc<Handle>,
    paused: bool,
    announced: bool,
}

/// What an attempt to take brought.
enum Taken {
    Some,
    /// Nothing now, but it may take what comes; something is due at this time.
    Nothing(Option<Instant>),
    /// It may not take: it stands by, is paused, or holds as much as it may.
    Idle,
    Closed,
}

impl MemoryReceiver {
    pub(crate) fn new(handle: Arc<Handle>) -> Self {
        Self {
            handle,
            paused: false,
            announced: false,
        }
    }

    /// Takes up to `max` deliveries under one lock.
    fn take(&self, max: usize, into: &mut Vec<Delivery>) -> Taken {
        let hub = &self.handle.connection.hub;
        let mut guard = hub.lock();
        let state = &mut *guard;
        let Some(consumer) = state
            .consumers
            .get_mut(self.handle.index)
            .and_then(Option::as_mut)
            .filter(|consumer| consumer.epoch == self.handle.epoch)
        else {
            return Taken::Closed;
        };
        let Some(group) = state.queues.get_mut(consumer.group) else {
            return Taken::Closed;
        };
        let max = max.min(consumer.room());
        consumer.full = max == 0;
        let stands_by = group.order == Order::ByKey && group.members.first() != Some(&self.handle.index);
        if max == 0 || stands_by {
            return Taken::Idle;
        }
        group.ripen();
        let before = into.len();
        while into.len() - before < max {
            let Some(entry) = group.take() else { break };
            let (token, entry) = consumer.hold(entry);
            into.push(Delivery {
                token,
                origin: entry.origin,
                redeliveries: Some(entry.redeliveries),
                topic: group.topic.clone(),
                position: Position {
                    partition: None,
                    offset: entry.position,
                    minor: None,
                },
                message: entry.message.clone(),
            });
        }
        if into.len() == before {
            return Taken::Nothing(group.next_due());
        }
        if !group.is_empty() && group.members.len() > 1 {
            group.wake.notify_one();
        }
        if state.starved {
            state.starved = false;
            hub.room.notify_waiters();
        }
        Taken::Some
    }

    /// Waits until something may have changed. Nothing is taken while waiting, so nothing is lost when this is dropped.
    async fn wait(&self, max: usize, into: &mut Vec<Delivery>) -> Event {
        loop {
            // Made before looking: what happens in between is not missed.
            let group = self.handle.group.notified();
            let own = self.handle.own.notified();
            match self.take(max, into) {
                Taken::Some => return Event::Deliveries,
                Taken::Closed => return Event::Closed,
                // One that may not take leaves the group's wake-ups to the others.
                Taken::Idle => own.await,
                Taken::Nothing(due) => tokio::select! {
                    () = group => (),
                    () = own => (),
                    () = sleep_or_never(due) => (),
                },
            }
        }
    }
}

#[async_trait]
impl Receiver for MemoryReceiver {
    async fn next(&mut self, max: usize, into: &mut Vec<Delivery>) -> Result<Event, Error> {
        let max = if self.paused { 0 } else { max };
        if !self.announced {
            self.announced = true;
            if self.handle.connection.check_open().is_ok() {
                return Ok(Event::Ready);
            }
        }
        Ok(match self.take(max, into) {
            Taken::Some => Event::Deliveries,
            Taken::Closed => Event::Closed,
            Taken::Nothing(_) | Taken::Idle => self.wait(max, into).await,
        })
    }

    async fn pause(&mut self, paused: bool) {
        self.paused = paused;
    }
}

async fn sleep_or_never(due: Option<Instant>) {
    match due {
        Some(due) => sleep_until(due).await,
        None => pending().await,
    }
}
