//! Finding brokers, starting apps of their own group, waiting for conditions.

use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use postrider::{App, ListenerStatus, Publisher, Registration, Running};

/// A broker to test on, and a name that nobody else uses: the application's, and so the group of its listeners.
#[derive(Clone)]
pub(crate) struct Target {
    pub(crate) broker: &'static str,
    pub(crate) url: String,
    pub(crate) name: String,
}

impl Target {
    /// `None` where the tests were told to leave this broker out.
    pub(crate) fn find(broker: &'static str) -> Option<Self> {
        let name = format!("{broker}-{}", uuid::Uuid::now_v7().simple());
        let variable = match broker {
            "memory" => {
                return Some(Self {
                    broker,
                    url: format!("memory://{name}"),
                    name,
                });
            }
            "kafka" => "POSTRIDER_TEST_KAFKA_URL",
            "rabbitmq" => "POSTRIDER_TEST_RABBITMQ_URL",
            _ => "POSTRIDER_TEST_REDIS_URL",
        };
        let client = broker.split('_').next().unwrap_or_default();
        let required = std::env::var("POSTRIDER_TEST_BROKERS");
        if required.is_ok_and(|required| !required.split(',').any(|one| one == client)) {
            println!("left out: {broker} is not among POSTRIDER_TEST_BROKERS");
            return None;
        }
        let url = std::env::var(variable).unwrap_or_else(|_| {
            panic!("{variable} is not set: start the brokers with tests/run or tests/brokers/ctl")
        });
        let url = if broker == "redis_pubsub" {
            url.replacen("redis://", "redis+pubsub://", 1)
        } else {
            url
        };
        Some(Self { broker, url, name })
    }

    /// Another group on the same broker.
    pub(crate) fn other(&self) -> Self {
        Self {
            name: format!("{}-other", self.name),
            ..self.clone()
        }
    }

    pub(crate) fn app(&self) -> App {
        App::new(&self.url).unwrap().name(&self.name)
    }

    /// Starts these listeners and waits until they receive.
    pub(crate) async fn start(&self, seen: &Seen, listeners: Vec<Registration>) -> Running {
        let running = self
            .app()
            .state(seen.clone())
            .listen(listeners)
            .start()
            .await
            .unwrap();
        running.ready().await.unwrap();
        running
    }

    pub(crate) async fn publisher(&self) -> Publisher {
        Publisher::connect(&self.url).await.unwrap()
    }

    /// Whether what is published while nobody is connected is kept.
    pub(crate) fn keeps(&self) -> bool {
        self.broker != "redis_pubsub"
    }
}

/// What handlers saw, in order, with when.
#[derive(Clone, Default)]
pub(crate) struct Seen(Arc<Mutex<Vec<(String, Instant)>>>);

impl Seen {
    pub(crate) fn add(&self, what: impl Into<String>) {
        self.0.lock().unwrap().push((what.into(), Instant::now()));
    }

    pub(crate) fn all(&self) -> Vec<String> {
        self.0
            .lock()
            .unwrap()
            .iter()
            .map(|(what, _)| what.clone())
            .collect()
    }

    pub(crate) fn sorted(&self) -> Vec<String> {
        let mut all = self.all();
        all.sort();
        all
    }

    pub(crate) fn times(&self) -> Vec<Instant> {
        self.0.lock().unwrap().iter().map(|(_, at)| *at).collect()
    }

    /// Waits until so many were seen.
    pub(crate) async fn count(&self, count: usize) {
        let what = || {
            format!(
                "{} of {count}: {:?}",
                self.0.lock().unwrap().len(),
                self.all().iter().rev().take(20).collect::<Vec<_>>()
            )
        };
        eventually(what, || self.0.lock().unwrap().len() >= count).await;
    }
}

/// Waits until a condition holds; says what was seen instead.
pub(crate) async fn eventually(what: impl Fn() -> String, holds: impl Fn() -> bool) {
    let begin = Instant::now();
    while !holds() {
        assert!(
            begin.elapsed() < Duration::from_secs(45),
            "not reached: {}",
            what()
        );
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
}

/// Waits until a listener's status is as it should be.
pub(crate) async fn status(running: &Running, holds: impl Fn(&ListenerStatus) -> bool) {
    eventually(
        || format!("{:#?}", running.status()),
        || holds(&running.status()[0]),
    )
    .await;
}

/// The reasons and payloads of a listener's dead letters, as its broker has them.
pub(crate) async fn dead(running: &Running, listener: &str) -> Vec<(postrider::DeadLetter, Vec<u8>)> {
    let mut letters = running.dead_letters(listener).unwrap();
    let found = letters.browse(None, 1000).await.unwrap();
    let read = |letter: postrider::dead_letters::Listed| {
        let payload = letter.message.payload.clone().unwrap_or_default().to_vec();
        (letter.dead, payload)
    };
    found.into_iter().map(read).collect()
}

/// What is logged.
#[derive(Clone, Default)]
pub(crate) struct Log(Arc<Mutex<Vec<u8>>>);

impl std::io::Write for Log {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        self.0.lock().unwrap().write(bytes)
    }

    fn flush(&mut self) -> std::io::Result<()> {
        Ok(())
    }
}

impl Log {
    /// What it takes goes here.
    pub(crate) fn subscriber(&self) -> impl tracing::Subscriber + Send + Sync + use<> {
        let writer = self.clone();
        tracing_subscriber::fmt()
            .with_ansi(false)
            .with_writer(move || writer.clone())
            .finish()
    }

    /// The lines that contain this.
    pub(crate) fn lines(&self, what: &str) -> Vec<String> {
        let text = String::from_utf8(self.0.lock().unwrap().clone()).unwrap();
        let lines = text.lines().filter(|line| line.contains(what));
        lines.map(str::to_owned).collect()
    }
}
