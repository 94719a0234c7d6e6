//! A broker that refuses dead letters for a while: the listener says so, keeps the message, and is ready again afterwards.

use std::time::{Duration, Instant};

use postrider::dead_letters::Filter;
use postrider::prelude::*;
use postrider::{ListenerState, ListenerStatus, Running};
use postrider_interop::broker;

const TOPIC: &str = "interop.refused";
const PATIENCE: Duration = Duration::from_secs(30);

#[listener(topic = "interop.refused")]
async fn gives_up(_: Bytes) -> Result<(), HandlerError> {
    Err(HandlerError::permanent("never"))
}

/// In a group of its own.
async fn start(url: &str) -> Running {
    let name = format!("interop-{}", uuid::Uuid::now_v7().simple());
    let app = App::new(url).unwrap().name(name).listen(listeners![gives_up]);
    let running = app.start().await.unwrap();
    running.ready().await.unwrap();
    running
}

fn group(running: &Running) -> String {
    running.status()[0].group.clone()
}

async fn until(running: &Running, holds: impl Fn(&ListenerStatus) -> bool) {
    let begin = Instant::now();
    while !holds(&running.status()[0]) {
        assert!(begin.elapsed() < PATIENCE, "{:#?}", running.status());
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

/// One that cannot be given up while its dead letter is refused.
async fn degrades(running: &Running) {
    running.publisher().topic(TOPIC).send_bytes("x").await.unwrap();
    until(running, |status| {
        matches!(status.state, ListenerState::Degraded(_))
    })
    .await;
    let status = &running.status()[0];
    println!("{} {:?}", status.system, status.state);
    assert_eq!(
        (status.counts.dead_lettered, status.in_flight),
        (0, 1),
        "{status:#?}"
    );
}

async fn recovers(running: Running) {
    until(&running, |status| status.state == ListenerState::Ready).await;
    until(&running, |status| status.in_flight == 0).await;
    let status = &running.status()[0];
    assert_eq!(
        (status.counts.attempts, status.counts.dead_lettered),
        (1, 1),
        "{status:#?}"
    );
    let mut letters = running.dead_letters("gives_up").unwrap();
    let reasons: Vec<String> = letters
        .list(&Filter::all())
        .await
        .unwrap()
        .into_iter()
        .map(|letter| letter.dead.reason)
        .collect();
    assert_eq!(reasons, ["permanent"]);
    running.shutdown().await.unwrap();
}

/// A text is no stream.
#[tokio::test]
async fn redis() {
    let Some(url) = broker("redis") else { return };
    let running = start(&url).await;
    let key = format!("{{{TOPIC}}}.{}.dlq", group(&running));
    let client = redis::Client::open(url).unwrap();
    let mut connection = client.get_multiplexed_async_connection().await.unwrap();
    let () = redis::cmd("SET")
        .arg(&key)
        .arg("x")
        .query_async(&mut connection)
        .await
        .unwrap();
    degrades(&running).await;
    let () = redis::cmd("DEL")
        .arg(&key)
        .query_async(&mut connection)
        .await
        .unwrap();
    recovers(running).await;
}

/// In the place of the stream comes a queue that is full.
#[tokio::test]
async fn rabbitmq() {
    use lapin::options::{QueueBindOptions, QueueDeclareOptions, QueueDeleteOptions};
    use lapin::types::{AMQPValue, FieldTable};

    let Some(url) = broker("rabbitmq") else { return };
    let running = start(&url).await;
    let dead_letters = format!("{TOPIC}.{}.dlq", group(&running));
    let full = format!("full.{dead_letters}");
    let connection = lapin::Connection::connect(&url, lapin::ConnectionProperties::default());
    let channel = connection.await.unwrap().create_channel().await.unwrap();
    let mut arguments = FieldTable::default();
    arguments.insert("x-max-length".into(), AMQPValue::LongLongInt(0));
    let overflow = AMQPValue::LongString("reject-publish".into());
    arguments.insert("x-overflow".into(), overflow);
    let exclusive = QueueDeclareOptions {
        exclusive: true,
        ..QueueDeclareOptions::default()
    };
    channel
        .queue_declare(full.as_str().into(), exclusive, arguments)
        .await
        .unwrap();
    let bind = async |queue: &str| {
        let (options, none) = (QueueBindOptions::default(), FieldTable::default());
        let topic = dead_letters.as_str().into();
        channel
            .queue_bind(queue.into(), "postrider".into(), topic, options, none)
            .await
            .unwrap();
    };
    bind(&full).await;
    let (queue, topic) = (dead_letters.as_str().into(), dead_letters.as_str().into());
    channel
        .queue_unbind(queue, "postrider".into(), topic, FieldTable::default())
        .await
        .unwrap();
    degrades(&running).await;
    bind(&dead_letters).await;
    channel
        .queue_delete(full.as_str().into(), QueueDeleteOptions::default())
        .await
        .unwrap();
    recovers(running).await;
}

/// Every record is too old when it arrives.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn kafka() {
    use rdkafka::admin::{AdminClient, AdminOptions, AlterConfig, ResourceSpecifier};

    let Some(url) = broker("kafka") else { return };
    let running = start(&url).await;
    let dead_letters = format!("{TOPIC}.{}.dlq", group(&running));
    let admin: AdminClient<_> = rdkafka::ClientConfig::new()
        .set("bootstrap.servers", url.trim_start_matches("kafka://"))
        .create()
        .unwrap();
    let oldest = async |milliseconds: Option<&str>| {
        let mut config = AlterConfig::new(ResourceSpecifier::Topic(&dead_letters));
        if let Some(milliseconds) = milliseconds {
            config = config.set("message.timestamp.before.max.ms", milliseconds);
        }
        let altered = admin.alter_configs([&config], &AdminOptions::new()).await;
        altered.unwrap().remove(0).unwrap();
    };
    oldest(Some("0")).await;
    degrades(&running).await;
    oldest(None).await;
    recovers(running).await;
}
