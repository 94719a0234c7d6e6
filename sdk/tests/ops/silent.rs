//! Brokers that fall silent where no real one can be brought to.

use std::sync::Arc;
use std::time::Duration;

use postrider::async_trait;
use postrider::contract::{
    Broker, Capabilities, Client, DeadLetters, Error, Outgoing, Problem, Receipt, Spec, Status, Subscription,
    Topology,
};
use postrider::prelude::*;
use serde_json::Value;

use crate::http::get;

/// The embedded broker, which never tells its depths.
struct Silent(Arc<dyn Broker>);

impl Silent {
    fn new() -> Arc<Self> {
        let client = Client {
            application: "silent".into(),
            instance: "1".into(),
        };
        Arc::new(Self(postrider_memory::isolated(client)))
    }
}

#[async_trait]
impl Broker for Silent {
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
        self.0.publish(batch).await
    }

    fn dead_letters(&self, dead_letter_topic: &str, source: &str, group: &str) -> Box<dyn DeadLetters> {
        self.0.dead_letters(dead_letter_topic, source, group)
    }

    async fn status(&self, _: &[Spec]) -> Result<Vec<Status>, Error> {
        std::future::pending().await
    }

    async fn close(&self, deadline: Duration) -> Result<(), Error> {
        self.0.close(deadline).await
    }
}

#[listener(topic = "silent.order", group = "g")]
async fn on_the_silent(_: Bytes) {}

#[listener(topic = "silent.order", group = "g", broker = "other")]
async fn on_the_other(_: Bytes) {}

#[tokio::test]
async fn a_silent_broker_hides_the_depths_of_no_other() {
    let other = format!("memory://silent-{}", uuid::Uuid::now_v7().simple());
    let app = App::on(Silent::new()).broker("other", other).ops("0").unwrap();
    let running = app.listen(listeners![on_the_silent, on_the_other]);
    let running = running.start().await.unwrap();
    running.ready().await.unwrap();
    let (_, text) = get(running.ops_address().unwrap(), "/listeners").await;
    let told: Value = serde_json::from_str(&text).unwrap();
    let [silent, other] = &told["listeners"].as_array().unwrap()[..] else {
        panic!("{text}")
    };
    assert_eq!(
        (&silent["name"], &silent["lag"]),
        (&"on_the_silent".into(), &Value::Null)
    );
    let error = silent["depths_error"].as_str().unwrap_or_default();
    assert!(error.contains("in time"), "{text}");
    assert_eq!(
        (&other["lag"], &other["depths_error"]),
        (&0.into(), &Value::Null),
        "{text}"
    );
    running.shutdown().await.unwrap();
}
