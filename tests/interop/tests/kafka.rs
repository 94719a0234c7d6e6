//! A plain rdkafka client publishes plain JSON, and reads what a publisher wrote.

mod common;

use std::time::Duration;

use postrider_interop::broker;
use rdkafka::ClientConfig;
use rdkafka::consumer::{BaseConsumer, Consumer};
use rdkafka::message::{Header, Headers, Message, OwnedHeaders};
use rdkafka::producer::{FutureProducer, FutureRecord};

fn config(url: &str) -> ClientConfig {
    let mut config = ClientConfig::new();
    config.set("bootstrap.servers", url.trim_start_matches("kafka://"));
    config
}

#[tokio::test]
async fn a_plain_record_is_handled() {
    let Some(url) = broker("kafka") else { return };
    let (running, mut seen) = common::listen(&url).await;
    let producer: FutureProducer = config(&url).create().unwrap();
    let mark = common::mark();
    let payload = format!(r#"{{"mark":"{mark}"}}"#);
    let headers = OwnedHeaders::new().insert(Header {
        key: "tenant",
        value: Some("acme"),
    });
    let record = FutureRecord::to("interop.in")
        .key("k-7")
        .payload(&payload)
        .headers(headers);
    producer.send(record, Duration::from_secs(10)).await.unwrap();
    let saw = common::marked(&mut seen, &mark).await;
    assert_eq!(saw.key.as_deref(), Some("k-7"));
    assert!(
        saw.headers.contains(&("tenant".to_owned(), "acme".to_owned())),
        "{saw:?}"
    );
    running.shutdown().await.unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_a_publisher_wrote_is_plain() {
    let Some(url) = broker("kafka") else { return };
    let (running, _seen) = common::listen(&url).await;
    let mark = common::mark();
    common::publish(&running, &mark).await;
    let expected = mark.clone();
    let found = tokio::task::spawn_blocking(move || {
        let consumer: BaseConsumer = config(&url)
            .set("group.id", format!("plain-{mark}"))
            .set("auto.offset.reset", "earliest")
            .set("enable.auto.commit", "false")
            .create()
            .unwrap();
        consumer.subscribe(&["interop.out"]).unwrap();
        for _ in 0..400 {
            let Some(record) = consumer.poll(Duration::from_millis(50)) else {
                continue;
            };
            let record = record.unwrap();
            let headers: Vec<(String, String)> = record
                .headers()
                .map(|headers| {
                    headers
                        .iter()
                        .map(|it| (it.key.to_owned(), text(it.value)))
                        .collect()
                })
                .unwrap_or_default();
            if headers.contains(&("message-id".to_owned(), mark.clone())) {
                return Some((
                    text(record.payload()),
                    text(record.key()),
                    record.timestamp().to_millis(),
                    headers,
                ));
            }
        }
        None
    });
    let (payload, key, timestamp, headers) = found.await.unwrap().expect("it is in the topic");
    assert_eq!(payload, format!(r#"{{"mark":"{expected}"}}"#));
    assert_eq!(key, "k-1");
    assert!(timestamp.is_some_and(|millis| millis > 1_700_000_000_000));
    for expected in [
        ("tenant", "acme"),
        ("content-type", "application/json"),
        ("correlation-id", "c-1"),
    ] {
        assert!(
            headers.contains(&(expected.0.to_owned(), expected.1.to_owned())),
            "{headers:?}"
        );
    }
    running.shutdown().await.unwrap();
}

fn text(bytes: Option<&[u8]>) -> String {
    String::from_utf8_lossy(bytes.unwrap_or_default()).into_owned()
}
