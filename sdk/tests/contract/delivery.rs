//! What arrives, where, how often, in which order.

use std::time::Duration;

use postrider::prelude::*;

use crate::kit::{Seen, Target, dead, status};
use crate::on_every_broker;

#[derive(Message, Serialize, Deserialize, Clone)]
#[message(topic = "contract.grouped", key = id, version = 3)]
struct Order {
    id: u32,
}

/// A topic of its own for each test: they run side by side on one broker.
macro_rules! plain_listeners {
    ($($name:ident on $topic:literal)*) => {$(
        #[listener(topic = $topic, concurrency = 4)]
        async fn $name(order: Order, State(seen): State<Seen>) {
            seen.add(format!("{:05}", order.id));
        }
    )*};
}
plain_listeners! {
    grouped on "contract.grouped"
    shared on "contract.shared"
    absent on "contract.absent"
}

async fn every_group_sees_every_message_once(target: Target) {
    let (here, there) = (Seen::default(), Seen::default());
    let one = target.start(&here, listeners![grouped]).await;
    let two = target.other().start(&there, listeners![grouped]).await;
    let orders: Vec<Order> = (0..500).map(|id| Order { id }).collect();
    let publisher = one.publisher();
    for answer in publisher.send_all(&orders).await {
        answer.unwrap();
    }
    here.count(500).await;
    there.count(500).await;
    let expected: Vec<String> = (0..500).map(|id| format!("{id:05}")).collect();
    assert_eq!(here.sorted(), expected);
    assert_eq!(there.sorted(), expected);
    one.shutdown().await.unwrap();
    two.shutdown().await.unwrap();
}

async fn instances_of_a_group_share(target: Target) {
    let seen = Seen::default();
    let one = target.start(&seen, listeners![shared]).await;
    let two = target.start(&seen, listeners![shared]).await;
    let publisher = one.publisher();
    for id in 0..300 {
        publisher
            .topic("contract.shared")
            .send(&Order { id })
            .await
            .unwrap();
    }
    seen.count(300).await;
    tokio::time::sleep(Duration::from_millis(300)).await;
    assert_eq!(
        seen.sorted(),
        (0..300).map(|id| format!("{id:05}")).collect::<Vec<_>>()
    );
    one.shutdown().await.unwrap();
    two.shutdown().await.unwrap();
}

async fn a_group_sees_what_was_published_while_it_was_down(target: Target) {
    if !target.keeps() {
        return;
    }
    let seen = Seen::default();
    // In the embedded broker, somebody has to keep it alive.
    let publisher = target.publisher().await;
    target
        .start(&seen, listeners![absent])
        .await
        .shutdown()
        .await
        .unwrap();
    publisher
        .topic("contract.absent")
        .send(&Order { id: 1 })
        .await
        .unwrap();
    let running = target.start(&seen, listeners![absent]).await;
    seen.count(1).await;
    running.shutdown().await.unwrap();
}

#[listener(topic = "contract.envelope")]
async fn envelope(
    payload: Bytes,
    headers: Headers,
    key: Key,
    id: MessageId,
    topic: Topic,
    attempt: Attempt,
    State(seen): State<Seen>,
) {
    let text = |name: &str| headers.get(name).map(ToString::to_string).unwrap_or_default();
    seen.add(format!(
        "{:?} {:?} {} {} {} {} {}",
        payload,
        key.0.unwrap_or_default(),
        topic.0,
        attempt.0,
        text("content-type"),
        text("tenant"),
        text("tries"),
    ));
    seen.add(id.0);
}

async fn the_whole_envelope_arrives(target: Target) {
    let seen = Seen::default();
    let running = target.start(&seen, listeners![envelope]).await;
    let payload: &[u8] = b"\x00\xff{\r\n";
    let publisher = running.publisher();
    let draft = publisher
        .topic("contract.envelope")
        .key("k-1")
        .id("my-id")
        .header("tenant", "ä€");
    draft
        .header("tries", 7i64)
        .header("content-type", "application/x-test")
        .send_bytes(payload)
        .await
        .unwrap();
    seen.count(2).await;
    let expected = r#"b"\0\xff{\r\n" b"k-1" contract.envelope 1 application/x-test ä€ 7"#;
    assert_eq!(seen.all(), [expected, "my-id"]);
    running.shutdown().await.unwrap();
}

#[listener(
    topic = "contract.ordered",
    ordered,
    concurrency = 4,
    retry(attempts = 5, backoff = "20ms..100ms")
)]
async fn ordered(
    order: Order,
    headers: Headers,
    attempt: Attempt,
    State(seen): State<Seen>,
) -> Result<(), HandlerError> {
    let key = headers.get("k").map(ToString::to_string).unwrap_or_default();
    // Every seventh fails at first: those of its key behind it must wait.
    if order.id.is_multiple_of(7) && attempt.0 < 3 {
        return Err("later".into());
    }
    seen.add(format!("{key} {:05}", order.id));
    Ok(())
}

async fn order_is_kept_by_key_also_over_retries(target: Target) {
    let seen = Seen::default();
    let started = target
        .app()
        .state(seen.clone())
        .listen(listeners![ordered])
        .start()
        .await;
    if target.broker == "redis_pubsub" {
        let error = started.unwrap_err().to_string();
        assert!(error.contains("`ordered` cannot be kept on redis"), "{error}");
        return;
    }
    let running = started.unwrap();
    running.ready().await.unwrap();
    let publisher = running.publisher();
    for id in 0..200u32 {
        let key = format!("key-{}", id % 5);
        let draft = publisher
            .topic("contract.ordered")
            .key(key.clone())
            .header("k", key);
        draft.send(&Order { id }).await.unwrap();
    }
    seen.count(200).await;
    for key in 0..5 {
        let prefix = format!("key-{key} ");
        let of_key: Vec<String> = seen
            .all()
            .into_iter()
            .filter(|one| one.starts_with(&prefix))
            .collect();
        assert_eq!(of_key.len(), 40);
        assert!(of_key.is_sorted(), "{of_key:?}");
    }
    running.shutdown().await.unwrap();
}

#[listener(
    topic = "contract.batch",
    batch(size = 10, wait = "200ms"),
    retry(attempts = 2, backoff = "50ms")
)]
async fn batched(orders: Vec<Order>, State(seen): State<Seen>) -> Vec<Result<(), HandlerError>> {
    seen.add(format!("batch {}", orders.len()));
    let one = |order: &Order| {
        if order.id == 3 {
            Err(HandlerError::permanent("three"))
        } else {
            Ok(())
        }
    };
    orders.iter().map(one).collect()
}

async fn items_of_a_batch_fail_one_by_one(target: Target) {
    let seen = Seen::default();
    let running = target.start(&seen, listeners![batched]).await;
    let publisher = running.publisher();
    for id in 0..20 {
        publisher
            .topic("contract.batch")
            .send(&Order { id })
            .await
            .unwrap();
    }
    publisher
        .topic("contract.batch")
        .send_bytes("garbage")
        .await
        .unwrap();
    status(&running, |status| {
        status.counts.handled == 19 && status.counts.dead_lettered == 2
    })
    .await;
    let mut dead: Vec<_> = dead(&running, "batched")
        .await
        .into_iter()
        .map(|(dead, payload)| (dead.reason, payload))
        .collect();
    dead.sort();
    assert_eq!(
        dead,
        [
            ("decode".to_owned(), b"garbage".to_vec()),
            ("permanent".to_owned(), br#"{"id":3}"#.to_vec())
        ]
    );
    assert!(seen.all().len() < 20, "one by one: {:?}", seen.all());
    running.shutdown().await.unwrap();
}

#[derive(Message, Serialize, Deserialize)]
#[message(topic = "contract.doubled")]
struct Doubled {
    id: u32,
}

#[listener(topic = "contract.single", publish = "contract.doubled")]
async fn double(order: Order) -> Result<Doubled, HandlerError> {
    Ok(Doubled { id: order.id * 2 })
}

#[listener(topic = "contract.doubled")]
async fn doubled(doubled: Doubled, State(seen): State<Seen>) {
    seen.add(doubled.id.to_string());
}

async fn what_a_handler_returns_is_published(target: Target) {
    let seen = Seen::default();
    let running = target.start(&seen, listeners![double, doubled]).await;
    running
        .publisher()
        .topic("contract.single")
        .send(&Order { id: 21 })
        .await
        .unwrap();
    seen.count(1).await;
    assert_eq!(seen.all(), ["42"]);
    running.shutdown().await.unwrap();
}

#[listener(topic = "contract.everyone", broadcast)]
async fn everyone(order: Order, State(seen): State<Seen>) {
    seen.add(order.id.to_string());
}

async fn a_broadcast_reaches_every_instance(target: Target) {
    let (here, there) = (Seen::default(), Seen::default());
    let one = target.start(&here, listeners![everyone]).await;
    let two = target.start(&there, listeners![everyone]).await;
    one.publisher()
        .topic("contract.everyone")
        .send(&Order { id: 1 })
        .await
        .unwrap();
    here.count(1).await;
    there.count(1).await;
    one.shutdown().await.unwrap();
    two.shutdown().await.unwrap();
}

on_every_broker! {
    every_group_sees_every_message_once
    instances_of_a_group_share
    a_group_sees_what_was_published_while_it_was_down
    the_whole_envelope_arrives
    order_is_kept_by_key_also_over_retries
    items_of_a_batch_fail_one_by_one
    what_a_handler_returns_is_published
    a_broadcast_reaches_every_instance
}
