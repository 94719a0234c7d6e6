//! A service as a process of its own, told to end by signals, on every broker.

use std::path::PathBuf;
use std::process::{Child, Command, ExitStatus};
use std::time::{Duration, Instant};

use postrider::prelude::*;
use postrider_interop::{Effects, Work, work};

/// A consumer group of its own on one broker, and the service that is its instance.
struct Service {
    url: String,
    name: String,
    effects: PathBuf,
}

impl Service {
    fn new(url: String) -> Self {
        let name = format!("signals-{}", uuid::Uuid::now_v7().simple());
        let effects = std::env::temp_dir().join(&name);
        Self { url, name, effects }
    }

    /// Declares the group, so that it sees what is published from now on.
    async fn declare(&self) {
        let app = App::new(&self.url)
            .unwrap()
            .name(&self.name)
            .state(Effects::new(&self.effects));
        let running = app.listen(listeners![work]).start().await.unwrap();
        running.ready().await.unwrap();
        running.shutdown().await.unwrap();
    }

    fn start(&self) -> Process {
        let child = Command::new(env!("CARGO_BIN_EXE_service"))
            .env("BROKER_URL", &self.url)
            .env("POSTRIDER__APP__NAME", &self.name)
            .env("EFFECTS", &self.effects)
            .spawn()
            .unwrap();
        Process(child)
    }

    fn effects(&self, effect: &str) -> Vec<u32> {
        let text = std::fs::read_to_string(&self.effects).unwrap_or_default();
        text.lines()
            .filter_map(|line| line.strip_prefix(effect)?.trim().parse().ok())
            .collect()
    }

    async fn wait(&self, effect: &str, count: usize) {
        let begin = Instant::now();
        while self.effects(effect).len() < count {
            let seen = self.effects(effect).len();
            assert!(
                begin.elapsed() < Duration::from_secs(40),
                "{seen} of {count} {effect}s in time"
            );
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    }
}

impl Drop for Service {
    fn drop(&mut self) {
        let _ = std::fs::remove_file(&self.effects);
    }
}

/// Killed when the test ends, however it ends.
struct Process(Child);

impl Process {
    fn signal(&self, signal: &str) {
        let kill = format!("kill -{signal} {}", self.0.id());
        assert!(Command::new("sh").arg("-c").arg(kill).status().unwrap().success());
    }

    async fn exit(&mut self, within: Duration) -> ExitStatus {
        let begin = Instant::now();
        loop {
            if let Some(status) = self.0.try_wait().unwrap() {
                return status;
            }
            assert!(begin.elapsed() < within, "still running after {within:?}");
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// A drain under load: exit 0, and nothing that was acknowledged comes again.
async fn terminated_under_load(url: String) {
    const COUNT: u32 = 2000;
    let service = Service::new(url);
    service.declare().await;
    let mut first = service.start();
    let publisher = Publisher::connect(&service.url).await.unwrap();
    // Where nothing is kept for who is not connected, wait until somebody is.
    let probe = || {
        publisher
            .topic("interop.load")
            .require_receiver()
            .send(&Work { id: 0, millis: 1 })
    };
    if service.url.starts_with("redis+pubsub") {
        while probe().await.is_err() {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    } else {
        publisher.send(&Work { id: 0, millis: 1 }).await.unwrap();
    }
    let load: Vec<Work> = (1..COUNT).map(|id| Work { id, millis: 2 }).collect();
    for answer in publisher.send_all(&load).await {
        answer.unwrap();
    }
    service.wait("end", 200).await;
    first.signal("TERM");
    let status = first.exit(Duration::from_secs(10)).await;
    assert_eq!(status.code(), Some(0), "a drain ends well");
    let begun = service.effects("begin");
    assert!(begun.len() < COUNT as usize, "the signal came in the middle");
    assert_eq!(
        begun.len(),
        service.effects("end").len(),
        "handlers that had begun finished"
    );

    let mut second = service.start();
    service.wait("end", COUNT as usize).await;
    tokio::time::sleep(Duration::from_millis(700)).await;
    second.signal("INT");
    assert_eq!(second.exit(Duration::from_secs(10)).await.code(), Some(0));
    let mut ended = service.effects("end");
    ended.sort_unstable();
    assert_eq!(
        ended,
        (0..COUNT).collect::<Vec<_>>(),
        "each once: nothing lost, nothing acknowledged came again"
    );
    publisher.close(Duration::from_secs(5)).await.unwrap();
}

/// A second signal does not wait for a handler that takes long; its message comes again.
async fn ended_at_once_by_a_second_signal(url: String) {
    let service = Service::new(url);
    service.declare().await;
    let publisher = Publisher::connect(&service.url).await.unwrap();
    publisher
        .send(&Work {
            id: 1,
            millis: 20_000,
        })
        .await
        .unwrap();
    let mut process = service.start();
    service.wait("begin", 1).await;
    process.signal("TERM");
    tokio::time::sleep(Duration::from_millis(300)).await;
    process.signal("TERM");
    let status = process.exit(Duration::from_secs(5)).await;
    assert!(status.code().is_some_and(|code| code != 0), "{status:?}");
    assert!(service.effects("end").is_empty(), "it did not finish");
    let again = service.start();
    service.wait("begin", 2).await;
    drop(again);
    publisher.close(Duration::from_secs(5)).await.unwrap();
}

fn url(variable: &str) -> String {
    std::env::var(variable).unwrap_or_else(|_| {
        panic!("{variable} is not set: start the brokers with tests/run or tests/brokers/ctl")
    })
}

macro_rules! on {
    ($($broker:ident $url:expr;)*) => {$(
        mod $broker {
            #[tokio::test]
            async fn terminated_under_load() {
                super::terminated_under_load($url).await;
            }
        }
    )*};
}
on! {
    kafka super::url("POSTRIDER_TEST_KAFKA_URL");
    rabbitmq super::url("POSTRIDER_TEST_RABBITMQ_URL");
    redis super::url("POSTRIDER_TEST_REDIS_URL");
    redis_pubsub super::url("POSTRIDER_TEST_REDIS_URL").replacen("redis://", "redis+pubsub://", 1);
}

#[tokio::test]
async fn a_second_signal_ends_it_at_once() {
    ended_at_once_by_a_second_signal(url("POSTRIDER_TEST_RABBITMQ_URL")).await;
}
