//! Whatever the content, it arrives whole or is refused.

use postrider_contract::{Bytes, ErrorKind, Message, Outgoing, Verdict, names};

use crate::Run;
use crate::kit::{all_done, assert_each_once, assert_same_content, dead, id, kind, numbered, retry, spec};

/// Empty payloads, tombstones, keys and values that are no text, line breaks and zero bytes.
pub async fn odd_contents_arrive_intact(run: Run) {
    let topic = run.topic("t");
    let instance = run.connect().await;
    let [mut sub] = instance.open([spec(&topic, "g")]).await;
    let odd = [
        Message::new(""),
        Message::default(),
        Message::new("\u{feff}{\"not\": NaN"),
        Message::new(Bytes::from_static(b"\x00\xff\x00")).with_key(Bytes::from_static(b"\xff\x00\n")),
        Message::new("x").with_key(""),
        Message::new("x").with_header("x-not-utf-8", Bytes::from_static(b"\xc3\x28\xff")),
        Message::new("x").with_header("x-lines", "a\r\nb: c\0d"),
        Message::new("x").with_header("x-empty", ""),
        Message::new("x").with_header("x-long", "v".repeat(10_000)),
        Message::new("x").with_header("X-Mixed_Case.Name", "v"),
    ];
    let named = |(n, message): (usize, Message)| message.with_header(names::MESSAGE_ID, format!("id-{n}"));
    let odd: Vec<_> = odd.into_iter().enumerate().map(named).collect();
    let batch = odd
        .iter()
        .map(|message| Outgoing::to_topic(topic.clone(), message.clone()));
    instance.publish(batch.collect()).await;
    let deliveries = sub.handle(odd.len()).await;
    assert_each_once(&deliveries, 0..odd.len());
    for delivery in &deliveries {
        let n: usize = id(&delivery.message)[3..].parse().expect("an id of ours");
        let mut came = delivery.message.clone();
        if odd[n].key.as_ref().is_some_and(Bytes::is_empty) && came.key.is_none() {
            // Some brokers cannot tell an empty key from none.
            came.key = Some(Bytes::new());
        }
        assert_same_content(&came, &odd[n]);
    }
    instance.close().await;
}

/// Two hundred headers on one message.
pub async fn two_hundred_headers(run: Run) {
    let topic = run.topic("t");
    let instance = run.connect().await;
    let [mut sub] = instance.open([spec(&topic, "g")]).await;
    let mut message = numbered(0);
    for n in 0..200 {
        message.headers.append(format!("x-{n}"), format!("value {n}"));
    }
    instance
        .publish(vec![Outgoing::to_topic(topic, message.clone())])
        .await;
    let deliveries = sub.handle(1).await;
    assert_same_content(&deliveries[0].message, &message);
    instance.close().await;
}

/// Headers that would steer a broker are content here: live, they would drop or divert the message or its copies.
pub async fn broker_control_headers_divert_nothing(run: Run) {
    let topic = run.topic("t");
    let instance = run.connect().await;
    let [mut sub, mut other] = instance.open([spec(&topic, "g"), spec(&topic, "other")]).await;
    let control = [
        "expiration",
        "user-id",
        "CC",
        "BCC",
        "x-death",
        "x-delay",
        "priority",
        "type",
        "app-id",
        "partition-key",
    ];
    let mut message = numbered(0);
    for name in control {
        message.headers.append(name, "1");
    }
    instance
        .publish(vec![Outgoing::to_topic(topic, message.clone())])
        .await;
    let mut delivery = sub.one().await;
    other.handle(1).await;
    for attempt in 2..5 {
        assert_same_content(&delivery.message, &message);
        let copy = retry(&delivery, "g", attempt, std::time::Duration::ZERO);
        sub.emit(&delivery, vec![copy]).await;
        delivery = sub.one().await;
    }
    sub.ack(&[delivery]).await;
    other.quiet().await;
    instance.close().await;
}

/// A payload of exactly the limit.
pub async fn the_largest_payload_passes(run: Run) {
    let topic = run.topic("t");
    let instance = run.connect().await;
    let max = instance.broker.capabilities().max_payload;
    let [mut sub] = instance.open([spec(&topic, "g")]).await;
    let message = Message::new(vec![7; max]).with_header(names::MESSAGE_ID, "id-0");
    instance
        .publish(vec![Outgoing::to_topic(topic, message.clone())])
        .await;
    assert_same_content(&sub.handle(1).await[0].message, &message);
    instance.close().await;
}

/// One byte over the limit is refused before anything is sent; the rest of its batch goes through.
pub async fn too_large_is_refused_alone(run: Run) {
    let topic = run.topic("t");
    let instance = run.connect().await;
    let max = instance.broker.capabilities().max_payload;
    let [mut sub] = instance.open([spec(&topic, "g")]).await;
    let large = Message::new(vec![7; max + 1]).with_header(names::MESSAGE_ID, "id-large");
    let batch = vec![
        Outgoing::to_topic(topic.clone(), numbered(0)),
        Outgoing::to_topic(topic.clone(), large),
        Outgoing::to_topic(topic.clone(), numbered(1)),
    ];
    let mut results = instance.broker.publish(batch).await;
    assert_eq!(results.len(), 3, "an answer for each message");
    assert!(
        results[0].is_ok() && results[2].is_ok(),
        "the others go through: {results:?}"
    );
    assert_eq!(kind(results.remove(1)), ErrorKind::TooLarge);
    assert_each_once(&sub.handle(2).await, 0..2);
    sub.quiet().await;
    instance.close().await;
}

/// The largest message still fits when the return path and the dead-letter topic add their headers.
pub async fn the_largest_message_can_be_given_up(run: Run) {
    let topic = run.topic("t");
    let wishes = spec(&topic, "g");
    let instance = run.connect().await;
    let max = instance.broker.capabilities().max_payload;
    let [mut sub] = instance.open([wishes.clone()]).await;
    let message = Message::new(vec![7; max]).with_header(names::MESSAGE_ID, "id-0");
    instance
        .publish(vec![Outgoing::to_topic(topic.clone(), message.clone())])
        .await;
    let delivery = sub.one().await;
    let mut copy = retry(&delivery, "g", 2, std::time::Duration::ZERO);
    copy.message.headers.append("x-grown", "h".repeat(16 * 1024));
    all_done(
        &sub.settle([(delivery.token, Verdict::Ack { emit: vec![copy] })])
            .await,
    );
    let delivery = sub.one().await;
    assert_eq!(delivery.message.payload, message.payload);
    let topic_of_dead = wishes.dead_letter.as_deref().unwrap_or_default();
    sub.emit(&delivery, vec![dead(&delivery, "g", topic_of_dead)])
        .await;
    let mut letters = instance.broker.dead_letters(topic_of_dead, &topic, "g");
    let letters = letters.browse(None, 10).await.expect("browse");
    assert_eq!(letters.len(), 1);
    assert_eq!(letters[0].message.payload, message.payload);
    instance.close().await;
}
