//! Brokers that fall silent where no real one can be brought to.

use std::sync::Arc;
use std::time::Duration;

use postrider::async_trait;
use postrider::contract::{
    Broker, Capabilities, Client, DeadLetters, Error, Outgoing, Problem, Receipt, Spec, Status, Subscription,
    Topology,
};
use postrider::prelude::*;
use postrider_own_broker::Port;
use serde_json::{Value, json};
use tokio::sync::Semaphore;

use crate::http::{get, post};
use crate::{open, until, value};

/// The embedded broker, which never tells its depths, and tells what it lacks only when it may.
struct Silent(Arc<dyn Broker>, Arc<Semaphore>);

impl Silent {
    fn new(may_plan: &Arc<Semaphore>) -> Arc<Self> {
        let client = Client {
            application: "silent".into(),
            instance: "1".into(),
        };
        Arc::new(Self(postrider_memory::isolated(client), may_plan.clone()))
    }
}

#[async_trait]
impl Broker for Silent {
    fn capabilities(&self) -> &Capabilities {
        self.0.capabilities()
    }

    async fn plan(&self, all: &[Spec], mode: Topology) -> Result<(), Vec<Problem>> {
        let Ok(_may) = self.1.acquire().await else {
            return Err(vec![Problem {
                listener: all[0].listener.clone(),
                what: "nothing can be made".into(),
                help: String::new(),
            }]);
        };
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
    let app = App::on(Silent::new(&open()))
        .broker("other", other)
        .ops("0")
        .unwrap();
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

/// A service that is slow to start is not killed for it.
#[tokio::test]
async fn during_start_up_the_process_lives_and_is_not_ready() {
    let port = Port::free();
    let may_plan = Arc::new(Semaphore::new(0));
    let app = App::on(Silent::new(&may_plan)).ops(&port.to_string()).unwrap();
    let app = app.ops_token("secret").listen(listeners![on_the_silent]);
    let starting = tokio::spawn(app.start());
    let address = ([127, 0, 0, 1], port.number()).into();
    until(async || tokio::net::TcpStream::connect(address).await.is_ok()).await;
    let ask = |path| tokio::time::timeout(Duration::from_secs(10), get(address, path));
    assert_eq!(ask("/health/live").await.expect("an answer").0, 200);
    assert_eq!(ask("/metrics").await.expect("an answer").0, 200);
    for path in ["/health/ready", "/listeners"] {
        let (status, text) = ask(path).await.expect("an answer");
        let told: Value = serde_json::from_str(&text).unwrap();
        let expected = json!({ "ready": false, "reasons": [{ "state": "starting" }] });
        assert_eq!((status, told), (503, expected), "{path}");
    }
    let pause = "/listeners/on_the_silent/pause";
    assert_eq!(post(address, pause, Some("wrong")).await.0, 401);
    assert_eq!(post(address, pause, Some("secret")).await.0, 503);

    may_plan.add_permits(1);
    let running = starting.await.unwrap().unwrap();
    running.ready().await.unwrap();
    assert_eq!(running.ops_address(), Some(address));
    assert_eq!(ask("/health/ready").await.expect("an answer").0, 200);
    running.shutdown().await.unwrap();
}

#[listener(topic = "silent.start", group = "g")]
async fn at_the_start(_: Bytes) {}

/// What cannot connect ends, and begins again and again: all that Prometheus ever sees of it.
#[cfg(all(feature = "kafka", feature = "rabbitmq", feature = "redis"))]
#[tokio::test]
async fn a_listener_is_told_as_not_ready_before_its_broker_answers() {
    for (scheme, system) in [("kafka", "kafka"), ("amqp", "rabbitmq"), ("redis", "redis")] {
        let (broker, port) = (
            tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap(),
            Port::free(),
        );
        let url = format!("{scheme}://{}?connect_timeout=2s", broker.local_addr().unwrap());
        let app = App::new(&url).unwrap().ops(&port.to_string()).unwrap();
        let starting = tokio::spawn(app.listen(listeners![at_the_start]).start());
        let address = ([127, 0, 0, 1], port.number()).into();
        until(async || tokio::net::TcpStream::connect(address).await.is_ok()).await;
        let labels = [
            format!("messaging_system=\"{system}\""),
            "messaging_destination_name=\"silent.start\"".to_owned(),
            "messaging_consumer_group_name=\"g\"".to_owned(),
            "postrider_listener=\"at_the_start\"".to_owned(),
        ];
        let (_, metrics) = get(address, "/metrics").await;
        let ready = value(
            &metrics,
            "postrider_ready",
            &labels.each_ref().map(String::as_str),
        );
        assert_eq!(ready, Some(0.0), "{system}:\n{metrics}");
        starting.abort();
    }
}

#[tokio::test]
async fn a_start_up_that_fails_leaves_nobody_listening() {
    let port = Port::free();
    let may_plan = Arc::new(Semaphore::new(0));
    may_plan.close();
    let app = App::on(Silent::new(&may_plan)).ops(&port.to_string()).unwrap();
    app.listen(listeners![on_the_silent]).start().await.unwrap_err();
    let address = ("127.0.0.1", port.number());
    let connected = tokio::net::TcpStream::connect(address).await;
    assert!(connected.is_err(), "its port is not free");
}
