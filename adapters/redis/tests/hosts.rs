//! Several hosts in the URL, of which one takes writes: one that does not answer is no reason to wait for it.

mod common;

use std::sync::Arc;
use std::time::Duration;

use common::own::Own;
use common::*;
use postrider_contract::{Broker, Error, Event, Message, Outgoing, Sharing, Spec};
use redis::aio::MultiplexedConnection;
use tokio::task::JoinHandle;
use tokio::time::Instant;

fn both(first: &Own, second: &Own) -> String {
    format!("redis://127.0.0.1:{},127.0.0.1:{}", first.port, second.port)
}

/// A connection of ours, as the server lists it.
#[derive(Debug)]
struct Connected {
    id: String,
    /// For messages.
    reads: bool,
    /// For replicas.
    waits: bool,
}

/// Ours, once so many of them wait for messages, and so many for replicas.
async fn connected(
    administrator: &mut MultiplexedConnection,
    readers: usize,
    waiters: usize,
) -> Vec<Connected> {
    let until = Instant::now() + SOON;
    loop {
        let all: String = redis::cmd("CLIENT")
            .arg("LIST")
            .query_async(administrator)
            .await
            .unwrap();
        let of = |line: &str, name: &str| {
            let word = line.split(' ').find_map(|word| word.strip_prefix(name));
            word.unwrap_or_default().to_owned()
        };
        let ours: Vec<Connected> = all
            .lines()
            .filter(|line| !of(line, "name=").is_empty())
            .map(|line| Connected {
                id: of(line, "id="),
                reads: of(line, "cmd=").starts_with("xread") && of(line, "flags=").contains('b'),
                waits: of(line, "cmd=") == "wait",
            })
            .collect();
        let count = |waits: fn(&&Connected) -> bool| ours.iter().filter(waits).count();
        if (count(|one| one.reads), count(|one| one.waits)) == (readers, waiters) {
            return ours;
        }
        assert!(
            Instant::now() < until,
            "not {readers} and {waiters} of them wait: {all}"
        );
    }
}

async fn cut(administrator: &mut MultiplexedConnection, connected: &Connected) {
    let mut kill = redis::cmd("CLIENT");
    kill.arg("KILL").arg("ID").arg(&connected.id);
    kill.exec_async(administrator).await.unwrap();
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

/// The reader must be where acknowledgements go. A primary that died comes back as one until somebody tells it otherwise.
#[tokio::test]
async fn what_reads_stays_where_commands_go() {
    let (first, second) = (Own::start(&[]), Own::start(&[]));
    first.kill();
    let broker = connect(&both(&first, &second), "a").await;
    let topic = unique("back");
    let mut shared = open(&broker, spec(&topic, "g")).await;
    let everyone = Spec {
        sharing: Sharing::Broadcast,
        dead_letter: None,
        ..spec(&topic, "everyone")
    };
    let mut broadcast = open(&broker, everyone).await;
    first.up();
    let mut administrator = second.raw().await;
    for reader in connected(&mut administrator, 2, 0).await {
        if reader.reads {
            cut(&mut administrator, &reader).await;
        }
    }
    publish(&broker, &topic, ["x".into()]).await;
    let got = shared.receive(1).await.remove(0);
    shared.ack(&got).await;
    assert_eq!(texts(&broadcast.receive(1).await), ["x"]);
    let left = broker.status(&[spec(&topic, "g")]).await.unwrap()[0].unsettled;
    assert_eq!(left, Some(0));
}

/// A publish that waits for a replica, which there is not: to be received at once, and confirmed never.
fn begin(broker: &Arc<dyn Broker>, topic: &Arc<str>, text: &'static str) -> JoinHandle<Error> {
    let (broker, outgoing) = (
        broker.clone(),
        Outgoing::to_topic(topic.clone(), Message::new(text)),
    );
    tokio::spawn(async move { broker.publish(vec![outgoing]).await.remove(0).unwrap_err() })
}

/// Where commands go elsewhere, what reads follows, and so does what is published by a connection of its own; though nothing
/// cuts theirs.
#[tokio::test]
async fn everything_follows_the_commands() {
    let (first, second) = (Own::start(&[]), Own::start(&[]));
    let url = format!("{}?wait_replicas=1", both(&first, &second));
    let broker = connect(&url, "a").await;
    let topic = unique("follows");
    let mut open = open(&broker, spec(&topic, "g")).await;
    second.tell(&format!("REPLICAOF 127.0.0.1 {}", first.port)).await;
    let until = Instant::now() + SOON;
    while second.tell(&format!("EXISTS {topic}")).await != redis::Value::Int(1) {
        assert!(Instant::now() < until, "nothing is copied");
    }
    second.tell("REPLICAOF NO ONE").await;
    let before = begin(&broker, &topic, "before");
    let got = open.receive(1).await.remove(0);
    open.ack(&got).await;
    let mut administrator = first.raw().await;
    let ours = connected(&mut administrator, 1, 1).await;
    // Nobody else is let in: the shared connection goes to the next host.
    let mut limit = redis::cmd("CONFIG");
    limit.arg("SET").arg("maxclients").arg(1);
    limit.exec_async(&mut administrator).await.unwrap();
    for shared in ours.iter().filter(|one| !one.reads && !one.waits) {
        cut(&mut administrator, shared).await;
    }
    let until = Instant::now() + SOON;
    while let Err(error) = broker.status(&[spec(&topic, "g")]).await {
        assert!(Instant::now() < until, "{error}");
    }
    let after = begin(&broker, &topic, "after");
    let got = open.receive(1).await.remove(0);
    assert_eq!(text(&got), "after");
    open.ack(&got).await;
    before.abort();
    after.abort();
}

/// Nothing cuts the connection that commands share, and nothing that is written there is refused as by a replica.
#[tokio::test]
async fn who_only_receives_finds_the_next_primary() {
    let (first, second) = (Own::start(&[]), Own::start(&[]));
    second.tell(&format!("REPLICAOF 127.0.0.1 {}", first.port)).await;
    let broker = connect(&both(&first, &second), "a").await;
    let topic = unique("receives");
    let mut open = open(&broker, spec(&topic, "g")).await;
    let until = Instant::now() + SOON;
    while second.tell(&format!("EXISTS {topic}")).await != redis::Value::Int(1) {
        assert!(Instant::now() < until, "nothing is copied");
    }
    first.tell("ACL SETUSER default -evalsha").await;
    second.tell("REPLICAOF NO ONE").await;
    first.tell(&format!("REPLICAOF 127.0.0.1 {}", second.port)).await;
    open.ready().await;
    let publisher = connect(&both(&first, &second), "p").await;
    publish(&publisher, &topic, ["x".into()]).await;
    let got = open.receive(1).await.remove(0);
    open.ack(&got).await;
}

/// What waits for replicas has a connection of its own, which leads to the same host.
#[tokio::test]
async fn what_is_published_goes_where_it_is_read() {
    let (first, second) = (Own::start(&[]), Own::start(&[]));
    first.kill();
    let url = format!("{}?wait_replicas=1", both(&first, &second));
    let broker = connect(&url, "a").await;
    let topic = unique("back");
    let mut open = open(&broker, spec(&topic, "g")).await;
    first.up();
    let mut administrator = second.raw().await;
    for text in ["before", "after"] {
        let publishing = begin(&broker, &topic, text);
        assert_eq!(texts(&open.receive(1).await), [text]);
        for one in connected(&mut administrator, 1, 1).await {
            if one.waits {
                cut(&mut administrator, &one).await;
            }
        }
        let error = publishing.await.unwrap();
        assert!(error.to_string().contains("not confirmed"), "{error}");
    }
}
