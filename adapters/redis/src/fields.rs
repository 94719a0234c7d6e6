//! A message as the fields of a stream entry, which is also what a [frame](crate::frame) holds.
//!
//! `payload` and `key` are the payload and the partition key; every other field is a header under its own name. A header
//! that is itself called `payload` or `key`, or begins with `:` or `header:`, is written with `header:` before it. Fields
//! that begin with `:` are the adapter's own and occur in inboxes alone.

use std::borrow::Cow;

use postrider_contract::{ByteString, Bytes, Headers, Message, Value, names};
use redis::{Cmd, Value as Reply};

use crate::frame::Frame;

/// The payload's field.
pub(crate) const PAYLOAD: &str = "payload";
const KEY: &str = "key";
const ESCAPE: &str = "header:";
/// A whole message as one field: what goes through sorted sets and inboxes.
pub(crate) const FRAME: &str = ":frame";
/// In an inbox: this is the first pass of a published message, no return. So it is on Pub/Sub, and where the entry is gone.
pub(crate) const FIRST: &str = ":first";

/// A message read from a stream entry.
#[derive(Debug, Default)]
pub(crate) struct Decoded {
    pub(crate) message: Message,
    /// It carries the adapter's mark of a first pass. Means nothing outside an inbox.
    pub(crate) first: bool,
}

/// Calls `each` with every field of the message.
pub(crate) fn each(message: &Message, mut each: impl FnMut(&[u8], &[u8])) {
    for (name, value) in message.headers.iter() {
        match value {
            Value::Text(text) => each(escaped(name).as_bytes(), text.as_bytes()),
            other => each(escaped(name).as_bytes(), &other.to_bytes()),
        }
    }
    if let Some(key) = &message.key {
        each(KEY.as_bytes(), key);
    }
    // Always there, also when it is empty: an entry needs a field.
    each(PAYLOAD.as_bytes(), message.payload.as_deref().unwrap_or_default());
}

/// How many fields it has.
pub(crate) fn count(message: &Message) -> usize {
    message.headers.len() + usize::from(message.key.is_some()) + 1
}

/// Adds its fields to an `XADD`.
pub(crate) fn add_to(command: &mut Cmd, message: &Message) {
    each(message, |name, value| {
        command.arg(name).arg(value);
    });
}

/// Reads the fields of a stream entry, names and values in turn.
pub(crate) fn decode(fields: Vec<Reply>) -> Decoded {
    let mut decoded = Decoded::default();
    let mut framed = false;
    let mut texts = fields.into_iter().filter_map(bytes);
    let mut rest = Vec::with_capacity(texts.size_hint().1.unwrap_or(0) / 2);
    while let (Some(name), Some(value)) = (texts.next(), texts.next()) {
        if name == FIRST.as_bytes() {
            decoded.first = true;
        } else if name == FRAME.as_bytes() && !framed {
            framed = true;
            decoded.message =
                Frame::decode(&value).map_or_else(|| Message::new(value), |frame| frame.message);
        } else {
            rest.push((name, value));
        }
    }
    if framed {
        // Not written so by us; whoever did meant something by it.
        for (name, value) in rest {
            let headers = &mut decoded.message.headers;
            headers.append(unescaped(name), text_or_bytes(value));
        }
    } else {
        decoded.message = from_fields(rest);
    }
    decoded
}

/// Puts a message together from names and values.
pub(crate) fn from_fields(fields: impl IntoIterator<Item = (Bytes, Bytes)>) -> Message {
    let mut message = Message::default();
    let mut headers: Vec<(ByteString, Value)> = Vec::new();
    for (name, value) in fields {
        if name == PAYLOAD.as_bytes() && message.payload.is_none() {
            message.payload = Some(value);
        } else if name == KEY.as_bytes() && message.key.is_none() {
            message.key = Some(value);
        } else {
            headers.push((unescaped(name), text_or_bytes(value)));
        }
    }
    message.payload.get_or_insert_default();
    message.headers = Headers::take_from(&mut headers);
    message
}

fn escaped(name: &str) -> Cow<'_, str> {
    if name == PAYLOAD || name == KEY || name.starts_with(':') || name.starts_with(ESCAPE) {
        Cow::Owned(format!("{ESCAPE}{name}"))
    } else {
        Cow::Borrowed(name)
    }
}

fn unescaped(name: Bytes) -> ByteString {
    // What every message has is not kept again for each.
    const USUAL: [&str; 6] = [
        names::MESSAGE_ID,
        names::CONTENT_TYPE,
        names::TIMESTAMP,
        names::CORRELATION_ID,
        names::TRACEPARENT,
        names::SCHEMA_VERSION,
    ];
    if let Some(usual) = USUAL.iter().find(|usual| usual.as_bytes() == name) {
        return ByteString::from_static(usual);
    }
    let name = match name.strip_prefix(ESCAPE.as_bytes()) {
        Some(rest) => name.slice_ref(rest),
        None => name,
    };
    // Names are text everywhere else; what is not becomes it, and is then dead-lettered as it was read.
    if std::str::from_utf8(&name).is_err() {
        return String::from_utf8_lossy(&name).into_owned().into();
    }
    ByteString::try_from(name).unwrap_or_default()
}

fn text_or_bytes(value: Bytes) -> Value {
    // Looked at first: a copy of bytes that nobody shares yet allocates.
    if std::str::from_utf8(&value).is_err() {
        return Value::Bytes(value);
    }
    ByteString::try_from(value).map_or(Value::Null, Value::Text)
}

/// A reply as bytes, where it is a string.
pub(crate) fn bytes(reply: Reply) -> Option<Bytes> {
    match reply {
        Reply::BulkString(bytes) => Some(bytes.into()),
        Reply::SimpleString(text) => Some(text.into()),
        Reply::Int(number) => Some(number.to_string().into()),
        _ => None,
    }
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;

    fn there_and_back(message: &Message) -> Message {
        let mut fields = Vec::new();
        each(message, |name, value| {
            fields.push(Reply::BulkString(name.to_vec()));
            fields.push(Reply::BulkString(value.to_vec()));
        });
        assert_eq!(fields.len(), 2 * count(message));
        decode(fields).message
    }

    #[test]
    fn names_that_mean_something_are_escaped() {
        let message = Message::new("p")
            .with_key("k")
            .with_header("payload", "not it")
            .with_header("key", "nor this")
            .with_header(":frame", "no")
            .with_header("header:x", "y");
        assert_eq!(there_and_back(&message), message);
    }

    #[test]
    fn foreign_entries_are_good_messages() {
        let fields = ["sku", "a1", "qty", "2"];
        let decoded = decode(fields.map(|f| Reply::BulkString(f.into())).to_vec());
        assert_eq!(decoded.message.headers.get_str("sku"), Some("a1"));
        assert_eq!(decoded.message.payload, Some(Bytes::new()));
    }

    #[test]
    fn not_utf8_is_kept_as_bytes() {
        let message = Message::new(&b"\xff\0"[..]).with_header("h", Bytes::from_static(b"\xff"));
        assert_eq!(there_and_back(&message), message);
    }

    const NAMES: [&str; 8] = ["", "payload", "key", ":", ":frame", ":first", "header:", "x"];

    /// A message with names that mean something among its headers.
    pub(crate) fn message(parts: &Parts) -> Message {
        let (payload, key, headers) = parts.clone();
        let mut message = Message::new(payload);
        message.key = key.map(Into::into);
        for (begin, name, value) in headers {
            let name = format!("{}{name}", NAMES[usize::from(begin) % NAMES.len()]);
            message.headers.append(name, text_or_bytes(value.into()));
        }
        message
    }

    /// Payload, key, and headers.
    pub(crate) type Parts = (Vec<u8>, Option<Vec<u8>>, Vec<(u8, String, Vec<u8>)>);

    #[test]
    fn round_trip() {
        bolero::check!().with_type::<Parts>().for_each(|parts| {
            let message = message(parts);
            assert_eq!(there_and_back(&message), message);
        });
    }

    /// Whoever wrote an entry: nothing of it is left out, and what became of it is sent as it is.
    #[test]
    fn every_field_is_in_the_message() {
        bolero::check!()
            .with_type::<Vec<(u8, Vec<u8>, Vec<u8>)>>()
            .for_each(|entry| {
                let fields: Vec<(Vec<u8>, Vec<u8>)> = entry
                    .iter()
                    .map(|(begin, name, value)| {
                        let begin = NAMES[usize::from(*begin) % NAMES.len()].as_bytes();
                        ([begin, name].concat(), value.clone())
                    })
                    .collect();
                let replies = fields.iter().flat_map(|(name, value)| [name, value]);
                let decoded = decode(replies.map(|text| Reply::BulkString(text.clone())).collect());
                let message = &decoded.message;
                assert_eq!(&there_and_back(message), message);
                for (name, value) in &fields {
                    let is_here = message.payload.as_deref() == Some(value)
                        || message.key.as_deref() == Some(value)
                        || message
                            .headers
                            .iter()
                            .any(|(_, other)| other.to_bytes() == *value)
                        || (name == FIRST.as_bytes() && decoded.first)
                        || (name == FRAME.as_bytes() && Frame::is_frame(value));
                    assert!(is_here, "{name:?}");
                }
            });
    }

    #[test]
    fn what_stands_beside_a_frame_is_kept() {
        let frame = Frame::encode(&Message::new("p"), &[0; 16], 1);
        let fields = [&b":frame"[..], &frame, b"sku", b"a1", b":frame", b"again"];
        let decoded = decode(fields.map(|field| Reply::BulkString(field.to_vec())).to_vec());
        let expected = Message::new("p")
            .with_header("sku", "a1")
            .with_header(":frame", "again");
        assert_eq!(decoded.message, expected);
    }
}
