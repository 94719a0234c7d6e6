//! What the tests of this crate share.
#![allow(dead_code, reason = "each test file uses a part")]

use std::sync::Arc;
use std::time::Duration;

use postrider_contract::{
    Broker, Client, Delivery, Event, Message, Order, Outgoing, Receiver, Settled, Settlement, Settler,
    Sharing, Source, Spec, Start, Subscription, Topology, Verdict,
};

pub(crate) fn client() -> Client {
    Client {
        application: "tests".into(),
        instance: "1".into(),
    }
}

pub(crate) fn spec(topic: &str, group: &str) -> Spec {
    Spec {
        listener: "listener".into(),
        source: Source::Topic(topic.into()),
        group: group.into(),
        sharing: Sharing::Group,
        order: Order::None,
        start: Start::New,
        in_flight: 100,
        dead_letter: None,
        max_delay: Some(Duration::from_secs(3600)),
        publishes: Vec::new(),
    }
}

pub(crate) fn to(topic: &str, payload: &str) -> Outgoing {
    Outgoing::to_topic(topic, Message::new(payload.to_owned()))
}

pub(crate) async fn open(broker: &Arc<dyn Broker>, spec: Spec) -> Subscription {
    let specs = vec![spec];
    broker.plan(&specs, Topology::Declare).await.unwrap();
    let mut subscription = broker.open(specs).await.unwrap().remove(0);
    let ready = subscription.receiver.next(0, &mut Vec::new()).await;
    assert!(matches!(ready, Ok(Event::Ready)));
    subscription
}

/// What comes, as long as something comes within no time.
pub(crate) async fn at_once(receiver: &mut dyn Receiver) -> Vec<Delivery> {
    let mut into = Vec::new();
    while let Some(event) = now(receiver.next(100, &mut into)).await {
        assert!(matches!(event, Ok(Event::Deliveries)), "{event:?}");
    }
    into
}

/// The future's output, if it has one without waiting.
pub(crate) async fn now<T>(future: impl Future<Output = T>) -> Option<T> {
    tokio::select! {
        biased;
        output = future => Some(output),
        () = tokio::task::yield_now() => None,
    }
}

pub(crate) async fn settle(settler: &Arc<dyn Settler>, delivery: &Delivery, verdict: Verdict) -> Settled {
    let token = delivery.token;
    let (mut batch, mut out) = (vec![Settlement { token, verdict }], Vec::new());
    settler.settle(&mut batch, &mut out).await;
    out.remove(0)
}

pub(crate) fn payloads(deliveries: &[Delivery]) -> Vec<&str> {
    deliveries
        .iter()
        .map(|delivery| std::str::from_utf8(delivery.message.payload.as_deref().unwrap()).unwrap())
        .collect()
}
