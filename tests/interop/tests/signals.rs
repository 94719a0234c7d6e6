//! A service as a process of its own, told to end by signals, on every broker.

#[allow(dead_code, reason = "shared with other tests of processes")]
#[path = "common/service.rs"]
mod service;

use std::time::Duration;

use postrider::prelude::*;
use postrider_interop::{BLOCKING, Work, broker, work};
use service::Service;
use tokio::sync::Mutex;

const PROGRAM: &str = env!("CARGO_BIN_EXE_service");

/// One test at a time on RabbitMQ: each group receives whatever is published to the topic, also by another test.
static RABBITMQ: Mutex<()> = Mutex::const_new(());

/// A drain under load: exit 0, and nothing that was acknowledged comes again.
async fn terminated_under_load(url: String) {
    const COUNT: u32 = 1000;
    let service = Service::new(PROGRAM, url);
    service.declare(listeners![work]).await;
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
    // Slow behind those that are waited for, so that it is not done before the signal comes.
    let millis = |id| if id < 250 { 2 } else { 20 };
    let load: Vec<Work> = (1..COUNT)
        .map(|id| Work {
            id,
            millis: millis(id),
        })
        .collect();
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
    let service = Service::new(PROGRAM, url);
    service.declare(listeners![work]).await;
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

/// What blocks a thread holds up the end of the runtime, and so of `main`: a second signal ends the process all the same, also
/// where the drain is done.
async fn ended_by_a_second_signal_while_a_thread_is_blocked(url: String) {
    let service = Service::new(PROGRAM, url);
    service.declare(listeners![work]).await;
    let publisher = Publisher::connect(&service.url).await.unwrap();
    let blocking = Work {
        id: 1,
        millis: BLOCKING,
    };
    publisher.send(&blocking).await.unwrap();
    let mut draining = service.start();
    service.wait("begin", 1).await;
    draining.signal("TERM");
    tokio::time::sleep(Duration::from_millis(300)).await;
    draining.signal("TERM");
    assert_eq!(draining.exit(Duration::from_secs(5)).await.code(), Some(1));

    let mut drained = service.start_with_deadline("1s");
    service.wait("begin", 2).await;
    drained.signal("TERM");
    tokio::time::sleep(Duration::from_millis(1500)).await;
    // It has what the first one gave back at its deadline.
    let mut another = service.start();
    service.wait("begin", 3).await;
    assert!(drained.is_running(), "what blocks a thread is waited for");
    drained.signal("TERM");
    assert_eq!(drained.exit(Duration::from_secs(5)).await.code(), Some(1));
    assert!(another.is_running());
    publisher.close(Duration::from_secs(5)).await.unwrap();
}

macro_rules! on {
    ($($name:ident $url:expr;)*) => {$(
        mod $name {
            #[tokio::test]
            async fn terminated_under_load() {
                let Some(url) = $url else { return };
                let _turn = match url.starts_with("amqp") {
                    true => Some(super::RABBITMQ.lock().await),
                    false => None,
                };
                super::terminated_under_load(url).await;
            }
        }
    )*};
}
on! {
    kafka super::broker("kafka");
    rabbitmq super::broker("rabbitmq");
    redis super::broker("redis");
    redis_pubsub super::broker("redis").map(|url| url.replacen("redis://", "redis+pubsub://", 1));
}

#[tokio::test]
async fn a_second_signal_ends_it_at_once() {
    let Some(url) = broker("rabbitmq") else { return };
    let _turn = RABBITMQ.lock().await;
    ended_at_once_by_a_second_signal(url).await;
}

#[tokio::test]
async fn a_second_signal_ends_it_where_a_thread_is_blocked() {
    let Some(url) = broker("rabbitmq") else { return };
    let _turn = RABBITMQ.lock().await;
    ended_by_a_second_signal_while_a_thread_is_blocked(url).await;
}
