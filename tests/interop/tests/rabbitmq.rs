//! A plain lapin client publishes plain JSON, and reads what a publisher wrote in AMQP's own properties.

mod common;

use lapin::options::{BasicGetOptions, BasicPublishOptions, QueueBindOptions, QueueDeclareOptions};
use lapin::types::{AMQPValue, FieldTable, LongString, ShortString};
use lapin::{BasicProperties, Channel, Connection, ConnectionProperties};
use postrider_interop::broker;

async fn channel(url: &str) -> (Connection, Channel) {
    let connection = Connection::connect(url, ConnectionProperties::default())
        .await
        .unwrap();
    let channel = connection.create_channel().await.unwrap();
    (connection, channel)
}

#[tokio::test]
async fn a_plain_message_is_handled() {
    let Some(url) = broker("rabbitmq") else { return };
    let (running, mut seen) = common::listen(&url).await;
    let (_connection, channel) = channel(&url).await;
    let mark = common::mark();
    let payload = format!(r#"{{"mark":"{mark}"}}"#);
    let mut headers = FieldTable::default();
    headers.insert("tenant".into(), AMQPValue::LongString(LongString::from("acme")));
    let properties = BasicProperties::default()
        .with_headers(headers)
        .with_correlation_id("c-9".into());
    let options = BasicPublishOptions::default();
    channel
        .basic_publish(
            "postrider".into(),
            "interop.in".into(),
            options,
            payload.as_bytes(),
            properties,
        )
        .await
        .unwrap();
    let saw = common::marked(&mut seen, &mark).await;
    for expected in [("tenant", "acme"), ("correlation-id", "c-9")] {
        let expected = (expected.0.to_owned(), expected.1.to_owned());
        assert!(saw.headers.contains(&expected), "{saw:?}");
    }
    running.shutdown().await.unwrap();
}

#[tokio::test]
async fn what_a_publisher_wrote_is_plain() {
    let Some(url) = broker("rabbitmq") else { return };
    let (running, _seen) = common::listen(&url).await;
    let (_connection, channel) = channel(&url).await;
    let exclusive = QueueDeclareOptions {
        exclusive: true,
        auto_delete: true,
        ..QueueDeclareOptions::default()
    };
    let queue = channel
        .queue_declare("".into(), exclusive, FieldTable::default())
        .await
        .unwrap();
    let name = queue.name().clone();
    let bind = QueueBindOptions::default();
    channel
        .queue_bind(
            name.clone(),
            "postrider".into(),
            "interop.out".into(),
            bind,
            FieldTable::default(),
        )
        .await
        .unwrap();
    let mark = common::mark();
    common::publish(&running, &mark).await;
    let found = loop {
        // Confirmed means routed: it is there.
        let got = channel
            .basic_get(name.clone(), BasicGetOptions { no_ack: true })
            .await
            .unwrap();
        let got = got.expect("it is in the queue");
        if got
            .delivery
            .properties
            .message_id()
            .as_ref()
            .is_some_and(|id| id.as_str() == mark)
        {
            break got.delivery;
        }
    };
    assert_eq!(found.data, format!(r#"{{"mark":"{mark}"}}"#).into_bytes());
    let properties = &found.properties;
    assert_eq!(
        properties.content_type().as_ref().map(ShortString::as_str),
        Some("application/json")
    );
    assert_eq!(
        properties.correlation_id().as_ref().map(ShortString::as_str),
        Some("c-1")
    );
    assert!(properties.timestamp().is_some());
    assert_eq!(*properties.delivery_mode(), Some(2), "persistent");
    let headers = properties.headers().as_ref().unwrap().inner();
    assert_eq!(
        headers.get("tenant"),
        Some(&AMQPValue::LongString(LongString::from("acme")))
    );
    running.shutdown().await.unwrap();
}
