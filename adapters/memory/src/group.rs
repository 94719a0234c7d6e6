//! One consumer group on one topic: its queue, its inbox, and who takes from it.

use std::cmp::Ordering;
use std::collections::{BinaryHeap, VecDeque};
use std::sync::Arc;

use postrider_contract::{Message, Order, Origin};
use tokio::sync::Notify;
use tokio::time::Instant;

/// A message on its way to one group.
#[derive(Clone)]
pub(crate) struct Entry {
    /// Unique within the topic, and rising with every publish.
    pub(crate) position: u64,
    pub(crate) redeliveries: u32,
    pub(crate) origin: Origin,
    pub(crate) message: Message,
}

/// The queues of one group.
pub(crate) struct Group {
    pub(crate) topic: Arc<str>,
    pub(crate) name: Arc<str>,
    pub(crate) order: Order,
    /// The copy of one broadcast instance: gone with it.
    pub(crate) private: bool,
    /// Subscriptions, oldest first. In an ordered group the first is active and the others stand by.
    pub(crate) members: Vec<usize>,
    /// Wakes a subscription that is free to take. One wakes the next while there is more.
    pub(crate) wake: Arc<Notify>,
    /// It is on the list of groups to wake at the end of this call.
    pub(crate) touched: bool,
    ready: VecDeque<Entry>,
    /// What was given back goes first, in the order of the topic.
    again: BinaryHeap<ByPosition>,
    later: BinaryHeap<ByDue>,
    /// How many of the waiting came by the return path.
    returning: u64,
}

impl Group {
    pub(crate) fn new(topic: Arc<str>, name: Arc<str>, order: Order, private: bool) -> Self {
        Self {
            topic,
            name,
            order,
            private,
            members: Vec::new(),
            wake: Arc::default(),
            touched: false,
            ready: VecDeque::new(),
            again: BinaryHeap::new(),
            later: BinaryHeap::new(),
            returning: 0,
        }
    }

    /// Adds a message at the end.
    #[inline]
    pub(crate) fn push(&mut self, entry: Entry) {
        self.count_in(&entry);
        self.ready.push_back(entry);
    }

    /// Adds a message for later. True where its being due is the next thing to happen here.
    pub(crate) fn push_later(&mut self, entry: Entry, due: Instant) -> bool {
        self.count_in(&entry);
        let first = self.next_due().is_none_or(|next| due < next);
        self.later.push(ByDue { due, entry });
        first
    }

    /// Takes a message back: it comes again before the others.
    pub(crate) fn give_back(&mut self, entry: Entry) {
        self.count_in(&entry);
        self.again.push(ByPosition(entry));
    }

    /// The next message, if one is due.
    #[inline]
    pub(crate) fn take(&mut self) -> Option<Entry> {
        // Asked first: popping an empty heap costs more than asking, and it is empty nearly always.
        let again = if self.again.is_empty() {
            None
        } else {
            self.again.pop()
        };
        let entry = match again {
            Some(ByPosition(entry)) => entry,
            None => self.ready.pop_front()?,
        };
        if entry.origin != Origin::Topic {
            self.returning -= 1;
        }
        Some(entry)
    }

    /// Moves what has become due into the queue, in the order in which it became due.
    pub(crate) fn ripen(&mut self) {
        if self.later.is_empty() {
            return;
        }
        let now = Instant::now();
        while self.next_due().is_some_and(|due| due <= now) {
            let entry = self.later.pop().map(|later| later.entry);
            self.ready.extend(entry);
        }
    }

    pub(crate) fn next_due(&self) -> Option<Instant> {
        self.later.peek().map(|later| later.due)
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.ready.is_empty() && self.again.is_empty()
    }

    /// What is bounded: retries and what was given back are not, or giving back could fail.
    pub(crate) fn queued(&self) -> usize {
        self.ready.len()
    }

    /// How many wait from the topic, and how many on the return path.
    pub(crate) fn depths(&self) -> (u64, u64) {
        let all = self.ready.len() + self.again.len() + self.later.len();
        (all as u64 - self.returning, self.returning)
    }

    fn count_in(&mut self, entry: &Entry) {
        if entry.origin != Origin::Topic {
            self.returning += 1;
        }
    }
}

/// Smallest position first, in a heap whose top is the greatest.
struct ByPosition(Entry);

/// Earliest first, in a heap whose top is the greatest.
struct ByDue {
    due: Instant,
    entry: Entry,
}

impl Ord for ByPosition {
    fn cmp(&self, other: &Self) -> Ordering {
        other.0.position.cmp(&self.0.position)
    }
}

impl Ord for ByDue {
    fn cmp(&self, other: &Self) -> Ordering {
        let key = |it: &Self| (it.due, it.entry.position);
        key(other).cmp(&key(self))
    }
}

macro_rules! order_by_cmp {
    ($($kind:ty)*) => {$(
        impl PartialOrd for $kind {
            fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
                Some(self.cmp(other))
            }
        }
        impl PartialEq for $kind {
            fn eq(&self, other: &Self) -> bool {
                self.cmp(other).is_eq()
            }
        }
        impl Eq for $kind {}
    )*};
}
order_by_cmp!(ByPosition ByDue);
