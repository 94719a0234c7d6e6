//! One broker, with its raw loops and what is measured on it.

use std::sync::Arc;
use std::time::Duration;

use crate::kafka::Kafka;
use crate::probe::{Cost, Order, Probe, clock};
use crate::rabbitmq::RabbitMq;
use crate::raw::Raw;
use crate::redis::Redis;
use crate::sdk;

/// A measurement that takes longer has hung.
const LIMIT: Duration = Duration::from_secs(120);

/// How long each round of latencies takes.
const SECONDS: f64 = 4.0;

/// Who does the work.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Side {
    Naive,
    Tuned,
    Sdk,
}

/// What is done.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Work {
    Consume,
    /// Each confirmed before the next.
    PublishOne,
    /// Many at once.
    PublishMany,
    /// Consume and publish.
    Forward,
}

pub(crate) struct System {
    pub(crate) name: &'static str,
    pub(crate) url: String,
    pub(crate) raw: Arc<dyn Raw>,
}

impl System {
    /// By its name, at the address that the environment gives.
    pub(crate) fn new(name: &str) -> Self {
        let variable = format!("POSTRIDER_TEST_{}_URL", name.to_uppercase());
        let url = std::env::var(&variable).unwrap_or_else(|_| panic!("{variable} is not set"));
        let (name, raw): (_, Arc<dyn Raw>) = match name {
            "rabbitmq" => ("RabbitMQ", Arc::new(RabbitMq { url: url.clone() })),
            "kafka" => {
                let servers = url.trim_start_matches("kafka://").to_owned();
                ("Kafka", Arc::new(Kafka { servers }))
            }
            "redis" => ("Redis Streams", Arc::new(Redis { url: url.clone() })),
            other => panic!("unknown broker {other}: rabbitmq, kafka, redis"),
        };
        Self { name, url, raw }
    }

    /// How many messages take a second or so.
    fn count(&self, work: Work, size: usize, side: Side) -> u64 {
        let by_size = |small, middle, large| match size {
            0..500 => small,
            500..10_000 => middle,
            _ => large,
        };
        let (consume, publish, forward, one) = match self.name {
            "RabbitMQ" => (
                by_size(50_000, 40_000, 2_500),
                by_size(40_000, 30_000, 1_500),
                10_000,
                300,
            ),
            "Kafka" => (
                by_size(500_000, 200_000, 6_000),
                by_size(400_000, 200_000, 5_000),
                50_000,
                400,
            ),
            _ => (
                by_size(150_000, 100_000, 5_000),
                by_size(100_000, 70_000, 3_000),
                40_000,
                5_000,
            ),
        };
        match (work, side) {
            (Work::Consume, Side::Naive) => consume / 3,
            (Work::Consume, _) => consume,
            (Work::PublishMany, Side::Tuned | Side::Sdk) => publish,
            (Work::Forward, Side::Tuned | Side::Sdk) => forward,
            (Work::PublishOne | Work::PublishMany | Work::Forward, _) => by_size(one, one, one / 2),
        }
    }

    pub(crate) async fn measure(&self, work: Work, size: usize, side: Side) -> Cost {
        let measured = tokio::time::timeout(LIMIT, self.run(work, size, side)).await;
        measured.unwrap_or_else(|_| panic!("{} {work:?} {size} B {side:?} has hung", self.name))
    }

    async fn run(&self, work: Work, size: usize, side: Side) -> Cost {
        let count = self.count(work, size, side);
        self.raw.empty().await;
        let order = Order::at_once(count, size);
        let tuned = side == Side::Tuned;
        if matches!(work, Work::PublishOne | Work::PublishMany) {
            return match side {
                Side::Sdk => sdk::publish(&self.url, work == Work::PublishMany, &order).await,
                _ => self.raw.publish(tuned, &order).await,
            };
        }
        self.raw.publish(true, &order).await;
        let probe = Arc::new(Probe::new(count));
        let forwarding = work == Work::Forward;
        match (side, forwarding) {
            (Side::Sdk, _) => sdk::consume_all(&self.url, &probe, forwarding).await,
            (_, false) => self.raw.consume(tuned, &probe).await,
            (_, true) => self.raw.forward(tuned, &probe).await,
        }
        probe.cost()
    }

    /// Publishes at a rate, every second message by the SDK, and consumes all of them on both sides at once: what the broker
    /// and the machine do in that time they do to both. Microseconds from when a message was due to when the side that sent it
    /// handled it, at each of these quantiles: of the tuned loops, and of the SDK.
    pub(crate) async fn latency(&self, rate: f64, at: &[f64]) -> [Vec<f64>; 2] {
        let each = (rate / 2.0 * SECONDS) as u64;
        self.raw.empty().await;
        let [tuned, sdk] = ["x", "y"].map(|author| Arc::new(Probe::with_latencies(each * 2, author)));
        // Tasks of their own: a raw loop may keep its thread.
        let (raw, seen) = (self.raw.clone(), tuned.clone());
        let consuming = tokio::spawn(async move { raw.consume(true, &seen).await });
        let publish = async {
            // The consumers are there before the first message is due, and nothing is late before it started.
            tokio::time::sleep(Duration::from_millis(1500)).await;
            let begin = clock() + 500_000_000;
            let half_a_step = (0.5e9 / (rate / 2.0)) as u64;
            let order = |begin, author| Order::paced(each, 100, begin, rate / 2.0, author);
            let (raw, first) = (self.raw.clone(), order(begin, "x"));
            let publishing = tokio::spawn(async move { raw.publish(true, &first).await });
            sdk::publish_paced(&self.url, &order(begin + half_a_step, "y")).await;
            publishing.await.unwrap();
        };
        let all = async {
            tokio::join!(sdk::consume_beside(&self.url, &sdk), publish);
            consuming.await.unwrap();
        };
        tokio::time::timeout(LIMIT, all)
            .await
            .expect("the latency run has hung");
        [tuned, sdk].map(|probe| probe.quantiles(at))
    }
}
