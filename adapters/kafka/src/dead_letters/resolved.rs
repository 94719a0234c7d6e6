//! Which dead letters have been replayed or purged: markers in a compacted topic beside the dead letters.

use std::collections::BTreeMap;
use std::ops::ControlFlow;

use postrider_contract::{Bytes, Error, ErrorKind, Message, dead_letter_id};

use super::Place;
use crate::inspector::{Extent, Inspector};

/// The markers, as far as they were read.
pub(crate) struct Resolved {
    topic: String,
    next: i64,
    /// With what identifies the dead letter by its content: in a topic that was made anew another one lies there.
    markers: BTreeMap<Place, Bytes>,
}

impl Resolved {
    /// Nothing is read yet of the topic with this name.
    pub(crate) fn new(topic: String) -> Self {
        Self {
            topic,
            next: 0,
            markers: BTreeMap::new(),
        }
    }

    /// The topic was made anew: it is read from its beginning, and what it said before holds.
    pub(crate) fn read_anew(&mut self) {
        self.next = 0;
    }

    /// Reads what is new. Blocks.
    pub(crate) fn refresh(&mut self, inspector: &Inspector) -> Result<(), Error> {
        // Made when the first dead letter is resolved.
        if inspector.partitions(&self.topic)?.is_none() {
            return Ok(());
        }
        let extent = match inspector.extents(&self.topic, 1) {
            Ok(extents) => extents[0],
            // Deleted just now.
            Err(error) if error.kind() == ErrorKind::Topology => {
                self.read_anew();
                return Ok(());
            }
            Err(error) => return Err(error),
        };
        if extent.high < self.next {
            *self = Self::new(std::mem::take(&mut self.topic));
        }
        let from = self.next.max(extent.low);
        let markers = &mut self.markers;
        inspector
            .reader
            .read(&self.topic, 0, from..extent.high, |_, marker| {
                if let Some(place) = marker.key.as_ref().and_then(|key| Place::parse(key)) {
                    match marker.payload {
                        Some(identity) => markers.insert(place, identity),
                        None => markers.remove(&place),
                    };
                }
                ControlFlow::Continue(())
            })?;
        self.next = extent.high;
        Ok(())
    }

    /// Whether this dead letter is resolved.
    pub(crate) fn has(&self, place: Place, letter: &Message) -> bool {
        self.markers
            .get(&place)
            .is_some_and(|identity| *identity == dead_letter_id(letter))
    }

    /// How many dead letters of a partition are resolved.
    pub(crate) fn count(&self, partition: i32, extent: Extent) -> u64 {
        let at = |offset| Place { partition, offset };
        self.markers.range(at(extent.low)..at(extent.high)).count() as u64
    }

    /// The markers of dead letters that lie before this offset of a partition.
    pub(crate) fn before(&self, partition: i32, offset: i64) -> Vec<Place> {
        let from = Place { partition, offset: 0 };
        let range = self.markers.range(from..Place { partition, offset });
        range.map(|(place, _)| *place).collect()
    }
}

/// A marker for a dead letter.
pub(crate) fn marker(place: Place, letter: &Message) -> Message {
    Message::new(dead_letter_id(letter)).with_key(place.id())
}

/// Takes a marker away.
pub(crate) fn no_marker(place: Place) -> Message {
    Message {
        key: Some(place.id()),
        ..Message::default()
    }
}
