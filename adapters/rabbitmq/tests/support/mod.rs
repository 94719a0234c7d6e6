//! What the tests have in common.
#![allow(dead_code, unreachable_pub, reason = "each test file uses a part")]

pub mod own;
pub mod raw;

use std::sync::Arc;

use std::sync::atomic::{AtomicU32, Ordering};
use std::time::SystemTime;

use std::time::Duration;

use postrider_contract::{
    Broker, BrokerUrl, Client, Delivery, Event, Message, Order, Outgoing, Receiver, Settled, Settlement,
    Settler, Sharing, Source, Spec, Start, Topology, Verdict, names,
};
use tokio::time::{Instant, timeout, timeout_at};

/// How long to wait for what must happen.
pub const PATIENCE: Duration = Duration::from_secs(20);

/// The broker's address from the environment.
pub fn url_text() -> String {
    std::env::var("POSTRIDER_TEST_RABBITMQ_URL").expect(
        "POSTRIDER_TEST_RABBITMQ_URL is not set: start the broker (tests/brokers/ctl start rabbitmq) and set what \
         `tests/brokers/ctl env rabbitmq` prints",
    )
}

pub fn url() -> BrokerUrl {
    url_text().parse().expect("POSTRIDER_TEST_RABBITMQ_URL is a URL")
}

/// Another instance of an application with every call.
pub fn client(application: &str) -> Client {
    Client {
        application: application.into(),
        instance: unique("instance").into(),
    }
}

/// A name that no other test or run uses.
pub fn unique(stem: &str) -> String {
    static COUNT: AtomicU32 = AtomicU32::new(0);
    let now = SystemTime::now()
        .duration_since(SystemTime::UNIX_EPOCH)
        .expect("the clock is right");
    format!(
        "{stem}-{:x}-{}-{}",
        now.as_micros(),
        std::process::id(),
        COUNT.fetch_add(1, Ordering::Relaxed)
    )
}

/// Another connected instance.
pub async fn connect() -> Arc<dyn Broker> {
    connect_to(&url()).await
}

pub async fn connect_to(url: &BrokerUrl) -> Arc<dyn Broker> {
    postrider_rabbitmq::connect(url, client("tests"))
        .await
        .expect("the broker is there")
}

/// The usual wishes.
pub fn spec(topic: &str, group: &str) -> Spec {
    Spec {
        listener: "listener".into(),
        source: Source::Topic(topic.into()),
        group: group.into(),
        sharing: Sharing::Group,
        order: Order::None,
        start: Start::New,
        in_flight: 100,
        dead_letter: Some(names::dead_letter_topic(topic, group).into()),
        max_delay: Some(Duration::from_secs(60)),
        publishes: Vec::new(),
    }
}

/// A message with an id.
pub fn message(id: &str) -> Message {
    Message::new(format!("payload of {id}")).with_header(names::MESSAGE_ID, id)
}

pub async fn publish(broker: &Arc<dyn Broker>, topic: &str, message: Message) {
    for answer in broker.publish(vec![Outgoing::to_topic(topic, message)]).await {
        answer.expect("confirmed");
    }
}

/// A dead letter of this message, as the runtime sends it.
pub fn dead(message: &Message, topic: &str, group: &str) -> Outgoing {
    let copy = message
        .clone()
        .with_header(names::DEAD_REASON, "permanent")
        .with_header(names::DEAD_TOPIC, topic)
        .with_header(names::DEAD_GROUP, group);
    Outgoing::to_topic(names::dead_letter_topic(topic, group), copy)
}

/// A subscription under test.
pub struct Sub {
    pub receiver: Box<dyn Receiver>,
    pub settler: Arc<dyn Settler>,
    pub waiting: Vec<Delivery>,
}

/// Declares and opens one, ready.
pub async fn open(broker: &Arc<dyn Broker>, spec: Spec) -> Sub {
    let planned = broker.plan(std::slice::from_ref(&spec), Topology::Declare).await;
    planned.expect("nothing is in the way");
    let opened = broker.open(vec![spec]).await.expect("open").remove(0);
    let mut sub = Sub {
        receiver: opened.receiver,
        settler: opened.settler,
        waiting: Vec::new(),
    };
    sub.until(|event| matches!(event, Event::Ready)).await;
    sub
}

impl Sub {
    /// Waits for an event; deliveries that come meanwhile are kept.
    pub async fn until(&mut self, wanted: impl Fn(&Event) -> bool) -> Event {
        let deadline = Instant::now() + PATIENCE;
        loop {
            let next = self.receiver.next(1, &mut self.waiting);
            let event = timeout_at(deadline, next).await.expect("the event comes");
            let event = event.expect("the subscription lives");
            if wanted(&event) {
                return event;
            }
        }
    }

    /// The next delivery.
    pub async fn one(&mut self) -> Delivery {
        self.within(PATIENCE).await.expect("a delivery comes")
    }

    /// The next delivery, if one comes in time.
    pub async fn within(&mut self, time: Duration) -> Option<Delivery> {
        let deadline = Instant::now() + time;
        while self.waiting.is_empty() {
            let next = self.receiver.next(1, &mut self.waiting);
            match timeout_at(deadline, next).await {
                Ok(event) => drop(event.expect("the subscription lives")),
                Err(_) => return None,
            }
        }
        Some(self.waiting.remove(0))
    }

    pub async fn settle(&mut self, delivery: &Delivery, verdict: Verdict) -> Settled {
        let mut batch = vec![Settlement {
            token: delivery.token,
            verdict,
        }];
        let mut out = Vec::new();
        let settling = self.settler.settle(&mut batch, &mut out);
        timeout(PATIENCE, settling).await.expect("settling ends");
        out.remove(0)
    }

    pub async fn ack(&mut self, delivery: &Delivery) {
        let settled = self.settle(delivery, Verdict::ACK).await;
        assert!(matches!(settled, Settled::Done), "{settled:?}");
    }

    pub async fn emit(&mut self, delivery: &Delivery, emit: Vec<Outgoing>) -> Settled {
        self.settle(delivery, Verdict::Ack { emit }).await
    }
}

/// A connection of the client library itself, for what the adapter does not do.
pub async fn lapin_to(url: &str) -> lapin::Connection {
    lapin::Connection::connect(url, lapin::ConnectionProperties::default())
        .await
        .expect("lapin connects")
}

pub async fn lapin() -> lapin::Channel {
    let connection = lapin_to(&url_text()).await;
    connection.create_channel().await.expect("a channel")
}
