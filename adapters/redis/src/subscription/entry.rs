use std::fmt;
use std::str::FromStr;
use std::sync::Arc;

use postrider_contract::{Bytes, Delivery, Message, Origin, Position, Token, return_path};
use redis::{RedisWrite, ToRedisArgs, Value};

use crate::fields::{self, bytes};

/// Which of a subscription's two streams.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(crate) enum Stream {
    Topic,
    Inbox,
}

/// A stream entry's id.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Default)]
pub(crate) struct EntryId {
    pub(crate) time: u64,
    pub(crate) sequence: u64,
}

impl fmt::Display for EntryId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}-{}", self.time, self.sequence)
    }
}

impl ToRedisArgs for EntryId {
    fn write_redis_args<W: RedisWrite + ?Sized>(&self, out: &mut W) {
        out.write_arg_fmt(self);
    }
}

impl FromStr for EntryId {
    type Err = std::num::ParseIntError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let (time, sequence) = text.split_once('-').unwrap_or((text, "0"));
        Ok(Self {
            time: time.parse()?,
            sequence: sequence.parse()?,
        })
    }
}

/// A stream entry that is pending for this consumer.
#[derive(Debug, Clone)]
pub(crate) struct Entry {
    pub(crate) stream: Stream,
    pub(crate) id: EntryId,
    /// How often the server has delivered it.
    pub(crate) delivered: u32,
    /// How often it was handed out here and released.
    pub(crate) released: u32,
    /// It was deleted on the server: this is all that there is.
    pub(crate) orphaned: bool,
    pub(crate) origin: Origin,
    pub(crate) message: Message,
}

impl Entry {
    /// Which stream, and where in it.
    pub(crate) fn place(&self) -> (Stream, EntryId) {
        (self.stream, self.id)
    }

    /// As it is handed out under this token.
    pub(crate) fn delivery(&self, token: Token, topic: &Arc<str>, counted: bool) -> Delivery {
        Delivery {
            token,
            origin: self.origin,
            redeliveries: counted.then(|| self.delivered.saturating_sub(1).saturating_add(self.released)),
            topic: Arc::clone(topic),
            position: Position {
                partition: None,
                offset: self.id.time,
                minor: Some(self.id.sequence),
            },
            message: self.message.clone(),
        }
    }

    /// An entry as the server writes it: an id, and names and values in turn. `None` if it is something else, such as an
    /// entry that was deleted.
    pub(crate) fn read(stream: Stream, value: Value, delivered: u32) -> Option<Self> {
        let Value::Array(parts) = value else { return None };
        let mut parts = parts.into_iter();
        let id = entry_id(parts.next()?)?;
        let Value::Array(names_and_values) = parts.next()? else {
            return None;
        };
        let decoded = fields::decode(names_and_values);
        let origin = match stream {
            Stream::Inbox if !decoded.first => return_path(&decoded.message),
            _ => Origin::Topic,
        };
        Some(Self {
            stream,
            id,
            delivered,
            released: 0,
            orphaned: false,
            origin,
            message: decoded.message,
        })
    }
}

/// A reply as an id.
pub(crate) fn entry_id(value: Value) -> Option<EntryId> {
    let id: Bytes = bytes(value)?;
    std::str::from_utf8(&id).ok()?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ids() {
        let id: EntryId = "1700000000000-18446744073709551615".parse().unwrap();
        assert_eq!(id.to_string(), "1700000000000-18446744073709551615");
        assert!("5".parse::<EntryId>().unwrap() < id);
        for bad in ["", "a-1", "1-", "1-2-3", "$"] {
            assert!(bad.parse::<EntryId>().is_err(), "{bad}");
        }
    }

    #[test]
    fn only_the_inbox_is_a_return_path() {
        let text = |text: &str| Value::BulkString(text.into());
        let value = |names: &[&str]| {
            Value::Array(vec![
                text("1-0"),
                Value::Array(names.iter().map(|name| text(name)).collect()),
            ])
        };
        let spoofed = value(&["postrider-attempt", "4", "payload", "x"]);
        let origin = |stream, value| Entry::read(stream, value, 1).unwrap().origin;
        assert_eq!(origin(Stream::Topic, spoofed.clone()), Origin::Topic);
        assert_eq!(
            origin(Stream::Inbox, spoofed),
            Origin::ReturnPath {
                attempt: 4,
                replays: 0
            }
        );
        let first = value(&[":first", "1", "postrider-attempt", "4", "payload", "x"]);
        assert_eq!(origin(Stream::Inbox, first), Origin::Topic);
        assert!(Entry::read(Stream::Topic, Value::Array(vec![text("1-0"), Value::Nil]), 1).is_none());
    }

    #[test]
    fn ids_round_trip_and_others_are_none() {
        bolero::check!()
            .with_type::<(u64, u64)>()
            .for_each(|&(time, sequence)| {
                let id = EntryId { time, sequence };
                assert_eq!(id.to_string().parse(), Ok(id));
            });
    }

    /// A hostile entry is a message or no entry, and comes by the return path from an inbox alone.
    #[test]
    fn entries_of_anybody() {
        bolero::check!()
            .with_type::<(Vec<u8>, Vec<Vec<u8>>)>()
            .for_each(|(id, texts)| {
                let text = |text: &Vec<u8>| Value::BulkString(text.clone());
                let entry = |stream| {
                    let value = Value::Array(vec![text(id), Value::Array(texts.iter().map(text).collect())]);
                    Entry::read(stream, value, 1)
                };
                let known = std::str::from_utf8(id).ok().and_then(|id| id.parse().ok());
                assert_eq!(entry(Stream::Topic).map(|entry| entry.id), known);
                assert!(entry(Stream::Topic).is_none_or(|entry| entry.origin == Origin::Topic));
                assert!(entry(Stream::Inbox).is_none_or(|entry| entry.message.payload.is_some()));
            });
    }
}
