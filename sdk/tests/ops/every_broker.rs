//! The same series, with the same labels, on every broker, and counts that add up exactly.

use std::collections::{BTreeMap, BTreeSet};
use std::time::{Duration, Instant};

use futures_util::future::join_all;
use postrider::Running;
use postrider::prelude::*;

use crate::http::get;
use crate::kit::{Seen, Target, eventually};
use crate::value;

#[derive(Message, Serialize, Deserialize)]
#[message(topic = "series.order", key = order)]
struct Ordered {
    order: u64,
}

#[derive(Message, Serialize, Deserialize)]
#[message(topic = "series.stock", key = order)]
struct Reserved {
    order: u64,
}

/// Of ten orders one fails once, one twice, one always, one for good.
#[listener(
    topic = "series.order",
    publish = "series.stock",
    concurrency = 8,
    retry(attempts = 3, backoff = "10ms..50ms")
)]
async fn series_inventory(order: Ordered, attempt: Attempt) -> Result<Reserved, HandlerError> {
    match (order.order % 10, attempt.0) {
        (1, 1) | (2, 1 | 2) | (3, _) => Err("the warehouse is closed".into()),
        (4, _) => Err(HandlerError::permanent("sold out")),
        _ => Ok(Reserved { order: order.order }),
    }
}

#[listener(topic = "series.stock", batch(size = 16, wait = "20ms"))]
async fn series_shipping(stock: Vec<Reserved>, State(seen): State<Seen>) {
    for reserved in stock {
        seen.add(reserved.order.to_string());
    }
}

const ORDERS: u64 = 200;
const FAILED_FOR_GOOD: u64 = ORDERS / 10 * 2;
const RETRIED: u64 = ORDERS / 10 * 5;

/// What a broker does not tell is no number, so that nobody takes it for zero. AMQP has no words for these.
const UNTOLD: [(&str, &str); 2] = [
    ("rabbitmq", "postrider_unsettled"),
    ("rabbitmq", "postrider_retrying"),
];

/// One answer of `/metrics`, for the listeners of one group.
struct Scrape {
    text: String,
    system: String,
    group: String,
}

impl Scrape {
    async fn of(running: &Running, group: &str) -> Self {
        let (status, text) = get(running.ops_address().unwrap(), "/metrics").await;
        assert_eq!(status, 200);
        Self {
            text,
            system: format!("messaging_system=\"{}\"", running.status()[0].system),
            group: format!("messaging_consumer_group_name=\"{group}\""),
        }
    }

    /// A series of the listener on this topic.
    fn listener(&self, topic: &str, name: &str, label: &str) -> f64 {
        let topic = format!("messaging_destination_name=\"{topic}\"");
        value(&self.text, name, &[&self.system, &self.group, &topic, label])
            .unwrap_or_else(|| panic!("{name} of {topic} is missing:\n{}", self.text))
    }

    /// How many were published to this topic. Both Redis adapters are the same system: what the first published stays.
    fn sent(&self, topic: &str) -> u64 {
        let topic = format!("{{messaging_destination_name=\"{topic}\"");
        value(
            &self.text,
            "messaging_client_sent_messages_total",
            &[&self.system, &topic],
        )
        .unwrap_or(0.0) as u64
    }

    /// Names with labels: of the listeners, of the topics that they publish to, of publishing on this broker; without what
    /// names the broker and the group.
    fn names(&self) -> BTreeSet<String> {
        let elsewhere =
            |line: &str| line.contains("destination_name") && !line.contains("destination_name=\"series.");
        let mine = |line: &&str| {
            line.contains(&self.group)
                || (line.contains(&self.system) && !line.contains("consumer_group") && !elsewhere(line))
        };
        let without_values = |line: &str| {
            let (series, _) = line.rsplit_once(' ').unwrap();
            series
                .replace(&self.system, "messaging_system")
                .replace(&self.group, "messaging_consumer_group_name")
        };
        self.text
            .lines()
            .filter(|line| !line.starts_with('#'))
            .filter(mine)
            .map(without_values)
            .collect()
    }
}

/// Runs the orders; what `/metrics` says at last.
async fn scrape(broker: &'static str) -> Option<Scrape> {
    let target = Target::find(broker)?;
    let seen = Seen::default();
    let app = target.app().state(seen.clone()).ops("0").unwrap();
    let running = app
        .listen(listeners![series_inventory, series_shipping])
        .start()
        .await
        .unwrap();
    running.ready().await.unwrap();
    let before = Scrape::of(&running, &target.name).await;
    running.pause("series_inventory");
    let orders: Vec<Ordered> = (0..ORDERS).map(|order| Ordered { order }).collect();
    for sent in running.publisher().send_all(&orders).await {
        sent.unwrap();
    }
    backlog_shows(broker, &running, &target.name).await;
    running.resume("series_inventory");
    let done = || {
        let status = running.status();
        let (first, second) = (status[0].counts, status[1].counts);
        first.handled + first.dead_lettered == ORDERS && second.handled == first.handled
    };
    eventually(|| format!("{:#?}", running.status()), done).await;
    let now = depths_settle(broker, &running, &target.name).await;
    let handled = ORDERS - FAILED_FOR_GOOD;
    adds_up(broker, &now, "series.order", ORDERS, RETRIED, FAILED_FOR_GOOD);
    adds_up(broker, &now, "series.stock", handled, 0, 0);
    for (topic, published) in [("series.order", ORDERS), ("series.stock", handled)] {
        assert_eq!(
            now.sent(topic) - before.sent(topic),
            published,
            "{broker} {topic}"
        );
    }
    let failures = |reason: &str| {
        let label = format!("error_type=\"{reason}\"");
        now.listener("series.order", "postrider_failures_total", &label) as u64
    };
    assert_eq!(failures("error"), RETRIED + ORDERS / 10, "{broker}");
    assert_eq!(failures("permanent"), ORDERS / 10, "{broker}");
    running.shutdown().await.unwrap();
    Some(now)
}

/// Waits until what a scaler looks at is what was published.
async fn backlog_shows(broker: &str, running: &Running, group: &str) {
    let begin = Instant::now();
    loop {
        let scrape = Scrape::of(running, group).await;
        let told = |name| scrape.listener("series.order", name, "");
        let backlog = told("postrider_waiting") + told("postrider_in_flight");
        if (backlog - ORDERS as f64).abs() < 0.1 {
            return;
        }
        assert!(begin.elapsed() < Duration::from_secs(30), "{broker}: {backlog}");
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
}

/// Waits until the gauges tell of the end, as the broker does.
async fn depths_settle(broker: &str, running: &Running, group: &str) -> Scrape {
    let begin = Instant::now();
    loop {
        let scrape = Scrape::of(running, group).await;
        let mut wrong = Vec::new();
        for (topic, dead) in [("series.order", FAILED_FOR_GOOD), ("series.stock", 0)] {
            for (name, expected) in [
                ("postrider_ready", 1),
                ("postrider_in_flight", 0),
                ("postrider_waiting", 0),
                ("postrider_unsettled", 0),
                ("postrider_retrying", 0),
                ("postrider_dead", dead),
            ] {
                let told = scrape.listener(topic, name, "");
                let right = if UNTOLD.contains(&(broker, name)) {
                    told.is_nan()
                } else {
                    (told - expected as f64).abs() < 0.1
                };
                if !right {
                    wrong.push(format!("{name} of {topic} is {told}, not {expected}"));
                }
            }
        }
        if wrong.is_empty() {
            return scrape;
        }
        assert!(begin.elapsed() < Duration::from_secs(30), "{broker}: {wrong:#?}");
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
}

/// Every published message is handled or given up, every attempt is one at a published message or at its retry.
fn adds_up(broker: &str, scrape: &Scrape, topic: &str, published: u64, retried: u64, dead: u64) {
    let attempts = published + retried;
    let mut expected = vec![
        ("postrider_handled_total", "", published - dead),
        ("postrider_dead_lettered_total", "", dead),
        ("postrider_retried_total", "", retried),
        ("postrider_retry_age_seconds_count", "", retried),
        ("postrider_attempts_total", "", attempts),
        ("messaging_client_consumed_messages_total", "", attempts),
        ("postrider_batch_size_sum", "operation_name=\"receive\"", attempts),
        ("postrider_batch_size_sum", "operation_name=\"settle\"", attempts),
    ];
    if topic == "series.order" {
        expected.push(("messaging_process_duration_seconds_count", "", attempts));
    } else {
        expected.push(("postrider_batch_size_sum", "operation_name=\"process\"", attempts));
    }
    for name in [
        "released",
        "duplicates",
        "stale",
        "lost",
        "reconnects",
        "settle_failures",
    ] {
        let name = format!("postrider_{name}_total");
        assert_eq!(
            scrape.listener(topic, &name, "") as u64,
            0,
            "{name} of {topic} on {broker}"
        );
    }
    for (name, label, expected) in expected {
        let told = scrape.listener(topic, name, label) as u64;
        assert_eq!(told, expected, "{name} {label} of {topic} on {broker}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn series_are_the_same_on_every_broker_and_add_up() {
    let mut found = BTreeMap::new();
    // Side by side, for each waits for gauges; but what is published is counted by system, and Redis is one.
    for brokers in [&["memory", "rabbitmq", "redis", "kafka"][..], &["redis_pubsub"]] {
        let scrapes = join_all(brokers.iter().map(|broker| scrape(broker))).await;
        for (broker, scrape) in brokers.iter().zip(scrapes) {
            found.extend(scrape.map(|scrape| (*broker, scrape.names())));
        }
    }
    let memory = &found["memory"];
    println!("{} series on each of {:?}", memory.len(), found.keys());
    for (broker, series) in &found {
        let missing: Vec<_> = memory.difference(series).collect();
        let more: Vec<_> = series.difference(memory).collect();
        assert!(
            missing.is_empty() && more.is_empty(),
            "{broker} lacks {missing:#?}, has {more:#?}"
        );
    }
}
