//! What waits for one listener.

use std::cmp::Reverse;
use std::collections::{BinaryHeap, VecDeque};
use std::sync::Arc;
use std::time::SystemTime;

use postrider_contract::Event;
use tokio::sync::Notify;

/// A message that waits, by its place: lane, epoch, offset.
pub(crate) type Place = (u32, u32, i64);

/// A message in line.
#[derive(Debug)]
pub(crate) struct Waiting {
    pub(crate) place: Place,
    /// About how many bytes it takes.
    pub(crate) size: usize,
}

/// Deliveries and news for one [`Receiver`](postrider_contract::Receiver).
#[derive(Debug, Default)]
pub(crate) struct Mailbox {
    /// To be delivered, in order.
    queue: VecDeque<Waiting>,
    /// About how many bytes the queue takes.
    pub(crate) size: usize,
    /// About how many bytes its lanes hold back until they are marked, at the last look.
    pub(crate) backlog: usize,
    /// On the return path, by due time.
    pub(crate) delayed: BinaryHeap<Reverse<(SystemTime, Place)>>,
    /// News, before any delivery.
    pub(crate) events: VecDeque<Event>,
    /// Fetching is stopped by the runtime.
    pub(crate) paused: bool,
    /// Fetching is stopped because the queue is long.
    pub(crate) choked: bool,
    /// Something was queued, and the receiver not yet woken: once for a batch is enough.
    pub(crate) fuller: bool,
    /// Wakes the receiver.
    pub(crate) news: Arc<Notify>,
}

impl Mailbox {
    /// Tells an event, unless it is the last that was told.
    pub(crate) fn tell(&mut self, event: Event) {
        let again = matches!(
            (self.events.back(), &event),
            (Some(Event::Ready), Event::Ready) | (Some(Event::Degraded(_)), Event::Degraded(_))
        );
        if !again {
            self.events.push_back(event);
        }
        self.news.notify_one();
    }

    /// Appends what is to be delivered.
    pub(crate) fn push(&mut self, waiting: Waiting) {
        self.size += waiting.size;
        self.queue.push_back(waiting);
        self.fuller = true;
    }

    /// Puts what was delivered before the rest; among what came back before it, by its offset.
    pub(crate) fn push_front(&mut self, waiting: Waiting) {
        let (lane, _, offset) = waiting.place;
        let earlier = |other: &&Waiting| other.place.0 == lane && other.place.2 < offset;
        let at = self.queue.iter().take_while(earlier).count();
        self.size += waiting.size;
        self.queue.insert(at, waiting);
        self.fuller = true;
    }

    /// Takes out what is to be delivered next.
    pub(crate) fn pop(&mut self) -> Option<Place> {
        let waiting = self.queue.pop_front()?;
        self.size -= waiting.size;
        Some(waiting.place)
    }

    /// Takes out everything of a lane from this offset on.
    pub(crate) fn drop_lane(&mut self, lane: u32, from: i64) {
        let stays = |place: &Place| place.0 != lane || place.2 < from;
        self.queue.retain(|waiting| stays(&waiting.place));
        self.size = self.queue.iter().map(|waiting| waiting.size).sum();
        self.delayed.retain(|Reverse((_, place))| stays(place));
    }
}
