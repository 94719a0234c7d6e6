//! The operations endpoint: what it answers, and what it refuses. Here on the embedded broker, in the modules on every one.

#![cfg(feature = "ops")]

mod every_broker;
mod http;
#[allow(dead_code, reason = "shared with the contract's tests")]
#[path = "../contract/kit.rs"]
mod kit;
mod late;
mod losses;
mod outage;
mod silent;

use std::sync::Arc;
use std::time::Duration;

use http::{get, post, request};
use postrider::prelude::*;
use postrider::{Running, State};
use tokio::sync::Semaphore;

#[listener(topic = "order", retry(attempts = 2, backoff = "10ms"), concurrency = 2)]
async fn reserve(
    order: Json<u64>,
    attempt: Attempt,
    State(gate): State<Arc<Semaphore>>,
) -> Result<(), HandlerError> {
    gate.acquire().await?.forget();
    match order.0 {
        0 => Err("always".into()),
        1 if attempt.0 == 1 => Err("once".into()),
        _ => Ok(()),
    }
}

async fn start(name: &str, gate: &Arc<Semaphore>) -> Running {
    let url = format!("memory://ops-{}", uuid::Uuid::now_v7().simple());
    let app = App::new(&url).unwrap().name(name).state(gate.clone());
    let app = app.ops("0").unwrap().ops_token("secret");
    let running = app.listen(listeners![reserve]).start().await.unwrap();
    running.ready().await.unwrap();
    running
}

fn open() -> Arc<Semaphore> {
    Arc::new(Semaphore::new(1_000))
}

async fn until(mut holds: impl AsyncFnMut() -> bool) {
    let begin = std::time::Instant::now();
    while !holds().await {
        assert!(begin.elapsed() < Duration::from_secs(20), "not reached");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

/// The value of the series of this name whose labels contain all of these.
fn value(metrics: &str, name: &str, labels: &[&str]) -> Option<f64> {
    let is_it = |line: &&str| {
        line.starts_with(&format!("{name}{{")) && labels.iter().all(|label| line.contains(label))
    };
    metrics.lines().find(is_it)?.rsplit(' ').next()?.parse().ok()
}

#[tokio::test]
async fn counters_add_up_and_names_are_those_of_opentelemetry() {
    let running = start("counting", &open()).await;
    let publisher = running.publisher();
    for order in 0..10_u64 {
        publisher.topic("order").send_json(&order).await.unwrap();
    }
    until(async || {
        let counts = running.status()[0].counts;
        counts.handled + counts.dead_lettered == 10
    })
    .await;
    let address = running.ops_address().unwrap();
    let (status, metrics) = get(address, "/metrics").await;
    assert_eq!(status, 200);
    let of = |name: &str| value(&metrics, name, &["messaging_consumer_group_name=\"counting\""]);
    let sum = |name: &str| of(name).unwrap_or_else(|| panic!("{name} is missing:\n{metrics}"));
    assert!((sum("postrider_handled_total") - 9.0).abs() < 0.1);
    assert!((sum("postrider_dead_lettered_total") - 1.0).abs() < 0.1);
    assert!((sum("postrider_retried_total") - 2.0).abs() < 0.1);
    assert!((sum("postrider_attempts_total") - 12.0).abs() < 0.1);
    assert!((sum("messaging_client_consumed_messages_total") - 12.0).abs() < 0.1);
    assert!((sum("messaging_process_duration_seconds_count") - 12.0).abs() < 0.1);
    assert!(sum("postrider_retry_age_seconds_count") >= 2.0);
    for (name, operation) in [
        ("messaging_client_consumed_messages_total", "receive"),
        ("messaging_process_duration_seconds_count", "process"),
        ("messaging_client_operation_duration_seconds_count", "settle"),
    ] {
        let labels = [
            "messaging_consumer_group_name=\"counting\"",
            "messaging_destination_name=\"order\"",
            &format!("messaging_operation_name=\"{operation}\""),
            "messaging_system=\"memory\"",
        ];
        assert!(value(&metrics, name, &labels).is_some(), "{name}:\n{metrics}");
    }
    let sent = value(
        &metrics,
        "messaging_client_sent_messages_total",
        &["destination_name=\"order\"", "messaging_operation_name=\"send\""],
    );
    assert!(sent.unwrap() >= 10.0);
    let failures = value(
        &metrics,
        "postrider_failures_total",
        &["error_type=\"error\"", "counting"],
    );
    assert!((failures.unwrap() - 3.0).abs() < 0.1);

    let (_, text) = get(address, "/listeners").await;
    let told: serde_json::Value = serde_json::from_str(&text).unwrap();
    let listener = &told["listeners"][0];
    assert_eq!(listener["name"], "reserve");
    assert_eq!(listener["topic"], "order");
    assert_eq!(listener["state"], "ready");
    assert_eq!(listener["lag"], 0, "{text}");
    assert_eq!(listener["dead"], 1, "{text}");
    assert_eq!(listener["counts"]["attempts"], 12);
    let failure = listener["last_failure"].as_str().unwrap();
    assert!(
        failure.starts_with("error: always (attempt 2 at message 0"),
        "{failure}"
    );
    running.shutdown().await.unwrap();
}

#[listener(topic = "order.held", ordered, retry(attempts = 3, backoff = "50ms"))]
async fn held(_: Bytes, attempt: Attempt) -> Result<(), HandlerError> {
    if attempt.0 < 3 {
        return Err("not yet".into());
    }
    Ok(())
}

#[tokio::test]
async fn what_is_tried_again_in_the_process_has_an_age_too() {
    let url = format!("memory://ops-{}", uuid::Uuid::now_v7().simple());
    let app = App::new(&url).unwrap().name("holding").ops("0").unwrap();
    let running = app.listen(listeners![held]).start().await.unwrap();
    running.ready().await.unwrap();
    running
        .publisher()
        .topic("order.held")
        .send_bytes("x")
        .await
        .unwrap();
    until(async || running.status()[0].counts.handled == 1).await;
    let (_, metrics) = get(running.ops_address().unwrap(), "/metrics").await;
    let age = |what: &str| {
        value(
            &metrics,
            &format!("postrider_retry_age_seconds_{what}"),
            &["holding"],
        )
    };
    // After 50 ms and after 100 ms or more, of which jitter takes up to half.
    assert_eq!(age("count"), Some(2.0));
    assert!(age("sum").unwrap() >= 0.05, "{metrics}");
    running.shutdown().await.unwrap();
}

#[listener(topic = "order.once", dedup(window = "1h"))]
async fn once(_: Bytes) {}

#[tokio::test]
async fn duplicates_are_counted_apart() {
    let url = format!("memory://ops-{}", uuid::Uuid::now_v7().simple());
    let app = App::new(&url).unwrap().name("once").ops("0").unwrap();
    let running = app.listen(listeners![once]).start().await.unwrap();
    running.ready().await.unwrap();
    for _ in 0..3 {
        let publisher = running.publisher();
        let draft = publisher.topic("order.once").id("1");
        draft.send_bytes("x").await.unwrap();
    }
    until(async || running.status()[0].counts.duplicates == 2).await;
    let address = running.ops_address().unwrap();
    let (_, metrics) = get(address, "/metrics").await;
    for (name, expected) in [
        ("duplicates", 2.0),
        ("handled", 1.0),
        ("attempts", 1.0),
        ("released", 0.0),
    ] {
        let name = format!("postrider_{name}_total");
        let labels = [
            "messaging_system=\"memory\"",
            "messaging_destination_name=\"order.once\"",
            "messaging_consumer_group_name=\"once\"",
            "postrider_listener=\"once\"",
        ];
        assert_eq!(
            value(&metrics, &name, &labels),
            Some(expected),
            "{name}:\n{metrics}"
        );
    }
    let (_, text) = get(address, "/listeners").await;
    let told: serde_json::Value = serde_json::from_str(&text).unwrap();
    assert_eq!(told["listeners"][0]["counts"]["duplicates"], 2, "{text}");
    running.shutdown().await.unwrap();
}

#[tokio::test]
async fn publishes_are_counted_by_how_they_ended() {
    let running = start("publishing", &open()).await;
    let publisher = running.publisher();
    publisher.topic("ops.nobody").send_json(&1_u64).await.unwrap();
    for _ in 0..2 {
        let draft = publisher.topic("ops.nobody").require_receiver();
        draft.send_json(&1_u64).await.unwrap_err();
    }
    let (_, metrics) = get(running.ops_address().unwrap(), "/metrics").await;
    let of = |name: &str, error: &str| {
        let labels = format!("{{{error}messaging_destination_name=\"ops.nobody\"");
        value(&metrics, name, &[&labels]).unwrap_or_else(|| panic!("{name} is missing:\n{metrics}")) as u64
    };
    assert_eq!(of("messaging_client_sent_messages_total", ""), 1);
    assert_eq!(of("postrider_unreceived_total", ""), 1);
    let failed = of(
        "messaging_client_sent_messages_total",
        "error_type=\"no_receiver\",",
    );
    assert_eq!(failed, 2);
    // Topics that whoever made up, such as from what came in.
    for n in 0..1_000 {
        let topic = format!("ops.hostile.{n}");
        publisher.topic(topic).send_json(&1_u64).await.unwrap();
    }
    let (_, metrics) = get(running.ops_address().unwrap(), "/metrics").await;
    let hostile = |line: &&str| line.contains("ops.hostile.");
    assert!(metrics.lines().filter(hostile).count() <= 2 * 200);
    let others = value(&metrics, "messaging_client_sent_messages_total", &["_OTHER"]);
    assert!(others.unwrap() >= 800.0, "{others:?}");
    running.shutdown().await.unwrap();
}

#[derive(Message, Serialize)]
#[message(topic = "ops.answer")]
struct Answer {
    to: u64,
}

#[listener(topic = "ops.ask", publish = "ops.answer")]
async fn answer(question: Json<u64>) -> Answer {
    Answer { to: question.0 }
}

/// A misspelt topic, or one whose listener is not deployed yet.
#[tokio::test]
async fn what_a_listener_publishes_to_nobody_is_counted() {
    let app = App::new("memory://ops-unreceived").unwrap().name("unreceived");
    let running = app
        .ops("0")
        .unwrap()
        .listen(listeners![answer])
        .start()
        .await
        .unwrap();
    running.ready().await.unwrap();
    let publisher = running.publisher();
    for question in 0..3_u64 {
        publisher.topic("ops.ask").send_json(&question).await.unwrap();
    }
    until(async || running.status()[0].counts.handled == 3).await;
    let (_, metrics) = get(running.ops_address().unwrap(), "/metrics").await;
    for name in [
        "messaging_client_sent_messages_total",
        "postrider_unreceived_total",
    ] {
        let counted = value(&metrics, name, &["messaging_destination_name=\"ops.answer\""]);
        assert_eq!(counted, Some(3.0), "{name}:\n{metrics}");
    }
    running.shutdown().await.unwrap();
}

#[tokio::test]
async fn readiness_says_which_listener_does_not_receive() {
    let running = start("readiness", &open()).await;
    let address = running.ops_address().unwrap();
    assert!(address.ip().is_loopback());
    assert_eq!(get(address, "/health/live").await.0, 200);
    assert_eq!(get(address, "/health/ready").await.0, 200);

    let bearer = Some("secret");
    assert_eq!(post(address, "/listeners/reserve/pause", bearer).await.0, 200);
    let (status, text) = get(address, "/health/ready").await;
    assert_eq!(status, 503);
    let told: serde_json::Value = serde_json::from_str(&text).unwrap();
    assert_eq!(told["reasons"][0]["listener"], "reserve");
    assert_eq!(told["reasons"][0]["state"], "paused");
    running
        .publisher()
        .topic("order")
        .send_json(&5_u64)
        .await
        .unwrap();
    tokio::time::sleep(Duration::from_millis(100)).await;
    assert_eq!(running.status()[0].counts.handled, 0);

    assert_eq!(post(address, "/listeners/reserve/resume", bearer).await.0, 200);
    until(async || running.status()[0].counts.handled == 1).await;
    assert_eq!(get(address, "/health/ready").await.0, 200);
    running.shutdown().await.unwrap();
}

#[tokio::test]
async fn nothing_is_changed_without_the_token() {
    let running = start("token", &open()).await;
    let address = running.ops_address().unwrap();
    for token in [None, Some(""), Some("secre"), Some("secrets"), Some("Secret")] {
        let (status, text) = post(address, "/listeners/reserve/pause", token).await;
        assert_eq!(status, 401, "{token:?}: {text}");
        assert!(!text.contains("secret"), "{text}");
    }
    assert_eq!(
        post(address, "/listeners/nobody/pause", Some("secret")).await.0,
        404
    );
    assert_eq!(get(address, "/listeners/reserve/pause").await.0, 405);
    assert_eq!(post(address, "/metrics", Some("secret")).await.0, 405);
    assert_eq!(get(address, "/../../etc/passwd").await.0, 404);
    let (status, _) = request(address, "garbage\r\n\r\n").await;
    assert_eq!(status, 400);
    assert_eq!(get(address, "/health/ready").await.0, 200);
    running.shutdown().await.unwrap();
}

#[tokio::test]
async fn without_a_token_set_nothing_can_be_changed_at_all() {
    let url = format!("memory://ops-{}", uuid::Uuid::now_v7().simple());
    let app = App::new(&url)
        .unwrap()
        .name("ops")
        .state(open())
        .ops("0")
        .unwrap();
    let running = app.listen(listeners![reserve]).start().await.unwrap();
    let address = running.ops_address().unwrap();
    let (status, text) = post(address, "/listeners/reserve/pause", Some("")).await;
    assert_eq!(status, 403);
    assert!(text.contains("POSTRIDER_OPS_TOKEN"), "{text}");
    running.shutdown().await.unwrap();
}

#[tokio::test]
async fn a_stalled_handler_shows_as_no_progress_with_a_backlog() {
    let gate = Arc::new(Semaphore::new(0));
    let running = start("stalled", &gate).await;
    let address = running.ops_address().unwrap();
    for order in 10..40_u64 {
        running
            .publisher()
            .topic("order")
            .send_json(&order)
            .await
            .unwrap();
    }
    let told = async || -> serde_json::Value {
        let (_, text) = get(address, "/listeners").await;
        serde_json::from_str(&text).unwrap()
    };
    until(async || {
        let listener = &told().await["listeners"][0];
        let idle = listener["idle_seconds"].as_f64().unwrap();
        idle >= 2.0 && listener["in_flight"].as_u64() == Some(30) && listener["state"] == "ready"
    })
    .await;
    // What the alert looks at: something is in flight, and no attempt comes to its end.
    let (_, metrics) = get(address, "/metrics").await;
    let of =
        |name: &str| value(&metrics, name, &["messaging_consumer_group_name=\"stalled\""]).unwrap() as u64;
    assert_eq!(of("postrider_in_flight"), 30);
    assert_eq!(of("postrider_attempts_total"), 0);
    gate.add_permits(100);
    until(async || told().await["listeners"][0]["in_flight"] == 0).await;
    assert!(told().await["listeners"][0]["idle_seconds"].as_f64().unwrap() < 2.0);
    running.shutdown().await.unwrap();
}

#[tokio::test]
async fn an_address_that_is_taken_is_refused_before_anything_is_consumed() {
    let running = start("taken", &open()).await;
    let address = running.ops_address().unwrap().to_string();
    let app = App::new("memory://ops-taken")
        .unwrap()
        .state(open())
        .ops(&address)
        .unwrap();
    let error = app
        .listen(listeners![reserve])
        .start()
        .await
        .unwrap_err()
        .to_string();
    assert!(
        error.contains(&address) && error.contains("POSTRIDER_OPS_ADDR"),
        "{error}"
    );
    running.shutdown().await.unwrap();
}
