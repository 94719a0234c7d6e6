//! What a replay takes, and what it leaves behind.

mod support;

use std::time::{Duration, Instant};

use postrider_contract::names;
use rdkafka::ClientConfig;
use rdkafka::consumer::{BaseConsumer, Consumer};
use support::{PATIENCE, admin, connect, dead_of, delete_topic, open, publish, spec, unique, url_with};

/// What the first partition of a topic holds.
fn extent(topic: &str) -> (i64, i64) {
    let (host, port) = url_with("").hosts[0].clone();
    let client: BaseConsumer = ClientConfig::new()
        .set("bootstrap.servers", format!("{host}:{}", port.unwrap()))
        .create()
        .unwrap();
    client.fetch_watermarks(topic, 0, PATIENCE).unwrap()
}

/// Each step of a replay is quick, since what is resolved is not deleted in each; it is in the end.
#[tokio::test]
async fn a_replay_one_by_one_is_quick_and_leaves_nothing_behind() {
    const COUNT: usize = 20;
    let (topic, broker) = (unique("one-by-one"), connect().await);
    let mut listener = open(&broker, spec(&topic, "g")).await;
    let payloads: Vec<String> = (0..COUNT).map(|n| n.to_string()).collect();
    let payloads: Vec<&str> = payloads.iter().map(String::as_str).collect();
    publish(&broker, &topic, &payloads).await;
    let copies = listener.drain(COUNT, PATIENCE).await;
    let copies = copies.iter().map(|delivery| dead_of(delivery, "g")).collect();
    for answer in broker.publish(copies).await {
        answer.unwrap();
    }
    let dead_topic = names::dead_letter_topic(&topic, "g");
    let mut dead = broker.dead_letters(&dead_topic, &topic, "g");
    let begun = Instant::now();
    for letter in dead.browse(None, 100).await.unwrap() {
        dead.replay(&[letter.id]).await.remove(0).unwrap();
    }
    let each = begun.elapsed() / COUNT as u32;
    println!("{each:?} each");
    // An administration client, several others and a rebuilt picture for each step took 640 ms.
    assert!(each < Duration::from_millis(200), "{each:?} each");
    assert_eq!(listener.drain(COUNT, PATIENCE).await.len(), COUNT);
    assert!(dead.browse(None, 100).await.unwrap().is_empty());
    broker.close(PATIENCE).await.unwrap();
    let (low, high) = extent(&dead_topic);
    assert_eq!(
        (low, high),
        (COUNT as i64, COUNT as i64),
        "resolved ones are deleted"
    );
}

/// Somebody deleted what a replay notes itself in: it is made again, and nothing is replayed twice.
#[tokio::test]
async fn replays_go_on_without_what_was_noted() {
    let (topic, broker) = (unique("unnoted"), connect().await);
    let mut listener = open(&broker, spec(&topic, "g")).await;
    publish(&broker, &topic, &["1", "2"]).await;
    let copies = listener.drain(2, PATIENCE).await;
    let copies = copies.iter().map(|delivery| dead_of(delivery, "g")).collect();
    for answer in broker.publish(copies).await {
        answer.unwrap();
    }
    let dead_topic = names::dead_letter_topic(&topic, "g");
    let mut dead = broker.dead_letters(&dead_topic, &topic, "g");
    let all = dead.browse(None, 100).await.unwrap();
    dead.replay(&[all[0].id.clone()]).await.remove(0).unwrap();
    let admin = admin(&url_with(""));
    let notes = format!("{dead_topic}.resolved.inbox");
    delete_topic(&admin, &notes).await;
    dead.replay(&[all[1].id.clone()]).await.remove(0).unwrap();
    assert_eq!(listener.drain(2, PATIENCE).await.len(), 2);
    let left = dead.browse(None, 100).await.unwrap();
    assert!(left.iter().all(|letter| letter.id != all[1].id), "{left:?}");
    broker.close(PATIENCE).await.unwrap();
}
