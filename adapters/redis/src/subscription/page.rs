//! How much is asked for at once. A reply has to arrive within the time that a command has, also on a slow network: what is
//! too large never does, however often it is asked for.

use std::collections::HashSet;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};

use crate::subscription::entry::Entry;
use crate::subscription::table::Place;

/// What one reply is to carry at most. A message that is larger comes alone.
pub(crate) const PAGE_BYTES: usize = 1_000_000;

/// What a reader knows of its replies.
#[derive(Debug)]
pub(crate) struct Pages {
    /// How large an entry is taken to be, until it is known.
    size: AtomicUsize,
    /// Claimed, and not answered: to the server they were delivered, and nobody has seen them.
    unanswered: Mutex<HashSet<Place>>,
}

impl Pages {
    pub(crate) fn new() -> Self {
        Self {
            size: AtomicUsize::new(PAGE_BYTES / 4),
            unanswered: Mutex::default(),
        }
    }

    /// How many entries to ask for, from each of so many streams.
    pub(crate) fn count(&self, room: usize, streams: usize) -> usize {
        let streams = streams.max(1);
        let fit = PAGE_BYTES / self.size.load(Ordering::Relaxed).max(1);
        (room.min(fit) / streams).max(1)
    }

    /// This came. Larger entries count at once, smaller ones by and by.
    pub(crate) fn came(&self, entries: &[Entry]) {
        if entries.is_empty() {
            return;
        }
        let bytes: usize = entries.iter().map(|entry| entry.message.size()).sum();
        let mean = bytes / entries.len();
        let size = self.size.load(Ordering::Relaxed);
        self.size
            .store(mean.max(usize::midpoint(size, mean)), Ordering::Relaxed);
    }

    /// Nothing came: it may have been too much.
    pub(crate) fn failed(&self) {
        self.size.store(PAGE_BYTES, Ordering::Relaxed);
    }

    pub(crate) fn unanswered(&self) -> MutexGuard<'_, HashSet<Place>> {
        self.unanswered.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use postrider_contract::{Message, Origin};

    use super::*;
    use crate::subscription::entry::{EntryId, Stream};

    fn of(bytes: usize) -> Entry {
        Entry {
            stream: Stream::Topic,
            id: EntryId::default(),
            delivered: 1,
            released: 0,
            orphaned: false,
            origin: Origin::Topic,
            message: Message::new(vec![0; bytes]),
        }
    }

    #[test]
    fn large_entries_are_asked_for_one_by_one() {
        let pages = Pages::new();
        pages.came(&[of(PAGE_BYTES)]);
        assert_eq!((pages.count(100, 1), pages.count(100, 2)), (1, 1));
    }

    #[test]
    fn small_ones_soon_fill_the_room() {
        let pages = Pages::new();
        pages.failed();
        for _ in 0..20 {
            pages.came(&[of(100), of(300)]);
        }
        assert_eq!((pages.count(100, 1), pages.count(100, 2)), (100, 50));
    }
}
