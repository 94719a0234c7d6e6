//! Listeners with `dedup`, on an embedded broker and a virtual clock.

use std::collections::VecDeque;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use postrider::contract::{
    Address, Broker, Capabilities, Client, DeadLetters, Message as RawMessage, Outgoing, Problem, Receipt,
    Spec, Status, Subscription, Topology,
};
use postrider::dedup::{DedupScope, DedupStore, MemoryStore};
use postrider::prelude::*;
use postrider::testing::TestApp;
use postrider::{App, Error, ErrorKind, ListenerState};

const HOUR: Duration = Duration::from_secs(3600);

#[listener(
    topic = "dedup.order",
    dedup(window = "24h"),
    retry(attempts = 3, backoff = "1s"),
    concurrency = 4
)]
async fn reserve(order: Json<String>, attempt: Attempt) -> Result<(), HandlerError> {
    tokio::time::sleep(Duration::from_millis(100)).await;
    match (&*order.0, attempt.0) {
        ("late", 1) => Err("not yet".into()),
        ("wrong", _) => Err(HandlerError::permanent("never")),
        _ => Ok(()),
    }
}

fn message(id: &str, payload: &str) -> RawMessage {
    RawMessage::new(payload.to_owned()).with_header("message-id", id)
}

async fn deliver(app: &TestApp, id: &str, payload: &str) {
    app.deliver_to("dedup.order", message(id, payload)).await;
    app.advance(Duration::from_millis(200)).await;
}

#[tokio::test(start_paused = true)]
async fn what_was_handled_is_not_handled_again_within_the_window() {
    let app = TestApp::start(|app| app.listen(listeners![reserve])).await;
    for id in ["a", "a", "b", "a"] {
        deliver(&app, id, "\"now\"").await;
    }
    app.assert_outcomes("reserve", ["handled", "duplicate", "handled", "duplicate"]);
    let counts = app.running().status()[0].counts;
    assert_eq!((counts.handled, counts.duplicates), (2, 2));
    assert_eq!(
        (counts.received, counts.attempts),
        (4, 2),
        "a duplicate is no attempt"
    );
    app.advance(23 * HOUR).await;
    deliver(&app, "a", "\"now\"").await;
    assert_eq!(app.running().status()[0].counts.duplicates, 3);
    app.advance(HOUR).await;
    deliver(&app, "a", "\"now\"").await;
    assert_eq!(
        app.running().status()[0].counts.handled,
        3,
        "the window has passed"
    );
    app.stop().await;
}

#[tokio::test(start_paused = true)]
async fn what_failed_is_no_duplicate_of_itself() {
    let app = TestApp::start(|app| app.listen(listeners![reserve])).await;
    deliver(&app, "a", "\"late\"").await;
    app.advance(Duration::from_secs(2)).await;
    deliver(&app, "a", "\"late\"").await;
    app.assert_outcomes("reserve", ["error: not yet", "handled", "duplicate"]);

    deliver(&app, "b", "\"wrong\"").await;
    let mut letters = app.running().dead_letters("reserve").unwrap();
    let all = postrider::dead_letters::Filter::all;
    assert_eq!(letters.replay(all()).await.unwrap().done, 1);
    app.advance(Duration::from_secs(1)).await;
    assert_eq!(
        app.attempts("reserve")[4].ended.to_string(),
        "permanent: never",
        "{app}"
    );

    // Sent again and handled meanwhile: then the replay has nothing left to do.
    deliver(&app, "b", "\"now\"").await;
    assert_eq!(letters.replay(all()).await.unwrap().done, 1);
    app.advance(Duration::from_secs(1)).await;
    let ended: Vec<_> = app.attempts("reserve")[5..]
        .iter()
        .map(|one| one.ended.to_string())
        .collect();
    assert_eq!(ended, ["handled", "duplicate"], "{app}");
    app.stop().await;
}

#[tokio::test(start_paused = true)]
async fn two_of_one_id_are_not_handled_at_the_same_time() {
    let app = TestApp::start(|app| app.listen(listeners![reserve])).await;
    for (id, payload) in [
        ("a", "\"now\""),
        ("a", "\"now\""),
        ("b", "\"wrong\""),
        ("b", "\"now\""),
    ] {
        app.deliver_to("dedup.order", message(id, payload)).await;
    }
    app.advance(Duration::from_secs(1)).await;
    let seen: Vec<_> = app
        .attempts("reserve")
        .iter()
        .map(|one| {
            format!(
                "{} {} at {:?}",
                one.message_id,
                one.ended,
                one.at.as_millis() / 100
            )
        })
        .collect();
    let expected = [
        "a handled at 1",
        "a duplicate at 1",
        "b permanent: never at 1",
        "b handled at 2",
    ];
    assert_eq!(
        seen, expected,
        "the second waits for the first, and is handled if that failed"
    );
    app.stop().await;
}

#[listener(topic = "dedup.payment", dedup(window = "24h", key = "order_id"), ordered)]
async fn pay(_payment: Bytes) {}

#[tokio::test(start_paused = true)]
async fn a_field_of_the_payload_tells_messages() {
    let app = TestApp::start(|app| app.listen(listeners![pay])).await;
    let large = "123456789012345678901234567";
    for payload in [
        r#"{"order_id":7,"amount":1}"#,
        r#"{"amount":2,"order_id":7}"#,
        r#"{"order_id":"7"}"#,
        r#"{"order_id":"\u0037"}"#,
        // Read as numbers, these two would be one.
        &format!(r#"{{"order_id":{large}1}}"#),
        &format!(r#"{{"order_id":{large}2}}"#),
    ] {
        let message = RawMessage::new(payload.to_owned());
        app.deliver_to("dedup.payment", message).await;
    }
    app.assert_outcomes(
        "pay",
        [
            "handled",
            "duplicate",
            "duplicate",
            "duplicate",
            "handled",
            "handled",
        ],
    );
    app.stop().await;
}

#[tokio::test(start_paused = true)]
async fn what_cannot_be_told_is_dead_lettered_with_the_reason() {
    let app = TestApp::start(|app| app.listen(listeners![pay, reserve])).await;
    let long = format!(r#"{{"order_id":"{}"}}"#, "x".repeat(513));
    for payload in [
        r#"{"order":7}"#,
        r#"{"order_id":null}"#,
        r#"{"order_id":""}"#,
        &long,
        "[7]",
        "no JSON",
    ] {
        app.deliver_to("dedup.payment", RawMessage::new(payload.to_owned()))
            .await;
    }
    let tombstone = RawMessage {
        payload: None,
        ..RawMessage::default()
    };
    app.deliver_to("dedup.payment", tombstone).await;
    let letters = app.dead_letters("pay").await;
    let told: Vec<_> = letters
        .iter()
        .map(|dead| format!("{}: {}", dead.reason, dead.error))
        .collect();
    let expected = [
        "rejected: the payload has no field `order_id`, by which `dedup` tells messages",
        "rejected: the field `order_id` of the payload is neither a text nor a number, and `dedup` tells messages by it",
        "rejected: the field `order_id` is empty, and `dedup` tells messages by it",
        "rejected: the field `order_id` has 513 bytes; `dedup` tells messages by at most 512",
        "decode: invalid type: sequence, expected a map at line 1 column 0",
        "decode: expected ident at line 1 column 2",
        "rejected: the message has no payload, and so no field `order_id`, by which `dedup` tells messages",
    ];
    assert_eq!(told, expected);
    app.stop().await;
}

#[tokio::test(start_paused = true)]
async fn a_message_without_an_id_is_dead_lettered_with_the_reason() {
    let client = postrider::contract::Client {
        application: "shop".into(),
        instance: "one".into(),
    };
    let broker = postrider_memory::isolated(client);
    let running = App::on(broker.clone())
        .name("shop")
        .listen(listeners![reserve])
        .start()
        .await
        .unwrap();
    running.ready().await.unwrap();
    // As another program would: the app's own publisher gives an id.
    let foreign = Outgoing::to_topic("dedup.order", RawMessage::new("\"now\""));
    broker.publish(vec![foreign]).await.pop().unwrap().unwrap();
    tokio::time::sleep(Duration::from_secs(1)).await;
    let mut letters = running.dead_letters("reserve").unwrap();
    let letter = letters.browse(None, 10).await.unwrap().pop().unwrap();
    assert_eq!(letter.dead.reason, "rejected");
    assert!(
        letter
            .dead
            .error
            .contains("write `dedup(window = \"…\", key = \"…\")`"),
        "{}",
        letter.dead.error
    );
    running.shutdown().await.unwrap();
}

/// A store whose two calls can be made to fail, or to hang.
struct Fragile {
    marks: MemoryStore,
    can_look: AtomicBool,
    can_mark: AtomicBool,
    hangs: AtomicBool,
    calls: Mutex<Vec<String>>,
}

impl Fragile {
    fn new(can_look: bool, can_mark: bool) -> Arc<Self> {
        Arc::new(Self {
            marks: MemoryStore::new(),
            can_look: AtomicBool::new(can_look),
            can_mark: AtomicBool::new(can_mark),
            hangs: AtomicBool::new(false),
            calls: Mutex::default(),
        })
    }

    fn mend(&self) {
        self.can_look.store(true, Ordering::SeqCst);
        self.can_mark.store(true, Ordering::SeqCst);
    }

    async fn fail_unless(&self, can: &AtomicBool) -> Result<(), Error> {
        if can.load(Ordering::SeqCst) {
            return Ok(());
        }
        if self.hangs.load(Ordering::SeqCst) {
            std::future::pending::<()>().await;
        }
        Err(Error::new(ErrorKind::Unavailable, "the shelf has fallen down"))
    }
}

#[postrider::async_trait]
impl DedupStore for Fragile {
    async fn seen(&self, scope: DedupScope<'_>, id: &[u8]) -> Result<bool, Error> {
        let id_text = String::from_utf8_lossy(id).into_owned();
        // The question at start-up is not asked of what is down later.
        if id_text != "start-up" {
            self.calls
                .lock()
                .unwrap()
                .push(format!("{} {} {id_text}", scope.topic, scope.group));
            self.fail_unless(&self.can_look).await?;
        }
        self.marks.seen(scope, id).await
    }

    async fn mark(&self, scope: DedupScope<'_>, id: &[u8], window: Duration) -> Result<(), Error> {
        self.fail_unless(&self.can_mark).await?;
        self.marks.mark(scope, id, window).await
    }

    fn describe(&self) -> String {
        "on a shelf".to_owned()
    }
}

fn state(app: &TestApp) -> ListenerState {
    app.running().status()[0].state.clone()
}

#[tokio::test(start_paused = true)]
async fn while_the_store_is_down_nothing_is_handled_and_nothing_is_lost() {
    for hangs in [false, true] {
        let store = Fragile::new(false, true);
        store.hangs.store(hangs, Ordering::SeqCst);
        let app = TestApp::start(|app| app.dedup_store(store.clone()).listen(listeners![reserve])).await;
        for id in ["a", "b", "a"] {
            app.deliver_to("dedup.order", message(id, "\"now\"")).await;
        }
        app.advance(Duration::from_secs(600)).await;
        assert_eq!(app.attempts("reserve"), [], "hangs: {hangs}");
        let ListenerState::Degraded(reason) = state(&app) else {
            panic!("{:?}", state(&app))
        };
        let why = if hangs {
            "did not answer within 10s"
        } else {
            "the shelf has fallen down"
        };
        assert!(
            reason.contains("duplicates cannot be told") && reason.contains(why),
            "{reason}"
        );
        assert_eq!(store.calls.lock().unwrap()[0], "dedup.order test a");
        store.mend();
        app.advance(Duration::from_secs(30)).await;
        assert_eq!(state(&app), ListenerState::Ready);
        let counts = app.running().status()[0].counts;
        assert_eq!(
            (counts.handled, counts.duplicates, counts.attempts),
            (2, 1, 2),
            "{app}"
        );
        assert_eq!(
            (counts.retried, counts.released),
            (0, 0),
            "no attempt was used up"
        );
        app.stop().await;
    }
}

#[tokio::test(start_paused = true)]
async fn what_cannot_be_marked_is_not_acknowledged_and_not_handled_again() {
    let store = Fragile::new(true, false);
    let app = TestApp::start(|app| app.dedup_store(store.clone()).listen(listeners![reserve])).await;
    deliver(&app, "a", "\"now\"").await;
    app.advance(Duration::from_secs(60)).await;
    let status = app.running().status().remove(0);
    assert!(matches!(status.state, ListenerState::Degraded(_)), "{status:?}");
    assert_eq!((status.in_flight, status.counts.handled), (1, 0));
    store.mend();
    app.advance(Duration::from_secs(30)).await;
    deliver(&app, "a", "\"now\"").await;
    app.assert_outcomes("reserve", ["handled", "duplicate"]);
    app.stop().await;
}

#[derive(Message, Serialize, Deserialize)]
#[message(topic = "dedup.reserved")]
struct Reserved {}

#[listener(topic = "dedup.order", publish = "dedup.reserved", dedup(window = "1h"))]
async fn reply(_order: Bytes) -> Reserved {
    Reserved {}
}

#[listener(topic = "dedup.reserved")]
async fn replied(_reserved: Reserved) {}

#[tokio::test(start_paused = true)]
async fn a_reply_is_published_before_the_mark() {
    let store = Fragile::new(true, false);
    let app = TestApp::start(|app| app.dedup_store(store.clone()).listen(listeners![reply, replied])).await;
    deliver(&app, "a", "{}").await;
    app.assert_outcomes("replied", ["handled"]);
    assert_eq!(
        app.running().status()[0].counts.handled,
        0,
        "not marked, not acknowledged"
    );
    store.mend();
    app.advance(Duration::from_secs(30)).await;
    deliver(&app, "a", "{}").await;
    app.assert_outcomes("reply", ["handled", "duplicate"]);
    assert_eq!(app.published::<Reserved>().len(), 1, "once");
    app.stop().await;
}

#[tokio::test(start_paused = true)]
async fn a_drain_releases_what_waits_for_the_store_and_acknowledges_what_was_handled() {
    for (can_look, again) in [(false, "handled"), (true, "nothing")] {
        let url = format!("memory://{}", uuid::Uuid::now_v7().simple());
        let _keeps_the_broker = Publisher::connect(&url).await.unwrap();
        let app = |store| {
            App::new(&url)
                .unwrap()
                .name("shop")
                .dedup_store(store)
                .listen(listeners![reserve])
        };
        let running = app(Fragile::new(can_look, false)).start().await.unwrap();
        running.ready().await.unwrap();
        running
            .publisher()
            .topic("dedup.order")
            .send_json("now")
            .await
            .unwrap();
        tokio::time::sleep(Duration::from_secs(20)).await;
        let begin = tokio::time::Instant::now();
        running.shutdown().await.unwrap();
        let took = begin.elapsed();
        // What is not started is given back at once; what was handled waits for its mark up to the deadline of 25 s.
        assert_eq!(took > Duration::from_secs(24), can_look, "{took:?}");
        let running = app(Fragile::new(true, true)).start().await.unwrap();
        running.ready().await.unwrap();
        tokio::time::sleep(Duration::from_secs(1)).await;
        let counts = running.status()[0].counts;
        let expected = u64::from(again == "handled");
        assert_eq!((counts.received, counts.handled), (expected, expected), "{again}");
        running.shutdown().await.unwrap();
    }
}

#[listener(
    topic = "dedup.order",
    dedup(window = "1h"),
    breaker(failures = 2, pause = "1m"),
    retry(attempts = 1)
)]
async fn rests(order: Json<String>) -> Result<(), HandlerError> {
    match &*order.0 {
        "down" => Err("the bank is closed".into()),
        _ => Ok(()),
    }
}

#[tokio::test(start_paused = true)]
async fn a_duplicate_tells_an_open_circuit_breaker_nothing() {
    let app = TestApp::start(|app| app.listen(listeners![rests])).await;
    for (id, payload) in [("a", "\"up\""), ("b", "\"down\""), ("c", "\"down\"")] {
        deliver(&app, id, payload).await;
    }
    assert!(
        matches!(state(&app), ListenerState::Degraded(_)),
        "{:?}",
        state(&app)
    );
    app.advance(Duration::from_secs(61)).await;
    deliver(&app, "a", "\"up\"").await;
    assert!(
        matches!(state(&app), ListenerState::Degraded(_)),
        "it is not closed by what nothing was called for"
    );
    deliver(&app, "d", "\"up\"").await;
    assert_eq!(
        state(&app),
        ListenerState::Ready,
        "the next is tried, and closes it"
    );
    let error = "error: the bank is closed";
    app.assert_outcomes("rests", ["handled", error, error, "duplicate", "handled"]);
    app.stop().await;
}

#[listener(
    topic = "dedup.order",
    dedup(window = "1h"),
    ordered,
    retry(attempts = 3, backoff = "1s")
)]
async fn in_order(order: Json<String>, attempt: Attempt) -> Result<(), HandlerError> {
    match (&*order.0, attempt.0) {
        ("late", 1) => Err("not yet".into()),
        _ => Ok(()),
    }
}

#[tokio::test(start_paused = true)]
async fn what_waits_behind_its_own_retry_is_a_duplicate_of_it() {
    let app = TestApp::start(|app| app.listen(listeners![in_order])).await;
    for (id, payload) in [("a", "\"late\""), ("a", "\"late\""), ("b", "\"now\"")] {
        let message = message(id, payload).with_key("one");
        app.deliver_to("dedup.order", message).await;
    }
    app.advance(Duration::from_secs(3)).await;
    app.assert_outcomes("in_order", ["error: not yet", "handled", "duplicate", "handled"]);
    app.stop().await;
}

#[tokio::test(start_paused = true)]
async fn a_store_that_cannot_be_asked_is_refused_at_start_up() {
    struct Broken;

    #[postrider::async_trait]
    impl DedupStore for Broken {
        async fn seen(&self, _: DedupScope<'_>, _: &[u8]) -> Result<bool, Error> {
            Err(Error::new(ErrorKind::Denied, "no permission"))
        }

        async fn mark(&self, _: DedupScope<'_>, _: &[u8], _: Duration) -> Result<(), Error> {
            Ok(())
        }

        fn describe(&self) -> String {
            "behind a locked door".to_owned()
        }
    }

    let app = App::new("memory://dedup-refused")
        .unwrap()
        .dedup_store(Arc::new(Broken));
    let error = app.listen(listeners![reserve]).start().await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Denied);
    let text = error.to_string();
    for part in ["listener `reserve`", "behind a locked door", "no permission"] {
        assert!(text.contains(part), "{text}");
    }
    for (url, says) in [
        ("memory:/", "the URL of the marks of `dedup`: "),
        ("carrier-pigeon://h", "`carrier-pigeon` is unknown"),
    ] {
        let app = App::new("memory://dedup-refused").unwrap().dedup_url(url);
        let error = app.listen(listeners![reserve]).start().await.unwrap_err();
        assert!(error.to_string().contains(says), "{error}");
    }
    let app = App::new("memory://dedup-refused").unwrap().dedup_url("memory://");
    let running = app.listen(listeners![reserve]).start().await.unwrap();
    running.shutdown().await.unwrap();
}

#[derive(Message, Serialize)]
#[message(topic = "dedup.invoice")]
struct Invoice {
    id: u32,
}

#[listener(topic = "dedup.billed", dedup(window = "1h"), publish = "dedup.invoice")]
async fn bills(_: Bytes) -> Invoice {
    Invoice { id: 1 }
}

#[listener(topic = "dedup.invoice")]
async fn files(_: Bytes) {}

/// It is the broker that does not take the invoice, and not the store of marks.
#[tokio::test(start_paused = true)]
async fn what_is_not_confirmed_is_told_as_that() {
    let url = format!("memory://{}?capacity=1", uuid::Uuid::now_v7().simple());
    let app = App::new(&url).unwrap().listen(listeners![bills, files]);
    let running = app.start().await.unwrap();
    running.ready().await.unwrap();
    running.pause("files");
    let publisher = running.publisher();
    for _ in 0..3 {
        publisher.topic("dedup.billed").send_bytes("x").await.unwrap();
    }
    tokio::time::sleep(Duration::from_secs(45)).await;
    let ListenerState::Degraded(reason) = &running.status()[0].state else {
        panic!("{:?}", running.status())
    };
    assert!(
        reason.starts_with("what a handler publishes is not confirmed: "),
        "{reason}"
    );
    running.resume("files");
    while running.status()[0].counts.handled < 3 {
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    let status = running.status();
    assert_eq!(
        (&status[0].state, status[1].counts.handled),
        (&ListenerState::Ready, 3),
        "once each"
    );
    running.shutdown().await.unwrap();
}

/// The embedded broker, but for the answers to invoices: one of each, the first first, then its own.
struct Refuses(Arc<dyn Broker>, Mutex<VecDeque<ErrorKind>>);

#[postrider::async_trait]
impl Broker for Refuses {
    fn capabilities(&self) -> &Capabilities {
        self.0.capabilities()
    }

    async fn plan(&self, all: &[Spec], mode: Topology) -> Result<(), Vec<Problem>> {
        self.0.plan(all, mode).await
    }

    async fn open(&self, all: Vec<Spec>) -> Result<Vec<Subscription>, Error> {
        self.0.open(all).await
    }

    async fn publish(&self, batch: Vec<Outgoing>) -> Vec<Result<Receipt, Error>> {
        let is_invoice = |outgoing: &Outgoing| outgoing.to == Address::Topic("dedup.invoice".into());
        let next = || self.1.lock().unwrap().pop_front();
        match batch.iter().any(is_invoice).then(next).flatten() {
            Some(kind) => vec![Err(Error::new(kind, "refused")); batch.len()],
            None => self.0.publish(batch).await,
        }
    }

    fn dead_letters(&self, dead_letter_topic: &str, source: &str, group: &str) -> Box<dyn DeadLetters> {
        self.0.dead_letters(dead_letter_topic, source, group)
    }

    async fn status(&self, all: &[Spec]) -> Result<Vec<Status>, Error> {
        self.0.status(all).await
    }

    async fn close(&self, deadline: Duration) -> Result<(), Error> {
        self.0.close(deadline).await
    }
}

/// Nobody waits for a confirmation any more, and messages flow.
#[tokio::test(start_paused = true)]
async fn what_is_refused_for_good_at_last_leaves_the_listener_ready() {
    let client = Client {
        application: "refuses".into(),
        instance: "1".into(),
    };
    let answers = [ErrorKind::Unavailable, ErrorKind::TooLarge].into();
    let broker = Refuses(postrider_memory::isolated(client), Mutex::new(answers));
    let running = App::on(Arc::new(broker)).listen(listeners![bills]);
    let running = running.start().await.unwrap();
    running.ready().await.unwrap();
    let publisher = running.publisher();
    publisher.topic("dedup.billed").send_bytes("x").await.unwrap();
    while running.status()[0].counts.dead_lettered == 0 {
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    assert_eq!(running.status()[0].state, ListenerState::Ready);
    publisher.topic("dedup.billed").send_bytes("y").await.unwrap();
    while running.status()[0].counts.handled == 0 {
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    assert_eq!(running.status()[0].state, ListenerState::Ready);
    running.shutdown().await.unwrap();
}
