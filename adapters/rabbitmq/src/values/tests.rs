use super::*;

fn every_type() -> Vec<AMQPValue> {
    let mut table = FieldTable::default();
    table.insert("inner".into(), AMQPValue::LongInt(-7));
    table.insert(
        "list".into(),
        AMQPValue::FieldArray(vec![AMQPValue::Void, AMQPValue::Double(0.5)].into()),
    );
    vec![
        AMQPValue::Boolean(true),
        AMQPValue::ShortShortInt(-1),
        AMQPValue::ShortShortUInt(255),
        AMQPValue::ShortInt(-300),
        AMQPValue::ShortUInt(65_535),
        AMQPValue::LongInt(i32::MIN),
        AMQPValue::LongUInt(u32::MAX),
        AMQPValue::LongLongInt(i64::MIN),
        AMQPValue::Float(0.1),
        AMQPValue::Double(f64::MIN_POSITIVE),
        AMQPValue::DecimalValue(DecimalValue {
            scale: 2,
            value: 1234,
        }),
        AMQPValue::LongString("text ä".into()),
        AMQPValue::LongString(vec![0xff, 0x00].into()),
        AMQPValue::FieldArray(vec![AMQPValue::Boolean(false), AMQPValue::FieldTable(table.clone())].into()),
        AMQPValue::Timestamp(u64::MAX),
        AMQPValue::FieldTable(table),
        AMQPValue::ByteArray(vec![1, 2, 0xff].into()),
        AMQPValue::Void,
    ]
}

#[test]
fn every_type_comes_back_as_it_was() {
    for value in every_type() {
        assert_eq!(outbound(&inbound(&value)), value);
    }
}

#[test]
fn exact_types_are_the_contracts_own() {
    assert_eq!(inbound(&AMQPValue::LongLongInt(5)), Value::Int(5));
    assert_eq!(inbound(&AMQPValue::LongString("x".into())), Value::from("x"));
    assert_eq!(inbound(&AMQPValue::LongInt(5)).to_bytes(), "5");
}

#[test]
fn tables_round_trip_with_their_size_told() {
    let table: FieldTable = every_type()
        .into_iter()
        .enumerate()
        .map(|(n, value)| (ShortString::from(format!("h{n}")), value))
        .collect::<std::collections::BTreeMap<_, _>>()
        .into();
    let bytes = encode_table(&table);
    assert_eq!(bytes.len(), table_size(&table));
    assert_eq!(decode_table(&bytes), Some(table));
}

#[test]
fn damage_is_no_panic() {
    let table: FieldTable = every_type()
        .into_iter()
        .enumerate()
        .map(|(n, value)| (ShortString::from(format!("h{n}")), value))
        .collect::<std::collections::BTreeMap<_, _>>()
        .into();
    let bytes = encode_table(&table);
    for cut in 0..bytes.len() {
        assert_eq!(decode_table(&bytes[..cut]), None);
    }
    let mut nested = AMQPValue::Void;
    for _ in 0..100 {
        nested = AMQPValue::FieldArray(vec![nested].into());
    }
    let Value::Native { code, bytes } = inbound(&nested) else {
        unreachable!()
    };
    assert_eq!(typed(code, &bytes), None);
}

#[test]
fn a_native_value_of_another_adapter_is_carried_as_bytes() {
    let foreign = Value::Native {
        code: 3,
        bytes: Bytes::from_static(b"abc"),
    };
    assert_eq!(outbound(&foreign), AMQPValue::ByteArray(b"abc".as_slice().into()));
}

/// A value of any type, made of what a fuzzer says.
pub(crate) fn any_value(said: &mut impl Iterator<Item = u8>, deepest: u32) -> AMQPValue {
    let mut byte = || said.next().unwrap_or_default();
    let eight = |byte: &mut dyn FnMut() -> u8| u64::from_be_bytes(std::array::from_fn(|_| byte()));
    match byte() % 18 {
        0 => AMQPValue::Boolean(byte() % 2 == 1),
        1 => AMQPValue::ShortShortInt(byte() as i8),
        2 => AMQPValue::ShortShortUInt(byte()),
        3 => AMQPValue::ShortInt(eight(&mut byte) as i16),
        4 => AMQPValue::ShortUInt(eight(&mut byte) as u16),
        5 => AMQPValue::LongInt(eight(&mut byte) as i32),
        6 => AMQPValue::LongUInt(eight(&mut byte) as u32),
        7 => AMQPValue::LongLongInt(eight(&mut byte) as i64),
        8 => AMQPValue::Timestamp(eight(&mut byte)),
        9 => AMQPValue::Float(f32::from_bits(eight(&mut byte) as u32)),
        10 => AMQPValue::Double(f64::from_bits(eight(&mut byte))),
        11 => AMQPValue::DecimalValue(DecimalValue {
            scale: byte(),
            value: eight(&mut byte) as u32,
        }),
        12 => AMQPValue::ByteArray(any_bytes(said).into()),
        13 | 14 => AMQPValue::LongString(any_bytes(said).into()),
        15 if deepest > 0 => {
            let count = byte() % 4;
            let items: Vec<_> = (0..count).map(|_| any_value(said, deepest - 1)).collect();
            AMQPValue::FieldArray(items.into())
        }
        16 if deepest > 0 => AMQPValue::FieldTable(any_table(said, deepest - 1)),
        _ => AMQPValue::Void,
    }
}

/// A table, with names that mean something among its names.
pub(crate) fn any_table(said: &mut impl Iterator<Item = u8>, deepest: u32) -> FieldTable {
    const NAMES: [&str; 24] = [
        "a",
        "z",
        "",
        "x-death",
        "x-first-death-queue",
        "x-opt-",
        "x-delivery-count",
        "x-acquired-count",
        "CC",
        "message-id",
        "content-type",
        "type",
        "priority",
        "timestamp",
        "timestamp_in_ms",
        "partition-key",
        "postrider-typed",
        "postrider-repeated",
        "postrider-return",
        "postrider-dead-reason",
        "postrider-attempt",
        "postrider-original-x-death",
        "x-stream-offset",
        "expiration",
    ];
    let mut table = FieldTable::default();
    for _ in 0..said.next().unwrap_or_default() % 8 {
        let which = said.next().unwrap_or_default();
        let name = NAMES[usize::from(which) % NAMES.len()];
        // As long as AMQP allows, now and then.
        let length = if which >= 192 { 255 } else { name.len() };
        table.insert(format!("{name:n<length$}").into(), any_value(said, deepest));
    }
    table
}

fn any_bytes(said: &mut impl Iterator<Item = u8>) -> Vec<u8> {
    let length = usize::from(said.next().unwrap_or_default() % 24);
    said.take(length).collect()
}

/// Compared as bytes, since no number is equal to NaN.
fn bytes_of(value: &AMQPValue) -> Vec<u8> {
    let mut bytes = Vec::new();
    put_value(value, &mut bytes);
    bytes
}

#[test]
fn any_value_comes_back_as_it_was() {
    bolero::check!().for_each(|said: &[u8]| {
        let value = any_value(&mut said.iter().copied(), 8);
        let back = outbound(&inbound(&value));
        // Which of the many NaNs it was is not kept by a number of four bytes, which is text here.
        if !matches!(value, AMQPValue::Float(number) if number.is_nan()) {
            assert_eq!(bytes_of(&back), bytes_of(&value), "{value:?}");
        }
        assert_eq!(encoded_size(&value), bytes_of(&value).len());
    });
}

#[test]
fn any_table_reads_back_and_a_cut_one_does_not() {
    bolero::check!().for_each(|said: &[u8]| {
        let table = any_table(&mut said.iter().copied(), 8);
        let bytes = encode_table(&table);
        assert_eq!(bytes.len(), table_size(&table));
        let back = decode_table(&bytes).map(|table| encode_table(&table));
        assert_eq!(back.as_ref(), Some(&bytes));
        assert!(decode_table(&bytes[..bytes.len() - 1]).is_none());
    });
}

/// What is read of nonsense is no larger than the nonsense, and reads back the same.
#[test]
fn nonsense_is_no_table_or_a_sound_one() {
    bolero::check!().for_each(|bytes: &[u8]| {
        let framed = [&(bytes.len() as u32).to_be_bytes(), bytes].concat();
        for bytes in [bytes, &framed] {
            let Some(table) = decode_table(bytes) else {
                continue;
            };
            // Names that come twice are one, and deeper than the deepest is none.
            assert!(table_size(&table) <= bytes.len());
            let again = encode_table(&table);
            assert_eq!(
                decode_table(&again).map(|table| encode_table(&table)),
                Some(again)
            );
        }
        for code in 0..=u8::MAX {
            let value = Value::Native {
                code,
                bytes: Bytes::copy_from_slice(bytes),
            };
            let _ = outbound(&value);
        }
    });
}
