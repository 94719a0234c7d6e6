//! What the runtime sees of a listener's subscription.

use std::sync::Arc;

use postrider_contract::{
    Delivery, Error, Event, Outgoing, Receiver, Settled, Settlement, Settler, Token, Verdict, async_trait,
};
use tokio::sync::Notify;

use super::lane::Tenure;
use super::state::{Phase, Shared};
use crate::outbox::Outbox;

/// Brings deliveries.
pub(crate) struct Inlet {
    pub(crate) membership: Arc<Membership>,
    pub(crate) mailbox: usize,
    pub(crate) news: Arc<Notify>,
}

/// Kept by the receivers of a group: it is left when the last of them is gone, also where the broker is not closed.
pub(crate) struct Membership(pub(crate) Arc<Shared>);

impl Drop for Membership {
    fn drop(&mut self) {
        self.0.close();
    }
}

#[async_trait]
impl Receiver for Inlet {
    async fn next(&mut self, max: usize, into: &mut Vec<Delivery>) -> Result<Event, Error> {
        loop {
            {
                let mut state = self.membership.0.lock();
                if let Some(event) = state
                    .boxes
                    .get_mut(self.mailbox)
                    .and_then(|mailbox| mailbox.events.pop_front())
                {
                    return Ok(event);
                }
                match &state.phase {
                    Phase::Open => {}
                    Phase::Failed(error) => return Err(error.clone()),
                    Phase::Closing | Phase::Closed => return Ok(Event::Closed),
                }
                let before = into.len();
                state.give(self.mailbox, max, into);
                self.membership.0.wake(&mut state);
                if into.len() > before {
                    return Ok(Event::Deliveries);
                }
            }
            // Keeps a notification that came since.
            self.news.notified().await;
        }
    }

    async fn pause(&mut self, paused: bool) {
        let mut state = self.membership.0.lock();
        if let Some(mailbox) = state.boxes.get_mut(self.mailbox) {
            mailbox.paused = paused;
        }
    }
}

/// Takes verdicts.
pub(crate) struct Outlet {
    pub(crate) shared: Arc<Shared>,
    pub(crate) outbox: Arc<Outbox>,
}

#[async_trait]
impl Settler for Outlet {
    async fn settle(&self, batch: &mut Vec<Settlement>, out: &mut Vec<Settled>) {
        let first = out.len();
        let mut copying = Vec::new();
        {
            let mut state = self.shared.lock();
            let mut released: Vec<(usize, Token)> = Vec::new();
            for settlement in batch.drain(..) {
                let token = settlement.token;
                let good = match &settlement.verdict {
                    Verdict::Release => {
                        released.push((out.len(), token));
                        true
                    }
                    Verdict::Ack { emit } if emit.is_empty() => state.acknowledge(token),
                    Verdict::Ack { .. } => {
                        let good = state.holds(token);
                        if good {
                            copying.push((out.len(), settlement));
                        }
                        good
                    }
                };
                out.push(if good { Settled::Done } else { Settled::Stale });
            }
            let tokens: Vec<Token> = released.iter().map(|(_, token)| *token).collect();
            for ((place, _), good) in released.into_iter().zip(state.put_back(&tokens)) {
                if !good {
                    set(out, place, Settled::Stale);
                }
            }
            self.shared.wake(&mut state);
        }
        debug_assert!(out.len() >= first);
        if !copying.is_empty() {
            self.copy(copying, out).await;
        }
    }

    async fn extend(&self, _held: &[Token]) {
        // Nothing is leased: the consumer's thread keeps the membership.
    }

    async fn released(&self, lanes: &[u32]) {
        let mut state = self.shared.lock();
        for &id in lanes {
            let lane = state.lanes.get_mut(id as usize);
            if let Some(lane) = lane.filter(|lane| lane.tenure == Tenure::Leaving) {
                lane.tenure = Tenure::Released;
            }
        }
        self.shared.wake(&mut state);
    }
}

impl Outlet {
    /// Publishes all copies together, and acknowledges the originals of those that are confirmed.
    async fn copy(&self, copying: Vec<(usize, Settlement)>, out: &mut [Settled]) {
        let copies: Vec<&Outgoing> = copying
            .iter()
            .flat_map(|(_, settlement)| match &settlement.verdict {
                Verdict::Ack { emit } => emit.as_slice(),
                Verdict::Release => &[],
            })
            .collect();
        let mut answers = self.outbox.send(copies).await.into_iter();
        let mut state = self.shared.lock();
        for (place, settlement) in copying {
            let count = match &settlement.verdict {
                Verdict::Ack { emit } => emit.len(),
                Verdict::Release => 0,
            };
            let failed = answers.by_ref().take(count).filter_map(Result::err).last();
            let settled = match failed {
                Some(error) => Settled::Failed(settlement, error),
                None if state.acknowledge(settlement.token) => Settled::Done,
                None => Settled::Stale,
            };
            if let Some(answer) = out.get_mut(place) {
                *answer = settled;
            }
        }
        self.shared.wake(&mut state);
    }
}

fn set(out: &mut [Settled], place: usize, settled: Settled) {
    if let Some(answer) = out.get_mut(place) {
        *answer = settled;
    }
}
