//! Closing, coming back, and a broker that goes away for a while.

use std::sync::Arc;
use std::time::Duration;

use postrider_contract::{ErrorKind, Event, Settled};
use tokio::time::{Instant, sleep, timeout};

use crate::Run;
use crate::kit::{Log, Worker, assert_each_once, count_ids, kind, numbered_for, spec};

/// After a close everything answers that it is closed, twice and thrice too, and nothing hangs.
pub async fn close_is_final_and_idempotent(run: Run) {
    let topic = run.topic("t");
    let instance = run.connect().await;
    let [mut sub] = instance.open([spec(&topic, "g")]).await;
    instance.publish_numbered(&topic, 0..2).await;
    let held = sub.take(2).await;
    instance.close().await;
    instance.close().await;
    for _ in 0..2 {
        let mut into = Vec::new();
        let event = timeout(run.patience(), sub.receiver.next(10, &mut into)).await;
        let event = event.expect("it answers");
        assert!(
            matches!(event, Ok(Event::Closed)),
            "a closed subscription says {event:?}"
        );
        assert!(into.is_empty());
    }
    let settled = sub
        .settle([(held[0].token, postrider_contract::Verdict::ACK)])
        .await;
    assert!(
        matches!(settled[..], [Settled::Stale]),
        "settled after the close: {settled:?}"
    );
    let results = instance.broker.publish(numbered_for(&topic, 2..4)).await;
    assert_eq!(results.len(), 2, "an answer for each message");
    for result in results {
        assert_eq!(kind(result), ErrorKind::Closed);
    }
    instance.close().await;
    drop((sub, instance));
    let instance = run.connect().await;
    let [mut sub] = instance.open([spec(&topic, "g")]).await;
    assert_each_once(&sub.handle(2).await, 0..2);
    instance.close().await;
}

/// A receive that waits, and several closes at once: all return soon.
pub async fn close_wakes_whoever_waits(run: Run) {
    let topic = run.topic("t");
    let instance = Arc::new(run.connect().await);
    let [mut sub] = instance.open([spec(&topic, "g")]).await;
    let waiting = tokio::spawn(async move {
        let mut into = Vec::new();
        loop {
            match sub.receiver.next(10, &mut into).await {
                Ok(Event::Closed) => return into.len(),
                Ok(_) => (),
                Err(error) => panic!("a closed subscription fails: {error}"),
            }
        }
    });
    sleep(Duration::from_millis(200)).await;
    let closing = (0..3).map(|_| {
        let instance = instance.clone();
        tokio::spawn(async move { instance.close().await })
    });
    let closing: Vec<_> = closing.collect();
    for close in closing {
        timeout(Duration::from_secs(15), close)
            .await
            .expect("close returns")
            .expect("close");
    }
    let waited = timeout(Duration::from_secs(15), waiting).await;
    assert_eq!(waited.expect("the receive returns").expect("it does not fail"), 0);
}

/// Two thousand messages while the only instance comes and goes: the union is complete.
pub async fn subscribing_again_and_again_loses_nothing(run: Run) {
    let topic = run.topic("t");
    let publisher = run.connect().await;
    publisher.plan(&[spec(&topic, "g")]).await;
    let publishing = {
        let topic = topic.clone();
        tokio::spawn(async move {
            for n in 0..100 {
                publisher.publish_numbered(&topic, n * 20..n * 20 + 20).await;
                sleep(Duration::from_millis(10)).await;
            }
            publisher
        })
    };
    let mut all = Vec::new();
    let until = Instant::now() + run.patience() + Duration::from_secs(20);
    while count_ids(&all).len() < 2000 {
        assert!(
            Instant::now() < until,
            "lost: {} of 2000 came",
            count_ids(&all).len()
        );
        let instance = run.connect().await;
        let [mut sub] = instance.open([spec(&topic, "g")]).await;
        let stay = Instant::now() + Duration::from_millis(700);
        while let Ok(some) = tokio::time::timeout_at(stay, sub.some(50)).await {
            // Every tenth goes back unsettled with the close.
            let (ack, keep) = some.split_at(some.len() - some.len() / 10);
            sub.ack(ack).await;
            drop(keep.to_vec());
            all.extend_from_slice(ack);
        }
        instance.close().await;
    }
    let publisher = publishing.await.expect("the publisher");
    let counts = count_ids(&all);
    let repeated = counts.values().filter(|&&n| n > 1).count();
    println!("acknowledged more than once: {repeated}");
    publisher.close().await;
}

/// The broker restarts in the middle of a thousand messages with eight publishers: what was confirmed is handled, and
/// publishers and subscriptions come back by themselves.
pub async fn broker_restart(run: Run) {
    let topic = run.topic("t");
    let publisher = Arc::new(run.connect().await);
    let instance = run.connect().await;
    let [sub] = instance.open([spec(&topic, "g")]).await;
    let log = Log::default();
    let worker = Worker::start("worker", sub, &log, Duration::from_millis(1));
    let publish = |nth: usize| {
        let (publisher, topic) = (publisher.clone(), topic.clone());
        tokio::spawn(async move {
            for n in nth * 125..nth * 125 + 125 {
                loop {
                    let result = publisher.broker.publish(numbered_for(&topic, n..n + 1)).await;
                    match &result[..] {
                        [Ok(_)] => break,
                        [Err(error)] if error.is_retryable() => sleep(Duration::from_millis(100)).await,
                        other => panic!("a publish during a restart: {other:?}"),
                    }
                }
                sleep(Duration::from_millis(20)).await;
            }
        })
    };
    let publishers: Vec<_> = (0..8).map(publish).collect();
    log.until(300, run.patience()).await;
    assert!(
        run.harness().restart().await,
        "this harness cannot restart its broker: name the case in not_possible, with the reason"
    );
    for publisher in publishers {
        publisher.await.expect("a publisher");
    }
    log.until(1000, run.patience()).await;
    let again = log.assert_complete(0..1000);
    println!("begun again after the restart: {again}");
    worker.stop().await;
    instance.close().await;
    publisher.close().await;
}
