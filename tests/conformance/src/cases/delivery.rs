//! Publishing and receiving.

use postrider_contract::{Bytes, Message, Origin, Outgoing, Value, names};

use crate::Run;
use crate::kit::{assert_each_once, id, spec};

/// A hundred messages: ids, keys, payload and headers are what was sent.
pub async fn hundred_arrive_intact(run: Run) {
    let topic = run.topic("t");
    let instance = run.connect().await;
    let [mut sub] = instance.open([spec(&topic, "g")]).await;
    let message = |n: usize| {
        Message::new(vec![n as u8, 0, 255, b'\n', n as u8])
            .with_key(format!("key-{}", n % 7))
            .with_header(names::MESSAGE_ID, format!("id-{n}"))
            .with_header(names::CONTENT_TYPE, "application/x-test")
            .with_header(names::CORRELATION_ID, format!("correlation-{n}"))
            .with_header("x-text", format!("header {n} \u{e4}"))
            .with_header("x-empty", "")
            .with_header("x-raw", Bytes::from(vec![0xff, 0xfe, n as u8, 0]))
    };
    let batch = (0..100)
        .map(|n| Outgoing::to_topic(topic.clone(), message(n)))
        .collect();
    let receipts = instance.publish(batch).await;
    assert!(
        receipts.iter().all(|receipt| receipt.received),
        "a group receives the topic"
    );
    let deliveries = sub.handle(100).await;
    assert_each_once(&deliveries, 0..100);
    for delivery in &deliveries {
        let n: usize = id(&delivery.message)[3..].parse().expect("an id of ours");
        let sent = message(n);
        assert_eq!(delivery.origin, Origin::Topic);
        assert_eq!(delivery.topic, topic);
        assert_eq!(delivery.message.key, sent.key);
        assert_eq!(delivery.message.payload, sent.payload);
        for (name, value) in sent.headers.iter() {
            let came = delivery.message.headers.get(name).map(Value::to_bytes);
            assert_eq!(came, Some(value.to_bytes()), "header {name}");
        }
    }
    sub.quiet().await;
    instance.close().await;
}

/// Every group sees every message.
pub async fn two_groups_each_see_all(run: Run) {
    let topic = run.topic("t");
    let instance = run.connect().await;
    let [mut one, mut two] = instance.open([spec(&topic, "one"), spec(&topic, "two")]).await;
    instance.publish_numbered(&topic, 0..100).await;
    assert_each_once(&one.handle(100).await, 0..100);
    assert_each_once(&two.handle(100).await, 0..100);
    instance.close().await;
}
