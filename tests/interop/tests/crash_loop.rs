//! A message that ends every process that handles it, on every broker that keeps messages.

#[allow(dead_code, reason = "shared with other tests of processes")]
#[path = "common/service.rs"]
mod service;

use std::collections::BTreeSet;
use std::time::{Duration, Instant};

use postrider::DeadLetters;
use postrider::dead_letters::Filter;
use postrider::prelude::*;
use postrider_interop::{DEADLY, Work, broker, work};
use service::Service;

const PROGRAM: &str = env!("CARGO_BIN_EXE_service");
/// Beyond 20 deliveries without a verdict a message is given up; some may go uncounted where a process dies too soon.
const MOST_DEATHS: usize = 40;
const PATIENCE: Duration = Duration::from_secs(60);

/// It is given up at last, and everything else is handled: also what is fetched and started `beside` it every time.
async fn what_ends_every_process_is_given_up(url: String, beside: bool) {
    const OTHERS: u32 = 20;
    let service = Service::new(PROGRAM, url);
    service.declare(listeners![work]).await;
    let publisher = Publisher::connect(&service.url).await.unwrap();
    let others: Vec<Work> = (1..=OTHERS).map(|id| Work { id, millis: 1 }).collect();
    let deadly = Work {
        id: 0,
        millis: DEADLY,
    };
    let (before, after) = others.split_at(5);
    if beside {
        send(&publisher, before).await;
    }
    send(&publisher, &[deadly]).await;
    if beside {
        send(&publisher, after).await;
    }
    let mut letters = service.app(listeners![work]).dead_letters("work").await.unwrap();
    let mut deaths = 0;
    let given_up = loop {
        let mut process = service.start();
        let begun = Instant::now();
        let given_up = loop {
            if process.has_ended() {
                deaths += 1;
                break Vec::new();
            }
            let found = letters.list(&Filter::all()).await.unwrap();
            if !found.is_empty() {
                if !beside {
                    send(&publisher, &others).await;
                }
                all_handled(&service, OTHERS, &mut letters).await;
                break found;
            }
            assert!(
                begun.elapsed() < PATIENCE,
                "after {deaths} deaths nothing happens"
            );
            tokio::time::sleep(Duration::from_millis(50)).await;
        };
        if !given_up.is_empty() {
            break given_up;
        }
        assert!(deaths <= MOST_DEATHS, "it is never given up");
    };
    println!("given up after {deaths} deaths");
    assert!(deaths > 20, "after {deaths} deaths");
    let reasons: Vec<&str> = given_up
        .iter()
        .map(|letter| letter.dead.reason.as_str())
        .collect();
    assert_eq!(reasons, ["crash_loop"]);
    letters.close(Duration::from_secs(5)).await.unwrap();
    publisher.close(Duration::from_secs(5)).await.unwrap();
}

async fn send(publisher: &Publisher, load: &[Work]) {
    for answer in publisher.send_all(load).await {
        answer.unwrap();
    }
}

/// Some twice: a process may die before what it has handled is settled.
async fn all_handled(service: &Service, count: u32, letters: &mut DeadLetters) {
    let begun = Instant::now();
    loop {
        let handled: BTreeSet<u32> = service.effects("end").into_iter().collect();
        if handled.iter().copied().eq(1..=count) {
            return;
        }
        if begun.elapsed() > PATIENCE {
            let dead = letters.list(&Filter::all()).await.unwrap();
            panic!("handled: {handled:?}; given up: {dead:#?}");
        }
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
}

macro_rules! on {
    ($($name:ident $options:literal $beside:literal;)*) => {$(
        #[tokio::test]
        async fn $name() {
            let Some(url) = broker(stringify!($name)) else { return };
            // A process that died is given up soon.
            let sign = if url.contains('?') { '&' } else { '?' };
            what_ends_every_process_is_given_up(format!("{url}{sign}{}", $options), $beside).await;
        }
    )*};
}
on! {
    kafka "session_timeout=1s" false;
    rabbitmq "heartbeat=10s" true;
    redis "lease=1s" true;
}
