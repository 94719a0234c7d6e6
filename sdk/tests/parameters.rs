//! What a handler is given: its payload and its other parameters.

use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, Mutex};

use postrider::contract::Message as RawMessage;
use postrider::prelude::*;
use postrider::testing::TestApp;

/// From a header that messages of other programs lack.
struct Tenant(String);

impl Extract for Tenant {
    fn extract(cx: &Context) -> Result<Self, HandlerError> {
        let tenant = cx.headers().get_str("tenant").map(str::to_owned);
        tenant
            .map(Self)
            .ok_or_else(|| HandlerError::permanent("no tenant"))
    }
}

fn order(id: u64, tenant: Option<&str>) -> RawMessage {
    let mut message = RawMessage::new(id.to_string());
    if let Some(tenant) = tenant {
        message.headers.set("tenant", tenant);
    }
    message
}

#[listener(topic = "parameter.order", batch(size = 3, wait = "1s"), retry(attempts = 1))]
async fn of_tenants(orders: Vec<Json<u64>>, tenant: Tenant, topic: Topic) {
    assert_eq!((&*tenant.0, &*topic.0), ("a", "parameter.order"));
    assert!(orders.len() < 3, "{orders:?}");
}

#[tokio::test(start_paused = true)]
async fn what_an_extractor_refuses_is_given_up_alone() {
    for stranger in 0..3 {
        let app = TestApp::start(|app| app.listen(listeners![of_tenants])).await;
        for id in 0..3 {
            let tenant = if id == stranger { None } else { Some("a") };
            app.deliver_to("parameter.order", order(id, tenant)).await;
        }
        app.assert_outcomes("of_tenants", ["permanent: no tenant", "handled", "handled"]);
        let dead = app.dead_letters("of_tenants").await;
        let payloads: Vec<_> = dead.iter().map(|dead| dead.original.payload.as_deref()).collect();
        assert_eq!(payloads, [Some(stranger.to_string().as_bytes())], "{app}");
        app.stop().await;
    }
}

/// Refuses the handler what it has just accepted.
struct Fickle;

impl Extract for Fickle {
    fn extract(cx: &Context) -> Result<Self, HandlerError> {
        let asked: Asked = cx.state().unwrap_or_default();
        if asked.0.fetch_add(1, Ordering::Relaxed) < 2 {
            return Ok(Self);
        }
        Err(HandlerError::permanent("not now"))
    }
}

#[derive(Clone, Default)]
struct Asked(Arc<AtomicU32>);

#[listener(
    topic = "parameter.order",
    group = "fickle",
    batch(size = 2, wait = "1s"),
    retry(attempts = 2, backoff = "1s")
)]
async fn fickle(_: Vec<Bytes>, _: Fickle) {}

#[tokio::test(start_paused = true)]
async fn what_was_accepted_and_is_refused_then_is_tried_again() {
    let app = TestApp::start(|app| app.state(Asked::default()).listen(listeners![fickle])).await;
    for id in 0..2 {
        app.deliver_to("parameter.order", order(id, None)).await;
    }
    app.assert_outcomes("fickle", ["error: not now"; 2]);
    app.stop().await;
}

#[listener(topic = "parameter.price", retry(attempts = 1))]
async fn priced(price: Option<Json<u64>>, State(seen): State<Seen>) {
    seen.0
        .lock()
        .unwrap()
        .push(price.map_or("none".to_owned(), |price| price.0.to_string()));
}

#[listener(topic = "parameter.price", group = "raw", retry(attempts = 1))]
async fn raw(price: Option<Bytes>, State(seen): State<Seen>) {
    seen.0.lock().unwrap().push(format!("{price:?}"));
}

#[derive(Clone, Default)]
struct Seen(Arc<Mutex<Vec<String>>>);

#[tokio::test(start_paused = true)]
async fn a_tombstone_is_also_an_empty_payload_that_does_not_decode() {
    let tombstone = RawMessage {
        payload: None,
        ..RawMessage::default()
    };
    for (listener, expected) in [
        (listeners![priced], ["none", "none", "7"]),
        (listeners![raw], ["None", "Some(b\"\")", "Some(b\"7\")"]),
    ] {
        let (seen, name) = (Seen::default(), listener[0].name().to_owned());
        let app = TestApp::start(|app| app.state(seen.clone()).listen(listener)).await;
        for message in [tombstone.clone(), RawMessage::new(""), RawMessage::new("7")] {
            app.deliver_to("parameter.price", message).await;
        }
        app.assert_outcomes(&name, ["handled"; 3]);
        assert_eq!(*seen.0.lock().unwrap(), expected);
        app.stop().await;
    }
    let app = TestApp::start(|app| app.state(Seen::default()).listen(listeners![priced])).await;
    app.deliver_to("parameter.price", RawMessage::new(" ")).await;
    assert!(
        app.attempts("priced")[0].ended.to_string().starts_with("decode"),
        "{app}"
    );
    app.stop().await;
}
