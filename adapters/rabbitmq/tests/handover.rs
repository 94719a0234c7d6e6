//! Order by key while one instance drains and the next takes over.

mod support;

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::Duration;

use postrider_contract::{Broker, Event, Order, Spec, Verdict};
use support::{PATIENCE, Sub, connect, message, open, publish, raw, spec, unique, url};
use tokio::time::{Instant, sleep, timeout};

/// Longer than one message is taken at a time after one that could not be parsed.
const QUARANTINE: Duration = Duration::from_secs(100);

/// What the draining instance holds comes to the next one before anything that follows.
#[tokio::test]
async fn the_next_instance_begins_with_what_the_former_held() {
    let topic = unique("handover");
    let mut ordered = spec(&topic, "g");
    ordered.order = Order::ByKey;
    ordered.in_flight = 4;
    let (first, second) = (connect().await, connect().await);
    let mut former = open(&first, ordered.clone()).await;
    let mut next = open(&second, ordered).await;
    for n in 0..12 {
        publish(&first, &topic, message(&n.to_string()).with_key("k")).await;
    }
    let held = [former.one().await, former.one().await, former.one().await];
    former.ack(&held[0]).await;

    // A drain: no more is fetched, what was not started is given back, what runs is finished, then everything ends.
    former.receiver.pause(true).await;
    former.settle(&held[2], Verdict::Release).await;
    assert!(
        next.within(Duration::from_millis(500)).await.is_none(),
        "it is not its turn"
    );
    former.ack(&held[1]).await;
    drop(former);
    first.close(PATIENCE).await.unwrap();

    for n in 2..12 {
        let delivery = next.one().await;
        assert_eq!(
            delivery.message,
            message(&n.to_string()).with_key("k"),
            "in order"
        );
        next.ack(&delivery).await;
    }
    second.close(PATIENCE).await.unwrap();
}

/// Takes these, in order, before any is acknowledged.
async fn takes(sub: &mut Sub, numbers: std::ops::Range<u32>) {
    let mut taken = Vec::new();
    for n in numbers {
        let delivery = sub.one().await;
        assert_eq!(
            delivery.message,
            message(&n.to_string()).with_key("k"),
            "in order"
        );
        taken.push(delivery);
    }
    for delivery in &taken {
        sub.ack(delivery).await;
    }
}

/// A message that cannot be parsed has come on the first one's connection: its ordered listener takes one at a time.
async fn quarantined(first: &Arc<dyn Broker>, ordered: Spec) -> (Sub, Sub) {
    let beside = unique("beside");
    let mut former = open(first, ordered).await;
    let mut victim = open(first, spec(&beside, "g")).await;
    let there = url();
    tokio::task::spawn_blocking(move || raw::publish(&there, "postrider", &beside, b"\xff\xfe", b"bytes"))
        .await
        .unwrap();
    for sub in [&mut victim, &mut former] {
        sub.until(|event| matches!(event, Event::Degraded(_))).await;
    }
    former.until(|event| matches!(event, Event::Ready)).await;
    (former, victim)
}

/// While messages that cannot be parsed are about, one is taken at a time. Nobody else is given what follows meanwhile, nor
/// when that is over.
#[tokio::test(flavor = "multi_thread")]
async fn quarantine_keeps_the_order() {
    let topic = unique("quarantine");
    let mut ordered = spec(&topic, "g");
    ordered.order = Order::ByKey;
    ordered.in_flight = 4;
    let (first, second) = (connect().await, connect().await);
    let (mut former, _victim) = quarantined(&first, ordered.clone()).await;
    let mut next = open(&second, ordered).await;
    for n in 0..10 {
        publish(&second, &topic, message(&n.to_string()).with_key("k")).await;
    }
    let held = former.one().await;
    // Longer than a connection apart needs to prove sound.
    let long = Duration::from_secs(13);
    let (one_at_a_time, not_its_turn) = tokio::join!(former.within(long), next.within(long));
    assert!(one_at_a_time.is_none(), "{one_at_a_time:?}");
    assert!(not_its_turn.is_none(), "{not_its_turn:?}");
    former.ack(&held).await;
    for n in 1..10 {
        takes(&mut former, n..n + 1).await;
    }

    // In the end the channel is opened anew. The queue changes hands by that, and nothing is unsettled.
    let begun = Instant::now();
    loop {
        let mut none = Vec::new();
        let event = timeout(QUARANTINE, former.receiver.next(1, &mut none)).await;
        assert!(none.is_empty());
        match event.expect("in time").unwrap() {
            Event::Degraded(_) => break,
            other => println!("{other:?}"),
        }
    }
    println!("opened anew after {:?}", begun.elapsed());
    former.until(|event| matches!(event, Event::Ready)).await;
    for n in 10..18 {
        publish(&first, &topic, message(&n.to_string()).with_key("k")).await;
    }
    takes(&mut next, 10..14).await;
    drop(next);
    second.close(PATIENCE).await.unwrap();
    takes(&mut former, 14..18).await;
    first.close(PATIENCE).await.unwrap();
}

/// Handles so many, slowly: the next one that waits comes as soon as one is acknowledged.
async fn handles(sub: &mut Sub, many: usize, running: &AtomicBool, begun: &AtomicUsize) {
    for _ in 0..many {
        let delivery = sub.within(QUARANTINE).await.expect("it gets its turn");
        assert!(!running.swap(true, Ordering::Relaxed), "one after the other");
        let n = begun.fetch_add(1, Ordering::Relaxed);
        assert_eq!(
            delivery.message,
            message(&n.to_string()).with_key("k"),
            "in order"
        );
        sleep(Duration::from_millis(300)).await;
        running.store(false, Ordering::Relaxed);
        sub.ack(&delivery).await;
    }
}

/// When more is taken again something is nearly always in hand, where much waits. It is settled before the queue changes hands.
#[tokio::test(flavor = "multi_thread")]
async fn quarantine_ends_in_order_under_a_backlog() {
    const MANY: usize = 1_000;
    let topic = unique("quarantine");
    let mut ordered = spec(&topic, "g");
    ordered.order = Order::ByKey;
    let (first, second) = (connect().await, connect().await);
    let (mut former, _victim) = quarantined(&first, ordered.clone()).await;
    let mut next = open(&second, ordered).await;
    for n in 0..MANY {
        publish(&first, &topic, message(&n.to_string()).with_key("k")).await;
    }
    let (running, begun) = (AtomicBool::default(), AtomicUsize::default());
    tokio::select! {
        () = handles(&mut former, MANY, &running, &begun) => panic!("it keeps the queue"),
        () = handles(&mut next, 10, &running, &begun) => {}
    }
    println!("{begun:?} were begun");
}
