//! What one subscription holds: the deliveries that are not settled yet.

use std::sync::Arc;

use postrider_contract::Token;
use tokio::sync::Notify;

use crate::group::Entry;

/// A live subscription.
pub(crate) struct Consumer {
    /// Unique within the broker: a token of another subscription is stale here.
    pub(crate) epoch: u32,
    /// The connection it belongs to.
    pub(crate) owner: u64,
    pub(crate) group: usize,
    /// Wakes this subscription alone: closed, active now, room again.
    pub(crate) wake: Arc<Notify>,
    /// It was refused deliveries because of its limit.
    pub(crate) full: bool,
    limit: usize,
    unsettled: usize,
    slots: Vec<Slot>,
    free: Vec<u32>,
}

/// A place for an unsettled delivery. The generation tells its users apart, so that settling twice touches nothing.
#[derive(Default)]
struct Slot {
    generation: u32,
    entry: Option<Entry>,
}

impl Consumer {
    pub(crate) fn new(epoch: u32, owner: u64, group: usize, limit: u32) -> Self {
        Self {
            epoch,
            owner,
            group,
            wake: Arc::default(),
            full: false,
            limit: limit as usize,
            unsettled: 0,
            slots: Vec::new(),
            free: Vec::new(),
        }
    }

    /// How many more it may hold.
    pub(crate) fn room(&self) -> usize {
        self.limit - self.unsettled
    }

    pub(crate) fn unsettled(&self) -> usize {
        self.unsettled
    }

    /// Keeps an entry until it is settled: names it, and lends it for what is delivered of it.
    #[inline]
    pub(crate) fn hold(&mut self, entry: Entry) -> (Token, &Entry) {
        self.unsettled += 1;
        let index = self.free.pop().unwrap_or_else(|| {
            self.slots.push(Slot::default());
            (self.slots.len() - 1) as u32
        });
        let slot = &mut self.slots[index as usize];
        let token = Token {
            lane: 0,
            epoch: self.epoch,
            seq: (u64::from(slot.generation) << 32) | u64::from(index),
        };
        (token, slot.entry.insert(entry))
    }

    /// Whether this token names something that is held.
    pub(crate) fn holds(&self, token: Token) -> bool {
        let slot = self.slots.get(token.seq as u32 as usize);
        slot.is_some_and(|slot| slot.is_for(token)) && token.epoch == self.epoch
    }

    /// Drops what this token names; false where that is settled already or was never here.
    #[inline]
    pub(crate) fn acknowledge(&mut self, token: Token) -> bool {
        match self.free(token) {
            Some(slot) => {
                slot.entry = None;
                true
            }
            None => false,
        }
    }

    /// Gives up what this token names; `None` where that is settled already or was never here.
    pub(crate) fn let_go(&mut self, token: Token) -> Option<Entry> {
        self.free(token)?.entry.take()
    }

    /// The slot that this token names, on its way to be used again.
    #[inline]
    fn free(&mut self, token: Token) -> Option<&mut Slot> {
        let index = token.seq as u32;
        let slot = self.slots.get_mut(index as usize)?;
        if !slot.is_for(token) || token.epoch != self.epoch {
            return None;
        }
        slot.generation = slot.generation.wrapping_add(1);
        self.free.push(index);
        self.unsettled -= 1;
        Some(slot)
    }

    /// Everything that is held.
    pub(crate) fn into_held(self) -> impl Iterator<Item = Entry> {
        self.slots.into_iter().filter_map(|slot| slot.entry)
    }
}

impl Slot {
    #[inline]
    fn is_for(&self, token: Token) -> bool {
        self.generation == (token.seq >> 32) as u32 && self.entry.is_some()
    }
}
