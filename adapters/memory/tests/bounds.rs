//! Bounded queues: a publish waits for room, and nothing of its order is lost by that.

mod common;

use std::sync::Arc;
use std::time::Duration;

use postrider_contract::{Broker, ErrorKind, Event, Outgoing, Settled, Verdict};
use postrider_memory::Memory;

use common::{at_once, client, now, open, payloads, settle, spec, to};

async fn full(capacity: usize) -> (Arc<dyn Broker>, postrider_contract::Subscription) {
    let broker = Memory::new(capacity, 0).connect(client());
    let sub = open(&broker, spec("t", "g")).await;
    for n in 0..capacity {
        broker
            .publish(vec![to("t", &n.to_string())])
            .await
            .remove(0)
            .unwrap();
    }
    (broker, sub)
}

#[tokio::test(start_paused = true)]
async fn a_publish_waits_for_room_and_keeps_its_order() {
    let (broker, mut sub) = full(2).await;
    let more = vec![to("t", "2"), to("other", "free"), to("t", "3"), to("t", "4")];
    let publishing = {
        let broker = broker.clone();
        tokio::spawn(async move { broker.publish(more).await })
    };
    let mut all = Vec::new();
    while all.len() < 5 {
        let event = sub.receiver.next(1, &mut all).await;
        assert!(matches!(event, Ok(Event::Deliveries)));
    }
    assert_eq!(payloads(&all), ["0", "1", "2", "3", "4"]);
    assert!(publishing.await.unwrap().iter().all(Result::is_ok));
}

#[tokio::test(start_paused = true)]
async fn a_publish_without_room_fails_in_time() {
    let (broker, mut sub) = full(2).await;
    let results = broker.publish(vec![to("t", "never"), to("other", "goes")]).await;
    assert_eq!(results[0].as_ref().unwrap_err().kind(), ErrorKind::Unavailable);
    assert!(results[1].is_ok());
    assert_eq!(payloads(&at_once(&mut *sub.receiver).await), ["0", "1"]);
}

#[tokio::test(start_paused = true)]
async fn a_copy_without_room_leaves_its_original() {
    let broker = Memory::new(1, 0).connect(client());
    let mut sub = open(&broker, spec("source", "g")).await;
    let mut full = open(&broker, spec("full", "g")).await;
    broker
        .publish(vec![to("source", "original"), to("full", "first")])
        .await;
    let delivery = at_once(&mut *sub.receiver).await.remove(0);
    let emit = vec![Outgoing::to_topic("full", delivery.message.clone())];
    let verdict = Verdict::Ack { emit };
    let settled = settle(&sub.settler, &delivery, verdict.clone()).await;
    assert!(matches!(settled, Settled::Failed(_, error) if error.kind() == ErrorKind::Unavailable));
    // With room it goes, and the settlement waits no longer than that.
    let (settled, both) = tokio::join!(settle(&sub.settler, &delivery, verdict), async {
        tokio::time::sleep(Duration::from_secs(5)).await;
        at_once(&mut *full.receiver).await
    });
    assert!(matches!(settled, Settled::Done));
    assert_eq!(payloads(&both), ["first", "original"]);
    assert!(at_once(&mut *sub.receiver).await.is_empty());
}

#[tokio::test(start_paused = true)]
async fn retries_and_what_comes_back_are_never_refused() {
    let (broker, mut sub) = full(2).await;
    let held = at_once(&mut *sub.receiver).await;
    broker.publish(vec![to("t", "2"), to("t", "3")]).await;
    let copy = Outgoing::to_inbox("t", "g", held[0].message.clone());
    let retried = now(settle(&sub.settler, &held[0], Verdict::Ack { emit: vec![copy] })).await;
    assert!(matches!(retried, Some(Settled::Done)));
    let released = now(settle(&sub.settler, &held[1], Verdict::Release)).await;
    assert!(matches!(released, Some(Settled::Done)));
    assert_eq!(payloads(&at_once(&mut *sub.receiver).await), ["1", "2", "3", "0"]);
}

#[tokio::test(start_paused = true)]
async fn closing_ends_a_publish_that_waits() {
    let (broker, _sub) = full(1).await;
    let (results, ()) = tokio::join!(broker.publish(vec![to("t", "never")]), async {
        tokio::time::sleep(Duration::from_millis(10)).await;
        broker.close(Duration::ZERO).await.unwrap();
    });
    assert_eq!(results[0].as_ref().unwrap_err().kind(), ErrorKind::Closed);
}

#[tokio::test]
async fn history_is_bounded() {
    let broker = Memory::new(100, 3).connect(client());
    for n in 0..10 {
        broker
            .publish(vec![to("t", &n.to_string())])
            .await
            .remove(0)
            .unwrap();
    }
    let mut late = spec("t", "late");
    late.start = postrider_contract::Start::Earliest;
    let mut sub = open(&broker, late).await;
    assert_eq!(payloads(&at_once(&mut *sub.receiver).await), ["7", "8", "9"]);
}
