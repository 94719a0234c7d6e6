//! A topic: who receives it, and what it keeps itself.

use std::collections::{BTreeMap, VecDeque};

use postrider_contract::{Message, Origin};
use tokio::time::Instant;

use crate::group::Entry;

/// A topic and who receives it.
#[derive(Default)]
pub(crate) struct Topic {
    /// The groups, shared and private.
    pub(crate) groups: Vec<usize>,
    /// The newest messages, for groups to come.
    pub(crate) history: VecDeque<(Entry, Option<Instant>)>,
    /// All messages of a dead-letter topic by position, beside what its groups get.
    pub(crate) dead: Option<BTreeMap<u64, Message>>,
    next: u64,
}

impl Topic {
    /// A message at the next position.
    #[inline]
    pub(crate) fn entry(&mut self, origin: Origin, message: Message) -> Entry {
        let position = self.next;
        self.next += 1;
        Entry {
            position,
            redeliveries: 0,
            origin,
            message,
        }
    }

    /// Keeps what the topic itself keeps of a message.
    #[inline]
    pub(crate) fn keep(&mut self, entry: &Entry, due: Option<Instant>, retain: usize) {
        if retain > 0 {
            if self.history.len() >= retain {
                self.history.pop_front();
            }
            self.history.push_back((entry.clone(), due));
        }
        if let Some(dead) = &mut self.dead {
            dead.insert(entry.position, entry.message.clone());
        }
    }

    /// Makes it keep its messages for browsing.
    pub(crate) fn keep_dead(&mut self) {
        self.dead.get_or_insert_with(BTreeMap::new);
    }
}
