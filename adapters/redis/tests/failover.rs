//! What the next primary does not know, since it had not reached it when the former one died.

mod common;

use std::sync::Arc;
use std::time::Duration;

use common::own::Own;
use common::*;
use postrider_contract::{Delivery, Order, Sharing, Spec};

fn ordered(topic: &Arc<str>) -> Spec {
    Spec {
        order: Order::ByKey,
        ..spec(topic, "g")
    }
}

/// As the server knows it.
fn id(delivery: &Delivery) -> String {
    let position = &delivery.position;
    format!("{}-{}", position.offset, position.minor.unwrap())
}

/// Everybody connects again.
async fn cut(own: &Own, open: &mut Open) {
    own.tell("CLIENT KILL TYPE normal").await;
    open.ready().await;
}

/// It comes again, and must not come behind what was published after it.
#[tokio::test]
async fn an_acknowledgement_that_is_forgotten_sets_an_ordered_group_back() {
    let own = Own::start(&[]);
    let topic = unique("acknowledged");
    let broker = connect(&own.streams(""), "a").await;
    let mut open = open(&broker, ordered(&topic)).await;
    publish(&broker, &topic, (1..=3).map(|n| n.to_string())).await;
    let got = open.receive(3).await;
    open.ack(&got[0]).await;
    own.tell(&format!("XCLAIM {topic} g a 0 {} FORCE JUSTID", id(&got[0])))
        .await;
    cut(&own, &mut open).await;
    let again = open.receive(3).await;
    assert_eq!(texts(&again), ["1", "2", "3"]);
    assert!(
        open.news.iter().any(|news| news.starts_with("Revoked")),
        "{:?}",
        open.news
    );
    for delivery in &again {
        open.ack(delivery).await;
    }
    publish(&broker, &topic, ["4".into()]).await;
    assert_eq!(texts(&open.receive(1).await), ["4"]);
}

/// What was read counts as new then, and is here already.
#[tokio::test]
async fn a_read_that_is_forgotten_brings_an_ordered_group_nothing_twice() {
    let own = Own::start(&[]);
    let topic = unique("read");
    let broker = connect(&own.streams(""), "a").await;
    let mut open = open(&broker, ordered(&topic)).await;
    publish(&broker, &topic, (1..=3).map(|n| n.to_string())).await;
    let got = open.receive(3).await;
    open.ack(&got[0]).await;
    let (first, second, third) = (id(&got[0]), id(&got[1]), id(&got[2]));
    own.tell(&format!("XACK {topic} g {second} {third}")).await;
    own.tell(&format!("XGROUP SETID {topic} g {first}")).await;
    cut(&own, &mut open).await;
    publish(&broker, &topic, ["4".into()]).await;
    let next = open.receive(1).await.remove(0);
    assert_eq!(text(&next), "4");
    for delivery in [&got[1], &got[2], &next] {
        open.ack(delivery).await;
    }
    open.silent(Duration::from_millis(500)).await;
    let status = broker.status(&[ordered(&topic)]).await.unwrap()[0];
    assert_eq!((status.waiting, status.unsettled), (Some(0), Some(0)));
}

/// What was acknowledged since counts as new, too, and must not come behind what is here.
#[tokio::test]
async fn a_read_that_is_forgotten_with_its_acknowledgement_sets_an_ordered_group_back() {
    let own = Own::start(&[]);
    let topic = unique("both");
    let broker = connect(&own.streams(""), "a").await;
    let mut open = open(&broker, ordered(&topic)).await;
    publish(&broker, &topic, (1..=3).map(|n| n.to_string())).await;
    let got = open.receive(3).await;
    open.ack(&got[0]).await;
    open.ack(&got[1]).await;
    own.tell(&format!("XACK {topic} g {}", id(&got[2]))).await;
    own.tell(&format!("XGROUP SETID {topic} g {}", id(&got[0]))).await;
    cut(&own, &mut open).await;
    assert_eq!(texts(&open.receive(2).await), ["2", "3"]);
    assert!(
        open.news.iter().any(|news| news.starts_with("Revoked")),
        "{:?}",
        open.news
    );
}

/// The end of the stream lies before what was read last. What is there was read, too.
#[tokio::test]
async fn a_broadcast_listener_reads_nothing_twice_from_a_stream_without_its_end() {
    let own = Own::start(&[]);
    let topic = unique("end");
    let broker = connect(&own.streams(""), "a").await;
    let everyone = Spec {
        sharing: Sharing::Broadcast,
        dead_letter: None,
        ..spec(&topic, "g")
    };
    let mut open = open(&broker, everyone).await;
    publish(&broker, &topic, (0..10).map(|n| n.to_string())).await;
    let got = open.receive(10).await;
    own.tell(&format!("DEL {topic}")).await;
    for delivery in &got[..9] {
        own.tell(&format!(
            "XADD {topic} {} payload {}",
            id(delivery),
            text(delivery)
        ))
        .await;
    }
    cut(&own, &mut open).await;
    assert_eq!(open.gaps, [None]);
    publish(&broker, &topic, ["10".into()]).await;
    assert_eq!(texts(&open.receive(1).await), ["10"]);
}
