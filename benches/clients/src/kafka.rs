//! Raw loops on rdkafka.
//!
//! The tuned consumer looks at payloads where librdkafka has them and at no headers. With `POSTRIDER_BENCH_OWNED` set it takes
//! with it what a service needs: payload, message id and content type as values of its own.

use std::collections::VecDeque;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use postrider::async_trait;
use postrider::prelude::Bytes;
use rdkafka::admin::{AdminClient, AdminOptions};
use rdkafka::client::{ClientContext, DefaultClientContext};
use rdkafka::config::FromClientConfigAndContext;
use rdkafka::consumer::{BaseConsumer, CommitMode, Consumer, StreamConsumer};
use rdkafka::message::{BorrowedMessage, Header, Headers as _, Message as _, OwnedHeaders};
use rdkafka::metadata::MetadataTopic;
use rdkafka::producer::{
    BaseRecord, DeliveryFuture, DeliveryResult, FutureProducer, FutureRecord, Producer, ProducerContext,
    ThreadedProducer,
};
use rdkafka::{ClientConfig, Offset, TopicPartitionList};
use tokio::task::block_in_place;

use crate::probe::{Cost, Mark, Order, Probe, again};
use crate::raw::{GROUP, MESSAGE_ID, OUT, PREFETCH, Raw, TOPIC};

const PATIENCE: Duration = Duration::from_secs(30);
/// The tuned loops commit so often.
const COMMITS: Duration = Duration::from_millis(100);

pub(crate) struct Kafka {
    pub(crate) servers: String,
}

struct Count(AtomicU64);
impl ClientContext for Count {}
impl ProducerContext for Count {
    type DeliveryOpaque = ();
    fn delivery(&self, result: &DeliveryResult<'_>, (): ()) {
        assert!(result.is_ok());
        self.0.fetch_add(1, Ordering::Relaxed);
    }
}

fn headers() -> OwnedHeaders {
    let header = |key, value| Header {
        key,
        value: Some(value),
    };
    OwnedHeaders::new_with_capacity(2)
        .insert(header("content-type", "application/json"))
        .insert(header("message-id", MESSAGE_ID))
}

/// What a service needs of a message: its payload, id and content type.
fn owned(record: &BorrowedMessage<'_>) -> (Bytes, Vec<String>) {
    let payload = Bytes::copy_from_slice(record.payload().unwrap_or_default());
    let headers = record.headers().into_iter().flat_map(|headers| headers.iter());
    let wanted = headers.filter(|header| matches!(header.key, "message-id" | "content-type"));
    let texts = wanted.filter_map(|header| String::from_utf8(header.value?.to_vec()).ok());
    (payload, texts.collect())
}

fn group(topic: &str) -> String {
    format!("{topic}.{GROUP}")
}

impl Kafka {
    /// As the SDK sets them.
    fn producer(&self) -> ClientConfig {
        let mut config = ClientConfig::new();
        config
            .set("bootstrap.servers", &self.servers)
            .set("enable.idempotence", "true")
            .set("acks", "all")
            .set("linger.ms", "1")
            .set("message.max.bytes", "100000000")
            .set("queue.buffering.max.kbytes", "131072")
            .set("queue.buffering.max.messages", "200000");
        config
    }

    /// As the SDK sets them.
    fn consumer(&self, topic: &str) -> ClientConfig {
        let mut config = ClientConfig::new();
        config
            .set("bootstrap.servers", &self.servers)
            .set("group.id", group(topic))
            .set("enable.auto.commit", "false")
            .set("enable.auto.offset.store", "false")
            .set("auto.offset.reset", "earliest")
            .set("isolation.level", "read_committed")
            .set("partition.assignment.strategy", "cooperative-sticky")
            .set("fetch.wait.max.ms", "50")
            .set("fetch.max.bytes", "1048576")
            .set("fetch.queue.backoff.ms", "5")
            .set("queued.max.messages.kbytes", "2048");
        config
    }

    fn fill(&self, order: &Order, mut pause: impl FnMut(u64)) -> Cost {
        let count = Count(AtomicU64::new(0));
        let producer: ThreadedProducer<Count> =
            ThreadedProducer::from_config_and_context(&self.producer(), count).unwrap();
        // Connected, and knows the topic.
        producer.client().fetch_metadata(Some(TOPIC), PATIENCE).unwrap();
        let begun = Mark::now();
        for number in 0..order.count {
            pause(number);
            let payload = order.payload(number);
            let mut record = BaseRecord::<(), [u8]>::to(TOPIC)
                .payload(&payload)
                .headers(headers());
            while let Err((_, back)) = producer.send(record) {
                record = back;
                std::thread::sleep(Duration::from_millis(1));
            }
        }
        producer.flush(PATIENCE).unwrap();
        let cost = order.cost(&begun);
        assert_eq!(producer.context().0.load(Ordering::Relaxed), order.count);
        cost
    }

    fn consume_tuned(&self, probe: &Probe) {
        let consumer: BaseConsumer = self.consumer(TOPIC).create().unwrap();
        consumer.subscribe(&[TOPIC]).unwrap();
        let mut committed = Instant::now();
        let owning = std::env::var_os("POSTRIDER_BENCH_OWNED").is_some();
        loop {
            let Some(record) = consumer.poll(COMMITS) else {
                continue;
            };
            let record = record.unwrap();
            let last = if owning {
                let (payload, texts) = owned(&record);
                std::hint::black_box(texts);
                probe.handle(&payload)
            } else {
                probe.handle(record.payload().unwrap_or_default())
            };
            consumer.store_offset_from_message(&record).unwrap();
            if last {
                break;
            }
            if committed.elapsed() > COMMITS {
                let _ = consumer.commit_consumer_state(CommitMode::Async);
                committed = Instant::now();
            }
        }
        consumer.commit_consumer_state(CommitMode::Sync).unwrap();
    }
}

#[async_trait]
impl Raw for Kafka {
    async fn consume(&self, tuned: bool, probe: &Probe) {
        if tuned {
            return block_in_place(|| self.consume_tuned(probe));
        }
        let consumer: StreamConsumer = self.consumer(TOPIC).create().unwrap();
        consumer.subscribe(&[TOPIC]).unwrap();
        loop {
            let record = consumer.recv().await.unwrap();
            let last = probe.handle(record.payload().unwrap_or_default());
            let mode = if last { CommitMode::Sync } else { CommitMode::Async };
            consumer.commit_message(&record, mode).unwrap();
            if last {
                break;
            }
        }
        block_in_place(|| drop(consumer));
    }

    async fn forward(&self, tuned: bool, probe: &Probe) {
        let producer: FutureProducer = self.producer().create().unwrap();
        let consumer: StreamConsumer = self.consumer(TOPIC).create().unwrap();
        consumer.subscribe(&[TOPIC]).unwrap();
        let mut under_way: VecDeque<(i32, i64, DeliveryFuture)> = VecDeque::new();
        let mut committed = Instant::now();
        loop {
            let received = consumer.recv().await.unwrap();
            let payload = received.payload().unwrap_or_default();
            let last = probe.handle(payload);
            let payload = again(payload);
            let record = FutureRecord::<(), [u8]>::to(OUT)
                .payload(&payload)
                .headers(headers());
            if tuned {
                let sent = producer.send_result(record).map_err(|(error, _)| error).unwrap();
                under_way.push_back((received.partition(), received.offset(), sent));
                while under_way.len() >= PREFETCH || (last && !under_way.is_empty()) {
                    let (partition, offset, sent) = under_way.pop_front().unwrap();
                    sent.await.unwrap().unwrap();
                    consumer.store_offset(TOPIC, partition, offset).unwrap();
                }
                if last {
                    consumer.commit_consumer_state(CommitMode::Sync).unwrap();
                } else if committed.elapsed() > COMMITS {
                    let _ = consumer.commit_consumer_state(CommitMode::Async);
                    committed = Instant::now();
                }
            } else {
                producer.send(record, PATIENCE).await.unwrap();
                let mode = if last { CommitMode::Sync } else { CommitMode::Async };
                consumer.commit_message(&received, mode).unwrap();
            }
            if last {
                break;
            }
        }
        block_in_place(|| drop((consumer, producer)));
    }

    async fn publish(&self, tuned: bool, order: &Order) -> Cost {
        if tuned {
            let handle = tokio::runtime::Handle::current();
            return block_in_place(|| {
                self.fill(order, |number| {
                    if !order.is_due(number) {
                        handle.block_on(order.wait(number));
                    }
                })
            });
        }
        let producer: FutureProducer = self.producer().create().unwrap();
        block_in_place(|| producer.client().fetch_metadata(Some(TOPIC), PATIENCE)).unwrap();
        let begun = Mark::now();
        for number in 0..order.count {
            let payload = order.payload(number);
            let record = FutureRecord::<(), [u8]>::to(TOPIC)
                .payload(&payload)
                .headers(headers());
            producer.send(record, PATIENCE).await.unwrap();
        }
        order.cost(&begun)
    }

    async fn empty(&self) {
        block_in_place(|| {
            for topic in [TOPIC, OUT] {
                let consumer: BaseConsumer = self.consumer(topic).create().unwrap();
                let metadata = consumer.fetch_metadata(Some(topic), PATIENCE).unwrap();
                let mut ends = TopicPartitionList::new();
                for partition in metadata.topics()[0].partitions() {
                    let (_, end) = consumer
                        .fetch_watermarks(topic, partition.id(), PATIENCE)
                        .unwrap();
                    ends.add_partition_offset(topic, partition.id(), Offset::Offset(end))
                        .unwrap();
                }
                consumer.commit(&ends, CommitMode::Sync).unwrap();
            }
        });
    }

    async fn delete(&self) {
        let mut config = ClientConfig::new();
        config.set("bootstrap.servers", &self.servers);
        let admin: AdminClient<DefaultClientContext> = config.create().unwrap();
        let metadata = block_in_place(|| admin.inner().fetch_metadata(None, PATIENCE)).unwrap();
        let ours = |name: &&str| name.starts_with(TOPIC) || name.starts_with(OUT);
        let topics: Vec<_> = metadata
            .topics()
            .iter()
            .map(MetadataTopic::name)
            .filter(ours)
            .collect();
        admin.delete_topics(&topics, &AdminOptions::new()).await.unwrap();
    }

    async fn about(&self) -> String {
        let partitions = block_in_place(|| {
            let consumer: BaseConsumer = self.consumer(TOPIC).create().unwrap();
            let metadata = consumer.fetch_metadata(Some(TOPIC), PATIENCE).unwrap();
            metadata.topics()[0].partitions().len()
        });
        format!(
            "rdkafka: {partitions} partitions; `acks=all`, idempotent, `linger.ms=1`; `read_committed`, \
             `fetch.wait.max.ms=50`, `fetch.max.bytes=1048576`, `queued.max.messages.kbytes=2048`; the tuned loop commits \
             every {COMMITS:?}, as the SDK does"
        )
    }
}
