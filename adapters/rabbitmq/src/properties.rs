//! Messages on the wire: the contract's headers and AMQP's properties and header table.
//!
//! | header of the contract | on the wire |
//! |---|---|
//! | `message-id`, `content-type`, `correlation-id`, `reply-to`, `content-encoding`, `type`, `app-id` | the property |
//! | `timestamp` (ms) | the property (s), and `timestamp_in_ms` in the table, as RabbitMQ's own interceptor names it |
//! | the partition key | `partition-key` in the table |
//! | every other | the table, with its type |
//!
//! A header that would steer the broker, or be taken for the partition key, travels as `postrider-original-<name>`. One that
//! another program sent to steer the broker arrives under that name.
//!
//! What does not fit a property (over 255 bytes, or no text, or the address of direct replies) stays in the table under the
//! same name. A table holds a name once: further values of a name travel in `postrider-repeated`. The property `priority`
//! arrives as a header and is never sent: quorum queues deliver by it from RabbitMQ 4.0 on.

use std::borrow::Cow;
use std::collections::BTreeMap;
use std::collections::btree_map::Entry;

use lapin::BasicProperties;
use lapin::types::{AMQPValue, FieldArray, FieldTable, ShortString};
use postrider_contract::{ByteString, Bytes, Error, ErrorKind, Headers, Message, Value, names};

use crate::values;

/// The partition key's place in the header table.
pub(crate) const KEY: &str = "partition-key";
/// Further values of names that occur more than once: name, value, name, value…
const REPEATED: &str = "postrider-repeated";
/// Values whose type a stream does not keep, as a table in AMQP's own encoding.
const TYPED: &str = "postrider-typed";
/// The timestamp with its milliseconds.
const TIMESTAMP_MS: &str = "timestamp_in_ms";
/// Recognises a returned message that has no id.
const RETURN_TAG: &str = "postrider-return";
/// How often a quorum queue delivered the message before; since 4.0 releases count apart from failures.
const COUNTS: [&str; 2] = ["x-acquired-count", "x-delivery-count"];
/// Where a message lies in its stream.
const STREAM_OFFSET: &str = "x-stream-offset";

/// What only the adapter itself writes.
const OWN: [&str; 3] = [REPEATED, TYPED, RETURN_TAG];
/// In bytes.
const LONGEST_NAME: usize = 255;

/// As the property `reply-to` it closes the channel of whoever consumes no direct replies.
const DIRECT_REPLY: &str = "amq.rabbitmq.reply-to";

const PERSISTENT: u8 = 2;
const JSON: &str = "application/json";

/// Headers through which the broker is told to drop, divert or count a message, or tells about it, and those that only the
/// adapter writes.
fn controls_the_broker(name: &str) -> bool {
    matches!(
        name,
        "x-death" | "x-delay" | "x-received-from" | "x-match" | "CC" | "BCC" | STREAM_OFFSET
    ) || COUNTS.contains(&name)
        || OWN.contains(&name)
        || ["x-first-death-", "x-last-death-", "x-opt-", "x-basic-"]
            .iter()
            .any(|prefix| name.starts_with(prefix))
}

/// Whether a header travels under another name; one that looks as if it did has to, too, to be told apart.
fn is_renamed(name: &str) -> bool {
    let original = name.trim_start_matches(names::ORIGINAL_PREFIX);
    original == KEY || controls_the_broker(original)
}

/// The name that a header travels under, where that is another. What looks like one already and has no room keeps its own.
fn renamed(name: &str) -> Option<String> {
    let fits = name.len() + names::ORIGINAL_PREFIX.len() < LONGEST_NAME;
    let renames = is_renamed(name) && (fits || !name.starts_with(names::ORIGINAL_PREFIX));
    renames.then(|| format!("{}{name}", names::ORIGINAL_PREFIX))
}

/// The name of a header that travelled under another. One as long as AMQP allows may have been cut.
fn original(name: &str) -> Option<&str> {
    let original = name.strip_prefix(names::ORIGINAL_PREFIX)?;
    (name.len() < LONGEST_NAME && is_renamed(original)).then_some(original)
}

/// What dead-lettering inside the broker leaves behind.
fn tells_of_a_death(name: &str) -> bool {
    name == "x-death" || name.starts_with("x-first-death-") || name.starts_with("x-last-death-")
}

/// The properties of an outgoing message. `for_stream`: it goes to a dead-letter topic, whose stream does not keep every
/// type.
pub(crate) fn outbound(message: &Message, for_stream: bool) -> Result<BasicProperties, Error> {
    let mut properties = BasicProperties::default().with_delivery_mode(PERSISTENT);
    let mut table = Table::default();
    if let Some(key) = &message.key {
        table.add(KEY, text_or_bytes(key))?;
    }
    // Before an application's own of this name: the first is read back as ours.
    if let Some(Value::Int(milliseconds @ 0..)) = message.headers.get(names::TIMESTAMP) {
        table.add(TIMESTAMP_MS, AMQPValue::LongLongInt(*milliseconds))?;
    }
    for (name, value) in message.headers.iter() {
        // A property is read back first, so only the first of a name may be one.
        if !table.first.contains_key(name) {
            match as_property(properties, name, value) {
                Ok(with) => {
                    properties = with;
                    continue;
                }
                Err(without) => properties = without,
            }
        }
        let name = renamed(name).map_or(Cow::Borrowed(name), Cow::Owned);
        table.add(&name, values::outbound(value))?;
    }
    let Table {
        first: mut table,
        repeated,
    } = table;
    if !repeated.as_slice().is_empty() {
        table.insert(REPEATED.into(), AMQPValue::FieldArray(repeated));
    }
    if for_stream {
        keep_types(&mut table);
    }
    if !table.is_empty() {
        properties = properties.with_headers(table.into());
    }
    Ok(properties)
}

/// The header table of an outgoing message.
#[derive(Default)]
struct Table {
    /// The first value of each name.
    first: BTreeMap<ShortString, AMQPValue>,
    /// The others, each behind its name.
    repeated: FieldArray,
}

impl Table {
    fn add(&mut self, name: &str, value: AMQPValue) -> Result<(), Error> {
        // Names that begin as ours do are made longer with each time that a message is given up, from what anybody may
        // have sent: refused, it could never become a dead letter.
        let name = if name.starts_with(names::OURS) {
            cut(name)
        } else {
            name
        };
        match self.first.entry(short(name)?) {
            Entry::Vacant(place) => {
                place.insert(value);
            }
            Entry::Occupied(_) => {
                self.repeated.push(AMQPValue::LongString(name.into()));
                self.repeated.push(value);
            }
        }
        Ok(())
    }
}

/// As much of a name as AMQP allows.
fn cut(name: &str) -> &str {
    let mut end = name.len().min(LONGEST_NAME);
    while !name.is_char_boundary(end) {
        end -= 1;
    }
    &name[..end]
}

/// About how many bytes the content header frame takes: RabbitMQ closes the connection over one that is longer than a
/// frame.
pub(crate) fn header_frame_size(properties: &BasicProperties) -> usize {
    let texts = [
        properties.content_type(),
        properties.content_encoding(),
        properties.correlation_id(),
        properties.reply_to(),
        properties.message_id(),
        properties.kind(),
        properties.app_id(),
    ];
    let texts: usize = texts
        .into_iter()
        .flatten()
        .map(|text| 1 + text.as_str().len())
        .sum();
    // Frame header and end, class, weight, body size, flags, delivery mode, priority, timestamp.
    48 + texts + properties.headers().as_ref().map_or(0, values::table_size)
}

/// A message as it came.
pub(crate) struct Inbound {
    pub(crate) message: Message,
    /// How often it was delivered before, as the queue counts.
    pub(crate) redeliveries: u32,
}

/// Reads a delivery. `by_return_path`: deaths in it are those of the delay ladder.
pub(crate) fn inbound(properties: &BasicProperties, payload: Vec<u8>, by_return_path: bool) -> Inbound {
    let table = properties.headers().as_ref();
    let find = |name: &str| table.and_then(|table| table.inner().get(name));
    let mut headers: Vec<(ByteString, Value)> = Vec::with_capacity(8);
    let mut key = None;

    for (name, text) in [
        (names::MESSAGE_ID, properties.message_id()),
        (names::CONTENT_TYPE, properties.content_type()),
        (names::CORRELATION_ID, properties.correlation_id()),
        (names::REPLY_TO, properties.reply_to()),
        ("content-encoding", properties.content_encoding()),
        ("type", properties.kind()),
        ("app-id", properties.app_id()),
        ("postrider-original-expiration", properties.expiration()),
        ("postrider-original-user-id", properties.user_id()),
        ("postrider-original-cluster-id", properties.cluster_id()),
    ] {
        if let Some(text) = text {
            let value = match text.as_str() {
                // What most messages are, without a copy.
                JSON if name == names::CONTENT_TYPE => Value::Text(ByteString::from_static(JSON)),
                text => Value::from(text),
            };
            headers.push((ByteString::from_static(name), value));
        }
    }
    if let Some(priority) = properties.priority() {
        headers.push((
            ByteString::from_static("priority"),
            Value::Int(i64::from(*priority)),
        ));
    }
    let precise = match (properties.timestamp(), find(TIMESTAMP_MS)) {
        (Some(seconds), Some(AMQPValue::LongLongInt(milliseconds)))
            if u64::try_from(milliseconds / 1000).is_ok_and(|whole| whole == *seconds) =>
        {
            Some(*milliseconds)
        }
        _ => None,
    };
    if let Some(seconds) = properties.timestamp() {
        let milliseconds = i64::try_from(seconds.saturating_mul(1000)).unwrap_or(i64::MAX);
        let milliseconds = precise.unwrap_or(milliseconds);
        headers.push((
            ByteString::from_static(names::TIMESTAMP),
            Value::Int(milliseconds),
        ));
    }

    let mut told_precisely = precise.is_some();
    let mut take = |name: &str, value: &AMQPValue| match name {
        KEY if key.is_none() => key = Some(values::inbound(value).to_bytes()),
        TIMESTAMP_MS if std::mem::take(&mut told_precisely) => {}
        RETURN_TAG => {}
        _ if COUNTS.contains(&name) || name == STREAM_OFFSET => {}
        _ if by_return_path && tells_of_a_death(name) => {}
        _ if controls_the_broker(name) => headers.push((
            format!("{}{name}", names::ORIGINAL_PREFIX).into(),
            values::inbound(value),
        )),
        _ => headers.push((original(name).unwrap_or(name).into(), values::inbound(value))),
    };
    // In the order in which they were written: the first value of each name, those whose type a stream does not keep too,
    // and then the others.
    let typed = find(TYPED).and_then(|value| match value {
        AMQPValue::ByteArray(bytes) => values::decode_table(bytes.as_slice()),
        _ => None,
    });
    let tables = [table, typed.as_ref()];
    for (outer, table) in [true, false].into_iter().zip(tables) {
        for (name, value) in table.into_iter().flatten() {
            match name.as_str() {
                REPEATED if pairs(value).is_some() => {}
                TYPED if outer && typed.is_some() => {}
                name => take(name, value),
            }
        }
    }
    for table in tables.into_iter().flatten() {
        for (name, value) in table.inner().get(REPEATED).and_then(pairs).into_iter().flatten() {
            take(name, value);
        }
    }

    let redeliveries = COUNTS.iter().find_map(|name| count(find(name)?)).unwrap_or(0);
    let message = Message {
        key,
        headers: Headers::take_from(&mut headers),
        payload: Some(Bytes::from(payload)),
    };
    Inbound {
        message,
        redeliveries,
    }
}

/// The number that was given to a message without an id when it was sent.
pub(crate) fn return_tag(properties: &BasicProperties) -> Option<i64> {
    match properties.headers().as_ref()?.inner().get(RETURN_TAG)? {
        AMQPValue::LongLongInt(number) => Some(*number),
        _ => None,
    }
}

/// Gives a message such a number.
pub(crate) fn with_return_tag(properties: BasicProperties, number: i64) -> BasicProperties {
    let mut table = properties.headers().clone().unwrap_or_default();
    table.insert(RETURN_TAG.into(), AMQPValue::LongLongInt(number));
    properties.with_headers(table)
}

/// Whether the broker itself dead-lettered it: what is published by us has no such header live.
pub(crate) fn was_given_up(properties: &BasicProperties) -> bool {
    let table = properties.headers().as_ref();
    table.is_some_and(|table| table.contains_key("x-first-death-queue"))
}

/// Takes out what the broker left: kept live, the deaths make it drop the message the next time, and its count of deliveries
/// was that of another queue.
pub(crate) fn without_traces(properties: BasicProperties) -> BasicProperties {
    let Some(table) = properties.headers() else {
        return properties;
    };
    let kept = |(name, _): &(&ShortString, &AMQPValue)| {
        !tells_of_a_death(name.as_str()) && !COUNTS.contains(&name.as_str())
    };
    let table: BTreeMap<ShortString, AMQPValue> = table
        .into_iter()
        .filter(kept)
        .map(|(name, value)| (name.clone(), value.clone()))
        .collect();
    properties.with_headers(table.into())
}

/// Where a message lies in the stream that it was read from.
pub(crate) fn stream_offset(properties: &BasicProperties) -> Option<u64> {
    match properties.headers().as_ref()?.inner().get(STREAM_OFFSET)? {
        AMQPValue::LongLongInt(offset) => u64::try_from(*offset).ok(),
        _ => None,
    }
}

/// A name or text as AMQP's short string.
pub(crate) fn short(text: &str) -> Result<ShortString, Error> {
    ShortString::try_new(text).map_err(|_| {
        let begin: String = text.chars().take(24).collect();
        Error::new(
            ErrorKind::Rejected,
            format!(
                "the name {begin:?}… has {} bytes, AMQP allows 255: shorten it",
                text.len()
            ),
        )
    })
}

/// Puts a header into its property; `Err` hands the properties back where it has none, or it is taken or does not fit.
#[allow(clippy::result_large_err, reason = "both sides are the same value")]
fn as_property(
    properties: BasicProperties,
    name: &str,
    value: &Value,
) -> Result<BasicProperties, BasicProperties> {
    let text = match value {
        Value::Text(text) => ShortString::try_new(&**text).ok(),
        _ => None,
    };
    match (name, text, value) {
        (names::MESSAGE_ID, Some(text), _) if properties.message_id().is_none() => {
            Ok(properties.with_message_id(text))
        }
        (names::CONTENT_TYPE, Some(text), _) if properties.content_type().is_none() => {
            Ok(properties.with_content_type(text))
        }
        (names::CORRELATION_ID, Some(text), _) if properties.correlation_id().is_none() => {
            Ok(properties.with_correlation_id(text))
        }
        (names::REPLY_TO, Some(text), _)
            if properties.reply_to().is_none() && text.as_str() != DIRECT_REPLY =>
        {
            Ok(properties.with_reply_to(text))
        }
        ("content-encoding", Some(text), _) if properties.content_encoding().is_none() => {
            Ok(properties.with_content_encoding(text))
        }
        ("type", Some(text), _) if properties.kind().is_none() => Ok(properties.with_type(text)),
        ("app-id", Some(text), _) if properties.app_id().is_none() => Ok(properties.with_app_id(text)),
        (names::TIMESTAMP, _, Value::Int(milliseconds @ 0..)) if properties.timestamp().is_none() => {
            Ok(properties.with_timestamp(*milliseconds as u64 / 1000))
        }
        _ => Err(properties),
    }
}

fn text_or_bytes(bytes: &Bytes) -> AMQPValue {
    match std::str::from_utf8(bytes) {
        Ok(text) => AMQPValue::LongString(text.into()),
        Err(_) => AMQPValue::ByteArray(bytes.as_ref().into()),
    }
}

/// Moves what a stream does not keep into one header that it does.
fn keep_types(table: &mut BTreeMap<ShortString, AMQPValue>) {
    if table.values().all(values::survives_a_stream) {
        return;
    }
    let (kept, typed) = std::mem::take(table)
        .into_iter()
        .partition::<BTreeMap<_, _>, _>(|(_, value)| values::survives_a_stream(value));
    *table = kept;
    let typed = values::encode_table(&FieldTable::from(typed));
    table.insert(TYPED.into(), AMQPValue::ByteArray(typed.into()));
}

/// The names and values in [`REPEATED`]; `None` if it was not written as ours is.
fn pairs(repeated: &AMQPValue) -> Option<Vec<(&str, &AMQPValue)>> {
    let AMQPValue::FieldArray(array) = repeated else {
        return None;
    };
    array.as_slice().chunks(2).map(pair).collect()
}

fn pair(pair: &[AMQPValue]) -> Option<(&str, &AMQPValue)> {
    match pair {
        [AMQPValue::LongString(name), value] if name.len() <= LONGEST_NAME => {
            Some((std::str::from_utf8(name.as_bytes()).ok()?, value))
        }
        _ => None,
    }
}

fn count(value: &AMQPValue) -> Option<u32> {
    match value {
        AMQPValue::LongLongInt(number) => u32::try_from(*number).ok(),
        AMQPValue::LongInt(number) => u32::try_from(*number).ok(),
        AMQPValue::LongUInt(number) => Some(*number),
        _ => None,
    }
}

#[cfg(test)]
mod tests;
