//! What the tests of this crate share.
#![allow(dead_code, unreachable_pub, reason = "each test file uses a part of it")]

pub mod detour;
pub mod own;

use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use postrider_contract::{
    Broker, BrokerUrl, Client, Delivery, Error, Event, Message, Order, Outgoing, Settled, Settlement,
    Sharing, Source, Spec, Start, Subscription, Topology, Verdict,
};
use tokio::time::{Instant, timeout};

pub const SOON: Duration = Duration::from_secs(20);

pub fn url() -> String {
    std::env::var("POSTRIDER_TEST_REDIS_URL")
        .expect("POSTRIDER_TEST_REDIS_URL is not set: `tests/brokers/ctl start redis && tests/brokers/ctl env redis` tells it")
}

pub fn pub_sub_url() -> String {
    url().replacen("redis://", "redis+pubsub://", 1)
}

/// A name that no other test uses.
pub fn unique(name: &str) -> Arc<str> {
    static NEXT: AtomicU32 = AtomicU32::new(0);
    let number = NEXT.fetch_add(1, Ordering::Relaxed);
    format!("{name}.{:x}.{number}", fastrand::u64(..)).into()
}

pub async fn try_connect(url: &str, instance: &str) -> Result<Arc<dyn Broker>, Error> {
    try_connect_as(url, "tests", instance).await
}

pub async fn try_connect_as(url: &str, application: &str, instance: &str) -> Result<Arc<dyn Broker>, Error> {
    let url: BrokerUrl = url.parse()?;
    let client = Client {
        application: application.into(),
        instance: instance.into(),
    };
    postrider_redis::connect(&url, client).await
}

pub async fn connect(url: &str, instance: &str) -> Arc<dyn Broker> {
    try_connect(url, instance).await.unwrap()
}

pub fn spec(topic: &Arc<str>, group: &str) -> Spec {
    Spec {
        listener: "test".into(),
        source: Source::Topic(Arc::clone(topic)),
        group: group.into(),
        sharing: Sharing::Group,
        order: Order::None,
        start: Start::New,
        in_flight: 100,
        dead_letter: Some(postrider_contract::names::dead_letter_topic(topic, group).into()),
        max_delay: Some(Duration::from_secs(60)),
        publishes: Vec::new(),
    }
}

/// A planned and open subscription.
pub struct Open {
    pub broker: Arc<dyn Broker>,
    pub subscription: Subscription,
    pub gaps: Vec<Option<u64>>,
    pub news: Vec<String>,
}

pub async fn open(broker: &Arc<dyn Broker>, spec: Spec) -> Open {
    broker
        .plan(std::slice::from_ref(&spec), Topology::Declare)
        .await
        .unwrap();
    let subscription = broker.open(vec![spec]).await.unwrap().pop().unwrap();
    let mut open = Open {
        broker: Arc::clone(broker),
        subscription,
        gaps: Vec::new(),
        news: Vec::new(),
    };
    open.ready().await;
    open
}

impl Open {
    pub async fn event(&mut self, max: usize, into: &mut Vec<Delivery>) -> Event {
        let event = timeout(SOON, self.subscription.receiver.next(max, into)).await;
        let event = event.expect("nothing happened").expect("the subscription failed");
        if let Event::Gap { lost } = &event {
            self.gaps.push(*lost);
        }
        self.news.push(format!("{event:?}"));
        event
    }

    pub async fn ready(&mut self) {
        while !matches!(self.event(0, &mut Vec::new()).await, Event::Ready) {}
    }

    /// So many deliveries.
    pub async fn receive(&mut self, count: usize) -> Vec<Delivery> {
        let mut got = Vec::new();
        while got.len() < count {
            let left = count - got.len();
            self.event(left, &mut got).await;
        }
        got
    }

    /// None for so long.
    pub async fn silent(&mut self, time: Duration) {
        let until = Instant::now() + time;
        let mut got = Vec::new();
        while let Ok(event) =
            tokio::time::timeout_at(until, self.subscription.receiver.next(100, &mut got)).await
        {
            let event = event.unwrap();
            assert!(got.is_empty(), "{event:?}: {got:?}");
        }
    }

    pub async fn settle(&self, delivery: &Delivery, verdict: Verdict) -> Settled {
        let mut batch = vec![Settlement {
            token: delivery.token,
            verdict,
        }];
        let mut out = Vec::new();
        self.subscription.settler.settle(&mut batch, &mut out).await;
        assert!(batch.is_empty() && out.len() == 1);
        out.pop().unwrap()
    }

    pub async fn ack(&self, delivery: &Delivery) {
        let settled = self.settle(delivery, Verdict::ACK).await;
        assert!(matches!(settled, Settled::Done), "{settled:?}");
    }

    pub async fn emit(&self, delivery: &Delivery, outgoing: Outgoing) {
        let settled = self.settle(delivery, Verdict::Ack { emit: vec![outgoing] }).await;
        assert!(matches!(settled, Settled::Done), "{settled:?}");
    }
}

pub async fn publish(broker: &Arc<dyn Broker>, topic: &Arc<str>, payloads: impl IntoIterator<Item = String>) {
    let batch = payloads
        .into_iter()
        .map(|payload| Outgoing::to_topic(Arc::clone(topic), Message::new(payload)))
        .collect();
    for answer in broker.publish(batch).await {
        answer.unwrap();
    }
}

pub fn texts(deliveries: &[Delivery]) -> Vec<String> {
    deliveries.iter().map(text).collect()
}

pub fn text(delivery: &Delivery) -> String {
    String::from_utf8(delivery.message.payload.clone().unwrap().into()).unwrap()
}

pub async fn raw() -> redis::aio::MultiplexedConnection {
    raw_at(&url()).await
}

pub async fn raw_at(url: &str) -> redis::aio::MultiplexedConnection {
    let client = redis::Client::open(url).unwrap();
    client.get_multiplexed_async_connection().await.unwrap()
}
