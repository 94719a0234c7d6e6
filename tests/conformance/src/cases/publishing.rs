//! What a publisher is told.

use postrider_contract::{ErrorKind, Message, Outgoing, Settled, Verdict};

use crate::Run;
use crate::kit::{assert_each_once, kind, numbered, numbered_for, spec};

/// A topic that nobody receives is no error, unless a receiver is required and the broker can tell.
pub async fn nobody_receives(run: Run) {
    let (nobody, somebody) = (run.topic("nobody"), run.topic("somebody"));
    let instance = run.connect().await;
    let tells = instance.broker.capabilities().knows_receivers;
    let [mut sub] = instance.open([spec(&somebody, "g")]).await;
    let receipts = instance.publish(numbered_for(&nobody, 0..1)).await;
    assert_eq!(
        receipts[0].received, !tells,
        "nobody received it, which the broker can tell: {tells}"
    );
    let required = |topic: &std::sync::Arc<str>| {
        let mut outgoing = Outgoing::to_topic(topic.clone(), numbered(0));
        outgoing.require_receiver = true;
        outgoing
    };
    let mut results = instance
        .broker
        .publish(vec![required(&nobody), required(&somebody)])
        .await;
    assert_eq!(results.len(), 2, "an answer for each message");
    let to_somebody = results.remove(1).expect("a group receives it");
    assert!(to_somebody.received);
    let to_nobody = results.remove(0);
    if tells {
        assert_eq!(kind(to_nobody), ErrorKind::NoReceiver);
    } else {
        assert!(
            to_nobody.is_ok(),
            "a broker that cannot tell does not pretend: {to_nobody:?}"
        );
    }
    // What goes with an acknowledgement is no different.
    let delivery = sub.one().await;
    let emit = [&nobody, &somebody, &nobody].map(|topic| Outgoing::to_topic(topic.clone(), numbered(1)));
    let verdict = Verdict::Ack { emit: emit.into() };
    match sub.settle([(delivery.token, verdict)]).await.remove(0) {
        Settled::Unreceived(places) if tells => assert_eq!(places, [0, 2]),
        Settled::Done if !tells => {}
        other => panic!("emitted to nobody, which the broker can tell: {tells}, settled as {other:?}"),
    }
    sub.handle(1).await;
    instance.close().await;
}

/// In a mixed batch every answer stands at the place of its message.
pub async fn answers_match_their_messages(run: Run) {
    let topic = run.topic("t");
    let instance = run.connect().await;
    let max = instance.broker.capabilities().max_payload;
    let [mut sub] = instance.open([spec(&topic, "g")]).await;
    let is_bad = |n: usize| n % 5 == 3;
    let batch = (0..40).map(|n| {
        let message = if is_bad(n) {
            Message::new(vec![0; max + 1])
        } else {
            numbered(n)
        };
        Outgoing::to_topic(topic.clone(), message)
    });
    let results = instance.broker.publish(batch.collect()).await;
    assert_eq!(results.len(), 40, "an answer for each message");
    for (n, result) in results.iter().enumerate() {
        assert_eq!(result.is_err(), is_bad(n), "message {n}: {result:?}");
    }
    let deliveries = sub.handle(32).await;
    let good: Vec<_> = (0..40)
        .filter(|&n| !is_bad(n))
        .map(|n| format!("id-{n}"))
        .collect();
    let counts = crate::kit::count_ids(&deliveries);
    assert!(good.iter().all(|id| counts.get(id) == Some(&1)), "{counts:?}");
    sub.quiet().await;
    instance.close().await;
}

/// A large batch is confirmed and arrives whole, also through a smaller window.
pub async fn five_thousand_in_one_batch(run: Run) {
    let topic = run.topic("t");
    let instance = run.connect().await;
    let [mut sub] = instance.open([spec(&topic, "g")]).await;
    instance.publish_numbered(&topic, 0..5000).await;
    assert_each_once(&sub.handle(5000).await, 0..5000);
    sub.quiet().await;
    instance.close().await;
}
