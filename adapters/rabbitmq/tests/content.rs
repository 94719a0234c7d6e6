//! What travels keeps its types on every way, and what could divert a copy is not sent live.

mod support;

use std::time::{Duration, SystemTime};

use lapin::BasicProperties;
use lapin::options::{BasicGetOptions, BasicPublishOptions};
use lapin::types::{AMQPValue, DecimalValue, FieldTable};
use postrider_contract::{Message, Origin, Outgoing, Settled, Topology, Value, names};
use support::{connect, dead, lapin, message, open, publish, spec, unique};

fn every_type() -> FieldTable {
    let mut inner = FieldTable::default();
    inner.insert("n".into(), AMQPValue::LongInt(1));
    let mut table = FieldTable::default();
    for (name, value) in [
        ("a-bool", AMQPValue::Boolean(true)),
        ("b-i8", AMQPValue::ShortShortInt(-3)),
        ("c-u8", AMQPValue::ShortShortUInt(200)),
        ("d-i16", AMQPValue::ShortInt(-300)),
        ("e-u16", AMQPValue::ShortUInt(60_000)),
        ("f-i32", AMQPValue::LongInt(-70_000)),
        ("g-u32", AMQPValue::LongUInt(4_000_000_000)),
        ("h-i64", AMQPValue::LongLongInt(i64::MIN)),
        ("i-f32", AMQPValue::Float(0.1)),
        ("j-f64", AMQPValue::Double(0.1)),
        (
            "k-decimal",
            AMQPValue::DecimalValue(DecimalValue { scale: 2, value: 314 }),
        ),
        ("l-text", AMQPValue::LongString("text ä".into())),
        ("m-binary-text", AMQPValue::LongString(vec![0xff, 0xfe].into())),
        (
            "n-array",
            AMQPValue::FieldArray(vec![AMQPValue::LongInt(1), AMQPValue::Void].into()),
        ),
        ("o-time", AMQPValue::Timestamp(1_700_000_000)),
        ("p-table", AMQPValue::FieldTable(inner)),
        ("q-bytes", AMQPValue::ByteArray(vec![0, 0xff].into())),
        ("r-void", AMQPValue::Void),
        ("x-request-id", AMQPValue::LongString("kept".into())),
    ] {
        table.insert(name.into(), value);
    }
    table
}

/// As another program does.
async fn publish_foreign(topic: &str, payload: &[u8], properties: BasicProperties) {
    let options = BasicPublishOptions::default();
    let publishing = lapin()
        .await
        .basic_publish("postrider".into(), topic.into(), options, payload, properties)
        .await;
    publishing.unwrap();
}

/// A foreign message with every type that AMQP has goes through a retry, a delayed retry, the dead letters and a replay.
#[tokio::test]
async fn types_survive_every_way() {
    let topic = unique("types");
    let broker = connect().await;
    let wishes = spec(&topic, "g");
    let mut sub = open(&broker, wishes).await;
    let properties = BasicProperties::default()
        .with_message_id("m".into())
        .with_type("kind".into())
        .with_content_encoding("identity".into())
        .with_app_id("other".into())
        .with_priority(3)
        .with_timestamp(1_700_000_000)
        .with_headers(every_type());
    publish_foreign(&topic, b"\x00\xff", properties).await;

    let first = sub.one().await;
    assert_eq!(first.origin, Origin::Topic);
    let original = first.message.clone();
    assert_eq!(original.headers.len(), every_type().inner().len() + 6);
    let soon = SystemTime::now() + Duration::from_millis(150);
    let copy = || {
        Outgoing::to_inbox(
            topic.as_str(),
            "g",
            original.clone().with_header(names::ATTEMPT, 2i64),
        )
    };
    assert!(matches!(sub.emit(&first, vec![copy()]).await, Settled::Done));
    let at_once = sub.one().await;
    assert!(matches!(
        sub.emit(&at_once, vec![copy().not_before(soon)]).await,
        Settled::Done
    ));
    let delayed = sub.one().await;
    let attempt_2 = Origin::ReturnPath {
        attempt: 2,
        replays: 0,
    };
    for returned in [&at_once, &delayed] {
        assert_eq!(returned.origin, attempt_2);
        let mut came = returned.message.clone();
        came.headers.remove(names::ATTEMPT);
        assert_same(&came, &original);
    }

    assert!(matches!(
        sub.emit(&delayed, vec![dead(&original, &topic, "g")]).await,
        Settled::Done
    ));
    let mut letters = broker.dead_letters(&names::dead_letter_topic(&topic, "g"), &topic, "g");
    let found = letters.browse(None, 10).await.unwrap();
    let mut letter = found[0].message.clone();
    letter
        .headers
        .retain(|name, _| !name.starts_with(names::DEAD_PREFIX));
    assert_same(&letter, &original);

    letters.replay(&[found[0].id.clone()]).await.remove(0).unwrap();
    let replayed = sub.one().await;
    assert_eq!(
        replayed.origin,
        Origin::ReturnPath {
            attempt: 1,
            replays: 1
        }
    );
    let mut came = replayed.message.clone();
    came.headers.remove(names::REPLAYS);
    assert_same(&came, &original);
}

/// Headers are compared without their order: a table on the wire has none.
fn assert_same(came: &Message, sent: &Message) {
    assert_eq!(came.payload, sent.payload);
    let sorted = |message: &Message| {
        let mut all: Vec<(String, Value)> = message
            .headers
            .iter()
            .map(|(name, value)| (name.to_owned(), value.clone()))
            .collect();
        all.sort_by(|one, other| one.0.cmp(&other.0));
        all
    };
    assert_eq!(sorted(came), sorted(sent));
}

/// What a producer writes into headers, publishes straight to the queue, or routes like the ladder does, proves nothing.
#[tokio::test]
async fn the_return_path_is_proven() {
    let topic = unique("proof");
    let broker = connect().await;
    let mut sub = open(&broker, spec(&topic, "g")).await;
    let mut table = FieldTable::default();
    table.insert(names::ATTEMPT.into(), AMQPValue::LongLongInt(5));
    table.insert("x-death".into(), AMQPValue::LongString("forged".into()));
    for count in ["x-delivery-count", "x-acquired-count"] {
        table.insert(count.into(), AMQPValue::LongLongInt(25));
    }
    let properties = BasicProperties::default().with_headers(table);
    let channel = lapin().await;
    for (exchange, key) in [("postrider", topic.clone()), ("", format!("{topic}.g"))] {
        let options = BasicPublishOptions::default();
        channel
            .basic_publish(
                exchange.into(),
                key.as_str().into(),
                options,
                b"x",
                properties.clone(),
            )
            .await
            .unwrap();
        let came = sub.one().await;
        assert_eq!(came.origin, Origin::Topic, "through {exchange:?}");
        assert_eq!(came.redeliveries, Some(0), "through {exchange:?}");
        assert!(came.message.headers.get("postrider-original-x-death").is_some());
        sub.ack(&came).await;
    }
}

/// A copy of a message that came with control properties neither expires nor goes elsewhere nor closes the channel.
#[tokio::test]
async fn control_properties_are_kept_but_not_live() {
    let topic = unique("control");
    let elsewhere = unique("elsewhere");
    let broker = connect().await;
    let mut sub = open(&broker, spec(&topic, "g")).await;
    let mut other = open(&broker, spec(&elsewhere, "g")).await;
    let mut table = FieldTable::default();
    let copies = AMQPValue::FieldArray(vec![AMQPValue::LongString(elsewhere.as_str().into())].into());
    table.insert("CC".into(), copies);
    let properties = BasicProperties::default()
        .with_headers(table)
        .with_expiration("60000".into())
        .with_user_id("guest".into());
    publish_foreign(&topic, b"x", properties).await;
    let came = sub.one().await;
    let headers = &came.message.headers;
    assert_eq!(headers.get_str("postrider-original-expiration"), Some("60000"));
    assert_eq!(headers.get_str("postrider-original-user-id"), Some("guest"));
    // The producer's own CC was obeyed once; a copy's is not.
    let carbon = other.one().await;
    other.ack(&carbon).await;
    let copy = Outgoing::to_inbox(topic.as_str(), "g", came.message.clone());
    assert!(matches!(sub.emit(&came, vec![copy]).await, Settled::Done));
    let again = sub.one().await;
    let died = dead(&again.message, &topic, "g");
    assert!(matches!(sub.emit(&again, vec![died]).await, Settled::Done));
    let mut letters = broker.dead_letters(&names::dead_letter_topic(&topic, "g"), &topic, "g");
    assert_eq!(letters.browse(None, 10).await.unwrap().len(), 1);
    assert!(other.within(Duration::from_millis(500)).await.is_none());
}

/// As a property the address of direct replies closes the channel of whoever has no consumer for it. As a header, from another
/// program or an application, it is content.
#[tokio::test]
async fn the_address_of_direct_replies_closes_no_channel() {
    const DIRECT: &str = "amq.rabbitmq.reply-to";
    let topic = unique("direct-reply");
    let broker = connect().await;
    let mut sub = open(&broker, spec(&topic, "g")).await;
    let mut table = FieldTable::default();
    table.insert(names::REPLY_TO.into(), AMQPValue::LongString(DIRECT.into()));
    publish_foreign(&topic, b"x", BasicProperties::default().with_headers(table)).await;
    let foreign = sub.one().await;
    let copy = Outgoing::to_inbox(topic.as_str(), "g", foreign.message.clone());
    let settled = sub.emit(&foreign, vec![copy]).await;
    assert!(matches!(settled, Settled::Done), "{settled:?}");
    let again = sub.one().await;
    assert_same(&again.message, &foreign.message);
    let died = dead(&again.message, &topic, "g");
    let settled = sub.emit(&again, vec![died]).await;
    assert!(matches!(settled, Settled::Done), "{settled:?}");

    publish(
        &broker,
        &topic,
        message("own").with_header(names::REPLY_TO, DIRECT),
    )
    .await;
    let own = sub.one().await;
    assert_eq!(own.message.headers.get_str(names::REPLY_TO), Some(DIRECT));
    sub.ack(&own).await;
}

/// A header of that name says nothing to the broker: a quorum queue delivers by priority from RabbitMQ 4.0 on, and that would
/// break the order of an `ordered` listener. A copy of a message that has one keeps it as a header.
#[tokio::test]
async fn a_priority_is_content() {
    let topic = unique("priority");
    let broker = connect().await;
    broker
        .plan(&[spec(&topic, "g")], Topology::Declare)
        .await
        .unwrap();
    let sent = message("m").with_header("priority", 7i64);
    let ways = [
        Outgoing::to_topic(topic.as_str(), sent.clone()),
        Outgoing::to_inbox(topic.as_str(), "g", sent),
    ];
    for way in ways {
        broker.publish(vec![way]).await.remove(0).unwrap();
        let options = BasicGetOptions { no_ack: true };
        let got = lapin()
            .await
            .basic_get(format!("{topic}.g").into(), options)
            .await
            .unwrap()
            .unwrap();
        assert_eq!(*got.properties.priority(), None);
        let headers = got.properties.headers().as_ref().unwrap().inner();
        assert_eq!(headers.get("priority"), Some(&AMQPValue::LongLongInt(7)));
    }
}

/// Headers that do not fit a frame would close the connection: they are refused, and others are not disturbed.
#[tokio::test]
async fn headers_that_fit_no_frame_are_refused() {
    let topic = unique("frames");
    let broker = connect().await;
    let mut sub = open(&broker, spec(&topic, "g")).await;
    let large = |bytes: usize| message("large").with_header("h", "x".repeat(bytes));
    let answers = broker
        .publish(vec![
            Outgoing::to_topic(topic.as_str(), large(200_000)),
            Outgoing::to_topic(topic.as_str(), large(60_000)),
        ])
        .await;
    let error = answers[0].as_ref().unwrap_err();
    assert_eq!(error.kind(), postrider_contract::ErrorKind::TooLarge, "{error}");
    assert!(answers[1].is_ok());
    // Its dead letter grows, and still fits.
    let came = sub.one().await;
    let died = came
        .message
        .clone()
        .with_header(names::DEAD_ERROR, "e".repeat(4096));
    assert!(matches!(
        sub.emit(&came, vec![dead(&died, &topic, "g")]).await,
        Settled::Done
    ));
    publish(&broker, &topic, message("after")).await;
    assert_eq!(
        sub.one().await.message.headers.get_str(names::MESSAGE_ID),
        Some("after")
    );
}

/// What another program sent is larger than what this one may send: it is retried, dead-lettered and replayed all the same.
#[tokio::test]
async fn what_was_received_is_put_back_however_large() {
    const SIZE: usize = 2_000_000;
    let topic = unique("large");
    let broker = connect().await;
    assert!(broker.capabilities().max_payload < SIZE);
    let mut sub = open(&broker, spec(&topic, "g")).await;
    publish_foreign(&topic, &vec![b'x'; SIZE], BasicProperties::default()).await;
    let first = sub.one().await;
    let copy = Outgoing::to_inbox(topic.as_str(), "g", first.message.clone());
    let settled = sub.emit(&first, vec![copy]).await;
    assert!(matches!(settled, Settled::Done));
    let again = sub.one().await;
    let settled = sub.emit(&again, vec![dead(&again.message, &topic, "g")]).await;
    assert!(matches!(settled, Settled::Done));
    let mut letters = broker.dead_letters(&names::dead_letter_topic(&topic, "g"), &topic, "g");
    let found = letters.browse(None, 10).await.unwrap();
    letters.replay(&[found[0].id.clone()]).await.remove(0).unwrap();
    assert_eq!(sub.one().await.message.payload_size(), SIZE);
    // What it publishes itself is limited, also in the place of what it received.
    let replayed = Outgoing::to_topic(topic.as_str(), first.message);
    let error = broker.publish(vec![replayed]).await.remove(0).unwrap_err();
    assert_eq!(error.kind(), postrider_contract::ErrorKind::TooLarge, "{error}");
}
