//! A message that ends every process that handles it, on every broker that keeps messages.

#[allow(dead_code, reason = "shared with other tests of processes")]
#[path = "common/service.rs"]
mod service;

use std::collections::BTreeSet;
use std::time::{Duration, Instant};

use postrider::dead_letters::Filter;
use postrider::prelude::*;
use postrider::{DeadLetters, Registration};
use postrider_interop::{DEADLY, Work, broker, in_order, together, work};
use service::Service;

const PROGRAM: &str = env!("CARGO_BIN_EXE_mortal");
/// Beyond 20 deliveries without a verdict a message is given up; some may go uncounted where a process dies too soon.
const MOST_DEATHS: usize = 40;
const PATIENCE: Duration = Duration::from_secs(60);

/// Where the listeners of the service take their work from.
const LOAD: &str = "interop.load";
const ORDER: &str = "interop.order";
const BATCH: &str = "interop.batch";
const DEADLY_ONE: Work = Work {
    id: 0,
    millis: DEADLY,
};

/// These, as long as that takes each.
fn others(ids: impl Iterator<Item = u32>, topic: &'static str, millis: u64) -> Vec<(&'static str, Work)> {
    ids.map(|id| (topic, Work { id, millis })).collect()
}

/// Several are handled side by side, or at once; it is fetched and started with them every time.
fn in_the_middle_of(topic: &'static str) -> Vec<(&'static str, Work)> {
    let mut load = others(1..=20, topic, 1);
    load.insert(5, (topic, DEADLY_ONE));
    load
}

/// It is always the first of an ordered listener; another listener has just begun when it is handled.
fn first_in_order() -> Vec<(&'static str, Work)> {
    let mut load = vec![(ORDER, DEADLY_ONE)];
    load.extend(others(1..=20, ORDER, 1));
    load.extend(others(21..=40, LOAD, 200));
    load
}

fn listeners() -> Vec<Registration> {
    listeners![work, in_order, together]
}

/// It is given up at last, and everything else is handled.
async fn what_ends_every_process_is_given_up(url: String, load: Vec<(&'static str, Work)>) {
    let service = Service::new(PROGRAM, url);
    service.declare(listeners()).await;
    let publisher = Publisher::connect(&service.url).await.unwrap();
    for (topic, work) in &load {
        publisher.topic(*topic).send_json(work).await.unwrap();
    }
    let others = load.len() as u32 - 1;
    let app = || service.app(listeners());
    let mut letters = [
        app().dead_letters("work").await.unwrap(),
        app().dead_letters("in_order").await.unwrap(),
        app().dead_letters("together").await.unwrap(),
    ];
    let mut deaths = 0;
    loop {
        let mut process = service.start();
        if has_given_up(&mut process, &mut letters).await {
            all_handled(&service, others, &mut letters).await;
            break;
        }
        deaths += 1;
        assert!(deaths <= MOST_DEATHS, "it is never given up");
    }
    println!("given up after {deaths} deaths");
    assert!(deaths > 20, "after {deaths} deaths");
    let given_up = list(&mut letters).await;
    assert_eq!(given_up, [(0, "crash_loop".to_owned())]);
    for letters in letters {
        letters.close(Duration::from_secs(5)).await.unwrap();
    }
    publisher.close(Duration::from_secs(5)).await.unwrap();
}

/// Waits until something is given up, or the process dies.
async fn has_given_up(process: &mut service::Process, letters: &mut [DeadLetters]) -> bool {
    let begun = Instant::now();
    while !process.has_aborted() {
        if !list(letters).await.is_empty() {
            return true;
        }
        assert!(begun.elapsed() < PATIENCE, "nothing happens");
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    false
}

/// What was given up, and why.
async fn list(letters: &mut [DeadLetters]) -> Vec<(u32, String)> {
    let mut given_up = Vec::new();
    for letters in letters {
        for letter in letters.list(&Filter::all()).await.unwrap() {
            let work: Work = serde_json::from_slice(letter.message.payload.as_ref().unwrap()).unwrap();
            given_up.push((work.id, letter.dead.reason.clone()));
        }
    }
    given_up
}

/// Some twice: a process may die before what it has handled is settled.
async fn all_handled(service: &Service, count: u32, letters: &mut [DeadLetters]) {
    let begun = Instant::now();
    loop {
        let handled: BTreeSet<u32> = service.effects("end").into_iter().collect();
        if handled.iter().copied().eq(1..=count) {
            return;
        }
        let given_up = list(letters).await;
        assert!(
            begun.elapsed() < PATIENCE,
            "handled: {handled:?}; given up: {given_up:?}"
        );
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
}

macro_rules! on {
    ($($name:ident $options:literal;)*) => {$(
        mod $name {
            use super::*;

            /// One at a time: they take their work from the same topics.
            static TURN: tokio::sync::Mutex<()> = tokio::sync::Mutex::const_new(());

            /// A process that died is given up soon.
            fn url() -> Option<String> {
                let url = broker(stringify!($name))?;
                let sign = if url.contains('?') { '&' } else { '?' };
                Some(format!("{url}{sign}{}", $options))
            }

            #[tokio::test]
            async fn beside_others() {
                let Some(url) = url() else { return };
                let _turn = TURN.lock().await;
                what_ends_every_process_is_given_up(url, in_the_middle_of(LOAD)).await;
            }

            #[tokio::test]
            async fn in_a_batch() {
                let Some(url) = url() else { return };
                let _turn = TURN.lock().await;
                what_ends_every_process_is_given_up(url, in_the_middle_of(BATCH)).await;
            }

            #[tokio::test]
            async fn before_all_others() {
                let Some(url) = url() else { return };
                let _turn = TURN.lock().await;
                what_ends_every_process_is_given_up(url, first_in_order()).await;
            }
        }
    )*};
}
on! {
    kafka "session_timeout=1s";
    rabbitmq "heartbeat=10s";
    redis "lease=1s";
}
