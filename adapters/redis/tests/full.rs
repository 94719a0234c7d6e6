//! A server at its maxmemory that evicts nothing: what waits there is still handled, since nothing else frees memory.

mod common;

use std::sync::Arc;
use std::time::{Duration, SystemTime};

use common::own::Own;
use common::*;
use postrider_contract::{DedupScope, Order, Outgoing, Spec};
use tokio::time::Instant;

const MESSAGES: usize = 10;

async fn fill(own: &Own) {
    own.tell("CONFIG SET maxmemory 1").await;
}

fn start() -> Own {
    Own::start(&["--maxmemory-policy", "noeviction"])
}

/// So small that most of them are at the server still. Its dead letters need a mark.
fn narrow(topic: &Arc<str>) -> Spec {
    Spec {
        in_flight: 2,
        dead_letter: Some(format!("{topic}.failed").into()),
        ..spec(topic, "g")
    }
}

fn numbers() -> Vec<String> {
    (0..MESSAGES).map(|number| number.to_string()).collect()
}

async fn handle(open: &mut Open, count: usize) -> Vec<String> {
    let mut handled = Vec::new();
    while handled.len() < count {
        let got = open.receive(1).await.remove(0);
        open.ack(&got).await;
        handled.push(text(&got));
    }
    handled
}

#[tokio::test]
async fn a_reader_that_is_cut_goes_on() {
    let own = start();
    let topic = unique("full");
    let broker = connect(&own.streams(""), "a").await;
    let mut open = open(&broker, narrow(&topic)).await;
    publish(&broker, &topic, numbers()).await;
    let mut handled = handle(&mut open, 1).await;
    fill(&own).await;
    own.tell("CLIENT KILL TYPE normal").await;
    handled.extend(handle(&mut open, MESSAGES - 1).await);
    handled.sort();
    assert_eq!(handled, numbers());
}

#[tokio::test]
async fn another_process_begins() {
    let own = start();
    let topic = unique("full");
    let former = connect(&own.streams(""), "a").await;
    let mut first = open(&former, narrow(&topic)).await;
    publish(&former, &topic, numbers()).await;
    let mut handled = handle(&mut first, 1).await;
    fill(&own).await;
    former.close(SOON).await.unwrap();
    let broker = connect(&own.streams(""), "b").await;
    let mut second = open(&broker, narrow(&topic)).await;
    handled.extend(handle(&mut second, MESSAGES - 1).await);
    handled.sort();
    assert_eq!(handled, numbers());
}

#[tokio::test]
async fn an_ordered_group_keeps_its_reader() {
    let own = start();
    let topic = unique("full");
    let broker = connect(&own.streams("?lease=1s"), "a").await;
    let wishes = Spec {
        order: Order::ByKey,
        ..narrow(&topic)
    };
    let mut open = open(&broker, wishes).await;
    publish(&broker, &topic, numbers()).await;
    let mut handled = handle(&mut open, 1).await;
    fill(&own).await;
    // Long enough for the lease to end, if nobody renewed it.
    let begun = Instant::now();
    let key = format!("{{{topic}}}.g.leader");
    let first = own.tell(&format!("GET {key}")).await;
    while own.tell(&format!("GET {key}")).await == first {
        assert!(begun.elapsed() < SOON, "the lease is not renewed");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    handled.extend(handle(&mut open, MESSAGES - 1).await);
    assert_eq!(handled, numbers());
    assert!(
        !open.news.iter().any(|news| news.starts_with("Degraded")),
        "{:?}",
        open.news
    );
}

#[tokio::test]
async fn what_is_due_is_passed_on() {
    let own = start();
    let topic = unique("full");
    let broker = connect(&own.streams(""), "a").await;
    let mut open = open(&broker, narrow(&topic)).await;
    publish(&broker, &topic, ["x".into()]).await;
    let got = open.receive(1).await.remove(0);
    let due = SystemTime::now() + Duration::from_secs(5);
    let retry = Outgoing::to_inbox(topic.clone(), "g", got.message.clone()).not_before(due);
    open.emit(&got, retry).await;
    fill(&own).await;
    assert!(SystemTime::now() < due);
    assert_eq!(handle(&mut open, 1).await, ["x"]);
}

/// Before it is marked, nothing that a `dedup` listener has handled is acknowledged.
#[tokio::test]
async fn what_is_handled_is_marked() {
    let own = start();
    let broker = connect(&own.streams(""), "a").await;
    let store = broker.dedup_store().unwrap();
    let topic = unique("full");
    let scope = DedupScope {
        topic: &topic,
        group: "g",
    };
    fill(&own).await;
    let hour = Duration::from_secs(3600);
    for id in [&b"7"[..], b"\0\xff", b"7"] {
        store.mark(scope, id, hour).await.unwrap();
        assert!(store.seen(scope, id).await.unwrap());
    }
    let left = own.tell(&format!("PTTL {{{topic}}}.g.handled.7")).await;
    let left: i64 = redis::from_redis_value(left).unwrap();
    assert!((3_590_000..=3_600_000).contains(&left), "{left}");
}
