//! Publishing and receiving.

use std::sync::Arc;
use std::time::{Duration, Instant};

use postrider_contract::{Bytes, Message, Origin, Outgoing, names};

use crate::Run;
use crate::kit::{assert_each_once, assert_same_content, id, numbered, numbered_for, spec};

/// A hundred messages: ids, keys, payloads and headers are what was sent.
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
            .with_header(names::REPLY_TO, "answers")
            .with_header(
                names::TRACEPARENT,
                "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01",
            )
            .with_header("x-text", format!("header {n} \u{e4}"))
            .with_header("x-raw", Bytes::from(vec![0xff, 0xfe, n as u8, 0]))
    };
    let to_topic = |n| Outgoing::to_topic(topic.clone(), message(n));
    let receipts = instance.publish((0..100).map(to_topic).collect()).await;
    assert!(
        receipts.iter().all(|receipt| receipt.received),
        "a group receives the topic"
    );
    let deliveries = sub.handle(100).await;
    assert_each_once(&deliveries, 0..100);
    for delivery in &deliveries {
        let n: usize = id(&delivery.message)[3..].parse().expect("an id of ours");
        assert_eq!(delivery.origin, Origin::Topic);
        assert_eq!(delivery.topic, topic);
        assert_same_content(&delivery.message, &message(n));
    }
    sub.quiet().await;
    instance.close().await;
}

/// Twenty topics in one instance: each subscription gets its own messages and no others.
pub async fn twenty_topics_do_not_mix(run: Run) {
    let instance = run.connect().await;
    let topics: [_; 20] = std::array::from_fn(|n| run.topic(&format!("t{n}")));
    let specs = topics.each_ref().map(|topic| spec(topic, "g"));
    let mut subs = instance.open(specs).await;
    let batch = (0..200).map(|n| Outgoing::to_topic(topics[n % 20].clone(), numbered(n)));
    instance.publish(batch.collect()).await;
    for (nth, sub) in subs.iter_mut().enumerate() {
        let deliveries = sub.handle(10).await;
        for delivery in &deliveries {
            let n: usize = id(&delivery.message)[3..].parse().expect("an id of ours");
            assert_eq!((n % 20, &delivery.topic), (nth, &topics[nth]), "message {n}");
        }
    }
    for sub in &mut subs {
        sub.quiet_for(Duration::from_millis(50)).await;
    }
    instance.close().await;
}

/// Many publishes under way at once on one connection: all are confirmed, all arrive.
pub async fn fifty_publishers_at_once(run: Run) {
    let topic = run.topic("t");
    let instance = Arc::new(run.connect().await);
    let [mut sub] = instance.open([spec(&topic, "g")]).await;
    let publish = |publisher: usize| {
        let (instance, topic) = (instance.clone(), topic.clone());
        tokio::spawn(async move {
            for n in 0..20 {
                let nth = publisher * 20 + n;
                instance.publish(numbered_for(&topic, nth..nth + 1)).await;
            }
        })
    };
    let publishers: Vec<_> = (0..50).map(publish).collect();
    let deliveries = sub.handle(1000).await;
    for publisher in publishers {
        publisher.await.expect("a publisher");
    }
    assert_each_once(&deliveries, 0..1000);
    instance.close().await;
}

/// After seconds without a message the next one comes promptly: no wake-up is lost.
pub async fn an_idle_subscription_wakes(run: Run) {
    let topic = run.topic("t");
    let instance = run.connect().await;
    let [mut sub] = instance.open([spec(&topic, "g")]).await;
    for n in 0..3 {
        sub.quiet_for(Duration::from_millis(1500)).await;
        let began = Instant::now();
        instance.publish_numbered(&topic, n..n + 1).await;
        sub.handle(1).await;
        let took = began.elapsed();
        assert!(
            took < Duration::from_secs(3),
            "an idle subscription took {took:?}"
        );
    }
    instance.close().await;
}
