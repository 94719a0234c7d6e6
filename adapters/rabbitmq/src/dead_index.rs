//! Which entries of a dead-letter stream are dead letters of one group, and which of them are resolved.
//!
//! Nothing is ever taken out of a stream. A replay or purge adds a *mark* that names the dead letter as resolved; marks come
//! by an exchange of their own, so that no listener on the dead-letter topic gets them and no producer writes them.

use std::collections::BTreeMap;

use lapin::types::ShortString;
use postrider_contract::{Bytes, Message, names};

use crate::properties;
use crate::stream::Entry;

/// On a mark: what it says.
pub(crate) const MARK: &str = "postrider-mark";
/// The dead letter whose id is the payload is resolved.
pub(crate) const RESOLVED: &str = "resolved";
/// Everything before this was there when it was written: how a reader knows that it has come to the end.
pub(crate) const END: &str = "end";

/// Whose dead letters are meant.
#[derive(Debug, Clone)]
pub(crate) struct Owner {
    pub(crate) source: String,
    pub(crate) group: String,
    /// The routing key by which the group's queues send what the broker itself gives up.
    pub(crate) given_up: String,
}

impl Owner {
    pub(crate) fn new(source: &str, group: &str) -> Self {
        Self {
            source: source.to_owned(),
            group: group.to_owned(),
            given_up: names::dead_letter_topic(source, group),
        }
    }
}

/// The index, as far as the stream has been read.
#[derive(Debug, Default)]
pub(crate) struct DeadIndex {
    letters: BTreeMap<u64, Letter>,
    next: u64,
    /// The entry that was read last.
    last: Bytes,
}

#[derive(Debug)]
struct Letter {
    id: Bytes,
    resolved: bool,
}

/// What the index knows of an id.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Known {
    Open(u64),
    Resolved,
    Unknown,
}

/// What an entry meant.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Read {
    /// The end mark with this message id.
    End(String),
    Other,
}

impl DeadIndex {
    /// The offset to read on from.
    pub(crate) fn next(&self) -> u64 {
        self.next
    }

    /// Whether this is the entry that was read last, and so the stream still the one that was read.
    pub(crate) fn ends_with(&self, entry: &Entry) -> bool {
        self.last == id(entry)
    }

    pub(crate) fn add(&mut self, owner: &Owner, entry: &Entry) -> Read {
        self.next = entry.offset + 1;
        self.last = id(entry);
        if !entry.is_mark {
            if belongs(owner, entry) {
                let letter = Letter {
                    id: id(entry),
                    resolved: false,
                };
                self.letters.insert(entry.offset, letter);
            }
            return Read::Other;
        }
        match mark(entry) {
            Some(RESOLVED) => {
                if let Known::Open(offset) = self.find(&entry.payload)
                    && let Some(letter) = self.letters.get_mut(&offset)
                {
                    letter.resolved = true;
                }
                Read::Other
            }
            Some(END) => {
                let id = entry.properties.message_id().as_ref().map(ShortString::as_str);
                Read::End(id.unwrap_or_default().to_owned())
            }
            _ => Read::Other,
        }
    }

    pub(crate) fn find(&self, id: &[u8]) -> Known {
        let letter = offset_of(id).and_then(|offset| Some((offset, self.letters.get(&offset)?)));
        match letter {
            Some((_, letter)) if letter.id != id => Known::Unknown,
            Some((_, letter)) if letter.resolved => Known::Resolved,
            Some((offset, _)) => Known::Open(offset),
            None => Known::Unknown,
        }
    }

    /// Marks one as resolved, as its mark in the stream will say.
    pub(crate) fn resolve(&mut self, id: &[u8]) {
        if let Known::Open(offset) = self.find(id)
            && let Some(letter) = self.letters.get_mut(&offset)
        {
            letter.resolved = true;
        }
    }

    /// Keeps no more of what has expired, before the first entry that is kept.
    pub(crate) fn forget_before(&mut self, first: u64) {
        self.letters = self.letters.split_off(&first);
    }

    /// Keeps no more of what is resolved, which then is unknown.
    pub(crate) fn forget_resolved(&mut self) {
        self.letters.retain(|_, letter| !letter.resolved);
    }

    /// Unresolved dead letters behind an offset, oldest first.
    pub(crate) fn open_after(&self, after: Option<u64>) -> impl Iterator<Item = (u64, &Bytes)> {
        let from = after.map_or(0, |offset| offset.saturating_add(1));
        self.letters
            .range(from..)
            .filter(|(_, letter)| !letter.resolved)
            .map(|(offset, letter)| (*offset, &letter.id))
    }

    pub(crate) fn open_count(&self) -> u64 {
        self.open_after(None).count() as u64
    }
}

/// The offset that an id begins with.
pub(crate) fn offset_of(id: &[u8]) -> Option<u64> {
    let (offset, _) = std::str::from_utf8(id).ok()?.split_once('@')?;
    offset.parse().ok()
}

/// An entry as a message.
pub(crate) fn message(entry: &Entry) -> Message {
    properties::inbound(&entry.properties, entry.payload.clone(), false).message
}

/// Offset and message id: the offset finds it, the message id tells it from one in a stream that was made anew.
fn id(entry: &Entry) -> Bytes {
    let message_id = entry
        .properties
        .message_id()
        .as_ref()
        .map_or("", ShortString::as_str);
    Bytes::from(format!("{}@{message_id}", entry.offset))
}

fn mark(entry: &Entry) -> Option<&'static str> {
    let headers = properties::inbound(&entry.properties, Vec::new(), false)
        .message
        .headers;
    match headers.get_str(MARK)? {
        RESOLVED => Some(RESOLVED),
        END => Some(END),
        _ => None,
    }
}

fn belongs(owner: &Owner, entry: &Entry) -> bool {
    // What else it says of itself it may have from a former time. Where it died first does not tell whose it is: a retry has
    // passed through the ladder before.
    if properties::was_given_up(&entry.properties) {
        return entry.routing_key.as_str() == owner.given_up;
    }
    let headers = properties::inbound(&entry.properties, Vec::new(), false)
        .message
        .headers;
    headers.get_str(names::DEAD_TOPIC) == Some(&*owner.source)
        && headers.get_str(names::DEAD_GROUP) == Some(&*owner.group)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn owner() -> Owner {
        Owner::new("t", "g")
    }

    fn entry(offset: u64, message: &Message, is_mark: bool) -> Entry {
        Entry {
            offset,
            is_mark,
            routing_key: "t.g.dlq".into(),
            properties: properties::outbound(message, true).unwrap(),
            payload: message.payload.clone().unwrap_or_default().to_vec(),
        }
    }

    fn dead(group: &str) -> Message {
        Message::new("x")
            .with_header(names::MESSAGE_ID, "m")
            .with_header(names::DEAD_TOPIC, "t")
            .with_header(names::DEAD_GROUP, group)
    }

    fn resolved(id: &str) -> Message {
        Message::new(id.to_owned()).with_header(MARK, RESOLVED)
    }

    #[test]
    fn marks_resolve_and_others_are_not_seen() {
        let mut index = DeadIndex::default();
        let owner = owner();
        index.add(&owner, &entry(5, &dead("g"), false));
        index.add(&owner, &entry(6, &dead("other"), false));
        index.add(&owner, &entry(7, &dead("g"), false));
        index.add(&owner, &entry(8, &resolved("5@m"), true));
        // Published to the topic by somebody who knows how a mark looks.
        index.add(&owner, &entry(9, &resolved("7@m"), false));
        // An id of a former stream.
        index.add(&owner, &entry(10, &resolved("7@former"), true));
        let open: Vec<u64> = index.open_after(None).map(|(offset, _)| offset).collect();
        assert_eq!(open, [7]);
        assert_eq!(index.find(b"5@m"), Known::Resolved);
        assert_eq!(index.find(b"7@m"), Known::Open(7));
        assert_eq!(index.find(b"7@former"), Known::Unknown);
        assert_eq!(index.find(b"nonsense"), Known::Unknown);
        assert_eq!(index.open_after(Some(7)).count(), 0);
        assert_eq!(index.next(), 11);
    }

    #[test]
    fn what_is_resolved_can_be_forgotten() {
        const MANY: u64 = 1_000;
        let mut index = DeadIndex::default();
        for offset in 0..MANY {
            index.add(&owner(), &entry(offset, &dead("g"), false));
        }
        for offset in 0..MANY {
            let mark = resolved(&format!("{offset}@m"));
            index.add(&owner(), &entry(MANY + offset, &mark, true));
        }
        index.add(&owner(), &entry(2 * MANY, &dead("g"), false));
        index.forget_resolved();
        assert_eq!((index.letters.len(), index.open_count()), (1, 1));
        assert_eq!(index.next(), 2 * MANY + 1);
    }

    #[test]
    fn the_end_is_a_mark() {
        let mut index = DeadIndex::default();
        let end = Message::new("")
            .with_header(MARK, END)
            .with_header(names::MESSAGE_ID, "e1");
        assert_eq!(index.add(&owner(), &entry(0, &end, true)), Read::End("e1".into()));
        assert_eq!(index.add(&owner(), &entry(1, &end, false)), Read::Other);
    }

    /// Ids from a user, and marks from whoever may publish: only the id of a letter that lies there names it.
    #[test]
    fn only_its_own_id_names_a_letter() {
        bolero::check!()
            .with_type::<(String, Vec<u8>)>()
            .for_each(|(text, bytes)| {
                let mut index = DeadIndex::default();
                index.add(&owner(), &entry(5, &dead("g"), false));
                for id in [
                    text.as_bytes(),
                    bytes,
                    format!("5@{text}").as_bytes(),
                    format!("{text}@m").as_bytes(),
                ] {
                    let expected = if id == b"5@m" {
                        Known::Open(5)
                    } else {
                        Known::Unknown
                    };
                    assert_eq!(index.find(id), expected);
                    if id != b"5@m" {
                        index.resolve(id);
                        let mark = Message::new(id.to_vec()).with_header(MARK, RESOLVED);
                        index.add(&owner(), &entry(6, &mark, true));
                    }
                }
                assert_eq!(index.open_count(), 1);
            });
    }
}
