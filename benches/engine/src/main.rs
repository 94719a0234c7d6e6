//! One scenario with a number of messages on the embedded broker: what `benches/run engine` counts the instructions and
//! allocations of.
//!
//! `postrider-bench-engine <scenario> <messages>` publishes that many and waits until all are settled. With a third word,
//! `unconsumed`, it ends before the first is received: the caller subtracts that, and one length from another, so that
//! only the steady state of consuming counts.

mod scenarios;

use std::sync::{Arc, LazyLock};
use std::time::{Duration, Instant};

use postrider::Running;
use postrider::prelude::Bytes;
use postrider_contract::{Client, Message, Outgoing, names};
use scenarios::Sample;

const URL: &str = "memory://bench?capacity=10000000";
static TOPIC: LazyLock<Arc<str>> = LazyLock::new(|| "bench".into());
/// How often is looked whether all is settled: seldom, since looking is counted too.
const LOOK: Duration = Duration::from_millis(500);

fn main() {
    let mut arguments = std::env::args().skip(1);
    let scenario = arguments.next().expect("a scenario");
    let messages: u64 = arguments
        .next()
        .and_then(|count| count.parse().ok())
        .expect("a number of messages");
    let unconsumed = arguments.next().as_deref() == Some("unconsumed");
    let workers = if scenario == "four" || scenario == "ordered" {
        2
    } else {
        1
    };
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(workers)
        .enable_all()
        .build()
        .unwrap();
    runtime.block_on(run(&scenario, messages, unconsumed));
    // Nothing that ends a service is counted.
    std::process::exit(0);
}

async fn run(scenario: &str, messages: u64, unconsumed: bool) {
    let running = scenarios::app(scenario, URL).unwrap().start().await.unwrap();
    running.ready().await.unwrap();
    if scenario == "publish" {
        let publisher = running.publisher();
        for id in 0..if unconsumed { 0 } else { messages } {
            publisher.send(&Sample { id, quantity: 3 }).await.unwrap();
        }
        return;
    }
    // Published beforehand, the same number in every run, so that only consuming differs.
    let name = running.status()[0].name.clone();
    running.pause(&name);
    fill(messages, scenario == "headers").await;
    if unconsumed {
        return;
    }
    let begin = Instant::now();
    running.resume(&name);
    handled(&running, messages).await;
    let elapsed = begin.elapsed();
    eprintln!(
        "{scenario}: {messages} in {elapsed:?}, {:.0}/s",
        messages as f64 / elapsed.as_secs_f64()
    );
}

/// Publishes past the publisher, messages that share one payload: what is freed while consuming is then not the
/// publisher's.
async fn fill(messages: u64, with_headers: bool) {
    let client = Client {
        application: "bench".into(),
        instance: "filler".into(),
    };
    let broker = postrider_memory::connect(&URL.parse().unwrap(), client)
        .await
        .unwrap();
    let payload = Bytes::from_static(br#"{"id":1234567,"quantity":3}"#);
    let keys: Vec<Bytes> = (0..100).map(|key: u32| Bytes::from(key.to_string())).collect();
    let mut sample = Message::new(payload);
    if with_headers {
        // What a `Publisher` adds.
        sample = sample
            .with_header(names::CONTENT_TYPE, "application/json")
            .with_header(names::MESSAGE_ID, "019a0000-0000-7000-8000-000000000000")
            .with_header(names::TIMESTAMP, 1_750_000_000_000_i64);
    }
    for begin in (0..messages).step_by(1000) {
        let message = |n: u64| sample.clone().with_key(keys[n as usize % keys.len()].clone());
        let end = messages.min(begin + 1000);
        let batch = (begin..end)
            .map(|n| Outgoing::to_topic(TOPIC.clone(), message(n)))
            .collect();
        for answer in broker.publish(batch).await {
            answer.unwrap();
        }
    }
}

async fn handled(running: &Running, messages: u64) {
    while running.status()[0].counts.handled < messages {
        tokio::time::sleep(LOOK).await;
    }
}
