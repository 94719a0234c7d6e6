//! A subscription's life, and its verdicts.

use std::mem;
use std::sync::Arc;

use postrider_contract::{Outgoing, Settled, Settlement, Settler, Token, Verdict, async_trait};
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
        let group = state.queues.get(group);
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
            state.queues.wake();
            // The copy of a broadcast instance is gone, and publishers may have waited for room in it.
            self.connection.hub.room.notify_waiters();
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

    /// What most settlements are.
    #[inline]
    fn acknowledge(&self, state: &mut State, token: Token) -> Settled {
        let consumer = state.consumer(self.handle.index, self.handle.epoch);
        if consumer.is_some_and(|consumer| consumer.acknowledge(token)) {
            Settled::Done
        } else {
            Settled::Stale
        }
    }

    /// Carries out one settlement under the lock; hands it back where a queue is full.
    fn settle_one(&self, state: &mut State, settlement: Settlement) -> Result<Settled, Settlement> {
        let Settlement { token, verdict } = settlement;
        match verdict {
            Verdict::Ack { emit } => self.emit(state, token, emit),
            Verdict::Release => Ok(self.release(state, token)),
        }
    }

    fn release(&self, state: &mut State, token: Token) -> Settled {
        let Some(consumer) = state.consumer(self.handle.index, self.handle.epoch) else {
            return Settled::Stale;
        };
        let group = consumer.group;
        let Some(entry) = consumer.let_go(token) else {
            return Settled::Stale;
        };
        state.queues.give_back(group, [entry]);
        Settled::Done
    }

    /// Copies and acknowledgement as one: nobody sees the one without the other.
    fn emit(&self, state: &mut State, token: Token, emit: Vec<Outgoing>) -> Result<Settled, Settlement> {
        let consumer = state.consumer(self.handle.index, self.handle.epoch);
        if !consumer.is_some_and(|consumer| consumer.holds(token)) {
            return Ok(Settled::Stale);
        }
        let max_payload = self.handle.connection.capabilities.max_payload;
        let mut routes = mem::take(&mut state.routes);
        let admit = |outgoing| state.admit(outgoing, max_payload).map(|route| routes.push(route));
        let admitted = emit.iter().try_for_each(admit);
        let answer = match admitted {
            Ok(()) => {
                let placed = emit.into_iter().zip(&routes);
                let done = Settled::done(placed.map(|(outgoing, &route)| state.place(outgoing, route)));
                match self.acknowledge(state, token) {
                    Settled::Done => Ok(done),
                    other => Ok(other),
                }
            }
            Err(refusal) => {
                let verdict = Verdict::Ack { emit };
                let settlement = Settlement { token, verdict };
                match refusal {
                    Refusal::Full => Err(settlement),
                    Refusal::Error(error) => Ok(Settled::Failed(settlement, error)),
                }
            }
        };
        routes.clear();
        state.routes = routes;
        answer
    }

    /// The end of a call under the lock: whoever can go on is woken.
    fn wake(&self, state: &mut State) {
        if let Some(consumer) = state.consumer(self.handle.index, self.handle.epoch)
            && consumer.full
        {
            consumer.full = false;
            consumer.wake.notify_one();
        }
        state.queues.wake();
    }
}

#[async_trait]
impl Settler for MemorySettler {
    async fn settle(&self, batch: &mut Vec<Settlement>, out: &mut Vec<Settled>) {
        let mut waiting = Vec::new();
        {
            let mut state = self.handle.connection.hub.lock();
            for settlement in batch.drain(..) {
                if let Verdict::Ack { emit } = &settlement.verdict
                    && emit.is_empty()
                {
                    out.push(self.acknowledge(&mut state, settlement.token));
                    continue;
                }
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
