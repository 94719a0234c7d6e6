//! Back-pressure: what is not asked for does not come, and nothing is lost by asking differently.

use std::time::Duration;

use tokio::time::timeout;

use crate::Run;
use crate::kit::{assert_each_once, spec};

/// Never more than asked for, and nothing while the window is full.
pub async fn in_flight_is_a_bound(run: Run) {
    let topic = run.topic("t");
    let mut wishes = spec(&topic, "g");
    wishes.in_flight = 5;
    let instance = run.connect().await;
    let [mut sub] = instance.open([wishes]).await;
    instance.publish_numbered(&topic, 0..60).await;
    let mut all = Vec::new();
    let mut held = sub.take(5).await;
    for _ in 0..3 {
        assert_eq!(sub.room(), 0);
        sub.quiet_for(Duration::from_millis(300)).await;
        let settled = held.remove(2);
        sub.ack(std::slice::from_ref(&settled)).await;
        all.push(settled);
        held.extend(sub.take(1).await);
    }
    sub.ack(&held).await;
    all.extend(held);
    all.extend(sub.handle(52).await);
    assert_each_once(&all, 0..60);
    sub.quiet().await;
    instance.close().await;
}

/// An instance whose window is full leaves the rest to its peers.
pub async fn what_one_may_not_take_a_peer_gets(run: Run) {
    let topic = run.topic("t");
    let mut wishes = spec(&topic, "g");
    wishes.in_flight = 4;
    let [(one, mut first), (two, mut second)] = run.two(&wishes).await;
    one.publish_numbered(&topic, 0..40).await;
    let mut held = first.take(4).await;
    let rest = second.handle(36).await;
    first.ack(&held).await;
    held.extend(rest);
    assert_each_once(&held, 0..40);
    one.close().await;
    two.close().await;
}

/// Asking for none waits for news and takes nothing.
pub async fn asking_for_none_brings_news_only(run: Run) {
    let topic = run.topic("t");
    let instance = run.connect().await;
    let [mut sub] = instance.open([spec(&topic, "g")]).await;
    instance.publish_numbered(&topic, 0..5).await;
    let mut none = Vec::new();
    let asked = timeout(Duration::from_millis(700), async {
        loop {
            drop(sub.receiver.next(0, &mut none).await);
        }
    });
    assert!(asked.await.is_err());
    assert!(none.is_empty(), "{} came unasked", none.len());
    assert_each_once(&sub.handle(5).await, 0..5);
    instance.close().await;
}

/// A fetch that is under way may still bring what it finds; then nothing comes before it is resumed.
pub async fn paused_brings_nothing(run: Run) {
    let topic = run.topic("t");
    let instance = run.connect().await;
    let [mut sub] = instance.open([spec(&topic, "g")]).await;
    instance.publish_numbered(&topic, 0..5).await;
    sub.handle(5).await;
    sub.receiver.pause(true).await;
    sub.quiet_for(Duration::from_millis(200)).await;
    instance.publish_numbered(&topic, 5..10).await;
    let mut all = Vec::new();
    while let Ok(under_way) = timeout(Duration::from_secs(1), sub.some(100)).await {
        sub.ack(&under_way).await;
        all.extend(under_way);
    }
    instance.publish_numbered(&topic, 10..20).await;
    sub.quiet_for(Duration::from_secs(1)).await;
    sub.receiver.pause(false).await;
    all.extend(sub.handle(15 - all.len()).await);
    assert_each_once(&all, 5..20);
    instance.close().await;
}

/// A thousand messages through receives that are dropped again and again: each exactly once.
pub async fn cancelled_receives_lose_nothing(run: Run) {
    let topic = run.topic("t");
    let instance = run.connect().await;
    let [mut sub] = instance.open([spec(&topic, "g")]).await;
    let publisher = {
        let (broker, topic) = (instance.broker.clone(), topic.clone());
        tokio::spawn(async move {
            for n in 0..50 {
                let batch = crate::kit::numbered_for(&topic, n * 20..n * 20 + 20);
                for result in broker.publish(batch).await {
                    result.expect("the broker confirms");
                }
                tokio::time::sleep(Duration::from_millis(5)).await;
            }
        })
    };
    let (mut all, mut cut) = (Vec::new(), 0u64);
    let until = tokio::time::Instant::now() + run.patience();
    while all.len() < 1000 {
        assert!(
            tokio::time::Instant::now() < until,
            "lost: {} of 1000 came",
            all.len()
        );
        match timeout(Duration::from_micros(cut * 337 % 4000), sub.some(7)).await {
            Ok(some) => {
                sub.ack(&some).await;
                all.extend(some);
            }
            Err(_) => cut += 1,
        }
    }
    publisher.await.expect("the publisher");
    assert!(cut > 0, "no receive was ever dropped");
    assert_each_once(&all, 0..1000);
    sub.quiet().await;
    instance.close().await;
}
