//! Messages as Kafka's records and back.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use bytes::BytesMut;
use postrider_contract::{ByteString, Bytes, Error, ErrorKind, Headers, Message, Value, names};
use rdkafka::message::{BorrowedHeaders, Header, Headers as _, OwnedHeaders};

use crate::naming::NOT_BEFORE;

/// How far ahead of our clock a record's timestamp may be; brokers refuse more than an hour by default.
const CLOCK_SKEW: Duration = Duration::from_secs(600);
const CHUNK: usize = 32 * 1024;
const SMALL: usize = 4 * 1024;

/// Copies small pieces side by side into chunks, so that a message costs no allocation for each of its parts.
#[derive(Default)]
pub(crate) struct Arena {
    chunk: BytesMut,
    /// The headers of the message that is being read.
    entries: Vec<(ByteString, Value)>,
}

impl Arena {
    /// The next pieces go into another chunk. What is handed to another thread is let go there: pieces of one chunk that
    /// are copied and let go at the same time cost both threads the same cache line.
    pub(crate) fn turn_over(&mut self) {
        self.chunk = BytesMut::new();
    }

    /// A copy that lives as long as it is needed; a chunk goes when the last of its pieces does.
    pub(crate) fn copy(&mut self, bytes: &[u8]) -> Bytes {
        if bytes.len() > SMALL {
            return Bytes::copy_from_slice(bytes);
        }
        if self.chunk.capacity() < bytes.len() {
            self.chunk = BytesMut::with_capacity(CHUNK);
        }
        self.chunk.extend_from_slice(bytes);
        self.chunk.split().freeze()
    }

    fn text(&mut self, text: &str) -> ByteString {
        ByteString::try_from(self.copy(text.as_bytes())).unwrap_or_default()
    }
}

/// A received record.
pub(crate) struct Inbound {
    /// As the runtime sees it.
    pub(crate) message: Message,
    /// From the return path: when it is due.
    pub(crate) not_before: Option<SystemTime>,
}

/// Reads a record. `return_path`: it is known to come from a group's retry topic, so that its due time counts.
pub(crate) fn inbound(record: &impl Record, arena: &mut Arena, return_path: bool) -> Inbound {
    let mut entries = std::mem::take(&mut arena.entries);
    read_headers(record.headers(), arena, &mut entries);
    let mut not_before = None;
    if return_path {
        entries.retain(|(name, value)| {
            let due = &**name == NOT_BEFORE;
            if due {
                not_before = value.as_i64().and_then(|millis| u64::try_from(millis).ok());
            }
            !due
        });
    }
    if let Some(timestamp) = record.timestamp() {
        entries.push((ByteString::from_static(names::TIMESTAMP), Value::Int(timestamp)));
    }
    let message = Message {
        key: record.key().map(|key| arena.copy(key)),
        payload: record.payload().map(|payload| arena.copy(payload)),
        headers: Headers::take_from(&mut entries),
    };
    arena.entries = entries;
    let not_before = not_before.and_then(|millis| UNIX_EPOCH.checked_add(Duration::from_millis(millis)));
    Inbound { message, not_before }
}

/// What is read of a record: rdkafka's own trait carries an unsafe function.
pub(crate) trait Record {
    /// The partition key.
    fn key(&self) -> Option<&[u8]>;
    /// The payload; none is a tombstone.
    fn payload(&self) -> Option<&[u8]>;
    /// Milliseconds since 1970.
    fn timestamp(&self) -> Option<i64>;
    /// The headers.
    fn headers(&self) -> Option<&BorrowedHeaders>;
}

impl Record for rdkafka::message::BorrowedMessage<'_> {
    fn key(&self) -> Option<&[u8]> {
        rdkafka::Message::key(self)
    }

    fn payload(&self) -> Option<&[u8]> {
        rdkafka::Message::payload(self)
    }

    fn timestamp(&self) -> Option<i64> {
        rdkafka::Message::timestamp(self)
            .to_millis()
            .filter(|&millis| millis >= 0)
    }

    fn headers(&self) -> Option<&BorrowedHeaders> {
        rdkafka::Message::headers(self)
    }
}

fn read_headers(
    headers: Option<&BorrowedHeaders>,
    arena: &mut Arena,
    entries: &mut Vec<(ByteString, Value)>,
) {
    let Some(headers) = headers else {
        return;
    };
    for index in 0..headers.count() {
        // rdkafka panics on a name that is not UTF-8, which any producer can send.
        match catch_unwind(AssertUnwindSafe(|| headers.try_get(index))) {
            Ok(Some(header)) => {
                let name = name(header.key, arena);
                let value = value(&name, header.value, arena);
                entries.push((name, value));
            }
            Ok(None) => {}
            Err(_) => {
                let name = format!("{}unreadable-header-{index}", names::ORIGINAL_PREFIX);
                entries.push((name.into(), Value::Null));
            }
        }
    }
}

fn name(name: &str, arena: &mut Arena) -> ByteString {
    const USUAL: [&str; 6] = [
        names::MESSAGE_ID,
        names::CONTENT_TYPE,
        names::CORRELATION_ID,
        names::TRACEPARENT,
        names::SCHEMA_VERSION,
        names::REPLY_TO,
    ];
    match USUAL.iter().find(|usual| **usual == name) {
        Some(usual) => ByteString::from_static(usual),
        None => arena.text(name),
    }
}

fn value(name: &str, bytes: Option<&[u8]>, arena: &mut Arena) -> Value {
    const JSON: &str = "application/json";
    let Some(bytes) = bytes else {
        return Value::Null;
    };
    // What most messages are is not copied each time.
    if name == names::CONTENT_TYPE && bytes == JSON.as_bytes() {
        return Value::Text(ByteString::from_static(JSON));
    }
    // Seldom not text: then it is copied again, so that text is looked through once.
    match ByteString::try_from(arena.copy(bytes)) {
        Ok(text) => Value::Text(text),
        Err(_) => Value::Bytes(arena.copy(bytes)),
    }
}

/// The headers of a record to be sent, and its timestamp.
pub(crate) struct Outbound {
    /// `None`: there are none.
    pub(crate) headers: Option<OwnedHeaders>,
    /// `None`: now.
    pub(crate) timestamp: Option<i64>,
}

/// Takes a message apart for sending at this time.
///
/// # Errors
/// A header's name that Kafka's clients cannot read.
pub(crate) fn outbound(
    headers: &Headers,
    not_before: Option<SystemTime>,
    now: SystemTime,
) -> Result<Outbound, Error> {
    let (mut timestamp, mut stated) = (None, false);
    let mut sent = OwnedHeaders::new_with_capacity(headers.len() + 1);
    for (name, value) in headers.iter() {
        if name.contains('\0') {
            return Err(Error::new(
                ErrorKind::Rejected,
                "a header's name contains a NUL character, which ends it for Kafka's clients",
            ));
        }
        if name == names::TIMESTAMP {
            match value {
                // Ours: what others send is text or bytes, and may be in seconds.
                Value::Int(millis) if timestamp.is_none() && plausible(*millis, now) => {
                    timestamp = Some(*millis);
                    continue;
                }
                // One that the record's own timestamp cannot carry stays a header, and each copy adds no other.
                Value::Int(_) if stated => continue,
                _ => stated = true,
            }
        }
        let made;
        let bytes: Option<&[u8]> = match value {
            Value::Null => None,
            Value::Text(text) => Some(text.as_bytes()),
            other => {
                made = other.to_bytes();
                Some(&made)
            }
        };
        sent = sent.insert(Header {
            key: name,
            value: bytes,
        });
    }
    if let Some(time) = not_before {
        let due = millis_up(time).to_string();
        sent = sent.insert(Header {
            key: NOT_BEFORE,
            value: Some(due.as_bytes()),
        });
    }
    let headers = (sent.count() > 0).then_some(sent);
    Ok(Outbound { headers, timestamp })
}

fn plausible(millis: i64, now: SystemTime) -> bool {
    let latest = now + CLOCK_SKEW;
    millis > 0 && UNIX_EPOCH + Duration::from_millis(millis.unsigned_abs()) <= latest
}

/// Milliseconds since 1970, rounded up: never early.
fn millis_up(time: SystemTime) -> u64 {
    let since = time.duration_since(UNIX_EPOCH).unwrap_or_default();
    since.as_nanos().div_ceil(1_000_000) as u64
}

#[cfg(test)]
mod tests {
    use super::*;

    fn outbound(headers: &Headers, not_before: Option<SystemTime>) -> Result<Outbound, Error> {
        super::outbound(headers, not_before, SystemTime::now())
    }

    #[test]
    fn pieces_share_a_chunk() {
        let mut arena = Arena::default();
        let one = arena.copy(b"one");
        let two = arena.copy(b"two");
        assert_eq!((&one[..], &two[..]), (&b"one"[..], &b"two"[..]));
        assert_eq!(two.as_ptr() as usize - one.as_ptr() as usize, 3);
        assert_eq!(arena.copy(&vec![7; 100_000]).len(), 100_000);
        assert!(arena.copy(b"").is_empty());
    }

    #[test]
    fn timestamps_that_brokers_refuse_stay_headers() {
        let with = |value: Value| {
            let mut headers = Headers::new();
            headers.set(names::TIMESTAMP, value);
            outbound(&headers, None).unwrap()
        };
        assert_eq!(
            with(Value::Int(1_700_000_000_000)).timestamp,
            Some(1_700_000_000_000)
        );
        assert!(with(Value::Int(1_700_000_000_000)).headers.is_none());
        for odd in [
            Value::Int(-1),
            Value::Int(i64::MAX),
            Value::from("yesterday"),
            Value::Null,
        ] {
            let sent = with(odd);
            assert_eq!(sent.timestamp, None);
            assert_eq!(sent.headers.unwrap().count(), 1);
        }
    }

    #[test]
    fn foreign_headers_are_no_timestamps() {
        let foreign = Value::from("1732268187");
        let mut headers = Headers::new();
        headers.append(names::TIMESTAMP, foreign.clone());
        headers.append(names::TIMESTAMP, 1_700_000_000_000i64);
        let sent = outbound(&headers, None).unwrap();
        assert_eq!(sent.timestamp, Some(1_700_000_000_000));
        let record = Received {
            key: None,
            payload: None,
            sent,
        };
        let back = inbound(&record, &mut Arena::default(), false);
        assert_eq!(back.message.headers, headers);
        // What cannot be carried is not added to what former copies hold.
        headers.set(names::TIMESTAMP, foreign);
        headers.append(names::TIMESTAMP, i64::MAX);
        let sent = outbound(&headers, None).unwrap();
        assert_eq!(sent.timestamp, None);
        assert_eq!(sent.headers.unwrap().count(), 1);
    }

    #[test]
    fn values_keep_their_bytes() {
        let mut headers = Headers::new();
        headers.append("a", Bytes::from_static(b"\xff\x00"));
        headers.append("a", Value::Null);
        headers.append("a", "");
        headers.append("n", 12i64);
        let sent = outbound(&headers, None).unwrap().headers.unwrap();
        let values: Vec<_> = sent
            .iter()
            .map(|header| header.value.map(<[u8]>::to_vec))
            .collect();
        assert_eq!(
            values,
            [Some(vec![255, 0]), None, Some(vec![]), Some(b"12".to_vec())]
        );
        headers.set("b\0", "x");
        assert!(outbound(&headers, None).is_err());
    }

    #[test]
    fn due_times_round_up() {
        let time = UNIX_EPOCH + Duration::from_nanos(1_000_001);
        assert_eq!(millis_up(time), 2);
    }

    /// A record as the broker hands it out.
    struct Received {
        key: Option<Vec<u8>>,
        payload: Option<Vec<u8>>,
        sent: Outbound,
    }

    impl Record for Received {
        fn key(&self) -> Option<&[u8]> {
            self.key.as_deref()
        }

        fn payload(&self) -> Option<&[u8]> {
            self.payload.as_deref()
        }

        fn timestamp(&self) -> Option<i64> {
            self.sent.timestamp
        }

        fn headers(&self) -> Option<&BorrowedHeaders> {
            self.sent.headers.as_ref().map(OwnedHeaders::as_borrowed)
        }
    }

    type Sent = (
        Option<Vec<u8>>,
        Option<Vec<u8>>,
        Vec<(u8, String, Option<Vec<u8>>)>,
        Option<u32>,
    );

    /// Whatever is sent is received: key, payload, time and every header in its order, also those that mean something on the
    /// return path, where they are not on it.
    #[test]
    fn any_message_comes_back() {
        const NAMES: [&str; 5] = [
            "",
            names::MESSAGE_ID,
            names::TIMESTAMP,
            NOT_BEFORE,
            names::ATTEMPT,
        ];
        bolero::check!()
            .with_type::<Sent>()
            .for_each(|(key, payload, parts, time)| {
                let entries = parts.iter().map(|(which, name, said)| {
                    let name = format!(
                        "{}{}",
                        NAMES[usize::from(*which) % NAMES.len()],
                        name.replace('\0', "")
                    );
                    let mut arena = Arena::default();
                    let value = value(&name, said.as_deref(), &mut arena);
                    (ByteString::from(name), value)
                });
                let mut headers: Headers = entries.collect();
                let time = time.map(i64::from).filter(|&time| time > 0);
                if let Some(time) = time {
                    headers.append(names::TIMESTAMP, time);
                }
                let sent = outbound(&headers, None).unwrap();
                assert_eq!(sent.timestamp, time);
                let record = Received {
                    key: key.clone(),
                    payload: payload.clone(),
                    sent,
                };
                let back = inbound(&record, &mut Arena::default(), false);
                assert_eq!(back.not_before, None);
                assert_eq!(back.message.key.as_deref(), key.as_deref());
                assert_eq!(back.message.payload.as_deref(), payload.as_deref());
                assert_eq!(back.message.headers, headers);
            });
    }

    #[test]
    fn any_due_time_is_kept_or_none() {
        bolero::check!()
            .with_type::<(u64, Vec<u8>)>()
            .for_each(|(millis, text)| {
                let due = UNIX_EPOCH.checked_add(Duration::from_millis(*millis));
                let received = |sent| Received {
                    key: None,
                    payload: None,
                    sent,
                };
                let back = |record: &Received| inbound(record, &mut Arena::default(), true);
                if let Some(due) = due {
                    let back = back(&received(outbound(&Headers::new(), Some(due)).unwrap()));
                    // Beyond 292 million years it does not fit a number of ours.
                    assert_eq!(back.not_before, i64::try_from(*millis).ok().map(|_| due));
                    assert!(back.message.headers.is_empty());
                }
                let mut hostile = Headers::new();
                hostile.append(NOT_BEFORE, Bytes::copy_from_slice(text));
                let back = back(&received(outbound(&hostile, None).unwrap()));
                assert!(back.message.headers.is_empty());
            });
    }
}
