//! What is in flight, and which of it the broker returned.
//!
//! lapin attaches a returned message to *some* confirm, not always its own: an acknowledgement of many resolves them in
//! any order, and each takes the oldest return there is. So every return is matched here, by its message id and where it
//! was sent, among what is in flight in the order it was sent.

use std::collections::BTreeMap;
use std::sync::Arc;

use lapin::BasicProperties;
use lapin::types::ShortString;
use postrider_contract::ByteString;
use tokio::sync::oneshot;

use crate::outgoing::{Mark, Unroutable};
use crate::properties;
use crate::publisher::Answer;

/// What a publish takes beside its payload.
const BESIDE_PAYLOAD: usize = 1024;

/// One publish without an answer yet.
pub(crate) struct Slot {
    pub(crate) batch: u64,
    pub(crate) index: usize,
    pub(crate) exchange: Arc<str>,
    pub(crate) routing_key: Arc<str>,
    pub(crate) mark: Mark,
    pub(crate) unroutable: Unroutable,
    pub(crate) message_id: Option<ByteString>,
    /// In bytes.
    pub(crate) payload: usize,
    pub(crate) returned: bool,
    /// Its batch was answered without it.
    pub(crate) given_up: bool,
    /// Told what became of it then.
    pub(crate) late: Option<oneshot::Sender<Answer>>,
}

impl Slot {
    /// About how many bytes it takes in memory.
    pub(crate) fn size(&self) -> usize {
        self.payload + BESIDE_PAYLOAD
    }
}

/// Every publish without an answer yet, by the number it was sent under.
#[derive(Default)]
pub(crate) struct Flights {
    slots: BTreeMap<u64, Slot>,
    next: u64,
}

impl Flights {
    pub(crate) fn add(&mut self, slot: Slot) -> u64 {
        self.next += 1;
        self.slots.insert(self.next, slot);
        self.next
    }

    pub(crate) fn remove(&mut self, number: u64) -> Option<Slot> {
        self.slots.remove(&number)
    }

    /// All of them, in the order they were sent.
    pub(crate) fn into_slots(self) -> impl Iterator<Item = Slot> {
        self.slots.into_values()
    }

    /// Gives up what has no answer yet of a batch; answers their places, with their message ids and sizes.
    pub(crate) fn give_up(&mut self, batch: u64) -> Vec<(usize, Option<ByteString>, usize)> {
        let own = self.slots.values_mut().filter(|slot| slot.batch == batch);
        own.map(|slot| {
            slot.given_up = true;
            (slot.index, slot.message_id.clone(), slot.size())
        })
        .collect()
    }

    /// Notes that the broker returned a message. Returns come in the order of sending, so of several alike it is the
    /// first that is not noted yet. One that was given up comes last: its confirm, and with it its return, may never come,
    /// and the copy that was sent again in its place must not count as taken.
    pub(crate) fn returned(&mut self, exchange: &str, routing_key: &str, properties: &BasicProperties) {
        let id = properties.message_id().as_ref().map(ShortString::as_str);
        let number = properties::return_tag(properties);
        let alike = |slot: &Slot| {
            let same = match &slot.mark {
                Mark::MessageId(own) => id == Some(&**own),
                Mark::Number(own) => number == Some(*own),
            };
            same && !slot.returned && &*slot.exchange == exchange && &*slot.routing_key == routing_key
        };
        let first = |given_up| {
            let mut slots = self.slots.iter();
            slots.find(|(_, slot)| slot.given_up == given_up && alike(slot))
        };
        let found = first(false).or_else(|| first(true)).map(|(number, _)| *number);
        match found.and_then(|number| self.slots.get_mut(&number)) {
            Some(slot) => slot.returned = true,
            None => tracing::warn!("RabbitMQ returned a message that is not in flight"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn slot(index: usize, routing_key: &str, mark: Mark) -> Slot {
        Slot {
            batch: 1,
            index,
            exchange: "x".into(),
            routing_key: routing_key.into(),
            mark,
            unroutable: Unroutable::Told,
            message_id: None,
            payload: 0,
            returned: false,
            given_up: false,
            late: None,
        }
    }

    #[test]
    fn returns_find_their_own() {
        let mut flights = Flights::default();
        let id = || Mark::MessageId("a".into());
        let numbers = [
            flights.add(slot(0, "k", id())),
            flights.add(slot(1, "other", id())),
            flights.add(slot(2, "k", id())),
            flights.add(slot(3, "k", Mark::Number(7))),
            flights.add(slot(4, "k", id())),
        ];
        let with_id = BasicProperties::default().with_message_id("a".into());
        let tagged = properties::with_return_tag(BasicProperties::default(), 7);
        flights.returned("x", "k", &with_id);
        flights.returned("x", "k", &with_id);
        flights.returned("x", "k", &tagged);
        flights.returned("x", "nowhere", &with_id);
        let returned: Vec<bool> = numbers
            .iter()
            .map(|number| flights.remove(*number).is_some_and(|slot| slot.returned))
            .collect();
        assert_eq!(returned, [true, false, true, true, false]);
        assert!(flights.remove(numbers[0]).is_none());
    }

    /// Its confirm may never come, and the same message was sent again.
    #[test]
    fn what_was_given_up_takes_no_return_from_another() {
        let mut flights = Flights::default();
        let id = || Mark::MessageId("a".into());
        let former = flights.add(slot(0, "k", id()));
        assert_eq!(flights.give_up(1).len(), 1);
        let again = flights.add(Slot {
            batch: 2,
            ..slot(0, "k", id())
        });
        let returned = BasicProperties::default().with_message_id("a".into());
        flights.returned("x", "k", &returned);
        assert!(flights.remove(again).unwrap().returned);
        flights.returned("x", "k", &returned);
        assert!(flights.remove(former).unwrap().returned);
    }
}
