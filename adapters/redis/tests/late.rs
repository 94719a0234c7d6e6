//! What reaches the server after its sender has given up on it: an ordered group's one reader must not be disturbed by it.

mod common;

use std::time::{SystemTime, UNIX_EPOCH};

use common::detour::Detour;
use common::own::Own;
use common::*;
use postrider_contract::{Event, Order, Outgoing, Spec, Topology, names};
use redis::AsyncCommands as _;

fn ordered(topic: &std::sync::Arc<str>, in_flight: u32) -> Spec {
    Spec {
        order: Order::ByKey,
        in_flight,
        ..spec(topic, "g")
    }
}

/// What it takes would lie with an instance that does not know of it, while that instance reads on behind it.
#[tokio::test]
async fn a_read_takes_nothing() {
    let own = Own::start(&[]);
    let detour = Detour::to(own.port).await;
    let topic = unique("late");
    let direct = connect(&own.streams(""), "publisher").await;
    let broker = connect(&detour.streams(""), "a").await;
    let mut open = open(&broker, ordered(&topic, 1)).await;
    publish(&direct, &topic, ["0".into()]).await;
    let got = open.receive(1).await.remove(0);
    open.ack(&got).await;
    // It looks for the next one, and is not answered.
    detour.hold();
    while !matches!(open.event(1, &mut Vec::new()).await, Event::Degraded(_)) {}
    open.ready().await;
    publish(&direct, &topic, ["1".into()]).await;
    let got = open.receive(1).await.remove(0);
    publish(&direct, &topic, ["2".into(), "3".into()]).await;
    let arrived = detour.let_go().await;
    let read = format!(".g.leader\r\n${}\r\n{topic}\r\n", topic.len());
    assert!(arrived.contains(&read), "{arrived}");
    open.ack(&got).await;
    for next in ["2", "3"] {
        let got = open.receive(1).await.remove(0);
        assert_eq!(text(&got), next);
        open.ack(&got).await;
    }
}

/// A process that ends and one of the same name that begins, in the wrong order.
#[tokio::test]
async fn what_is_given_back_stays_with_the_next_of_the_same_name() {
    let own = Own::start(&[]);
    let detour = Detour::to(own.port).await;
    let topic = unique("late");
    let next = connect(&own.streams(""), "a").await;
    let broker = connect(&detour.streams(""), "a").await;
    let mut first = open(&broker, ordered(&topic, 3)).await;
    publish(&next, &topic, (0..3).map(|n| n.to_string())).await;
    first.receive(3).await;
    detour.hold();
    broker.close(SOON).await.unwrap();
    let mut second = open(&next, ordered(&topic, 3)).await;
    let got = second.receive(3).await;
    let arrived = detour.let_go().await;
    assert!(arrived.contains(":released"), "{arrived}");
    let dead = names::dead_letter_topic(&topic, "g");
    for got in &got {
        second
            .emit(got, Outgoing::to_topic(dead.as_str(), got.message.clone()))
            .await;
    }
    assert_eq!(texts(&got), ["0", "1", "2"]);
}

/// Nor does an earlier session take the lease back: whatever it had in mind, a later one has looked at everything since.
#[tokio::test]
async fn a_later_session_keeps_the_lease() {
    let own = Own::start(&[]);
    let topic = unique("later");
    let broker = connect(&own.streams(""), "a").await;
    let wishes = ordered(&topic, 1);
    broker
        .plan(std::slice::from_ref(&wishes), Topology::Declare)
        .await
        .unwrap();
    publish(&broker, &topic, ["x".into()]).await;
    let now = || SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_millis();
    let ends = now() + 1_500;
    let lease = format!("{ends} {} a", (1u64 << 53) - 1);
    let key = format!("{{{topic}}}.g.leader");
    let mut raw = own.raw().await;
    raw.set::<_, _, ()>(key, lease).await.unwrap();
    let mut open = open(&broker, wishes).await;
    assert_eq!(texts(&open.receive(1).await), ["x"]);
    assert!(now() >= ends);
}

/// The server's clock was ahead when the lease was given, and is right again: its holder is gone, and the lease ends all the
/// same.
#[tokio::test]
async fn a_lease_ends_within_the_longest_one() {
    let own = Own::start(&[]);
    let topic = unique("ahead");
    let key = format!("{{{topic}}}.g.leader");
    let mut raw = own.raw().await;
    raw.set::<_, _, ()>(&key, "4102444800000 1 gone b").await.unwrap();
    let broker = connect(&own.streams(""), "a").await;
    let _open = open(&broker, ordered(&topic, 1)).await;
    let begun = tokio::time::Instant::now();
    loop {
        let lease: String = raw.get(&key).await.unwrap();
        let (ends, holder) = lease.split_once(' ').unwrap();
        assert_eq!(holder, "1 gone b");
        let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap();
        if ends.parse::<u128>().unwrap() <= now.as_millis() + 3_600_000 {
            break;
        }
        assert!(begun.elapsed() < SOON, "{lease}");
    }
}
