//! Several hosts in the URL, of which one takes writes: one that does not answer is no reason to wait for it.

mod common;

use std::time::Duration;

use common::own::Own;
use common::*;
use postrider_contract::Event;
use tokio::time::Instant;

fn both(first: &Own, second: &Own) -> String {
    format!("redis://127.0.0.1:{},127.0.0.1:{}", first.port, second.port)
}

/// A frozen one takes connections and says nothing, as one whose machine is gone says nothing to the attempt.
#[tokio::test]
async fn one_that_does_not_answer_keeps_nobody_from_the_next() {
    let (first, second) = (Own::start(&[]), Own::start(&[]));
    first.pause();
    let begun = Instant::now();
    let broker = connect(&both(&first, &second), "a").await;
    let topic = unique("frozen");
    let mut open = open(&broker, spec(&topic, "g")).await;
    publish(&broker, &topic, ["x".into()]).await;
    let got = open.receive(1).await.remove(0);
    open.ack(&got).await;
    assert!(begun.elapsed() < Duration::from_secs(8), "{:?}", begun.elapsed());
    first.resume();
}

/// So it is when it stops answering later: commands have less time than connecting.
#[tokio::test]
async fn a_primary_that_stops_answering_is_left_for_the_next() {
    let (first, second) = (Own::start(&[]), Own::start(&[]));
    second.tell(&format!("REPLICAOF 127.0.0.1 {}", first.port)).await;
    let broker = connect(&both(&first, &second), "a").await;
    let topic = unique("frozen");
    let mut open = open(&broker, spec(&topic, "g")).await;
    first.pause();
    second.tell("REPLICAOF NO ONE").await;
    while !matches!(open.event(1, &mut Vec::new()).await, Event::Degraded(_)) {}
    open.ready().await;
    publish(&broker, &topic, ["x".into()]).await;
    let got = open.receive(1).await.remove(0);
    open.ack(&got).await;
    first.resume();
}
