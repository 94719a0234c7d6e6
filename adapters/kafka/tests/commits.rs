//! Positions that the broker does not take: messages flow on, and it is told that they would come again.

mod support;

use std::time::Duration;

use postrider_contract::Event;
use support::own::OwnBroker;
use support::{Listener, PATIENCE, client, nothing_waits, open, publish, spec, text, unique};

const QUIET: Duration = Duration::from_secs(2);

async fn read(listener: &mut Listener, expected: &str) {
    let got = listener.drain(1, PATIENCE).await;
    let got: Vec<String> = got.iter().map(text).collect();
    assert_eq!(got, [expected]);
}

#[tokio::test(flavor = "multi_thread")]
async fn positions_that_are_refused_for_long_are_told() {
    let own = OwnBroker::start();
    let topic = unique("refused");
    let broker = postrider_kafka::connect(&own.url_with("&partitions=1"), client("refused"))
        .await
        .unwrap();
    let spec = spec(&topic, "g");
    let mut listener = open(&broker, spec.clone()).await;
    // Too small for any position.
    let limit = |how: &[&str]| {
        let positions = ["--topic", "__consumer_offsets"];
        own.cli(&[&["configs", "--alter"], &positions[..], how].concat());
    };
    limit(&["--add-config", "max.message.bytes=10"]);
    publish(&broker, &topic, &["a"]).await;
    read(&mut listener, "a").await;
    let is_told =
        |event: &Event| matches!(event, Event::Degraded(error) if error.to_string().contains("commit"));
    println!("{:?}", listener.event(is_told).await);
    publish(&broker, &topic, &["b"]).await;
    read(&mut listener, "b").await;
    let mut none = Vec::new();
    let next = tokio::time::timeout(QUIET, listener.receiver.next(0, &mut none)).await;
    assert!(next.is_err(), "it is refused all along: {next:?}");

    limit(&["--delete-config", "max.message.bytes"]);
    listener.ready().await;
    nothing_waits(&broker, &spec, PATIENCE).await;
    broker.close(PATIENCE).await.unwrap();
}

/// The positions are what matters.
#[tokio::test(flavor = "multi_thread")]
async fn what_is_noted_beside_a_position_is_left_out_where_it_is_too_long() {
    let own = OwnBroker::with(&["offset.metadata.max.bytes=20"]);
    let topic = unique("long");
    let spec = spec(&topic, "g");
    for payload in ["a", "b"] {
        let broker = postrider_kafka::connect(&own.url_with("&partitions=1"), client("long"))
            .await
            .unwrap();
        let mut listener = open(&broker, spec.clone()).await;
        publish(&broker, &topic, &[payload]).await;
        read(&mut listener, payload).await;
        nothing_waits(&broker, &spec, PATIENCE).await;
        assert!(listener.some(9, QUIET).await.is_empty());
        broker.close(PATIENCE).await.unwrap();
    }
}
