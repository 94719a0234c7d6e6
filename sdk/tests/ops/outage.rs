//! A broker of the test's own is killed, and frozen: readiness says so, and why, within ten seconds, and is true again
//! afterwards.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};

use postrider::Running;
use postrider::prelude::*;
use postrider_own_broker::{OwnBroker, Server};
use serde_json::Value;

use crate::http::get;
use crate::kit::Target;
use crate::value;

const LIMIT: Duration = Duration::from_secs(10);

/// Starts one that nobody else uses.
fn start(broker: &str) -> OwnBroker {
    OwnBroker::start(match broker {
        "rabbitmq" => Server::Rabbitmq,
        "kafka" => Server::Kafka,
        _ => Server::Redis,
    })
}

/// With shorter silences than the usual ones, after which a frozen broker would be noticed too, but later.
fn url(own: &OwnBroker, broker: &str) -> String {
    let url = own.verb("url");
    match broker {
        "rabbitmq" => url + "?heartbeat=2s",
        "kafka" => url + "?session_timeout=6s",
        "redis_pubsub" => url.replacen("redis://", "redis+pubsub://", 1),
        _ => url,
    }
}

#[listener(topic = "outage.order", concurrency = 2)]
async fn outlives(_: Json<u64>) {}

/// Waits for a status of `/health/ready`; how long it took, and what was said.
async fn until(address: SocketAddr, expected: u16, limit: Duration) -> (Duration, String) {
    let begin = Instant::now();
    loop {
        let (status, text) = get(address, "/health/ready").await;
        if status == expected {
            return (begin.elapsed(), text);
        }
        assert!(begin.elapsed() < limit, "still {status} after {limit:?}: {text}");
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
}

async fn outage(broker: &'static str) {
    if Target::find(broker).is_none() {
        return;
    }
    let own = tokio::task::spawn_blocking(move || start(broker));
    let own = Arc::new(own.await.unwrap());
    let app = App::new(&url(&own, broker))
        .unwrap()
        .name(format!("outage-{broker}"));
    let app = app.ops("0").unwrap();
    let running = app.listen(listeners![outlives]).start().await.unwrap();
    running.ready().await.unwrap();
    assert_eq!(get(running.ops_address().unwrap(), "/health/ready").await.0, 200);
    let declared = own.clone();
    tokio::task::spawn_blocking(move || declared.write_down())
        .await
        .unwrap();
    for (round, down, up) in [(1, "kill", &["start", "wait"][..]), (2, "pause", &["resume"])] {
        verb(&own, down).await;
        told_while_down(&running, down).await;
        for up in up {
            verb(&own, up).await;
        }
        told_when_back(&running, round).await;
    }
    running.shutdown().await.unwrap();
    tokio::task::spawn_blocking(move || drop(own)).await.unwrap();
}

async fn verb(own: &Arc<OwnBroker>, verb: &'static str) {
    let own = own.clone();
    tokio::task::spawn_blocking(move || own.verb(verb)).await.unwrap();
}

async fn told_while_down(running: &Running, how: &str) {
    let (address, name) = (running.ops_address().unwrap(), &running.status()[0].group);
    let (took, text) = until(address, 503, LIMIT).await;
    println!("{name} {how}: not ready after {took:?}: {text}");
    let told: Value = serde_json::from_str(&text).unwrap();
    let reason = &told["reasons"][0];
    assert_eq!(reason["listener"], "outlives");
    assert_eq!(reason["state"], "degraded");
    assert!(reason["reason"].as_str().is_some_and(|reason| !reason.is_empty()));
    assert_eq!(get(address, "/health/live").await.0, 200);
    crate::until(async || gauge(running, "postrider_ready").await < 0.5).await;
    let begin = Instant::now();
    let (_, text) = get(address, "/listeners").await;
    assert!(begin.elapsed() < LIMIT / 2, "{:?}", begin.elapsed());
    let told: Value = serde_json::from_str(&text).unwrap();
    let listener = &told["listeners"][0];
    assert_eq!(listener["state"], "degraded", "{text}");
    assert!(listener["last_error"].is_string(), "{text}");
    assert!(listener["lag"].is_null(), "{text}");
    assert!(listener["depths_error"].is_string(), "{text}");
    crate::until(async || gauge(running, "postrider_waiting").await.is_nan()).await;
}

async fn told_when_back(running: &Running, round: u64) {
    let (address, name) = (running.ops_address().unwrap(), &running.status()[0].group);
    let (took, _) = until(address, 200, Duration::from_secs(60)).await;
    println!("{name}: ready again after {took:?}");
    let publisher = running.publisher();
    publisher.topic("outage.order").send_json(&round).await.unwrap();
    crate::kit::status(running, |status| status.counts.handled >= round).await;
    assert!(running.status()[0].counts.reconnects >= round);
    crate::until(async || gauge(running, "postrider_ready").await > 0.5).await;
    crate::until(async || gauge(running, "postrider_waiting").await < 0.5).await;
}

async fn gauge(running: &Running, name: &str) -> f64 {
    let group = format!("messaging_consumer_group_name=\"{}\"", running.status()[0].group);
    let (_, metrics) = get(running.ops_address().unwrap(), "/metrics").await;
    value(&metrics, name, &[&group]).unwrap()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn of_rabbitmq_is_seen_and_its_end_too() {
    outage("rabbitmq").await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn of_redis_is_seen_and_its_end_too() {
    outage("redis").await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn of_redis_pubsub_is_seen_and_its_end_too() {
    outage("redis_pubsub").await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn of_kafka_is_seen_and_its_end_too() {
    outage("kafka").await;
}
