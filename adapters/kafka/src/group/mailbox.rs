//! What waits for one listener.

use std::cmp::Reverse;
use std::collections::{BinaryHeap, VecDeque};
use std::sync::Arc;
use std::time::SystemTime;

use postrider_contract::Event;
use tokio::sync::Notify;

/// A message that waits, by its place: lane, epoch, offset.
pub(crate) type Place = (u32, u32, i64);

/// Deliveries and news for one [`Receiver`](postrider_contract::Receiver).
#[derive(Debug, Default)]
pub(crate) struct Mailbox {
    /// To be delivered, in order.
    pub(crate) queue: VecDeque<Place>,
    /// About how many bytes the queue takes.
    pub(crate) size: usize,
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
    pub(crate) fn push(&mut self, place: Place, size: usize) {
        self.queue.push_back(place);
        self.size += size;
        self.fuller = true;
    }

    /// Puts what was delivered before the rest; among what came back before it, by its offset.
    pub(crate) fn push_front(&mut self, place: Place, size: usize) {
        let earlier = |waiting: &&Place| waiting.0 == place.0 && waiting.2 < place.2;
        let at = self.queue.iter().take_while(earlier).count();
        self.queue.insert(at, place);
        self.size += size;
        self.fuller = true;
    }

    /// Takes out everything of a lane; what of it was queued had this size.
    pub(crate) fn drop_lane(&mut self, lane: u32, size: usize) {
        self.queue.retain(|place| place.0 != lane);
        self.size = self.size.saturating_sub(size);
        self.delayed.retain(|Reverse((_, place))| place.0 != lane);
    }
}
