//! `redis-cli` publishes plain JSON with `XADD`, and reads what a publisher wrote.

mod common;

use postrider_interop::broker;
use redis::AsyncCommands;
use redis::streams::StreamRangeReply;

async fn connection(url: &str) -> redis::aio::MultiplexedConnection {
    redis::Client::open(url)
        .unwrap()
        .get_multiplexed_async_connection()
        .await
        .unwrap()
}

#[tokio::test]
async fn a_plain_entry_is_handled() {
    let Some(url) = broker("redis") else { return };
    let (running, mut seen) = common::listen(&url).await;
    let mark = common::mark();
    let payload = format!(r#"{{"mark":"{mark}"}}"#);
    let fields = [("payload", payload.as_str()), ("tenant", "acme")];
    let _: String = connection(&url)
        .await
        .xadd("interop.in", "*", &fields)
        .await
        .unwrap();
    let saw = common::marked(&mut seen, &mark).await;
    assert!(
        saw.headers.contains(&("tenant".to_owned(), "acme".to_owned())),
        "{saw:?}"
    );
    running.shutdown().await.unwrap();
}

#[tokio::test]
async fn what_a_publisher_wrote_is_plain() {
    let Some(url) = broker("redis") else { return };
    let (running, _seen) = common::listen(&url).await;
    let mark = common::mark();
    common::publish(&running, &mark).await;
    let entries: StreamRangeReply = connection(&url)
        .await
        .xrevrange_count("interop.out", "+", "-", 50)
        .await
        .unwrap();
    let text = |entry: &redis::streams::StreamId, name: &str| entry.get::<String>(name).unwrap_or_default();
    let entry = entries
        .ids
        .iter()
        .find(|entry| text(entry, "message-id") == mark)
        .expect("it is in the stream");
    assert_eq!(text(entry, "payload"), format!(r#"{{"mark":"{mark}"}}"#));
    assert_eq!(text(entry, "tenant"), "acme");
    assert_eq!(text(entry, "content-type"), "application/json");
    assert_eq!(text(entry, "correlation-id"), "c-1");
    running.shutdown().await.unwrap();
}

#[tokio::test]
async fn a_bare_publish_is_handled_on_pubsub() {
    let Some(plain) = broker("redis") else { return };
    let (running, mut seen) = common::listen(&plain.replacen("redis://", "redis+pubsub://", 1)).await;
    let mark = common::mark();
    let _: i64 = connection(&plain)
        .await
        .publish("interop.in", format!(r#"{{"mark":"{mark}"}}"#))
        .await
        .unwrap();
    common::marked(&mut seen, &mark).await;
    running.shutdown().await.unwrap();
}
