//! Whole apps on the embedded broker: what the failure contract promises, seen from a handler.

use std::sync::{Arc, Mutex};
use std::time::Duration;

use postrider::prelude::*;
use postrider::testing::TestApp;
use postrider::{ListenerState, ListenerStatus, Running};

type Seen = Arc<Mutex<Vec<String>>>;

fn saw(seen: &Seen, what: impl Into<String>) {
    seen.lock().unwrap().push(what.into());
}

#[derive(Message, Serialize, Deserialize)]
#[message(topic = "order.created", key = id)]
struct Order {
    id: u32,
}

#[listener(
    topic = "order.created",
    group = "fails-twice",
    retry(attempts = 3, backoff = "1s")
)]
async fn fails_twice(order: Order, attempt: Attempt, State(seen): State<Seen>) -> Result<(), HandlerError> {
    saw(&seen, format!("{} attempt {}", order.id, attempt.0));
    if attempt.0 < 3 {
        return Err("not yet".into());
    }
    Ok(())
}

#[listener(
    topic = "order.created",
    group = "panics",
    retry(attempts = 2, backoff = "1s"),
    concurrency = 3
)]
async fn panics(order: Order, State(seen): State<Seen>) {
    saw(&seen, format!("panic {}", order.id));
    panic!("boom");
}

#[listener(topic = "order.created.panics.dlq", group = "alarm")]
async fn alarm(order: Order, dead: DeadLetter, State(seen): State<Seen>) {
    saw(
        &seen,
        format!(
            "dead {} {} {} {}",
            order.id, dead.reason, dead.attempts, dead.group
        ),
    );
}

#[listener(topic = "order.created", group = "slow", timeout = "1s", retry(attempts = 1))]
async fn slow(_order: Order) {
    std::future::pending::<()>().await;
}

#[listener(topic = "order.created", group = "manual", ack = manual, retry(attempts = 2, backoff = "1s"))]
async fn manual(order: Order, ack: Acker, attempt: Attempt) -> Result<(), HandlerError> {
    if order.id == 1 || attempt.0 == 2 {
        ack.ack().await?;
    }
    Ok(())
}

async fn start(listeners: Vec<postrider::Registration>, seen: &Seen) -> Running {
    start_on(&own_url(), listeners, seen).await
}

/// A name of its own: tests do not see one another.
fn own_url() -> String {
    format!("memory://{}", uuid::Uuid::now_v7().simple())
}

async fn start_on(url: &str, listeners: Vec<postrider::Registration>, seen: &Seen) -> Running {
    let app = postrider::App::new(url)
        .unwrap()
        .state(seen.clone())
        .listen(listeners);
    let running = app.start().await.unwrap();
    running.ready().await.unwrap();
    running
}

/// Waits, on the virtual clock, until `done` holds.
async fn until(running: &Running, done: impl Fn(&[ListenerStatus]) -> bool) {
    for _ in 0..10_000 {
        if done(&running.status()) {
            return;
        }
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    panic!("not reached: {:#?}", running.status());
}

#[tokio::test(start_paused = true)]
async fn a_failing_handler_is_tried_again_until_it_succeeds() {
    let seen = Seen::default();
    let running = start(listeners![fails_twice], &seen).await;
    running.publisher().send(&Order { id: 7 }).await.unwrap();
    until(&running, |status| status[0].counts.handled == 1).await;
    assert_eq!(
        *seen.lock().unwrap(),
        ["7 attempt 1", "7 attempt 2", "7 attempt 3"]
    );
    assert_eq!(running.status()[0].counts.retried, 2);
    running.shutdown().await.unwrap();
}

#[tokio::test(start_paused = true)]
async fn a_panicking_handler_ends_in_the_dead_letters() {
    let seen = Seen::default();
    let running = start(listeners![panics, alarm], &seen).await;
    running.publisher().send(&Order { id: 1 }).await.unwrap();
    until(&running, |status| status[1].counts.handled == 1).await;
    assert_eq!(
        *seen.lock().unwrap(),
        ["panic 1", "panic 1", "dead 1 retries_exhausted 2 panics"]
    );
    let mut dead = running.dead_letters("panics").unwrap();
    let letters = dead.browse(None, 10).await.unwrap();
    assert_eq!(letters.len(), 1);
    assert_eq!(letters[0].message.payload.as_deref(), Some(&br#"{"id":1}"#[..]));
    running.shutdown().await.unwrap();
}

#[tokio::test(start_paused = true)]
async fn garbage_and_timeouts_are_dead_lettered() {
    let seen = Seen::default();
    let running = start(listeners![slow], &seen).await;
    running
        .publisher()
        .topic("order.created")
        .send_bytes("not json")
        .await
        .unwrap();
    running.publisher().send(&Order { id: 1 }).await.unwrap();
    until(&running, |status| status[0].counts.dead_lettered == 2).await;
    let letters = running
        .dead_letters("slow")
        .unwrap()
        .browse(None, 10)
        .await
        .unwrap();
    let reasons: Vec<_> = letters
        .iter()
        .map(|letter| letter.message.headers.get_str("postrider-dead-reason").unwrap())
        .collect();
    assert_eq!(reasons, ["decode", "timeout"]);
    running.shutdown().await.unwrap();
}

#[tokio::test(start_paused = true)]
async fn a_manual_handler_that_forgets_is_tried_again() {
    let seen = Seen::default();
    let running = start(listeners![manual], &seen).await;
    for id in [1, 2] {
        running.publisher().send(&Order { id }).await.unwrap();
    }
    until(&running, |status| status[0].counts.handled == 2).await;
    assert_eq!(running.status()[0].counts.retried, 1);
    running.shutdown().await.unwrap();
}

#[listener(
    topic = "order.created",
    group = "aged",
    retry(attempts = 100, backoff = "10m", max_age = "1h")
)]
async fn aged(_order: Order) -> Result<(), HandlerError> {
    Err("not today".into())
}

#[listener(
    topic = "order.created",
    group = "aged-in-order",
    ordered,
    retry(attempts = 100, backoff = "10m", max_age = "1h")
)]
async fn aged_in_order(_order: Order) -> Result<(), HandlerError> {
    Err("not today".into())
}

#[tokio::test(start_paused = true)]
async fn what_fails_for_too_long_is_given_up() {
    let app = TestApp::start(|app| app.listen(listeners![aged, aged_in_order])).await;
    app.deliver(&Order { id: 1 }).await;
    app.advance(Duration::from_secs(3 * 3600)).await;
    for listener in ["aged", "aged_in_order"] {
        app.assert_outcomes(listener, ["error: not today"; 7]);
        let letters = app.dead_letters(listener).await;
        let [letter] = &letters[..] else {
            panic!("{letters:?}\n{app}")
        };
        assert_eq!((letter.reason.as_str(), letter.attempts), ("too_old", 7), "{app}");
        let age = letter.last_failure.duration_since(letter.first_failure).unwrap();
        let hour = Duration::from_secs(3600);
        assert!(age >= hour && age < hour + Duration::from_secs(1), "{age:?}");
    }
    app.stop().await;
}

#[listener(
    topic = "order.created",
    group = "linear",
    retry(attempts = 5, backoff = "linear 1m..3m")
)]
async fn linear(_order: Order) -> Result<(), HandlerError> {
    Err("not today".into())
}

#[tokio::test(start_paused = true)]
async fn linear_waits_grow_by_the_first() {
    let app = TestApp::start(|app| app.listen(listeners![linear])).await;
    app.deliver(&Order { id: 1 }).await;
    app.advance(Duration::from_secs(3600)).await;
    let attempts = app.attempts("linear");
    let waits: Vec<f64> = attempts
        .windows(2)
        .map(|pair| pair[1].at.saturating_sub(pair[0].at).as_secs_f64() / 60.0)
        .collect();
    let spans = [1.0..2.1, 2.0..3.1, 2.0..3.1, 2.0..3.1];
    assert_eq!(waits.len(), 4, "{app}");
    for (wait, span) in waits.iter().zip(spans) {
        assert!(span.contains(wait), "{wait} of {span:?}: {waits:?}");
    }
    app.stop().await;
}

/// What handlers depend on.
#[derive(Clone, Default)]
struct Gateway(Arc<std::sync::atomic::AtomicBool>);

impl Gateway {
    fn call(&self) -> Result<(), HandlerError> {
        if self.0.load(std::sync::atomic::Ordering::Relaxed) {
            return Ok(());
        }
        Err("the gateway is down".into())
    }

    fn mend(&self) {
        self.0.store(true, std::sync::atomic::Ordering::Relaxed);
    }
}

#[listener(
    topic = "order.created",
    group = "rests",
    concurrency = 4,
    breaker(failures = 3, pause = "30s"),
    retry(attempts = 5, backoff = "1s")
)]
async fn rests(order: Order, State(gateway): State<Gateway>) -> Result<(), HandlerError> {
    if order.id == 0 {
        return Err(HandlerError::permanent("no such article"));
    }
    gateway.call()
}

#[listener(
    topic = "order.created",
    group = "rests-in-order",
    ordered,
    breaker(failures = 3, pause = "30s"),
    retry(attempts = 5, backoff = "1s")
)]
async fn rests_in_order(
    order: Order,
    State(gateway): State<Gateway>,
    State(seen): State<Seen>,
) -> Result<(), HandlerError> {
    gateway.call()?;
    saw(&seen, order.id.to_string());
    Ok(())
}

#[listener(
    topic = "order.created",
    group = "rests-in-batches",
    batch(size = 10, wait = "10ms"),
    breaker(failures = 3, pause = "30s"),
    retry(attempts = 5, backoff = "1s")
)]
async fn rests_in_batches(
    orders: Vec<Order>,
    State(gateway): State<Gateway>,
) -> Vec<Result<(), HandlerError>> {
    orders.iter().map(|_| gateway.call()).collect()
}

#[listener(
    topic = "order.created",
    group = "rests-as-a-whole",
    batch(size = 10, wait = "10ms"),
    breaker(failures = 3, pause = "30s"),
    retry(attempts = 3, backoff = "1s")
)]
async fn rests_as_a_whole(_: Vec<Order>, State(gateway): State<Gateway>) -> Result<(), HandlerError> {
    gateway.call()
}

fn count(app: &TestApp, listener: &str) -> usize {
    app.attempts(listener).len()
}

#[tokio::test(start_paused = true)]
async fn a_listener_rests_while_what_it_depends_on_is_down() {
    let gateway = Gateway::default();
    let seen = Seen::default();
    let app = TestApp::start(|app| {
        let app = app.state(gateway.clone()).state(seen.clone());
        app.listen(listeners![rests, rests_in_order, rests_in_batches])
    })
    .await;
    let orders: Vec<Order> = (1..=20).map(|id| Order { id }).collect();
    app.deliver_all(&orders).await;
    app.advance(Duration::from_secs(25)).await;
    let tripped = (
        count(&app, "rests"),
        count(&app, "rests_in_order"),
        count(&app, "rests_in_batches"),
    );
    assert_eq!(tripped, (3, 3, 10), "{app}");
    for status in app.running().status() {
        let ListenerState::Degraded(reason) = &status.state else {
            panic!("{status:?}")
        };
        assert!(reason.contains("failures in a row"), "{reason}");
        assert!(reason.ends_with("the gateway is down"), "{reason}");
        assert_eq!(status.last_error.as_ref(), Some(reason));
    }
    // One is tried each time, and the second time in vain too.
    app.advance(Duration::from_secs(60)).await;
    let tried = (
        count(&app, "rests"),
        count(&app, "rests_in_order"),
        count(&app, "rests_in_batches"),
    );
    assert_eq!(tried, (5, 5, 12), "{app}");
    gateway.mend();
    app.advance(Duration::from_secs(35)).await;
    for status in app.running().status() {
        assert_eq!(status.state, ListenerState::Ready, "{app}");
        assert_eq!(
            (status.counts.handled, status.counts.dead_lettered),
            (20, 0),
            "{app}"
        );
    }
    let mut sorted = seen.lock().unwrap().clone();
    sorted.sort();
    sorted.dedup();
    assert_eq!(sorted.len(), 20);
    app.stop().await;
}

#[tokio::test(start_paused = true)]
async fn of_a_batch_one_message_is_tried() {
    let gateway = Gateway::default();
    let app = TestApp::start(|app| app.state(gateway.clone()).listen(listeners![rests_as_a_whole])).await;
    let orders: Vec<Order> = (1..=10).map(|id| Order { id }).collect();
    app.deliver_all(&orders).await;
    app.advance(Duration::from_secs(100)).await;
    assert_eq!(count(&app, "rests_as_a_whole"), 10 + 3, "{app}");
    gateway.mend();
    app.advance(Duration::from_secs(35)).await;
    let counts = app.running().status()[0].counts;
    assert_eq!((counts.handled, counts.dead_lettered), (10, 0), "{app}");
    app.stop().await;
}

#[tokio::test(start_paused = true)]
async fn a_listener_that_rests_drains_at_once() {
    let app = TestApp::start(|app| app.state(Gateway::default()).listen(listeners![rests])).await;
    let orders: Vec<Order> = (1..=20).map(|id| Order { id }).collect();
    app.deliver_all(&orders).await;
    assert_eq!(count(&app, "rests"), 3, "{app}");
    let begin = tokio::time::Instant::now();
    app.stop().await;
    assert!(begin.elapsed() < Duration::from_secs(1), "{:?}", begin.elapsed());
}

#[tokio::test(start_paused = true)]
async fn wrong_messages_do_not_make_a_listener_rest() {
    let gateway = Gateway::default();
    gateway.mend();
    let app = TestApp::start(|app| app.state(gateway).listen(listeners![rests])).await;
    let wrong: Vec<Order> = (0..20).map(|_| Order { id: 0 }).collect();
    app.deliver_all(&wrong).await;
    assert_eq!(count(&app, "rests"), 20, "{app}");
    assert_eq!(app.running().status()[0].state, ListenerState::Ready);
    app.stop().await;
}

#[listener(topic = "order.awaited")]
async fn waits(_: Bytes, State(since): State<tokio::time::Instant>) -> Outcome {
    if since.elapsed() < Duration::from_secs(5) {
        return Outcome::Release;
    }
    Outcome::ACK
}

#[tokio::test(start_paused = true)]
async fn what_is_released_again_and_again_keeps_nobody_busy() {
    let now = tokio::time::Instant::now();
    let app = TestApp::start(|app| app.state(now).listen(listeners![waits])).await;
    app.deliver_to("order.awaited", postrider::contract::Message::new("x"))
        .await;
    app.advance(Duration::from_secs(6)).await;
    let counts = app.running().status()[0].counts;
    assert_eq!((counts.handled, counts.dead_lettered), (1, 0));
    assert!(
        (45..=51).contains(&counts.released),
        "every 100 ms: {}",
        counts.released
    );
    app.stop().await;
}

#[derive(Message, Serialize)]
#[message(topic = "order.archived")]
struct Archived {
    text: String,
}

#[listener(topic = "order.awaited", publish = "order.archived")]
async fn archives(size: Json<usize>) -> Archived {
    Archived {
        text: "x".repeat(size.0),
    }
}

#[tokio::test(start_paused = true)]
async fn what_is_refused_was_not_published_and_its_attempt_failed() {
    let app = TestApp::start(|app| app.listen(listeners![archives])).await;
    for size in ["1", "2000000", "2"] {
        let message = postrider::contract::Message::new(size).with_header("message-id", size);
        app.deliver_to("order.awaited", message).await;
    }
    let ended = app.attempts("archives");
    let mut told: Vec<String> = ended.iter().map(|attempt| attempt.ended.to_string()).collect();
    told.sort();
    assert_eq!(&told[..2], ["handled", "handled"]);
    assert!(
        told.len() == 3 && told[2].starts_with("permanent: what it publishes is refused: "),
        "{told:?}"
    );
    assert_eq!(app.published_to("order.archived").len(), 2);
    app.stop().await;
}

/// As the scaling of an image: it holds its thread, and waits for nothing.
fn compute(seen: &Seen, who: &str, order: &Order) {
    std::thread::sleep(Duration::from_millis(50));
    saw(seen, format!("{who} {:02}", order.id));
}

#[listener(topic = "order.created", group = "computes")]
async fn computes(order: Order, State(seen): State<Seen>) {
    compute(&seen, "one", &order);
}

#[listener(topic = "order.created", group = "computes-beside", concurrency = 2)]
async fn computes_beside(order: Order, State(seen): State<Seen>) {
    compute(&seen, "beside", &order);
}

#[listener(topic = "order.created", group = "computes-in-order", ordered)]
async fn computes_in_order(order: Order, State(seen): State<Seen>) {
    compute(&seen, "ordered", &order);
}

#[listener(
    topic = "order.created",
    group = "computes-batches",
    batch(size = 2, wait = "10ms")
)]
async fn computes_batches(orders: Vec<Order>, State(seen): State<Seen>) {
    for order in &orders {
        compute(&seen, "batch", order);
    }
}

#[listener(topic = "order.created", group = "computes-little", prefetch = 20_000)]
async fn computes_little(_: Order, State(seen): State<Seen>) {
    compute_little(&seen);
}

#[listener(
    topic = "order.created",
    group = "computes-little-beside",
    concurrency = 2,
    prefetch = 20_000
)]
async fn computes_little_beside(_: Order, State(seen): State<Seen>) {
    compute_little(&seen);
}

fn compute_little(seen: &Seen) {
    let begin = std::time::Instant::now();
    while begin.elapsed() < Duration::from_micros(50) {
        std::hint::spin_loop();
    }
    saw(seen, String::new());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn many_handlers_that_are_fast_hold_up_nothing_else() {
    drain_amid_many("computes_little", listeners![computes_little]).await;
}

/// They have the only thread.
#[tokio::test]
async fn many_handlers_that_are_fast_hold_up_nothing_else_side_by_side() {
    drain_amid_many("computes_little_beside", listeners![computes_little_beside]).await;
}

async fn drain_amid_many(name: &str, listeners: Vec<postrider::Registration>) {
    let seen = Seen::default();
    let running = start_on(&own_url(), listeners, &seen).await;
    // So that all of them are fetched at once.
    assert!(running.pause(name));
    let orders: Vec<Order> = (0..20_000).map(|id| Order { id }).collect();
    for sent in running.publisher().send_all(&orders).await {
        sent.unwrap();
    }
    assert!(running.resume(name));
    while seen.lock().unwrap().is_empty() {
        tokio::time::sleep(Duration::from_millis(1)).await;
    }
    running.shutdown().await.unwrap();
    let handled = seen.lock().unwrap().len();
    assert!(
        handled < 10_000,
        "{handled} were handled, and the drain had been asked for"
    );
}

#[tokio::test(flavor = "multi_thread", worker_threads = 8)]
async fn handlers_that_never_wait_hold_up_nothing_else() {
    let seen = Seen::default();
    let url = own_url();
    let start = async || {
        let listeners = listeners![computes, computes_beside, computes_in_order, computes_batches];
        start_on(&url, listeners, &seen).await
    };
    let handled = async |count: usize| {
        let all = async {
            while seen.lock().unwrap().len() < count {
                tokio::time::sleep(Duration::from_millis(5)).await;
            }
        };
        tokio::time::timeout(Duration::from_secs(30), all).await.unwrap();
    };
    let first = start().await;
    // What the broker has ends with the last that is connected.
    let publisher = first.publisher().clone();
    let orders: Vec<Order> = (0..40).map(|id| Order { id }).collect();
    for sent in publisher.send_all(&orders).await {
        sent.unwrap();
    }
    handled(8).await;
    first.shutdown().await.unwrap();
    let listeners = ["batch", "beside", "one", "ordered"];
    let of = |who| {
        let seen = seen.lock().unwrap();
        seen.iter().filter(|one| one.starts_with(who)).count()
    };
    let of_first = listeners.map(of);
    // What each is at, and not what was fetched with it.
    assert!(of_first.iter().all(|&count| count < 30), "{of_first:?}");
    let second = start().await;
    handled(160).await;
    second.shutdown().await.unwrap();
    let all = |who| (0..40).map(move |id| format!("{who} {id:02}"));
    let expected: Vec<String> = listeners.into_iter().flat_map(all).collect();
    let mut seen = seen.lock().unwrap().clone();
    seen.sort();
    assert_eq!(seen, expected);
}

#[listener(topic = "order.created", batch(size = 100, wait = "1s"), concurrency = 4)]
async fn stores(orders: Vec<Order>, State(seen): State<Seen>) {
    saw(&seen, orders.len().to_string());
    tokio::time::sleep(Duration::from_secs(3600)).await;
}

#[tokio::test(start_paused = true)]
async fn as_many_batches_are_gathered_as_handlers_may_run() {
    let seen = Seen::default();
    let app = TestApp::start(|app| app.state(seen.clone()).listen(listeners![stores])).await;
    let orders: Vec<Order> = (0..400).map(|id| Order { id }).collect();
    app.deliver_all(&orders).await;
    assert_eq!(*seen.lock().unwrap(), ["100"; 4], "{app}");
}

#[listener(topic = "order.created", batch(size = 2, wait = "1h"))]
async fn gathers(orders: Vec<Order>, State(seen): State<Seen>) {
    let ids: Vec<String> = orders.iter().map(|order| order.id.to_string()).collect();
    saw(&seen, ids.join(" "));
}

#[listener(topic = "order.created", group = "never-ends")]
async fn never_ends(_: Order) {
    std::future::pending::<()>().await;
}

#[tokio::test(start_paused = true)]
async fn a_drain_starts_no_batch_that_was_only_gathered() {
    let seen = Seen::default();
    let url = own_url();
    let start = async || start_on(&url, listeners![gathers, never_ends], &seen).await;
    let fetched = async |running: &Running, count: usize| {
        until(running, |status| {
            status.iter().all(|listener| listener.in_flight == count)
        })
        .await;
        tokio::time::sleep(Duration::from_secs(1)).await;
    };
    let none = || assert_eq!(*seen.lock().unwrap(), [""; 0]);
    let running = start().await;
    // What the broker has ends with the last that is connected.
    let publisher = running.publisher().clone();
    publisher.send(&Order { id: 1 }).await.unwrap();
    fetched(&running, 1).await;
    running.shutdown().await.unwrap();
    none();
    for _ in 0..6 {
        let running = start().await;
        fetched(&running, 1).await;
        drop(running);
    }
    // It came so often now that it waits for its turn, which `never_ends` has, and the next one of its batch waits with it.
    let running = start().await;
    fetched(&running, 1).await;
    running.publisher().send(&Order { id: 2 }).await.unwrap();
    fetched(&running, 2).await;
    running.shutdown().await.unwrap();
    none();
    let last = start_on(&url, listeners![gathers], &seen).await;
    until(&last, |status| status[0].counts.handled == 2).await;
    assert_eq!(*seen.lock().unwrap(), ["2", "1"]);
    last.shutdown().await.unwrap();
}
