//! What a producer must not be able to do.

mod support;

use std::time::Duration;

use lapin::options::QueueDeclareOptions;
use lapin::types::FieldTable;
use postrider_contract::names;
use support::{PATIENCE, Sub, connect, lapin, message, open, publish, raw, spec, unique, url};
use tokio::time::{Instant, sleep};

async fn handle(sub: &mut Sub, wanted: &str) {
    loop {
        let came = sub.one().await;
        // Delivered a while ago, it may have gone stale with its connection.
        let _ = sub.settle(&came, postrider_contract::Verdict::ACK).await;
        if came.message.headers.get_str(names::MESSAGE_ID) == Some(wanted) {
            return;
        }
    }
}

/// A message id that is not UTF-8 ends the client library's connection every time it is delivered. The listeners beside it
/// go on, its own goes on after the broker has given it up, and it is in the dead-letter topic.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_unparsable_message_stops_nobody_for_long() {
    let topic = unique("unparsable");
    let beside = unique("beside");
    let broker = connect().await;
    let mut sub = open(&broker, spec(&topic, "g")).await;
    let mut other = open(&broker, spec(&beside, "g")).await;
    let beside_works = tokio::spawn({
        let (broker, beside) = (broker.clone(), beside.clone());
        async move {
            let mut slowest = Duration::ZERO;
            for n in 0..40 {
                let id = format!("beside-{n}");
                let started = Instant::now();
                publish(&broker, &beside, message(&id)).await;
                handle(&mut other, &id).await;
                slowest = slowest.max(started.elapsed());
                sleep(Duration::from_millis(100)).await;
            }
            slowest
        }
    });
    let there = url();
    let key = topic.clone();
    tokio::task::spawn_blocking(move || raw::publish(&there, "postrider", &key, b"\xff\xfe", b"bytes \xff"))
        .await
        .unwrap();
    publish(&broker, &topic, message("behind")).await;
    let started = Instant::now();
    let deadline = started + Duration::from_secs(100);
    loop {
        if let Some(came) = sub.within(Duration::from_secs(5)).await
            && came.message.headers.get_str(names::MESSAGE_ID) == Some("behind")
        {
            let _ = sub.settle(&came, postrider_contract::Verdict::ACK).await;
            break;
        }
        assert!(Instant::now() < deadline, "the listener comes back");
    }
    println!("its own listener went on after {:?}", started.elapsed());
    let slowest = beside_works.await.unwrap();
    println!("beside it the slowest message took {slowest:?}");
    assert!(slowest < Duration::from_secs(5), "{slowest:?}");

    let dead_letters = names::dead_letter_topic(&topic, "g");
    holds_one(&dead_letters).await;
    // Browsing passes over what cannot be parsed, and does not hang on it.
    let mut letters = broker.dead_letters(&dead_letters, &topic, "g");
    assert!(letters.browse(None, 10).await.unwrap().is_empty());
}

/// Waits until the broker counts one message there, since no client of ours can read it.
async fn holds_one(topic: &str) {
    let channel = lapin().await;
    let deadline = Instant::now() + PATIENCE;
    loop {
        let passive = QueueDeclareOptions {
            passive: true,
            ..QueueDeclareOptions::default()
        };
        let there = channel.queue_declare(topic.into(), passive, FieldTable::default());
        let count = there.await.unwrap().message_count();
        if count == 1 {
            return;
        }
        assert!(Instant::now() < deadline, "{count} messages in {topic}");
        sleep(Duration::from_millis(100)).await;
    }
}
