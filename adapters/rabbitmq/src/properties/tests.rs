use lapin::types::DecimalValue;

use super::*;

fn round_trip(message: &Message, for_stream: bool) -> Message {
    let properties = outbound(message, for_stream).unwrap();
    let payload = message.payload.as_deref().unwrap_or_default().to_vec();
    inbound(&properties, payload, false).message
}

fn full() -> Message {
    Message::new("{}")
        .with_key("k1")
        .with_header(names::MESSAGE_ID, "id-1")
        .with_header(names::CONTENT_TYPE, "application/json")
        .with_header(names::CORRELATION_ID, "c")
        .with_header(names::REPLY_TO, "r")
        .with_header("content-encoding", "gzip")
        .with_header("type", "t")
        .with_header("app-id", "a")
        .with_header(names::TIMESTAMP, 1_700_000_000_123i64)
        .with_header("a-bool", true)
        .with_header("b-int", i64::MIN)
        .with_header("c-float", 0.25)
        .with_header("d-bytes", Bytes::from_static(&[0xff, 0]))
        .with_header("e-null", Value::Null)
        .with_header(
            "f-native",
            Value::Native {
                code: b'I',
                bytes: "-5".into(),
            },
        )
        .with_header("g\r\n\0", "odd name, odd value \r\n\0")
        .with_header("priority", 3i64)
}

#[test]
fn everything_comes_back() {
    let message = full();
    assert_eq!(round_trip(&message, false), message);
    assert_eq!(round_trip(&message, true), message);
}

#[test]
fn standard_headers_are_properties() {
    let properties = outbound(&full(), false).unwrap();
    assert_eq!(
        properties.message_id().as_ref().map(ShortString::as_str),
        Some("id-1")
    );
    assert_eq!(*properties.timestamp(), Some(1_700_000_000));
    assert_eq!(*properties.delivery_mode(), Some(PERSISTENT));
    assert!(!properties.headers().as_ref().unwrap().contains_key("message-id"));
}

#[test]
fn what_fits_no_property_stays_in_the_table() {
    let mut message = Message::new("x").with_header(names::MESSAGE_ID, "x".repeat(256));
    message.headers.append(names::CONTENT_TYPE, 5i64);
    message.headers.append(names::TIMESTAMP, -1i64);
    let back = round_trip(&message, false);
    for name in [names::MESSAGE_ID, names::CONTENT_TYPE, names::TIMESTAMP] {
        assert_eq!(back.headers.get(name), message.headers.get(name));
    }
    let long_name = Message::new("x").with_header("n".repeat(256), "v");
    assert_eq!(
        outbound(&long_name, false).unwrap_err().kind(),
        ErrorKind::Rejected
    );
}

#[test]
fn repeated_names_keep_all_their_values() {
    let mut message = Message::new("x");
    for n in 0..3i64 {
        message.headers.append("again", n);
    }
    message.headers.append(names::MESSAGE_ID, "one");
    message.headers.append(names::MESSAGE_ID, "two");
    for for_stream in [false, true] {
        let back = round_trip(&message, for_stream);
        let all = |name| {
            back.headers
                .iter()
                .filter(|(n, _)| *n == name)
                .map(|(_, value)| value.to_string())
                .collect::<Vec<_>>()
        };
        assert_eq!(all("again"), ["0", "1", "2"]);
        assert_eq!(all(names::MESSAGE_ID), ["one", "two"]);
    }
}

#[test]
fn control_headers_are_never_sent_live() {
    let message = Message::new("x")
        .with_header("x-death", "forged")
        .with_header("CC", "elsewhere")
        .with_header("x-request-id", "kept");
    let properties = outbound(&message, false).unwrap();
    let table = properties.headers().as_ref().unwrap();
    assert!(!table.contains_key("x-death") && !table.contains_key("CC"));
    assert!(table.contains_key("postrider-original-x-death") && table.contains_key("x-request-id"));
}

#[test]
fn inbound_control_headers_are_renamed_and_deaths_of_the_ladder_dropped() {
    let mut table = FieldTable::default();
    table.insert("x-death".into(), AMQPValue::FieldArray(FieldArray::default()));
    table.insert("x-first-death-queue".into(), AMQPValue::LongString("q".into()));
    table.insert("x-delivery-count".into(), AMQPValue::LongLongInt(4));
    let properties = BasicProperties::default()
        .with_headers(table)
        .with_expiration("100".into())
        .with_user_id("guest".into());
    let from_topic = inbound(&properties, Vec::new(), false);
    assert_eq!(from_topic.redeliveries, 4);
    for name in ["x-death", "x-first-death-queue", "expiration", "user-id"] {
        let renamed = format!("{}{name}", names::ORIGINAL_PREFIX);
        assert!(from_topic.message.headers.get(&renamed).is_some(), "{renamed}");
        assert!(from_topic.message.headers.get(name).is_none());
    }
    let returned = inbound(&properties, Vec::new(), true).message;
    assert!(returned.headers.get("postrider-original-x-death").is_none());
    assert!(
        returned
            .headers
            .get("postrider-original-x-first-death-queue")
            .is_none()
    );
}

#[test]
fn types_that_a_stream_drops_are_carried_beside() {
    let nested = AMQPValue::FieldArray(vec![AMQPValue::LongInt(1)].into());
    let decimal = AMQPValue::DecimalValue(DecimalValue { scale: 1, value: 5 });
    let message = Message::new("x")
        .with_header("a", values::inbound(&nested))
        .with_header("b", values::inbound(&decimal))
        .with_header("c", "plain");
    let properties = outbound(&message, true).unwrap();
    let table = properties.headers().as_ref().unwrap();
    assert!(
        table
            .into_iter()
            .all(|(_, value)| values::survives_a_stream(value))
    );
    let back = round_trip(&message, true);
    for name in ["a", "b", "c"] {
        assert_eq!(back.headers.get(name), message.headers.get(name));
    }
}

#[test]
fn a_size_is_told_for_the_header_frame() {
    let properties = outbound(&full(), false).unwrap();
    let table = values::table_size(properties.headers().as_ref().unwrap());
    assert!(header_frame_size(&properties) > table + 20);
}

/// The values under each name, in their order; as text, since no number is equal to NaN.
fn by_name(message: &Message) -> BTreeMap<String, Vec<String>> {
    let mut names: BTreeMap<String, Vec<String>> = BTreeMap::new();
    for (name, value) in message.headers.iter() {
        let values = names.entry(name.to_owned()).or_default();
        values.push(format!("{value:?}"));
    }
    names
}

type Sent = (Vec<u8>, Option<Vec<u8>>, Vec<(u8, bool, Vec<u8>)>);

/// Whatever an application sends comes back: each name with all of its values in their order, and no other.
#[test]
fn any_message_comes_back() {
    const NAMES: [&str; 18] = [
        "",
        "a",
        "z",
        names::MESSAGE_ID,
        names::CONTENT_TYPE,
        names::TIMESTAMP,
        "type",
        "priority",
        TIMESTAMP_MS,
        KEY,
        "postrider-x",
        "expiration",
        "x-request-id",
        names::ATTEMPT,
        "x-death",
        "postrider-original-x-death",
        REPEATED,
        COUNTS[0],
    ];
    bolero::check!()
        .with_type::<Sent>()
        .for_each(|(payload, key, headers)| {
            let mut message = Message::new(payload.clone());
            message.key = key.clone().map(Into::into);
            for (which, text, said) in headers {
                let name = NAMES[usize::from(*which) % NAMES.len()];
                let value = match std::str::from_utf8(said) {
                    Ok(said) if *text => Value::from(said),
                    _ => values::inbound(&values::tests::any_value(&mut said.iter().copied(), 3)),
                };
                message.headers.append(name, value);
            }
            for for_stream in [false, true] {
                let back = round_trip(&message, for_stream);
                assert_eq!((&back.key, &back.payload), (&message.key, &message.payload));
                assert_eq!(by_name(&back), by_name(&message));
            }
        });
}

/// Whoever sent a message, with whatever headers: a copy of it can be sent, and is the same message.
#[test]
fn any_delivery_can_be_copied() {
    bolero::check!().for_each(|said: &[u8]| {
        let mut said = said.iter().copied();
        let mut properties = BasicProperties::default();
        if said.next().is_some_and(|said| said % 2 == 1) {
            properties = properties.with_expiration("5".into()).with_message_id("m".into());
        }
        if said.next().is_some_and(|said| said % 2 == 1) {
            properties = properties.with_timestamp(said.next().unwrap_or_default().into());
        }
        let properties = properties.with_headers(values::tests::any_table(&mut said, 3));
        for by_return_path in [false, true] {
            let came = inbound(&properties, b"p".to_vec(), by_return_path).message;
            for for_stream in [false, true] {
                let copy = round_trip(&came, for_stream);
                assert_eq!(copy.key, came.key);
                let cut = |(name, values): (String, Vec<String>)| {
                    (name.chars().take(255).collect::<String>(), values)
                };
                let expected: BTreeMap<_, _> = by_name(&came).into_iter().map(cut).collect();
                assert_eq!(by_name(&copy), expected);
                // Nor does giving it up again and again end that.
                let mut dead = came.clone();
                dead.headers = came
                    .headers
                    .iter()
                    .map(|(name, value)| (names::before(name), value.clone()))
                    .collect();
                assert!(outbound(&dead, for_stream).is_ok());
            }
        }
    });
}
