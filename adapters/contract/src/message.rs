use crate::{Bytes, Headers};

/// What travels: a partition key, headers and a payload. The topic is part of the address, not of the message.
///
/// The standard properties (message id, content type, correlation id, reply-to, timestamp…) are headers under the names
/// in [`names`](crate::names); an adapter moves each to the broker's own property where it has one.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Message {
    /// The ordering key.
    pub key: Option<Bytes>,
    /// Names and values.
    pub headers: Headers,
    /// The content, byte for byte. `None` is a tombstone (a deletion in a compacted Kafka topic); brokers without
    /// tombstones carry it as an empty payload.
    pub payload: Option<Bytes>,
}

impl Message {
    /// A message with this payload, without key or headers.
    pub fn new(payload: impl Into<Bytes>) -> Self {
        Self {
            payload: Some(payload.into()),
            ..Self::default()
        }
    }

    /// The same with this ordering key.
    pub fn with_key(mut self, key: impl Into<Bytes>) -> Self {
        self.key = Some(key.into());
        self
    }

    /// The same with this header, which replaces others of its name.
    pub fn with_header(mut self, name: impl Into<crate::ByteString>, value: impl Into<crate::Value>) -> Self {
        self.headers.set(name, value);
        self
    }

    /// About how many bytes it takes on the wire.
    pub fn size(&self) -> usize {
        self.payload.as_ref().map_or(0, Bytes::len)
            + self.key.as_ref().map_or(0, Bytes::len)
            + self.headers.size()
    }

    /// The payload's length in bytes.
    pub fn payload_size(&self) -> usize {
        self.payload.as_ref().map_or(0, Bytes::len)
    }
}
