//! Looks at dead letters, sends them back, or takes them out.
//!
//! A dead letter never moves: its topic is only read. What is replayed or purged is marked in a topic beside it, and what
//! is marked at the beginning of the topic is deleted, as far as every group that listens to the dead letters has got.

mod resolved;
mod trims;

use std::collections::BTreeMap;
use std::ops::ControlFlow;
use std::sync::{Arc, Mutex};

use postrider_contract::{
    Bytes, DeadLetter, DeadLetters, Error, ErrorKind, Message, Outgoing, async_trait, names, replay_copy,
};
use rdkafka::TopicPartitionList;
use rdkafka::topic_partition_list::Offset;

pub(crate) use self::resolved::Resolved;
use self::resolved::{marker, no_marker};
pub(crate) use self::trims::Resolving;
use crate::failure::failure;
use crate::inspector::{Extent, Inspector, blocking, committed};
use crate::lock::lock;
use crate::naming::{Purpose, of_retry_topic, resolved_topic};
use crate::options::Settings;
use crate::outbox::Outbox;
use crate::publisher::Parcel;
use crate::topics::delete_records;

/// Where a dead letter lies; as text it is its id.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Place {
    pub(crate) partition: i32,
    pub(crate) offset: i64,
}

impl Place {
    fn id(self) -> Bytes {
        format!("{}:{}", self.partition, self.offset).into()
    }

    fn parse(id: &[u8]) -> Option<Self> {
        let (partition, offset) = std::str::from_utf8(id).ok()?.split_once(':')?;
        let place = Self {
            partition: partition.parse().ok()?,
            offset: offset.parse().ok()?,
        };
        (place.partition >= 0 && place.offset >= 0).then_some(place)
    }
}

/// What is done with a dead letter.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Resolve {
    Replay,
    Purge,
}

/// The dead letters of one group on one topic.
#[derive(Clone)]
pub(crate) struct Letters {
    pub(crate) settings: Settings,
    pub(crate) inspector: Inspector,
    pub(crate) outbox: Arc<Outbox>,
    pub(crate) resolving: Arc<Resolving>,
    topic: Arc<str>,
    source: Arc<str>,
    group: Arc<str>,
    resolved: Arc<Mutex<Resolved>>,
}

impl Letters {
    pub(crate) fn new(
        settings: &Settings,
        inspector: &Inspector,
        outbox: &Arc<Outbox>,
        resolving: &Arc<Resolving>,
        (topic, source, group): (&str, &str, &str),
    ) -> Self {
        Self {
            settings: settings.clone(),
            inspector: inspector.clone(),
            outbox: outbox.clone(),
            resolving: resolving.clone(),
            topic: topic.into(),
            source: source.into(),
            group: group.into(),
            resolved: Arc::new(Mutex::new(Resolved::new(resolved_topic(topic)))),
        }
    }

    fn is_ours(&self, letter: &Message) -> bool {
        letter.headers.get_str(names::DEAD_TOPIC) == Some(&self.source)
            && letter.headers.get_str(names::DEAD_GROUP) == Some(&self.group)
    }

    /// What each partition holds; empty: there is no such topic, so there are no dead letters. Blocks.
    fn extents(&self) -> Result<Vec<Extent>, Error> {
        match self.inspector.partitions(&self.topic)? {
            Some(partitions) => self.inspector.extents(&self.topic, partitions),
            None => Ok(Vec::new()),
        }
    }

    fn look(&self, after: Option<Place>, max: usize) -> Result<Vec<DeadLetter>, Error> {
        let mut found = Vec::new();
        if max == 0 {
            return Ok(found);
        }
        let mut resolved = lock(&self.resolved);
        resolved.refresh(&self.inspector)?;
        for (partition, extent) in (0..).zip(self.extents()?) {
            let from = match after {
                Some(after) if after.partition > partition => continue,
                Some(after) if after.partition == partition => extent.low.max(after.offset + 1),
                _ => extent.low,
            };
            self.inspector
                .reader
                .read(&self.topic, partition, from..extent.high, |offset, message| {
                    let place = Place { partition, offset };
                    if self.is_ours(&message) && !resolved.has(place, &message) {
                        let id = place.id();
                        found.push(DeadLetter { id, message });
                    }
                    if found.len() < max {
                        ControlFlow::Continue(())
                    } else {
                        ControlFlow::Break(())
                    }
                })?;
            if found.len() >= max {
                break;
            }
        }
        Ok(found)
    }

    /// The dead letters at these places that are there and not resolved. Blocks.
    fn fetch(&self, places: &[Place]) -> Result<BTreeMap<Place, Message>, Error> {
        let mut resolved = lock(&self.resolved);
        resolved.refresh(&self.inspector)?;
        let mut found = BTreeMap::new();
        for (partition, extent) in (0..).zip(self.extents()?) {
            let mut wanted: Vec<i64> = places
                .iter()
                .filter(|place| {
                    place.partition == partition && place.offset >= extent.low && place.offset < extent.high
                })
                .map(|place| place.offset)
                .collect();
            wanted.sort_unstable();
            let (Some(&first), Some(&last)) = (wanted.first(), wanted.last()) else {
                continue;
            };
            self.inspector
                .reader
                .read(&self.topic, partition, first..last + 1, |offset, message| {
                    let place = Place { partition, offset };
                    if wanted.binary_search(&offset).is_ok() && !resolved.has(place, &message) {
                        found.insert(place, message);
                    }
                    ControlFlow::Continue(())
                })?;
        }
        Ok(found)
    }

    async fn resolve(&self, ids: &[Bytes], how: Resolve) -> Vec<Result<(), Error>> {
        let resolving = self.resolving.clone();
        let mut trims = resolving.lock().await;
        let places: Vec<_> = ids.iter().map(|id| Place::parse(id)).collect();
        let fetched = blocking({
            let (letters, places) = (self.clone(), places.iter().flatten().copied().collect::<Vec<_>>());
            move || letters.fetch(&places)
        });
        let mut letters = match fetched.await {
            Ok(letters) => letters,
            Err(error) => return ids.iter().map(|_| Err(error.clone())).collect(),
        };
        let strangers: Vec<Place> = letters
            .iter()
            .filter(|(_, letter)| !self.is_ours(letter))
            .map(|(place, _)| *place)
            .collect();
        letters.retain(|place, _| !strangers.contains(place));
        let letters: Vec<(Place, Message)> = letters.into_iter().collect();
        let mut failed = self.carry_out(&letters, how).await;
        if trims.begin(&self.topic, (&self.source, &self.group)) {
            self.trim().await;
        }
        for place in strangers {
            let text = format!(
                "dead letter {}:{} belongs to another group",
                place.partition, place.offset
            );
            failed.insert(place, Error::new(ErrorKind::Rejected, text));
        }
        places
            .into_iter()
            .map(|place| match place {
                None => Err(Error::new(
                    ErrorKind::Rejected,
                    "this is no id of a dead letter: browse lists them",
                )),
                // What is not there is resolved already.
                Some(place) => failed.get(&place).map_or(Ok(()), |error| Err(error.clone())),
            })
            .collect()
    }

    /// Answers what failed.
    async fn carry_out(&self, letters: &[(Place, Message)], how: Resolve) -> BTreeMap<Place, Error> {
        let mut failed = BTreeMap::new();
        let mut done: Vec<&(Place, Message)> = Vec::new();
        let copies: Vec<Outgoing> = match how {
            Resolve::Replay => letters.iter().map(|(_, letter)| self.replayed(letter)).collect(),
            Resolve::Purge => Vec::new(),
        };
        let sent = self.outbox.send(copies.iter().collect()).await;
        let mut sent = sent.into_iter();
        for letter in letters {
            match sent.next() {
                Some(Err(error)) => {
                    failed.insert(letter.0, error);
                }
                Some(Ok(())) | None => done.push(letter),
            }
        }
        let markers: Vec<Message> = done
            .iter()
            .map(|(place, letter)| marker(*place, letter))
            .collect();
        for ((place, _), marked) in done.into_iter().zip(self.mark(&markers).await) {
            if let Err(error) = marked {
                failed.insert(*place, error);
            }
        }
        failed
    }

    fn replayed(&self, letter: &Message) -> Outgoing {
        Outgoing::to_inbox(self.source.clone(), self.group.clone(), replay_copy(letter))
    }

    async fn mark(&self, markers: &[Message]) -> Vec<Result<(), Error>> {
        if markers.is_empty() {
            return Vec::new();
        }
        let topic = resolved_topic(&self.topic);
        if let Err(error) = self.outbox.topics.ensure(&topic, Purpose::Resolved).await {
            return markers.iter().map(|_| Err(error.clone())).collect();
        }
        let parcels: Vec<_> = markers
            .iter()
            .map(|message| Parcel {
                topic: &topic,
                partition: Some(0),
                not_before: None,
                message,
            })
            .collect();
        let answers = self.outbox.publisher.send(&parcels).await;
        let is_gone = |answer: &Result<(), Error>| {
            answer
                .as_ref()
                .is_err_and(|error| error.kind() == ErrorKind::Topology)
        };
        if !answers.iter().any(is_gone) {
            return answers;
        }
        // Nothing is lost by a mark that is there twice.
        self.outbox.make_topic_again(&topic, Purpose::Resolved).await;
        lock(&self.resolved).read_anew();
        self.outbox.publisher.send(&parcels).await
    }

    /// Deletes the resolved beginning of the topic, and the markers that it needed. What fails is tried the next time.
    pub(crate) async fn trim(&self) {
        let letters = self.clone();
        let plan = blocking(move || letters.resolved_beginning()).await;
        let mut places = Vec::new();
        let deleted = match plan {
            Ok(list) if list.count() > 0 => {
                let done =
                    |_: &str, partition, low| places.extend(lock(&self.resolved).before(partition, low));
                delete_records(&self.settings, "deleting resolved dead letters", &list, done).await
            }
            Ok(_) => return,
            Err(error) => Err(error),
        };
        match deleted {
            Err(error) if error.kind() == ErrorKind::Denied => {
                tracing::warn!(topic = &*self.topic, %error, "resolved dead letters may not be deleted, and stay");
            }
            Err(error) => {
                tracing::debug!(topic = &*self.topic, %error, "resolved dead letters could not be deleted");
            }
            Ok(()) => {}
        }
        let _ = self
            .mark(&places.into_iter().map(no_marker).collect::<Vec<_>>())
            .await;
    }

    /// Up to where each partition is resolved and has been seen by every group that listens to it. Blocks.
    fn resolved_beginning(&self) -> Result<TopicPartitionList, Error> {
        let extents = self.extents()?;
        let listeners = self.listeners(extents.len() as i32)?;
        let mut resolved = lock(&self.resolved);
        resolved.refresh(&self.inspector)?;
        let mut list = TopicPartitionList::new();
        for (partition, extent) in (0..).zip(extents) {
            let seen = |positions: &Vec<Option<i64>>| {
                positions.get(partition as usize).copied().flatten().unwrap_or(0)
            };
            let limit = listeners.iter().map(seen).fold(extent.high, i64::min);
            let mut end = extent.low;
            self.inspector
                .reader
                .read(&self.topic, partition, extent.low..limit, |offset, letter| {
                    if resolved.has(Place { partition, offset }, &letter) {
                        end = offset + 1;
                        ControlFlow::Continue(())
                    } else {
                        ControlFlow::Break(())
                    }
                })?;
            if end > extent.low {
                list.add_partition_offset(&self.topic, partition, Offset::Offset(end))
                    .map_err(|error| failure("deleting resolved dead letters", &error))?;
            }
        }
        Ok(list)
    }

    /// The positions of every group that listens to the dead letters: each has a retry topic of its own. Blocks.
    fn listeners(&self, partitions: i32) -> Result<Vec<Vec<Option<i64>>>, Error> {
        let mut listeners = Vec::new();
        for topic in self.inspector.topics()? {
            let listener = of_retry_topic(&topic).filter(|(source, _)| *source == &*self.topic);
            if let Some((_, group)) = listener {
                let positions = committed(&self.settings, group, &self.topic, partitions)?;
                listeners.push(
                    positions
                        .into_iter()
                        .map(|position| position.map(|(offset, _)| offset))
                        .collect(),
                );
            }
        }
        Ok(listeners)
    }
}

#[async_trait]
impl DeadLetters for Letters {
    async fn browse(&mut self, after: Option<&Bytes>, max: usize) -> Result<Vec<DeadLetter>, Error> {
        let after = match after {
            Some(id) => match Place::parse(id) {
                Some(place) => Some(place),
                None => {
                    let text = "the cursor is no id of a dead letter: use one that browse listed";
                    return Err(Error::new(ErrorKind::Rejected, text));
                }
            },
            None => None,
        };
        let letters = self.clone();
        blocking(move || letters.look(after, max)).await
    }

    async fn replay(&mut self, ids: &[Bytes]) -> Vec<Result<(), Error>> {
        self.resolve(ids, Resolve::Replay).await
    }

    async fn purge(&mut self, ids: &[Bytes]) -> Vec<Result<(), Error>> {
        self.resolve(ids, Resolve::Purge).await
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ids() {
        let place = Place {
            partition: 3,
            offset: 41,
        };
        assert_eq!(Place::parse(&place.id()), Some(place));
        for bad in ["", "3", "3:", ":4", "-1:4", "3:-4", "3:4:5", "x:y"] {
            assert_eq!(Place::parse(bad.as_bytes()), None, "{bad}");
        }
    }
}
