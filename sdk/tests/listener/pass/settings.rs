//! What is written is what the runtime is told.
use std::time::Duration;

use postrider::__private::{AckMode, Backoff, Dedup, Register, Retry, Settings, Start};
use postrider::prelude::*;

#[listener(
    topic = "order.created",
    group = "inventory",
    broker = "audit",
    concurrency = 8,
    prefetch = 200,
    retry(attempts = 7, backoff = "linear 100ms..1m", max_age = "1h"),
    timeout = "1m 500ms",
    ordered,
    start = earliest,
    delivery = at_least_once,
    dead_letter = "order.failed",
    publish = "stock.reserved",
    rate = "500/m",
    breaker(failures = 10, pause = "30s"),
    dedup(window = "24h", key = "order_id"),
    max_size = "64KiB",
    enabled = false,
)]
async fn everything(_order: Bytes) -> Option<Reserved> {
    None
}

#[derive(Message, Serialize)]
#[message(topic = "stock.reserved")]
struct Reserved;

#[listener(topic = "order.created")]
async fn nothing(_order: Bytes) {}

#[listener(topic = "order.created", dedup(window = "90s"))]
async fn once(_order: Bytes) {}

#[listener(
    topic = "price.changed",
    broadcast,
    batch(size = 100, wait = "50ms"),
    retry(backoff = "5s"),
    max_size = 1_000,
    ack = auto,
    enabled = true
)]
async fn copies(_prices: Vec<Bytes>) {}

#[listener(topic = "payment.settled", retry(attempts = 1), ack = manual, start = new)]
async fn r#move(_payment: Bytes, _ack: Acker) {}

fn settings(listener: impl Register) -> Settings {
    listener.register().settings().clone()
}

fn main() {
    let it = settings(everything {});
    assert_eq!((it.name, it.module), ("everything", module_path!()));
    assert_eq!((it.topic, it.group, it.broker), ("order.created", Some("inventory"), Some("audit")));
    assert_eq!((it.concurrency, it.prefetch), (8, Some(200)));
    assert_eq!(it.retry.attempts, 7);
    assert_eq!(it.retry.backoff, Backoff::linear(Duration::from_millis(100), Duration::from_secs(60)));
    assert_eq!(it.retry.max_age, Some(Duration::from_secs(3600)));
    assert_eq!(it.timeout, Some(Duration::from_millis(60_500)));
    assert_eq!(it.ack, AckMode::Auto);
    assert!(it.ordered && !it.broadcast && it.at_least_once && !it.enabled);
    assert_eq!(it.start, Start::Earliest);
    assert_eq!((it.dead_letter, it.publish), (Some("order.failed"), Some("stock.reserved")));
    let rate = it.rate.unwrap();
    assert_eq!((rate.count, rate.per), (500, Duration::from_secs(60)));
    let breaker = it.breaker.unwrap();
    assert_eq!((breaker.failures, breaker.pause), (10, Duration::from_secs(30)));
    let day = Duration::from_secs(24 * 3600);
    assert_eq!(it.dedup, Some(Dedup { window: day, key: Some("order_id") }));
    assert_eq!(it.max_size, Some(65_536));
    assert!(it.batch.is_none());

    let it = settings(nothing {});
    let mut default = Settings::DEFAULT;
    (default.name, default.module, default.topic) = ("nothing", module_path!(), "order.created");
    assert_eq!(format!("{it:?}"), format!("{default:?}"));

    let window = Duration::from_secs(90);
    assert_eq!(settings(once {}).dedup, Some(Dedup { window, key: None }));

    let it = settings(copies {});
    let batch = it.batch.unwrap();
    assert_eq!((batch.size, batch.wait), (100, Duration::from_millis(50)));
    assert!(it.broadcast && !it.ordered && !it.at_least_once && it.enabled);
    assert_eq!(it.retry.attempts, Retry::DEFAULT.attempts);
    assert_eq!((it.retry.backoff.base, it.retry.backoff.cap), (Duration::from_secs(5), Duration::from_secs(5)));
    assert_eq!(it.max_size, Some(1_000));

    let it = settings(r#move {});
    assert_eq!((it.name, it.ack, it.start), ("move", AckMode::Manual, Start::New));
    assert_eq!((it.retry.attempts, it.retry.backoff), (1, Retry::DEFAULT.backoff));
}
