//! Header values: AMQP's types and the contract's.
//!
//! Types with an exact match (`t`, `l`, `d`, `S` in UTF-8, `x`, `V`) become the contract's own; every other type becomes
//! [`Value::Native`], whose code is AMQP's type letter, so that a copy carries the type it came with. Numbers are held as
//! decimal text, which is also what another broker carries; the rest is AMQP's own encoding.

use lapin::types::{AMQPValue, ByteArray, DecimalValue, FieldArray, FieldTable, LongString, ShortString};
use postrider_contract::{ByteString, Bytes, Value};

/// Deeper than any application nests tables; a hostile one ends here instead of on the stack.
const DEEPEST: usize = 32;

/// An AMQP value as the contract's.
pub(crate) fn inbound(value: &AMQPValue) -> Value {
    match value {
        AMQPValue::Boolean(truth) => Value::Bool(*truth),
        AMQPValue::LongLongInt(number) => Value::Int(*number),
        AMQPValue::Double(number) => Value::Float(*number),
        AMQPValue::Void => Value::Null,
        AMQPValue::ByteArray(bytes) => Value::Bytes(Bytes::copy_from_slice(bytes.as_slice())),
        AMQPValue::LongString(text) => {
            let bytes = Bytes::copy_from_slice(text.as_bytes());
            match ByteString::try_from(bytes.clone()) {
                Ok(text) => Value::Text(text),
                Err(_) => native(b'S', bytes),
            }
        }
        AMQPValue::ShortShortInt(number) => decimal(b'b', number),
        AMQPValue::ShortShortUInt(number) => decimal(b'B', number),
        AMQPValue::ShortInt(number) => decimal(b's', number),
        AMQPValue::ShortUInt(number) => decimal(b'u', number),
        AMQPValue::LongInt(number) => decimal(b'I', number),
        AMQPValue::LongUInt(number) => decimal(b'i', number),
        AMQPValue::Float(number) => decimal(b'f', number),
        AMQPValue::Timestamp(seconds) => decimal(b'T', seconds),
        AMQPValue::ShortString(text) => Value::from(text.as_str()),
        AMQPValue::DecimalValue(_) => native(b'D', encoded(value)),
        AMQPValue::FieldArray(_) => native(b'A', encoded(value)),
        AMQPValue::FieldTable(_) => native(b'F', encoded(value)),
    }
}

/// The contract's value as AMQP's.
pub(crate) fn outbound(value: &Value) -> AMQPValue {
    match value {
        Value::Text(text) => AMQPValue::LongString(text.as_bytes().as_ref().into()),
        Value::Int(number) => AMQPValue::LongLongInt(*number),
        Value::Float(number) => AMQPValue::Double(*number),
        Value::Bool(truth) => AMQPValue::Boolean(*truth),
        Value::Null => AMQPValue::Void,
        Value::Native { code, bytes } => {
            typed(*code, bytes).unwrap_or_else(|| AMQPValue::ByteArray(bytes.as_ref().into()))
        }
        other => AMQPValue::ByteArray(other.to_bytes().as_ref().into()),
    }
}

/// Whether a stream keeps a value of this type: it stores messages in AMQP 1.0's encoding, which has no decimals, and
/// RabbitMQ leaves arrays and tables out (3.10, `rabbit_msg_record`).
pub(crate) fn survives_a_stream(value: &AMQPValue) -> bool {
    match value {
        AMQPValue::FieldArray(_) | AMQPValue::FieldTable(_) | AMQPValue::DecimalValue(_) => false,
        AMQPValue::LongString(text) => std::str::from_utf8(text.as_bytes()).is_ok(),
        _ => true,
    }
}

/// A table in AMQP's encoding.
pub(crate) fn encode_table(table: &FieldTable) -> Vec<u8> {
    let mut into = Vec::new();
    put_table(table, &mut into);
    into
}

/// A table from AMQP's encoding; `None` where it is damaged.
pub(crate) fn decode_table(mut bytes: &[u8]) -> Option<FieldTable> {
    let table = take_table(&mut bytes, DEEPEST)?;
    bytes.is_empty().then_some(table)
}

/// How many bytes a value takes in a table, its type letter included.
pub(crate) fn encoded_size(value: &AMQPValue) -> usize {
    1 + match value {
        AMQPValue::Void => 0,
        AMQPValue::Boolean(_) | AMQPValue::ShortShortInt(_) | AMQPValue::ShortShortUInt(_) => 1,
        AMQPValue::ShortInt(_) | AMQPValue::ShortUInt(_) => 2,
        AMQPValue::LongInt(_) | AMQPValue::LongUInt(_) | AMQPValue::Float(_) => 4,
        AMQPValue::DecimalValue(_) => 5,
        AMQPValue::LongLongInt(_) | AMQPValue::Double(_) | AMQPValue::Timestamp(_) => 8,
        AMQPValue::ShortString(text) => 1 + text.as_str().len(),
        AMQPValue::LongString(text) => 4 + text.len(),
        AMQPValue::ByteArray(bytes) => 4 + bytes.len(),
        AMQPValue::FieldArray(array) => 4 + array.as_slice().iter().map(encoded_size).sum::<usize>(),
        AMQPValue::FieldTable(table) => table_size(table),
    }
}

/// How many bytes a table takes, its length prefix included.
pub(crate) fn table_size(table: &FieldTable) -> usize {
    let entry = |(name, value): (&ShortString, &AMQPValue)| 1 + name.as_str().len() + encoded_size(value);
    4 + table.into_iter().map(entry).sum::<usize>()
}

fn native(code: u8, bytes: Bytes) -> Value {
    Value::Native { code, bytes }
}

fn decimal(code: u8, number: &impl ToString) -> Value {
    native(code, number.to_string().into())
}

fn typed(code: u8, bytes: &[u8]) -> Option<AMQPValue> {
    fn parsed<T: std::str::FromStr>(bytes: &[u8]) -> Option<T> {
        std::str::from_utf8(bytes).ok()?.parse().ok()
    }
    match code {
        b'b' => parsed(bytes).map(AMQPValue::ShortShortInt),
        b'B' => parsed(bytes).map(AMQPValue::ShortShortUInt),
        b's' => parsed(bytes).map(AMQPValue::ShortInt),
        b'u' => parsed(bytes).map(AMQPValue::ShortUInt),
        b'I' => parsed(bytes).map(AMQPValue::LongInt),
        b'i' => parsed(bytes).map(AMQPValue::LongUInt),
        b'f' => parsed(bytes).map(AMQPValue::Float),
        b'T' => parsed(bytes).map(AMQPValue::Timestamp),
        b'S' => Some(AMQPValue::LongString(bytes.into())),
        b'D' | b'A' | b'F' => {
            let mut rest = bytes;
            let value = take_raw(code, &mut rest, DEEPEST)?;
            rest.is_empty().then_some(value)
        }
        _ => None,
    }
}

fn encoded(value: &AMQPValue) -> Bytes {
    let mut into = Vec::new();
    put_raw(value, &mut into);
    into.into()
}

fn put_value(value: &AMQPValue, into: &mut Vec<u8>) {
    // A short string has no letter in a table.
    let letter = match value {
        AMQPValue::ShortString(_) => b'S',
        other => other.get_type().get_id() as u8,
    };
    into.push(letter);
    put_raw(value, into);
}

fn put_raw(value: &AMQPValue, into: &mut Vec<u8>) {
    match value {
        AMQPValue::Void => {}
        AMQPValue::Boolean(truth) => into.push(u8::from(*truth)),
        AMQPValue::ShortShortInt(number) => into.extend(number.to_be_bytes()),
        AMQPValue::ShortShortUInt(number) => into.push(*number),
        AMQPValue::ShortInt(number) => into.extend(number.to_be_bytes()),
        AMQPValue::ShortUInt(number) => into.extend(number.to_be_bytes()),
        AMQPValue::LongInt(number) => into.extend(number.to_be_bytes()),
        AMQPValue::LongUInt(number) => into.extend(number.to_be_bytes()),
        AMQPValue::LongLongInt(number) => into.extend(number.to_be_bytes()),
        AMQPValue::Float(number) => into.extend(number.to_be_bytes()),
        AMQPValue::Double(number) => into.extend(number.to_be_bytes()),
        AMQPValue::Timestamp(seconds) => into.extend(seconds.to_be_bytes()),
        AMQPValue::DecimalValue(DecimalValue { scale, value }) => {
            into.push(*scale);
            into.extend(value.to_be_bytes());
        }
        AMQPValue::ShortString(text) => put_long(text.as_str().as_bytes(), into),
        AMQPValue::LongString(text) => put_long(text.as_bytes(), into),
        AMQPValue::ByteArray(bytes) => put_long(bytes.as_slice(), into),
        AMQPValue::FieldTable(table) => put_table(table, into),
        AMQPValue::FieldArray(array) => {
            let mut items = Vec::new();
            for item in array.as_slice() {
                put_value(item, &mut items);
            }
            put_long(&items, into);
        }
    }
}

fn put_table(table: &FieldTable, into: &mut Vec<u8>) {
    let mut entries = Vec::new();
    for (name, value) in table {
        entries.push(name.as_str().len() as u8);
        entries.extend(name.as_str().as_bytes());
        put_value(value, &mut entries);
    }
    put_long(&entries, into);
}

fn put_long(bytes: &[u8], into: &mut Vec<u8>) {
    into.extend((bytes.len() as u32).to_be_bytes());
    into.extend(bytes);
}

fn take<'a>(rest: &mut &'a [u8], count: usize) -> Option<&'a [u8]> {
    let (head, tail) = rest.split_at_checked(count)?;
    *rest = tail;
    Some(head)
}

fn number<const N: usize>(rest: &mut &[u8]) -> Option<[u8; N]> {
    take(rest, N)?.try_into().ok()
}

fn take_long<'a>(rest: &mut &'a [u8]) -> Option<&'a [u8]> {
    let length = u32::from_be_bytes(number(rest)?);
    take(rest, usize::try_from(length).ok()?)
}

fn take_value(rest: &mut &[u8], deepest: usize) -> Option<AMQPValue> {
    let [letter] = number(rest)?;
    take_raw(letter, rest, deepest)
}

fn take_raw(letter: u8, rest: &mut &[u8], deepest: usize) -> Option<AMQPValue> {
    let deeper = deepest.checked_sub(1)?;
    Some(match letter {
        b'V' => AMQPValue::Void,
        b't' => AMQPValue::Boolean(number::<1>(rest)? != [0]),
        b'b' => AMQPValue::ShortShortInt(i8::from_be_bytes(number(rest)?)),
        b'B' => AMQPValue::ShortShortUInt(u8::from_be_bytes(number(rest)?)),
        b's' => AMQPValue::ShortInt(i16::from_be_bytes(number(rest)?)),
        b'u' => AMQPValue::ShortUInt(u16::from_be_bytes(number(rest)?)),
        b'I' => AMQPValue::LongInt(i32::from_be_bytes(number(rest)?)),
        b'i' => AMQPValue::LongUInt(u32::from_be_bytes(number(rest)?)),
        b'l' => AMQPValue::LongLongInt(i64::from_be_bytes(number(rest)?)),
        b'f' => AMQPValue::Float(f32::from_be_bytes(number(rest)?)),
        b'd' => AMQPValue::Double(f64::from_be_bytes(number(rest)?)),
        b'T' => AMQPValue::Timestamp(u64::from_be_bytes(number(rest)?)),
        b'D' => AMQPValue::DecimalValue(DecimalValue {
            scale: u8::from_be_bytes(number(rest)?),
            value: u32::from_be_bytes(number(rest)?),
        }),
        b'S' => AMQPValue::LongString(LongString::from(take_long(rest)?)),
        b'x' => AMQPValue::ByteArray(ByteArray::from(take_long(rest)?)),
        b'F' => AMQPValue::FieldTable(take_table(rest, deeper)?),
        b'A' => {
            let mut items = take_long(rest)?;
            let mut array = FieldArray::default();
            while !items.is_empty() {
                array.push(take_value(&mut items, deeper)?);
            }
            AMQPValue::FieldArray(array)
        }
        _ => return None,
    })
}

fn take_table(rest: &mut &[u8], deepest: usize) -> Option<FieldTable> {
    let mut entries = take_long(rest)?;
    let mut table = FieldTable::default();
    while !entries.is_empty() {
        let [length] = number(&mut entries)?;
        let name = std::str::from_utf8(take(&mut entries, usize::from(length))?).ok()?;
        let value = take_value(&mut entries, deepest)?;
        table.insert(ShortString::try_new(name).ok()?, value);
    }
    Some(table)
}

#[cfg(test)]
pub(crate) mod tests;
