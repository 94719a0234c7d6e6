//! One trace across four services, a retry and a dead letter, through every broker, read back from an OTLP receiver.

#![cfg(feature = "otel")]

#[allow(dead_code, reason = "shared with the contract's tests")]
#[path = "../contract/kit.rs"]
mod kit;
mod receiver;

use std::sync::LazyLock;

use kit::{Seen, Target, eventually};
use postrider::otel::Traces;
use postrider::prelude::*;
use receiver::{Receiver, Span};
use tracing_subscriber::Layer;
use tracing_subscriber::filter::LevelFilter;
use tracing_subscriber::layer::SubscriberExt;
use tracing_subscriber::util::SubscriberInitExt;

#[derive(Message, Serialize, Deserialize)]
#[message(topic = "trace.order", key = order)]
struct Ordered {
    order: u64,
}

#[derive(Message, Serialize, Deserialize)]
#[message(topic = "trace.stock", key = order)]
struct Reserved {
    order: u64,
}

#[derive(Message, Serialize, Deserialize)]
#[message(topic = "trace.payment", key = order)]
struct Paid {
    order: u64,
}

#[derive(Message, Serialize, Deserialize)]
#[message(topic = "trace.shipment", key = order)]
struct Shipped {
    order: u64,
}

/// Fails once; what it returns is published.
#[listener(
    topic = "trace.order",
    publish = "trace.stock",
    retry(attempts = 2, backoff = "20ms")
)]
async fn inventory(order: Ordered, attempt: Attempt) -> Result<Reserved, HandlerError> {
    if attempt.0 == 1 {
        return Err("the warehouse is closed".into());
    }
    Ok(Reserved { order: order.order })
}

/// Publishes by hand.
#[listener(topic = "trace.stock")]
async fn payment(stock: Reserved, publisher: Publisher) -> Result<(), HandlerError> {
    publisher.send(&Paid { order: stock.order }).await?;
    Ok(())
}

#[listener(topic = "trace.payment", publish = "trace.shipment", concurrency = 4)]
async fn shipping(paid: Paid) -> Shipped {
    Shipped { order: paid.order }
}

/// Gives up.
#[listener(topic = "trace.shipment")]
async fn notification(_: Shipped) -> Result<(), HandlerError> {
    Err(HandlerError::permanent("no address"))
}

/// Takes what belongs to several traces at once.
#[listener(topic = "trace.report", batch(size = 2, wait = "5s"))]
async fn report(orders: Vec<Json<u64>>) {
    assert_eq!(orders.len(), 2);
}

/// The one collector of this process.
static COLLECTOR: LazyLock<(Receiver, Traces)> = LazyLock::new(|| {
    let (receiver, address) = Receiver::start();
    let traces = Traces::to("shop", &address).unwrap();
    let layer = traces.layer().with_filter(LevelFilter::INFO);
    tracing_subscriber::registry().with(layer).init();
    (receiver, traces)
});

/// Every span that has been exported by now.
async fn collected() -> Vec<Span> {
    let (receiver, traces) = &*COLLECTOR;
    tokio::task::spawn_blocking(|| traces.flush().unwrap())
        .await
        .unwrap();
    receiver.spans()
}

async fn one_trace(broker: &'static str) {
    let Some(target) = Target::find(broker) else {
        return;
    };
    LazyLock::force(&COLLECTOR);
    let seen = Seen::default();
    let listeners = listeners![inventory, payment, shipping, notification];
    let running = target.start(&seen, listeners).await;
    running.publisher().send(&Ordered { order: 7 }).await.unwrap();
    let given_up = || running.status()[3].counts.dead_lettered == 1;
    eventually(|| format!("{:#?}", running.status()), given_up).await;
    let mut letters = running.dead_letters("notification").unwrap();
    let letters = letters.browse(None, 10).await.unwrap();
    let dead = letters[0].message.headers.get_str("traceparent");
    let dead = dead.unwrap_or_default().to_owned();
    running.shutdown().await.unwrap();
    let spans = collected().await;
    let of_group = |span: &&Span| span.attribute("messaging.consumer.group.name") == target.name;
    let mine: Vec<&Span> = spans.iter().filter(of_group).collect();
    let process = |topic: &str| -> Vec<&&Span> {
        let is = |span: &&&Span| span.name == "process" && span.topic() == topic;
        mine.iter().filter(is).collect()
    };
    let first = process("trace.order")[0];
    let trace: Vec<&Span> = spans.iter().filter(|span| span.trace == first.trace).collect();
    for (topic, attempts) in [
        ("trace.order", 2),
        ("trace.stock", 1),
        ("trace.payment", 1),
        ("trace.shipment", 1),
    ] {
        let found = process(topic);
        assert_eq!(found.len(), attempts, "{topic}: {trace:#?}");
        for span in found {
            assert_eq!(span.trace, first.trace, "{topic} left the trace");
            assert_eq!(span.kind, 5, "a consumer");
            assert!(
                trace.iter().any(|other| other.id == span.parent),
                "{topic} has no parent: {trace:#?}"
            );
        }
    }
    assert!(
        dead.contains(&first.trace),
        "the dead letter left the trace: {dead:?}"
    );
    let attempts = process("trace.order");
    let (failed, retried) = (
        attempts.iter().find(|span| span.failed),
        attempts.iter().find(|span| !span.failed),
    );
    assert_eq!(failed.unwrap().attribute("postrider.attempt"), "1");
    assert_eq!(failed.unwrap().attribute("error.type"), "error");
    assert_eq!(retried.unwrap().attribute("postrider.attempt"), "2");
    assert_eq!(process("trace.stock")[0].parent, retried.unwrap().id);
    let sends: Vec<_> = trace.iter().filter(|span| span.name == "send").collect();
    assert_eq!(sends.len(), 2, "by the test, and by `payment`: {sends:#?}");
    let by_payment = sends.iter().find(|span| span.topic() == "trace.payment").unwrap();
    assert_eq!(by_payment.parent, process("trace.stock")[0].id);
    assert_eq!(by_payment.kind, 4, "a producer");
    for name in ["receive", "settle"] {
        let links = |span: &&&Span| span.name == name && span.links.contains(&first.trace);
        assert!(mine.iter().filter(links).count() >= 4, "{name}: {mine:#?}");
    }
}

#[tokio::test]
async fn a_batch_is_linked_to_the_traces_of_its_messages() {
    let target = Target::find("memory").unwrap();
    LazyLock::force(&COLLECTOR);
    let running = target.start(&Seen::default(), listeners![report]).await;
    for order in 0..2_u64 {
        let publisher = running.publisher();
        publisher.topic("trace.report").send_json(&order).await.unwrap();
    }
    let handled = || running.status()[0].counts.handled == 2;
    eventually(|| format!("{:#?}", running.status()), handled).await;
    running.shutdown().await.unwrap();
    let spans = collected().await;
    let about = |span: &&Span| span.topic() == "trace.report";
    let sent: Vec<&Span> = spans
        .iter()
        .filter(about)
        .filter(|span| span.name == "send")
        .collect();
    assert_eq!(sent.len(), 2);
    assert_ne!(sent[0].trace, sent[1].trace);
    let processed = spans.iter().filter(about).find(|span| span.name == "process");
    let processed = processed.unwrap();
    assert_eq!(processed.attribute("messaging.consumer.group.name"), target.name);
    assert_eq!(processed.attribute("messaging.batch.message_count"), "2");
    for sent in sent {
        assert!(processed.links.contains(&sent.trace), "{processed:#?}");
    }
}

#[tokio::test]
async fn through_memory() {
    one_trace("memory").await;
}

#[tokio::test]
async fn through_rabbitmq() {
    one_trace("rabbitmq").await;
}

#[tokio::test]
async fn through_redis_streams() {
    one_trace("redis").await;
}

#[tokio::test]
async fn through_redis_pubsub() {
    one_trace("redis_pubsub").await;
}

#[tokio::test]
async fn through_kafka() {
    one_trace("kafka").await;
}
