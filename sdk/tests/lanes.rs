//! What lanes take, give back and leave alone.

use std::sync::{Arc, Mutex};
use std::time::Duration;

use postrider::prelude::*;
use postrider::{ListenerState, ListenerStatus, Running};
use tokio::time::{Instant, sleep};

type Seen = Arc<Mutex<Vec<u32>>>;

#[derive(Message, Serialize, Deserialize)]
#[message(topic = "order.created")]
struct Order {
    id: u32,
}

async fn start(listeners: Vec<postrider::Registration>, seen: &Seen) -> Running {
    // A name of its own: tests do not see one another.
    let url = format!("memory://{}", uuid::Uuid::now_v7().simple());
    let app = postrider::App::new(&url).unwrap().state(seen.clone());
    let running = app.listen(listeners).start().await.unwrap();
    running.ready().await.unwrap();
    running
}

async fn send(running: &Running, key: &'static str, ids: impl IntoIterator<Item = u32>) {
    for id in ids {
        let publisher = running.publisher();
        let draft = publisher.topic("order.created").key(key);
        draft.send(&Order { id }).await.unwrap();
    }
}

/// Waits, on the virtual clock, until `done` holds.
async fn until(running: &Running, done: impl Fn(&ListenerStatus) -> bool) {
    for _ in 0..10_000 {
        if done(&running.status()[0]) {
            return;
        }
        sleep(Duration::from_millis(10)).await;
    }
    panic!("not reached: {:#?}", running.status());
}

#[listener(topic = "order.created", ordered)]
async fn gives_back(order: Order, State(seen): State<Seen>) -> Outcome {
    let mut seen = seen.lock().unwrap();
    seen.push(order.id);
    if *seen == [1] {
        Outcome::Release
    } else {
        Outcome::ACK
    }
}

#[tokio::test(start_paused = true)]
async fn what_is_released_keeps_its_place_in_its_key() {
    let seen = Seen::default();
    let running = start(listeners![gives_back], &seen).await;
    running.pause("gives_back");
    send(&running, "one", 1..=3).await;
    running.resume("gives_back");
    until(&running, |status| status.counts.handled == 3).await;
    assert_eq!(*seen.lock().unwrap(), [1, 1, 2, 3]);
    let counts = running.status()[0].counts;
    assert_eq!((counts.released, counts.retried), (1, 0));
    running.shutdown().await.unwrap();
}

#[listener(topic = "order.created", concurrency = 4, prefetch = 4)]
async fn long(order: Order, State(seen): State<Seen>) {
    seen.lock().unwrap().push(order.id);
    sleep(Duration::from_secs(3600)).await;
}

#[tokio::test(start_paused = true)]
async fn an_idle_lane_is_given_what_waits() {
    let seen = Seen::default();
    let running = start(listeners![long], &seen).await;
    send(&running, "any", 0..3).await;
    sleep(Duration::from_secs(1)).await;
    send(&running, "any", 3..4).await;
    sleep(Duration::from_secs(1)).await;
    assert_eq!(seen.lock().unwrap().len(), 4);
}

#[listener(topic = "order.created", ordered, retry(attempts = 2, backoff = "1m"))]
async fn fails_first(order: Order, attempt: Attempt, State(seen): State<Seen>) -> Result<(), HandlerError> {
    if order.id == 0 && attempt.0 == 1 {
        return Err("later".into());
    }
    seen.lock().unwrap().push(order.id);
    Ok(())
}

#[tokio::test(start_paused = true)]
async fn a_key_that_waits_does_not_keep_others_from_being_fetched() {
    let seen = Seen::default();
    let running = start(listeners![fails_first], &seen).await;
    send(&running, "failing", 0..40).await;
    sleep(Duration::from_secs(1)).await;
    send(&running, "another", 100..101).await;
    sleep(Duration::from_secs(1)).await;
    assert_eq!(*seen.lock().unwrap(), [100]);
    until(&running, |status| status.counts.handled == 41).await;
    running.shutdown().await.unwrap();
}

#[derive(Deserialize)]
struct Fragile {
    #[serde(deserialize_with = "not_one")]
    id: u32,
}

fn not_one<'de, D: serde::Deserializer<'de>>(deserializer: D) -> Result<u32, D::Error> {
    let id = u32::deserialize(deserializer)?;
    assert!(id != 1, "it is one");
    Ok(id)
}

#[listener(
    topic = "order.created",
    batch(size = 3, wait = "10ms"),
    concurrency = 2,
    retry(attempts = 1)
)]
async fn fragile(items: Vec<Json<Fragile>>, State(seen): State<Seen>) {
    seen.lock().unwrap().extend(items.iter().map(|item| item.0.id));
}

#[tokio::test(start_paused = true)]
async fn a_panic_while_a_batch_is_decoded_is_that_message_s_failure() {
    let seen = Seen::default();
    let running = start(listeners![fragile], &seen).await;
    for ids in [[1, 1, 1], [1, 2, 3]] {
        send(&running, "any", ids).await;
        sleep(Duration::from_secs(1)).await;
    }
    until(&running, |status| status.counts.handled == 2).await;
    assert_eq!(running.status()[0].counts.dead_lettered, 4);
    assert_eq!(*seen.lock().unwrap(), [2, 3]);
    let failed = running.status()[0].last_failure.clone().unwrap();
    assert!(failed.contains("panic: decoding panicked: it is one"), "{failed}");
    running.shutdown().await.unwrap();
}

#[listener(topic = "order.created", rate = "1/h")]
async fn seldom(order: Order, State(seen): State<Seen>) {
    seen.lock().unwrap().push(order.id);
}

#[tokio::test(start_paused = true)]
async fn a_drain_does_not_wait_for_the_rate() {
    let seen = Seen::default();
    let running = start(listeners![seldom], &seen).await;
    send(&running, "any", 0..3).await;
    until(&running, |status| status.counts.handled == 1).await;
    let begin = Instant::now();
    running.shutdown().await.unwrap();
    assert!(begin.elapsed() < Duration::from_secs(5), "{:?}", begin.elapsed());
}

#[derive(Message, Serialize)]
#[message(topic = "invoice")]
struct Invoice {
    text: String,
}

#[listener(topic = "order.created", publish = "invoice")]
async fn long_winded(_order: Order) -> Invoice {
    Invoice {
        text: "x".repeat(200),
    }
}

#[listener(topic = "order.created", publish = "invoice", dedup(window = "1h"))]
async fn long_winded_once(_order: Order) -> Invoice {
    Invoice {
        text: "x".repeat(200),
    }
}

#[tokio::test(start_paused = true)]
async fn what_is_too_large_to_be_published_is_given_up() {
    for listeners in [listeners![long_winded], listeners![long_winded_once]] {
        let url = format!("memory://{}?max_payload=100", uuid::Uuid::now_v7().simple());
        let app = postrider::App::new(&url).unwrap().listen(listeners);
        let running = app.start().await.unwrap();
        running.ready().await.unwrap();
        send(&running, "any", 0..1).await;
        until(&running, |status| status.counts.dead_lettered == 1).await;
        let status = running.status().remove(0);
        assert_eq!((status.state, status.in_flight), (ListenerState::Ready, 0));
        let failed = status.last_failure.unwrap();
        assert!(
            failed.contains("what it publishes is refused: the payload has 211 bytes, at most 100"),
            "{failed}"
        );
        running.shutdown().await.unwrap();
    }
}

#[tokio::test(start_paused = true)]
async fn a_drain_deadline_may_be_for_ever() {
    let url = format!("memory://{}", uuid::Uuid::now_v7().simple());
    let app = postrider::App::new(&url).unwrap().drain_deadline(Duration::MAX);
    let running = app.listen(listeners![long_winded]).start().await.unwrap();
    running.shutdown().await.unwrap();
}

#[derive(Message, Serialize)]
#[message(topic = "order.packed")]
struct Packed {
    id: u32,
}

/// Publishes for the first alone.
#[listener(topic = "order.created", publish = "order.packed")]
async fn packs(order: Order) -> Option<Packed> {
    (order.id == 0).then_some(Packed { id: order.id })
}

#[listener(topic = "order.packed")]
async fn ships(_: Bytes) {}

/// Starts the listeners with `order.packed` full: nothing more that is published there is confirmed.
async fn start_full(url: &str, listeners: Vec<postrider::Registration>, seen: &Seen) -> Running {
    let app = postrider::App::new(url).unwrap().state(seen.clone());
    let running = app.listen(listeners).start().await.unwrap();
    running.ready().await.unwrap();
    assert!(running.pause("ships"));
    sleep(Duration::from_millis(10)).await;
    let full = running.publisher();
    for id in 0..10 {
        full.topic("order.packed").send_json(&id).await.unwrap();
    }
    running
}

/// Such as one to a partition that has no leader.
#[tokio::test(start_paused = true)]
async fn a_publish_that_is_not_confirmed_holds_up_no_other_acknowledgement() {
    let url = format!("memory://{}?capacity=10", uuid::Uuid::now_v7().simple());
    let running = start_full(&url, listeners![packs, ships], &Seen::default()).await;
    let begin = Instant::now();
    send(&running, "k", 0..500).await;
    until(&running, |packs| packs.counts.handled == 499).await;
    assert!(begin.elapsed() < Duration::from_secs(1), "{:?}", begin.elapsed());
    assert_eq!(running.status()[0].in_flight, 1);
    assert!(running.resume("ships"));
    until(&running, |packs| packs.counts.handled == 500).await;
    running.shutdown().await.unwrap();
}

#[listener(topic = "order.created", publish = "order.packed", ordered, prefetch = 100)]
async fn packs_in_order(order: Order, State(seen): State<Seen>) -> Option<Packed> {
    seen.lock().unwrap().push(order.id);
    order.id.is_multiple_of(5).then_some(Packed { id: order.id })
}

#[tokio::test(start_paused = true)]
async fn where_order_is_kept_nothing_is_acknowledged_before_what_is_not_confirmed() {
    let url = format!("memory://{}?capacity=10", uuid::Uuid::now_v7().simple());
    let seen = Seen::default();
    let running = start_full(&url, listeners![packs_in_order, ships], &seen).await;
    // Others of it outlive the app, and keep what it holds.
    let stays = postrider::App::new(&url).unwrap().start().await.unwrap();
    send(&running, "k", 0..10).await;
    sleep(Duration::from_secs(60)).await;
    assert_eq!(
        std::mem::take(&mut *seen.lock().unwrap()),
        (0..10).collect::<Vec<_>>()
    );
    drop(running);
    sleep(Duration::from_secs(1)).await;
    let app = postrider::App::new(&url).unwrap().state(seen.clone());
    let running = app
        .listen(listeners![packs_in_order, ships])
        .start()
        .await
        .unwrap();
    until(&running, |packs| packs.counts.handled == 10).await;
    assert_eq!(*seen.lock().unwrap(), (0..10).collect::<Vec<_>>());
    running.shutdown().await.unwrap();
    stays.shutdown().await.unwrap();
}

/// As a guard does that finds its lock poisoned.
struct Bomb;

impl Drop for Bomb {
    fn drop(&mut self) {
        panic!("dropped");
    }
}

#[listener(topic = "order.created", timeout = "50ms", retry(attempts = 1))]
async fn armed(_order: Order) {
    let _bomb = Bomb;
    std::future::pending::<()>().await;
}

#[listener(topic = "order.created", group = "forever")]
async fn armed_forever(_order: Order) {
    let _bomb = Bomb;
    std::future::pending::<()>().await;
}

#[listener(topic = "order.created", group = "beside")]
async fn beside(order: Order, State(seen): State<Seen>) {
    seen.lock().unwrap().push(order.id);
}

#[tokio::test(start_paused = true)]
async fn what_panics_when_it_is_dropped_ends_neither_its_listener_nor_the_app() {
    let seen = Seen::default();
    let mut running = start(listeners![armed, armed_forever, beside], &seen).await;
    send(&running, "any", 0..1).await;
    until(&running, |armed| armed.counts.dead_lettered == 1).await;
    send(&running, "any", 1..2).await;
    until(&running, |armed| armed.counts.dead_lettered == 2).await;
    let failed = running.status()[0].last_failure.clone().unwrap();
    assert!(
        failed.contains("timeout: the handler ran past its timeout of 50ms"),
        "{failed}"
    );
    assert_eq!(*seen.lock().unwrap(), [0, 1]);
    let ended = tokio::time::timeout(Duration::from_secs(1), running.ended()).await;
    assert!(ended.is_err(), "{ended:?}");
    // At the drain's deadline the one that waits for ever is cut off.
    running.shutdown().await.unwrap();
}

/// An error that cannot be told.
#[derive(Debug)]
enum Untold {
    Fails,
    Panics,
}

impl std::fmt::Display for Untold {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("half of ")?;
        match self {
            Self::Fails => Err(std::fmt::Error),
            Self::Panics => panic!("no text"),
        }
    }
}

impl std::error::Error for Untold {}

fn untold(order: &Order) -> Untold {
    if order.id == 0 {
        Untold::Fails
    } else {
        Untold::Panics
    }
}

#[listener(topic = "order.created", retry(attempts = 1))]
async fn fails_untold(order: Order) -> Result<(), HandlerError> {
    Err(untold(&order).into())
}

#[listener(topic = "order.created", retry(attempts = 1), ack = manual)]
async fn fails_untold_by_hand(order: Order, ack: Acker) -> Result<(), HandlerError> {
    ack.fail(untold(&order)).await?;
    Ok(())
}

#[listener(topic = "order.created", retry(attempts = 1), batch(size = 2, wait = "1ms"))]
async fn fails_untold_in_batches(orders: Vec<Order>) -> Result<(), HandlerError> {
    Err(untold(&orders[0]).into())
}

#[tokio::test(start_paused = true)]
async fn an_error_that_cannot_be_told_is_a_failure_like_any_other() {
    for listeners in [
        listeners![fails_untold],
        listeners![fails_untold_by_hand],
        listeners![fails_untold_in_batches],
    ] {
        let running = start(listeners, &Seen::default()).await;
        for id in 0..2 {
            send(&running, "any", id..=id).await;
            until(&running, |status| {
                status.counts.dead_lettered == u64::from(id) + 1
            })
            .await;
            let status = running.status().remove(0);
            let failed = status.last_failure.unwrap();
            assert!(failed.starts_with("error: half of"), "{failed}");
            assert_eq!((status.state, status.in_flight), (ListenerState::Ready, 0));
        }
        running.shutdown().await.unwrap();
    }
}
