//! A subscription's life, and its verdicts.

use std::sync::Arc;

use postrider_contract::{Settled, Settlement, Settler, Token, Verdict, async_trait};
use tokio::sync::Notify;

use crate::connection::Connection;
use crate::route::Refusal;
use crate::state::State;

/// A live subscription. It ends when its receiver and its settler are both gone, or when its connection is closed: then
/// what it holds goes to its peers.
pub(crate) struct Handle {
    pub(crate) connection: Arc<Connection>,
    pub(crate) index: usize,
    pub(crate) epoch: u32,
    /// Wakes whoever in the group is free to take.
    pub(crate) group: Arc<Notify>,
    /// Wakes this subscription.
    pub(crate) own: Arc<Notify>,
}

impl Handle {
    pub(crate) fn new(connection: Arc<Connection>, state: &State, index: usize, group: usize) -> Self {
        let consumer = state.consumers[index].as_ref();
        let group = state.groups[group].as_ref();
        Self {
            connection,
            index,
            epoch: consumer.map_or(0, |consumer| consumer.epoch),
            group: group.map(|group| group.wake.clone()).unwrap_or_default(),
            own: consumer.map(|consumer| consumer.wake.clone()).unwrap_or_default(),
        }
    }
}

impl Drop for Handle {
    fn drop(&mut self) {
        let mut state = self.connection.hub.lock();
        if state.consumer(self.index, self.epoch).is_some() {
            state.end(self.index);
            state.wake();
        }
    }
}

pub(crate) struct MemorySettler {
    handle: Arc<Handle>,
}

impl MemorySettler {
    pub(crate) fn new(handle: Arc<Handle>) -> Self {
        Self { handle }
    }

    /// Carries out one settlement under the lock, copies and acknowledgement as one; hands it back where a queue is full.
    fn settle_one(&self, state: &mut State, mut settlement: Settlement) -> Result<Settled, Settlement> {
        let token = settlement.token;
        let Some(consumer) = state.consumer(self.handle.index, self.handle.epoch) else {
            return Ok(Settled::Stale);
        };
        match &mut settlement.verdict {
            Verdict::Ack { emit } if emit.is_empty() => {
                let settled = consumer.let_go(token).is_some();
                return Ok(if settled { Settled::Done } else { Settled::Stale });
            }
            Verdict::Release => {
                let group = consumer.group;
                let Some(entry) = consumer.let_go(token) else {
                    return Ok(Settled::Stale);
                };
                if let Some(queues) = &mut state.groups[group] {
                    queues.give_back(entry);
                }
                state.touch(group);
                return Ok(Settled::Done);
            }
            Verdict::Ack { .. } if !consumer.holds(token) => return Ok(Settled::Stale),
            Verdict::Ack { .. } => (),
        }
        let Verdict::Ack { emit } = &settlement.verdict else {
            return Ok(Settled::Done);
        };
        let max_payload = self.handle.connection.capabilities.max_payload;
        let routes: Result<Vec<_>, _> = emit
            .iter()
            .map(|outgoing| state.admit(outgoing, max_payload))
            .collect();
        match routes {
            Err(Refusal::Full) => return Err(settlement),
            Err(Refusal::Error(error)) => return Ok(Settled::Failed(settlement, error)),
            Ok(routes) => {
                if let Verdict::Ack { emit } = settlement.verdict {
                    for (outgoing, route) in emit.into_iter().zip(routes) {
                        state.place(outgoing, route);
                    }
                }
            }
        }
        if let Some(consumer) = state.consumer(self.handle.index, self.handle.epoch) {
            consumer.let_go(token);
        }
        Ok(Settled::Done)
    }

    /// The end of a call under the lock: whoever can go on is woken.
    fn wake(&self, state: &mut State) {
        if let Some(consumer) = state.consumer(self.handle.index, self.handle.epoch)
            && consumer.full
        {
            consumer.full = false;
            consumer.wake.notify_one();
        }
        state.wake();
    }
}

#[async_trait]
impl Settler for MemorySettler {
    async fn settle(&self, batch: &mut Vec<Settlement>, out: &mut Vec<Settled>) {
        let mut waiting = Vec::new();
        {
            let mut state = self.handle.connection.hub.lock();
            for settlement in batch.drain(..) {
                match self.settle_one(&mut state, settlement) {
                    Ok(settled) => out.push(settled),
                    Err(settlement) => {
                        waiting.push((out.len(), settlement));
                        out.push(Settled::Done);
                    }
                }
            }
            self.wake(&mut state);
        }
        if waiting.is_empty() {
            return;
        }
        let attempt = |state: &mut State, (place, settlement)| match self.settle_one(state, settlement) {
            Ok(settled) => {
                out[place] = settled;
                self.wake(state);
                None
            }
            Err(settlement) => Some((place, settlement)),
        };
        let connection = &self.handle.connection;
        if let Err(error) = connection.when_there_is_room(&mut waiting, attempt).await {
            for (place, settlement) in waiting {
                out[place] = Settled::Failed(settlement, error.clone());
            }
        }
    }

    async fn extend(&self, _held: &[Token]) {
        // Nothing is leased: a delivery is held for as long as its subscription lives.
    }

    async fn released(&self, _lanes: &[u32]) {
        // Nothing is ever revoked.
    }
}
