//! One scenario with a number of messages on the embedded broker: what `benches/run` counts the instructions of.
//!
//! `postrider-bench-engine <scenario> <messages>` publishes that many and waits until all are settled. With a third word,
//! `unconsumed`, it ends before the first is received: the caller subtracts that, and one length from another, so that
//! only the steady state of consuming counts.

use std::time::{Duration, Instant};

use std::sync::{Arc, LazyLock};

use postrider::prelude::{Acker, Bytes, Deserialize, HandlerError, Serialize, listener, listeners};
use postrider::{Registration, Running};
use postrider_contract::{Client, Message, Outgoing};

const URL: &str = "memory://bench?capacity=10000000";
static TOPIC: LazyLock<Arc<str>> = LazyLock::new(|| "bench".into());

#[derive(postrider::Message, Serialize, Deserialize)]
#[message(topic = "bench", key = id)]
struct Sample {
    id: u64,
    quantity: u32,
}

#[listener(topic = "bench", prefetch = 256, retry(attempts = 1))]
async fn plain(sample: Sample) {
    std::hint::black_box((sample.id, sample.quantity));
}

#[listener(
    topic = "bench",
    prefetch = 256,
    retry(attempts = 5, backoff = "200ms..30s"),
    timeout = "10s"
)]
async fn full(sample: Sample) -> Result<(), HandlerError> {
    std::hint::black_box((sample.id, sample.quantity));
    Ok(())
}

#[listener(topic = "bench", prefetch = 256, concurrency = 4)]
async fn four(sample: Sample) -> Result<(), HandlerError> {
    std::hint::black_box((sample.id, sample.quantity));
    Ok(())
}

#[listener(topic = "bench", prefetch = 256, concurrency = 4, ordered)]
async fn ordered(sample: Sample) -> Result<(), HandlerError> {
    std::hint::black_box((sample.id, sample.quantity));
    Ok(())
}

#[listener(topic = "bench", prefetch = 256, batch(size = 64, wait = "1ms"))]
async fn batch(samples: Vec<Sample>) -> Result<(), HandlerError> {
    std::hint::black_box(samples);
    Ok(())
}

#[listener(topic = "bench", prefetch = 256, ack = manual)]
async fn manual(sample: Sample, ack: Acker) -> Result<(), HandlerError> {
    std::hint::black_box((sample.id, sample.quantity));
    ack.ack().await?;
    Ok(())
}

#[derive(postrider::Message, Serialize)]
#[message(topic = "bench.reply")]
struct Reply {
    id: u64,
}

#[listener(topic = "bench", prefetch = 256, publish = "bench.reply")]
async fn reply(sample: Sample) -> Result<Reply, HandlerError> {
    Ok(Reply { id: sample.id })
}

fn listeners(scenario: &str) -> Vec<Registration> {
    match scenario {
        "plain" => listeners![plain],
        "full" => listeners![full],
        "four" => listeners![four],
        "ordered" => listeners![ordered],
        "batch" => listeners![batch],
        "manual" => listeners![manual],
        "reply" => listeners![reply],
        "publish" => listeners![],
        other => panic!("unknown scenario {other}: plain full four ordered batch manual reply publish"),
    }
}

fn main() {
    let mut arguments = std::env::args().skip(1);
    let scenario = arguments.next().expect("a scenario");
    let messages: u64 = arguments
        .next()
        .and_then(|count| count.parse().ok())
        .expect("a number of messages");
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
    runtime.block_on(run(&scenario, messages));
}

async fn run(scenario: &str, messages: u64) {
    let app = postrider::App::new(URL).unwrap().name("bench");
    let running = app.listen(listeners(scenario)).start().await.unwrap();
    running.ready().await.unwrap();
    let publisher = running.publisher();
    if scenario == "publish" {
        for id in 0..messages {
            publisher.send(&Sample { id, quantity: 3 }).await.unwrap();
        }
        return;
    }
    // Published beforehand, the same number in every run, so that only consuming differs.
    let name = running.status()[0].name.clone();
    running.pause(&name);
    fill(messages).await;
    if std::env::args().nth(3).as_deref() == Some("unconsumed") {
        std::process::exit(0);
    }
    let begin = Instant::now();
    running.resume(&name);
    handled(&running, messages).await;
    let elapsed = begin.elapsed();
    eprintln!(
        "{scenario}: {messages} in {elapsed:?}, {:.0}/s",
        messages as f64 / elapsed.as_secs_f64()
    );
    std::process::exit(0);
}

/// Publishes past the publisher, messages that share one payload: what is freed while consuming is then not the
/// publisher's.
async fn fill(messages: u64) {
    let client = Client {
        application: "bench".into(),
        instance: "filler".into(),
    };
    let broker = postrider_memory::connect(&URL.parse().unwrap(), client)
        .await
        .unwrap();
    let payload = Bytes::from_static(br#"{"id":1234567,"quantity":3}"#);
    let keys: Vec<Bytes> = (0..100).map(|key: u32| Bytes::from(key.to_string())).collect();
    for begin in (0..messages).step_by(1000) {
        let message = |n: u64| Message::new(payload.clone()).with_key(keys[n as usize % keys.len()].clone());
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
        tokio::time::sleep(Duration::from_millis(2)).await;
    }
}
