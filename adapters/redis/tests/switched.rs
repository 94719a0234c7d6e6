//! `ordered` is switched in a deploy, and instances of both versions run side by side for a while.

mod common;

use std::sync::Arc;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use common::*;
use postrider_contract::{Broker, Event, Order, Spec};
use redis::AsyncCommands as _;
use tokio::time::{Instant, sleep};

const LEASE: Duration = Duration::from_secs(2);

fn ordered(topic: &Arc<str>) -> Spec {
    Spec {
        order: Order::ByKey,
        in_flight: 1,
        ..spec(topic, "g")
    }
}

fn unordered(topic: &Arc<str>) -> Spec {
    Spec {
        order: Order::None,
        ..ordered(topic)
    }
}

async fn beside(instance: &str) -> Arc<dyn Broker> {
    connect(&format!("{}?lease=2s", url()), instance).await
}

/// The former version goes on alone until it ends, and the next one then.
async fn roll_out(former: Spec, next: Spec) {
    let topic = Arc::clone(former.topic());
    let (one, two) = (beside("one").await, beside("two").await);
    let mut first = open(&one, former).await;
    publish(&one, &topic, (0..6).map(|n| n.to_string())).await;
    let mut held = first.receive(1).await.remove(0);
    let mut second = open(&two, next).await;
    for number in 1..4 {
        first.subscription.settler.extend(&[held.token]).await;
        second.silent(LEASE / 2).await;
        first.ack(&held).await;
        held = first.receive(1).await.remove(0);
        assert_eq!(text(&held), number.to_string());
    }
    one.close(SOON).await.unwrap();
    for number in 3..6 {
        let got = second.receive(1).await.remove(0);
        assert_eq!(text(&got), number.to_string());
        second.ack(&got).await;
    }
    second.silent(LEASE / 4).await;
}

#[tokio::test]
async fn switched_on() {
    let topic = unique("on");
    roll_out(unordered(&topic), ordered(&topic)).await;
}

#[tokio::test]
async fn switched_off() {
    let topic = unique("off");
    roll_out(ordered(&topic), unordered(&topic)).await;
}

/// One that does not know of the lease is killed, another drains.
#[tokio::test]
async fn what_others_leave_behind_is_handled() {
    let topic = unique("left");
    let broker = beside("a").await;
    let mut open = open(&broker, ordered(&topic)).await;
    publish(&broker, &topic, ["0".into()]).await;
    let first = open.receive(1).await.remove(0);
    publish(&broker, &topic, ["1".into(), "2".into()]).await;
    let mut raw = raw().await;
    let mut read = redis::cmd("XREADGROUP");
    read.arg(&["GROUP", "g", "killed", "STREAMS", &topic, ">"]);
    let read: redis::streams::StreamReadReply = read.query_async(&mut raw).await.unwrap();
    let mut give_back = redis::cmd("XCLAIM");
    give_back.arg(&[
        &topic,
        "g",
        ":released",
        "0",
        &read.keys[0].ids[1].id,
        "IDLE",
        "86400000",
    ]);
    give_back.exec_async(&mut raw).await.unwrap();
    publish(&broker, &topic, ["3".into()]).await;
    open.ack(&first).await;
    let begun = Instant::now();
    let mut came = Vec::new();
    for _ in 0..3 {
        let got = open.receive(1).await.remove(0);
        open.ack(&got).await;
        came.push(text(&got));
    }
    came.sort();
    assert_eq!(came, ["1", "2", "3"]);
    assert!(begun.elapsed() < 3 * LEASE);
    assert!(
        open.news.iter().all(|news| !news.starts_with("Revoked")),
        "{:?}",
        open.news
    );
}

/// One that shares and is cut off until its lease has ended has nothing any more.
#[tokio::test]
async fn one_that_shares_and_comes_back_too_late_waits() {
    let topic = unique("late");
    let (one, two) = (beside("one").await, beside("two").await);
    let mut first = open(&one, unordered(&topic)).await;
    publish(&one, &topic, ["0".into()]).await;
    first.receive(1).await;
    let mut second = open(&two, ordered(&topic)).await;
    let ends = SystemTime::now().duration_since(UNIX_EPOCH).unwrap() + LEASE;
    let (key, lease) = (
        format!("{{{topic}}}.g.leader"),
        format!("{} 1 two", ends.as_millis()),
    );
    raw().await.set::<_, _, ()>(&key, lease).await.unwrap();
    assert_eq!(texts(&second.receive(1).await), ["0"]);
    while !matches!(first.event(1, &mut Vec::new()).await, Event::Revoked { .. }) {}
    sleep(LEASE).await;
    second.silent(LEASE / 2).await;
}
