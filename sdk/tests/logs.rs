//! What a handler logs, and what the runtime logs about its messages, says which message it is about; and a trace goes on
//! where nobody records it.

use std::io::Write;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use postrider::contract::Message as RawMessage;
use postrider::prelude::*;
use postrider::testing::TestApp;

#[listener(topic = "log.order", group = "inventory", retry(attempts = 2, backoff = "1s"))]
async fn reserve(_: Bytes) -> Result<(), HandlerError> {
    tracing::info!("looking at the shelves");
    Err("the warehouse is closed".into())
}

#[listener(topic = "log.payment", group = "ledger", ack = manual)]
async fn book(_: Bytes, ack: Acker) -> Result<(), HandlerError> {
    ack.ack().await?;
    Err("too late".into())
}

#[listener(topic = "log.refund", group = "ledger", dedup(window = "24h", key = "order"))]
async fn refund(_: Bytes) {}

#[derive(Message, Serialize, Deserialize)]
#[message(topic = "log.shipment")]
struct Shipped {
    order: u64,
}

/// Publishes by hand and by what it returns.
#[listener(topic = "log.stock", publish = "log.shipment")]
async fn ship(stock: Json<u64>, publisher: Publisher) -> Result<Shipped, HandlerError> {
    publisher.topic("log.mail").send_json(&stock.0).await?;
    Ok(Shipped { order: stock.0 })
}

#[tokio::test(start_paused = true)]
async fn a_trace_goes_on_in_what_a_handler_publishes() {
    const PARENT: &str = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01";
    let app = TestApp::start(|app| app.listen(listeners![ship])).await;
    let mut message = RawMessage::new("7");
    message.headers.set("traceparent", PARENT);
    message.headers.set("tracestate", "shop=1");
    app.deliver_to("log.stock", message).await;
    for topic in ["log.mail", "log.shipment"] {
        let published = app.published_to(topic);
        assert_eq!(published.len(), 1, "{app}");
        let header = |name| published[0].headers.get_str(name);
        assert_eq!(header("traceparent"), Some(PARENT), "{topic}");
        assert_eq!(header("tracestate"), Some("shop=1"), "{topic}");
    }
    app.stop().await;
}

/// What was logged.
#[derive(Clone, Default)]
struct Log(Arc<Mutex<Vec<u8>>>);

impl Write for Log {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        self.0.lock().unwrap().write(bytes)
    }

    fn flush(&mut self) -> std::io::Result<()> {
        Ok(())
    }
}

impl Log {
    /// The lines that contain this.
    fn lines(&self, what: &str) -> Vec<String> {
        let text = String::from_utf8(self.0.lock().unwrap().clone()).unwrap();
        text.lines()
            .filter(|line| line.contains(what))
            .map(str::to_owned)
            .collect()
    }
}

/// What is logged goes there.
fn subscriber(log: &Log) -> impl tracing::Subscriber + Send + Sync + use<> {
    let writer = log.clone();
    tracing_subscriber::fmt()
        .with_ansi(false)
        .with_writer(move || writer.clone())
        .finish()
}

#[derive(Deserialize)]
struct Counted {
    #[expect(dead_code, reason = "it does not decode")]
    count: u32,
}

#[listener(topic = "log.stock", group = "counted", retry(attempts = 1))]
async fn counted(_: Json<Counted>) {}

/// The error quotes the payload: what a producer writes begins no line of a log, and fills none.
#[tokio::test(start_paused = true)]
async fn an_error_that_quotes_the_payload_stays_on_a_line() {
    let log = Log::default();
    let _guard = tracing::subscriber::set_default(subscriber(&log));
    let app = TestApp::start(|app| app.listen(listeners![counted])).await;
    let text = format!("forged\n2026-01-01 ERROR forged{}", "x".repeat(900_000));
    let payload = serde_json::to_vec(&serde_json::json!({ "count": text })).unwrap();
    app.deliver_to("log.stock", RawMessage::new(payload)).await;
    app.stop().await;
    let lines = log.lines("forged");
    assert!(lines.iter().any(|line| line.contains("given up")), "{lines:#?}");
    for line in &lines {
        assert!(
            line.len() < 5000 && !line.starts_with("2026-01-01"),
            "{}",
            &line[..200]
        );
    }
}

struct Timed;

#[postrider::async_trait]
impl Middleware for Timed {
    async fn handle(&self, cx: &Context, next: Next<'_>) -> Outcome {
        next.run(cx).await
    }
}

#[listener(topic = "log.stock", group = "report", batch(size = 2, wait = "1s"))]
async fn report(_: Vec<Bytes>) {}

#[listener(
    topic = "log.stock",
    group = "closed",
    batch(size = 2, wait = "1s"),
    enabled = false
)]
async fn closed(_: Vec<Bytes>) {}

#[tokio::test(start_paused = true)]
async fn what_middleware_does_not_wrap_is_told() {
    let log = Log::default();
    let _guard = tracing::subscriber::set_default(subscriber(&log));
    TestApp::start(|app| app.listen(listeners![report]))
        .await
        .stop()
        .await;
    assert_eq!(log.lines("middleware"), [""; 0]);
    let app = TestApp::start(|app| app.middleware(Timed).listen(listeners![reserve, closed, report])).await;
    app.stop().await;
    let lines = log.lines("middleware");
    assert!(
        lines.len() == 1 && lines[0].contains("WARN") && lines[0].contains("`report` takes batches"),
        "{lines:#?}"
    );
}

#[listener(topic = "log.stock", group = "in-order", ordered, concurrency = 2)]
async fn in_order(_: Bytes) {}

#[listener(topic = "log.stock", group = "side-by-side", concurrency = 2)]
async fn side_by_side(_: Bytes) {}

#[tokio::test(start_paused = true)]
async fn a_key_that_order_lacks_is_told_once() {
    let log = Log::default();
    let _guard = tracing::subscriber::set_default(subscriber(&log));
    let app = TestApp::start(|app| app.listen(listeners![in_order, side_by_side])).await;
    app.deliver_to("log.stock", RawMessage::new("7").with_key("a"))
        .await;
    assert_eq!(log.lines("without a key"), [""; 0]);
    for _ in 0..2 {
        app.deliver_to("log.stock", RawMessage::new("7")).await;
    }
    app.stop().await;
    let lines = log.lines("without a key");
    assert!(
        lines.len() == 1 && lines[0].contains("WARN") && lines[0].contains("in_order"),
        "{lines:#?}"
    );
}

/// Also where nothing is counted.
#[tokio::test(start_paused = true)]
async fn what_nobody_receives_is_told_once_for_each_topic() {
    let log = Log::default();
    let _guard = tracing::subscriber::set_default(subscriber(&log));
    let app = TestApp::start(|app| app.metrics(false).listen(listeners![ship])).await;
    for stock in ["7", "8"] {
        app.deliver_to("log.stock", RawMessage::new(stock)).await;
    }
    app.stop().await;
    let lines = log.lines("nobody receives this topic");
    assert!(
        lines.len() == 2 && lines[0].contains("log.mail") && lines[1].contains("log.shipment"),
        "{lines:#?}"
    );
}

#[listener(topic = "log.shipmnet", group = "typo")]
async fn typo(_: Shipped) {}

#[listener(topic = "log.shipmnet", group = "batches", batch(size = 2, wait = "1s"))]
async fn batches(_: Vec<Option<Shipped>>) {}

/// Of any topic.
#[listener(topic = "log.returned", group = "meant")]
async fn meant(_: Json<Shipped>) {}

#[listener(topic = "log.shipment", group = "same", dead_letter = "log.broken")]
async fn same(_: Shipped) {}

#[listener(topic = "log.broken", group = "broken")]
async fn broken(_: Shipped) {}

#[listener(topic = "log.shipment.gone.dlq", group = "gone")]
async fn gone(_: Shipped) {}

#[listener(topic = "log.returned", group = "reply", publish = "log.shipmnet")]
async fn reply(_: Bytes) -> Result<Option<Shipped>, HandlerError> {
    Ok(None)
}

#[tokio::test(start_paused = true)]
async fn an_app_that_is_dropped_is_told() {
    let log = Log::default();
    let _guard = tracing::subscriber::set_default(subscriber(&log));
    let app = || postrider::App::new("memory://log-dropped").unwrap();
    let alone = app().start().await.unwrap().publisher();
    assert_eq!(log.lines("was dropped"), [""; 0], "it listens to nothing");
    let running = app().listen(listeners![reserve]).start().await.unwrap();
    running.shutdown().await.unwrap();
    assert_eq!(log.lines("was dropped"), [""; 0]);
    let publisher = app()
        .listen(listeners![reserve])
        .start()
        .await
        .unwrap()
        .publisher();
    let lines = log.lines("was dropped");
    assert!(lines.len() == 1 && lines[0].contains("ERROR"), "{lines:#?}");
    drop((alone, publisher));
}

#[tokio::test(start_paused = true)]
async fn a_topic_that_is_not_that_of_what_is_returned_is_told() {
    let log = Log::default();
    let _guard = tracing::subscriber::set_default(subscriber(&log));
    let app = TestApp::start(|app| app.listen(listeners![reply, ship])).await;
    app.stop().await;
    let lines = log.lines("`log.shipment`");
    let [line] = &lines[..] else { panic!("{lines:#?}") };
    let told = "listener `reply` publishes what it returns to `log.shipmnet`";
    assert!(line.contains("WARN") && line.contains(told), "{line}");
}

#[tokio::test(start_paused = true)]
async fn a_topic_that_is_not_that_of_the_payload_is_told() {
    let log = Log::default();
    let _guard = tracing::subscriber::set_default(subscriber(&log));
    let listeners = listeners![typo, batches, meant, same, broken, gone];
    TestApp::start(|app| app.listen(listeners)).await.stop().await;
    let lines = log.lines("`log.shipment`");
    for (name, line) in ["typo", "batches"].iter().zip(&lines) {
        let told = format!("listener `{name}` listens to `log.shipmnet`");
        assert!(line.contains("WARN") && line.contains(&told), "{line}");
    }
    assert_eq!(lines.len(), 2, "{lines:#?}");
}

#[tokio::test(start_paused = true)]
async fn log_lines_carry_topic_group_message_id_and_attempt() {
    let log = Log::default();
    tracing::subscriber::set_global_default(subscriber(&log)).unwrap();

    let app = TestApp::start(|app| app.listen(listeners![reserve, book, refund])).await;
    let told = "refund recognizes duplicates for 1day by the field `order`; the marks are in the memory of this process: they \
                end with it, and instances do not share them";
    assert_eq!(log.lines(told).len(), 1, "{:#?}", log.lines("refund"));
    assert_eq!(
        log.lines("recognizes duplicates").len(),
        1,
        "of the others nothing"
    );
    app.deliver_to("log.order", RawMessage::new("7")).await;
    app.advance(Duration::from_secs(5)).await;
    app.deliver_to("log.payment", RawMessage::new("8")).await;
    app.assert_outcomes("reserve", ["error: the warehouse is closed"; 2]);

    for (what, listener, group, attempts) in [
        ("looking at the shelves", "reserve", "inventory", &[1, 2][..]),
        ("will be tried again", "reserve", "inventory", &[1]),
        ("given up", "reserve", "inventory", &[2]),
        ("failed after it had settled", "book", "ledger", &[1]),
    ] {
        let lines = log.lines(what);
        assert_eq!(lines.len(), attempts.len(), "{what}: {lines:#?}");
        let about = &app.attempts(listener)[0];
        for (line, attempt) in lines.iter().zip(attempts) {
            for field in [
                format!("topic={}", about.topic),
                format!("group={group}"),
                format!("message_id={}", about.message_id),
                format!("attempt={attempt}"),
            ] {
                assert!(
                    line.replace('"', "").contains(&field),
                    "{field} is missing: {line}"
                );
            }
        }
    }
    app.stop().await;

    let url = format!("memory://{}", uuid::Uuid::now_v7().simple());
    let publisher = Publisher::connect(&url).await.unwrap();
    for topic in ["log.nowhere", "log.nowhere", "log.elsewhere"] {
        publisher.topic(topic).send_bytes("x").await.unwrap();
    }
    let mut lines = log.lines("nobody receives this topic");
    // Other tests of this process log here, too.
    lines.retain(|line| line.contains("where"));
    assert!(
        lines.len() == 2 && lines[0].contains("log.nowhere") && lines[1].contains("log.elsewhere"),
        "once for each: {lines:#?}"
    );
}

#[listener(topic = "log.stock", publish = "log.shipment")]
async fn packs(stock: Json<u64>) -> Shipped {
    Shipped { order: stock.0 }
}

#[listener(topic = "log.shipment")]
async fn sails(_: Bytes) {}

#[listener(topic = "log.stock", group = "for-ever")]
async fn never_ends(_: Bytes) {
    std::future::pending::<()>().await;
}

#[tokio::test(start_paused = true)]
async fn what_a_drain_waited_for_in_vain_is_told() {
    let handler = "the drain's deadline has passed: handlers that still run are cut off";
    let publish =
        "the drain's deadline has passed: what is not settled is left to the broker, which delivers it again";
    for (listeners, told) in [
        (listeners![packs, sails], publish),
        (listeners![never_ends, sails], handler),
    ] {
        let log = Log::default();
        let _guard = tracing::subscriber::set_default(subscriber(&log));
        let url = format!("memory://{}?capacity=1", uuid::Uuid::now_v7().simple());
        let app = postrider::App::new(&url).unwrap().listen(listeners);
        let running = app.start().await.unwrap();
        running.ready().await.unwrap();
        assert!(running.pause("sails"));
        tokio::time::sleep(Duration::from_millis(10)).await;
        // Full: nothing more is confirmed.
        let publisher = running.publisher();
        publisher.topic("log.shipment").send_json(&1).await.unwrap();
        publisher.topic("log.stock").send_json(&7).await.unwrap();
        tokio::time::sleep(Duration::from_millis(10)).await;
        drop(publisher);
        running.shutdown().await.unwrap();
        let mut lines = log.lines("the drain's deadline");
        lines.append(&mut log.lines("does not yield"));
        assert!(lines.len() == 1 && lines[0].ends_with(told), "{lines:#?}");
    }
}
