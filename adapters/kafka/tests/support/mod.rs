//! What the tests against a real broker share.
#![allow(dead_code, unreachable_pub, reason = "each test file uses a part")]

pub mod fence;
pub mod own;

use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant, SystemTime};

use postrider_contract::{
    Broker, BrokerUrl, Client, Delivery, Event, Message, Order, Outgoing, Receiver, Settled, Settlement,
    Settler, Sharing, Source, Spec, Start, Subscription, Token, Topology, Verdict, names,
};
use rdkafka::ClientConfig;
use rdkafka::admin::{AdminClient, AdminOptions};
use rdkafka::client::DefaultClientContext;

pub const PATIENCE: Duration = Duration::from_secs(30);

pub fn url_with(options: &str) -> BrokerUrl {
    let url = std::env::var("POSTRIDER_TEST_KAFKA_URL").expect(
        "POSTRIDER_TEST_KAFKA_URL is not set: start a broker with tests/brokers/ctl and export its URL",
    );
    with_options(&url, options)
}

pub fn with_options(url: &str, options: &str) -> BrokerUrl {
    let partitions = if options.contains("&partitions=") {
        ""
    } else {
        "&partitions=3"
    };
    let session = if options.contains("&session_timeout=") || options.contains("&group_protocol=consumer") {
        ""
    } else {
        "&session_timeout=6s"
    };
    let url = format!("{url}?connect_timeout=10s{session}{partitions}{options}");
    url.parse().unwrap()
}

/// A connection of its own, as another process would have.
pub async fn connect() -> Arc<dyn Broker> {
    connect_with("").await
}

pub async fn connect_with(options: &str) -> Arc<dyn Broker> {
    postrider_kafka::connect(&url_with(options), client("tests"))
        .await
        .unwrap()
}

/// A client for administration of the cluster at this URL.
pub fn admin(url: &BrokerUrl) -> AdminClient<DefaultClientContext> {
    let (host, port) = &url.hosts[0];
    ClientConfig::new()
        .set("bootstrap.servers", format!("{host}:{}", port.unwrap()))
        .create()
        .unwrap()
}

pub async fn delete_topic(admin: &AdminClient<DefaultClientContext>, topic: &str) {
    let deleted = admin.delete_topics(&[topic], &AdminOptions::new()).await;
    deleted.unwrap().remove(0).unwrap();
}

/// One more instance.
pub fn client(application: &str) -> Client {
    static COUNT: AtomicU32 = AtomicU32::new(0);
    log();
    let count = COUNT.fetch_add(1, Ordering::Relaxed);
    Client {
        application: application.into(),
        instance: format!("i{}-{count}", std::process::id()).into(),
    }
}

pub fn log() {
    let filter = tracing_subscriber::EnvFilter::from_default_env();
    let _ = tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_test_writer()
        .try_init();
}

/// What was logged.
#[derive(Clone, Default)]
pub struct Log(Arc<Mutex<Vec<u8>>>);

impl std::io::Write for Log {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        self.0.lock().unwrap().write(bytes)
    }

    fn flush(&mut self) -> std::io::Result<()> {
        Ok(())
    }
}

impl Log {
    /// Of this thread, until the guard is dropped.
    pub fn begin() -> (Self, tracing::subscriber::DefaultGuard) {
        let log = Self::default();
        let writer = log.clone();
        let subscriber = tracing_subscriber::fmt()
            .with_ansi(false)
            .with_writer(move || writer.clone())
            .finish();
        (log, tracing::subscriber::set_default(subscriber))
    }

    /// All of it.
    pub fn text(&self) -> String {
        String::from_utf8(self.0.lock().unwrap().clone()).unwrap()
    }

    /// How often this was.
    pub fn count(&self, what: &str) -> usize {
        self.text().matches(what).count()
    }
}

pub fn unique(name: &str) -> String {
    format!("k.{name}.{}", &uuid::Uuid::now_v7().simple().to_string()[16..])
}

pub fn spec(topic: &str, group: &str) -> Spec {
    Spec {
        listener: "listener".into(),
        source: Source::Topic(topic.into()),
        group: group.into(),
        sharing: Sharing::Group,
        order: Order::None,
        start: Start::New,
        in_flight: 1000,
        dead_letter: Some(names::dead_letter_topic(topic, group).into()),
        max_delay: Some(Duration::from_secs(60)),
        publishes: Vec::new(),
    }
}

/// Plans and opens one listener.
pub async fn open(broker: &Arc<dyn Broker>, spec: Spec) -> Listener {
    broker
        .plan(std::slice::from_ref(&spec), Topology::Declare)
        .await
        .unwrap();
    let Subscription { receiver, settler } = broker.open(vec![spec]).await.unwrap().pop().unwrap();
    let mut listener = Listener { receiver, settler };
    listener.ready().await;
    listener
}

pub struct Listener {
    pub receiver: Box<dyn Receiver>,
    pub settler: Arc<dyn Settler>,
}

impl Listener {
    pub async fn ready(&mut self) {
        self.event(|event| matches!(event, Event::Ready)).await;
    }

    /// Waits for an event, and for nothing else.
    pub async fn event(&mut self, wanted: impl FnMut(&Event) -> bool) -> Event {
        self.event_within(PATIENCE, wanted).await
    }

    /// That a topic is gone. librdkafka does not believe that of a new one for 30 s, and looks every ten.
    pub async fn misses_its_topic(&mut self) {
        let is_told = |event: &Event| matches!(event, Event::Degraded(_));
        self.event_within(PATIENCE * 2, is_told).await;
    }

    async fn event_within(&mut self, patience: Duration, mut wanted: impl FnMut(&Event) -> bool) -> Event {
        let deadline = Instant::now() + patience;
        loop {
            let mut none = Vec::new();
            let left = deadline.saturating_duration_since(Instant::now());
            let event = tokio::time::timeout(left, self.receiver.next(0, &mut none)).await;
            let event = event.expect("no such event came").unwrap();
            if wanted(&event) {
                return event;
            }
        }
    }

    /// At least one delivery, at most `max`; empty when none came in time. Revoked lanes are given up at once.
    pub async fn some(&mut self, max: usize, within: Duration) -> Vec<Delivery> {
        let deadline = Instant::now() + within;
        let mut into = Vec::new();
        loop {
            let left = deadline.saturating_duration_since(Instant::now());
            match tokio::time::timeout(left, self.receiver.next(max, &mut into)).await {
                Err(_) | Ok(Ok(Event::Deliveries | Event::Closed)) => return into,
                Ok(Ok(Event::Revoked { lanes, .. })) => self.settler.released(&lanes).await,
                Ok(Ok(_)) => {}
                Ok(Err(error)) => panic!("{error}"),
            }
        }
    }

    pub async fn one(&mut self) -> Delivery {
        self.some(1, PATIENCE).await.pop().expect("nothing was delivered")
    }

    pub async fn settle(&self, token: Token, verdict: Verdict) -> Settled {
        let mut out = Vec::new();
        self.settler
            .settle(&mut vec![Settlement { token, verdict }], &mut out)
            .await;
        out.pop().unwrap()
    }

    pub async fn ack(&self, delivery: &Delivery) {
        let settled = self.settle(delivery.token, Verdict::ACK).await;
        assert!(matches!(settled, Settled::Done), "{settled:?}");
    }

    /// Acknowledges everything until nothing comes for a while, or this many have come.
    pub async fn drain(&mut self, count: usize, quiet: Duration) -> Vec<Delivery> {
        let mut all = Vec::new();
        while all.len() < count {
            let some = self.some(100, quiet).await;
            if some.is_empty() {
                break;
            }
            for delivery in &some {
                self.ack(delivery).await;
            }
            all.extend(some);
        }
        all
    }
}

/// Waits until nothing waits for the group.
pub async fn nothing_waits(broker: &Arc<dyn Broker>, spec: &Spec, patience: Duration) {
    let deadline = Instant::now() + patience;
    loop {
        let status = broker.status(std::slice::from_ref(spec)).await.unwrap().remove(0);
        if status.waiting == Some(0) {
            return;
        }
        assert!(Instant::now() < deadline, "{status:?}");
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
}

pub async fn publish(broker: &Arc<dyn Broker>, topic: &str, payloads: &[&str]) {
    let batch = payloads
        .iter()
        .map(|payload| Outgoing::to_topic(topic, message(payload)))
        .collect();
    for answer in broker.publish(batch).await {
        answer.unwrap();
    }
}

pub fn message(payload: &str) -> Message {
    Message::new(payload.to_owned()).with_header(names::MESSAGE_ID, uuid::Uuid::now_v7().to_string())
}

pub fn text(delivery: &Delivery) -> String {
    String::from_utf8_lossy(delivery.message.payload.as_deref().unwrap_or_default()).into_owned()
}

pub fn retry_of(delivery: &Delivery, group: &str, attempt: u32, delay: Duration) -> Outgoing {
    let copy = delivery.message.clone().with_header(names::ATTEMPT, attempt);
    Outgoing::to_inbox(delivery.topic.clone(), group, copy).not_before(SystemTime::now() + delay)
}

pub fn dead_of(delivery: &Delivery, group: &str) -> Outgoing {
    let copy = delivery
        .message
        .clone()
        .with_header(names::DEAD_REASON, "permanent")
        .with_header(names::DEAD_TOPIC, delivery.topic.to_string())
        .with_header(names::DEAD_GROUP, group)
        .with_header(names::DEAD_POSITION, delivery.position.to_string());
    Outgoing::to_topic(names::dead_letter_topic(&delivery.topic, group), copy)
}
