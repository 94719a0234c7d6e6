//! The adapter beside the best loop on the raw client: `POSTRIDER_TEST_KAFKA_URL=… cargo bench -p postrider-kafka`.
//!
//! Publishing: records are handed over as fast as the client takes them, and all confirmations are waited for. Receiving: a
//! topic that is full, from the first record to the last, with positions committed ten times a second. Same broker, same
//! topics, same client settings; each is run in turn, and the median of the rounds is told.

#[path = "../tests/support/mod.rs"]
mod support;

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use postrider_contract::{Broker, Outgoing, Settlement, Start, Topology, Verdict};
use rdkafka::ClientConfig;
use rdkafka::client::ClientContext;
use rdkafka::config::FromClientConfigAndContext;
use rdkafka::consumer::{BaseConsumer, CommitMode, Consumer};
use rdkafka::message::{Header, Message as _, OwnedHeaders};
use rdkafka::producer::{BaseRecord, DeliveryResult, Producer, ProducerContext, ThreadedProducer};
use support::{connect_with, spec, unique};

const BATCH: usize = 500;
const ROUNDS: usize = 5;
/// Bytes of a payload, and how many of them: enough that what was fetched before the clock started does not count.
const SIZES: [(usize, usize); 2] = [(100, 1_500_000), (1000, 500_000)];

fn main() {
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(2)
        .enable_all()
        .build()
        .expect("a runtime");
    runtime.block_on(async {
        for (size, count) in SIZES {
            let mut figures: [Vec<f64>; 4] = Default::default();
            for _ in 0..ROUNDS {
                let broker = connect_with("&partitions=6").await;
                let topic = unique("bench");
                let mut wishes = spec(&topic, "adapter");
                wishes.start = Start::Earliest;
                broker
                    .plan(std::slice::from_ref(&wishes), Topology::Declare)
                    .await
                    .expect("planned");
                let other = unique("bench-raw");
                broker
                    .plan(&[spec(&other, "raw")], Topology::Declare)
                    .await
                    .expect("planned");

                figures[0].push(raw_publish(&other, size, count));
                figures[1].push(publish(&broker, &topic, size, count).await);
                figures[2].push(raw_receive(&topic, count));
                figures[3].push(receive(&broker, wishes, count).await);
                broker.close(Duration::from_secs(30)).await.expect("closed");
            }
            let [raw_out, out, raw_in, inn] = figures.map(median);
            println!(
                "{size:>5} B publish: raw {raw_out:>9.0}/s, adapter {out:>9.0}/s, ratio {:.2}",
                out / raw_out
            );
            println!(
                "{size:>5} B receive: raw {raw_in:>9.0}/s, adapter {inn:>9.0}/s, ratio {:.2}",
                inn / raw_in
            );
        }
    });
}

fn median(mut values: Vec<f64>) -> f64 {
    values.sort_by(f64::total_cmp);
    values[values.len() / 2]
}

fn rate(begun: Instant, count: usize) -> f64 {
    count as f64 / begun.elapsed().as_secs_f64()
}

fn servers() -> String {
    let (host, port) = support::url_with("").hosts.remove(0);
    format!("{host}:{}", port.unwrap_or(9092))
}

struct Count(AtomicUsize);
impl ClientContext for Count {}
impl ProducerContext for Count {
    type DeliveryOpaque = ();
    fn delivery(&self, result: &DeliveryResult<'_>, (): ()) {
        assert!(result.is_ok());
        self.0.fetch_add(1, Ordering::Relaxed);
    }
}

fn raw_publish(topic: &str, size: usize, count: usize) -> f64 {
    let mut config = ClientConfig::new();
    config
        .set("bootstrap.servers", servers())
        .set("enable.idempotence", "true")
        .set("acks", "all")
        .set("linger.ms", "1")
        .set("queue.buffering.max.messages", "200000");
    let producer =
        ThreadedProducer::from_config_and_context(&config, Count(AtomicUsize::new(0))).expect("a producer");
    let body = vec![b'x'; size];
    // Connected, and known to the broker.
    let id = "019a0000-0000-7000-8000-000000000000";
    let record = || {
        let headers = OwnedHeaders::new().insert(Header {
            key: "message-id",
            value: Some(id),
        });
        BaseRecord::<(), [u8]>::to(topic).payload(&body).headers(headers)
    };
    producer.send(record()).map_err(|(error, _)| error).expect("sent");
    producer.flush(Duration::from_secs(30)).expect("flushed");
    let begun = Instant::now();
    for _ in 0..count {
        let mut next = record();
        while let Err((_, back)) = producer.send(next) {
            next = back;
            std::thread::sleep(Duration::from_millis(1));
        }
    }
    producer.flush(Duration::from_secs(60)).expect("flushed");
    rate(begun, count)
}

async fn publish(broker: &Arc<dyn Broker>, topic: &str, size: usize, count: usize) -> f64 {
    let body = "x".repeat(size);
    let message = support::message(&body);
    let send = |number: usize| {
        let batch = (0..number)
            .map(|_| Outgoing::to_topic(topic, message.clone()))
            .collect();
        broker.publish(batch)
    };
    assert!(send(1).await.iter().all(Result::is_ok));
    let begun = Instant::now();
    let mut under_way = tokio::task::JoinSet::new();
    for _ in 0..count / BATCH {
        let (broker, topic, message) = (broker.clone(), topic.to_owned(), message.clone());
        if under_way.len() >= 100 {
            under_way.join_next().await;
        }
        under_way.spawn(async move {
            let topic: Arc<str> = topic.into();
            let batch = (0..BATCH)
                .map(|_| Outgoing::to_topic(topic.clone(), message.clone()))
                .collect();
            assert!(broker.publish(batch).await.iter().all(Result::is_ok));
        });
    }
    while under_way.join_next().await.is_some() {}
    rate(begun, count)
}

fn raw_receive(topic: &str, count: usize) -> f64 {
    let consumer: BaseConsumer = ClientConfig::new()
        .set("bootstrap.servers", servers())
        .set("group.id", unique("raw"))
        .set("enable.auto.commit", "false")
        .set("enable.auto.offset.store", "false")
        .set("auto.offset.reset", "earliest")
        .create()
        .expect("a consumer");
    consumer.subscribe(&[topic]).expect("subscribed");
    let mut begun = Instant::now();
    let mut committed = Instant::now();
    let mut received = 0;
    let mut bytes = 0;
    while received < count {
        let Some(record) = consumer.poll(Duration::from_millis(100)) else {
            continue;
        };
        let record = record.expect("a record");
        if received == 0 {
            begun = Instant::now();
        }
        received += 1;
        bytes += record.payload().map_or(0, <[u8]>::len);
        consumer.store_offset_from_message(&record).expect("stored");
        if committed.elapsed() > Duration::from_millis(100) {
            let _ = consumer.commit_consumer_state(CommitMode::Async);
            committed = Instant::now();
        }
    }
    assert!(bytes > 0);
    rate(begun, count)
}

async fn receive(broker: &Arc<dyn Broker>, wishes: postrider_contract::Spec, count: usize) -> f64 {
    let mut subscription = broker.open(vec![wishes]).await.expect("opened").remove(0);
    let mut begun = Instant::now();
    let (mut received, mut into, mut batch, mut out) = (0, Vec::new(), Vec::new(), Vec::new());
    while received < count {
        let _ = subscription.receiver.next(256, &mut into).await.expect("open");
        if received == 0 {
            begun = Instant::now();
        }
        received += into.len();
        batch.extend(into.drain(..).map(|delivery| Settlement {
            token: delivery.token,
            verdict: Verdict::ACK,
        }));
        subscription.settler.settle(&mut batch, &mut out).await;
        out.clear();
    }
    rate(begun, count)
}
