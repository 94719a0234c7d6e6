//! What a test with `TestApp` can rely on.

use std::time::Duration;

use postrider::contract::Message as RawMessage;
use postrider::prelude::*;
use postrider::testing::TestApp;

#[listener(topic = "test.order", retry(attempts = 5, backoff = "1m..1h"))]
async fn stubborn(_: Bytes) -> Result<(), HandlerError> {
    Err("not yet".into())
}

#[tokio::test(start_paused = true)]
async fn attempts_are_at_the_same_time_in_every_run() {
    let mut runs = Vec::new();
    for _ in 0..3 {
        let app = TestApp::start(|app| app.listen(listeners![stubborn])).await;
        app.deliver_to("test.order", RawMessage::new("7")).await;
        app.advance(Duration::from_secs(2 * 3600)).await;
        let attempts = app.attempts("stubborn");
        runs.push(attempts.iter().map(|attempted| attempted.at).collect::<Vec<_>>());
        app.stop().await;
    }
    // Drawn from minutes; what the machine's clock moves meanwhile is less.
    let same = |run: &Vec<Duration>| {
        run.len() == 5
            && run
                .iter()
                .zip(&runs[0])
                .all(|(at, first)| at.abs_diff(*first) < Duration::from_secs(1))
    };
    assert!(runs.iter().all(same), "{runs:#?}");
}

#[listener(topic = "test.order", group = "publishes", retry(attempts = 1))]
async fn publishes(size: Json<usize>, publisher: Publisher) -> Result<(), HandlerError> {
    publisher.topic("test.stock").send_bytes("first").await?;
    publisher
        .topic("test.stock")
        .send_bytes(vec![b'x'; size.0])
        .await?;
    Ok(())
}

#[tokio::test(start_paused = true)]
async fn what_the_broker_refuses_is_not_published() {
    let app = TestApp::start(|app| app.listen(listeners![publishes])).await;
    app.deliver_to("test.order", RawMessage::new("2000000")).await;
    assert!(
        app.attempts("publishes")[0]
            .ended
            .to_string()
            .contains("at most 1000000"),
        "{app:?}"
    );
    let sizes = |app: &TestApp| {
        let published = app.published_to("test.stock");
        published.iter().map(RawMessage::payload_size).collect::<Vec<_>>()
    };
    assert_eq!(sizes(&app), [5], "{app}");
    app.deliver_to("test.order", RawMessage::new("3")).await;
    assert_eq!(sizes(&app), [5, 5, 3], "{app}");
    app.stop().await;
}

#[tokio::test(start_paused = true)]
async fn a_thread_that_is_held_up_is_no_clock_that_runs() {
    tokio::spawn(async { std::thread::sleep(Duration::from_millis(100)) });
    TestApp::start(|app| app).await.stop().await;
}

#[tokio::test]
#[should_panic(expected = "the clock is not paused")]
async fn a_clock_that_runs_is_told() {
    TestApp::start(|app| app).await;
}

#[listener(topic = "test.order", group = "late", start = earliest)]
async fn late(_: Bytes) {}

#[tokio::test(start_paused = true)]
async fn a_listener_may_start_at_the_earliest() {
    let app = TestApp::start(|app| app.listen(listeners![late])).await;
    app.deliver_to("test.order", RawMessage::new("7")).await;
    app.assert_outcomes("late", ["handled"]);
    app.stop().await;
}

#[tokio::test(start_paused = true)]
#[should_panic(expected = "nobody receives `test.oder`; the listeners are on: `test.order`, `test.stock`")]
async fn what_nobody_receives_is_told() {
    let app = TestApp::start(|app| {
        let app = app.broker("audit", "memory://test-nobody");
        app.listen(listeners![late, stubborn, takes_stock, audits])
    });
    app.await.deliver_to("test.oder", RawMessage::new("7")).await;
}

#[listener(topic = "test.stock")]
async fn takes_stock(_: Bytes) {}

#[listener(topic = "test.oder", broker = "audit")]
async fn audits(_: Bytes) {}

/// Acknowledges what is empty without its handler.
struct SkipsEmpty;

#[postrider::async_trait]
impl Middleware for SkipsEmpty {
    async fn handle(&self, cx: &Context, next: Next<'_>) -> Outcome {
        if cx.message().payload_size() == 0 {
            return Outcome::ACK;
        }
        next.run(cx).await
    }
}

#[listener(topic = "test.order", group = "by-hand", ack = manual, retry(attempts = 1))]
async fn by_hand(payload: Bytes, ack: Acker) -> Result<(), HandlerError> {
    if payload == "settled" {
        ack.ack().await?;
    }
    Ok(())
}

#[tokio::test(start_paused = true)]
async fn middleware_may_acknowledge_what_a_manual_handler_never_saw() {
    let app = TestApp::start(|app| app.middleware(SkipsEmpty).listen(listeners![by_hand])).await;
    for payload in ["", "settled", "forgotten"] {
        app.deliver_to("test.order", RawMessage::new(payload)).await;
    }
    let attempts = app.attempts("by_hand");
    let ended: Vec<String> = attempts.iter().map(|attempt| attempt.ended.to_string()).collect();
    assert_eq!(&ended[..2], ["handled", "handled"]);
    assert!(
        ended.len() == 3 && ended[2].starts_with("unsettled: "),
        "{ended:?}"
    );
    assert_eq!(app.dead_letters("by_hand").await.len(), 1);
    app.stop().await;
}
