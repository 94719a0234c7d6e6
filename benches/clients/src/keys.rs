//! Order by key over few and very many keys, on the embedded broker.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Instant;

use postrider::App;
use postrider::prelude::{Attempt, HandlerError, State, listener, listeners};
use serde::{Deserialize, Serialize};
use tokio::sync::Notify;

use crate::statistics::{rate, ratio};

const KEYS: [u64; 3] = [100, 10_000, 100_000];
const MESSAGES: u64 = 500_000;
const ROUNDS: u64 = 3;
/// One message of so many fails at first, and what has its key waits behind it.
const FAILS: u64 = 1_000;
const TOGETHER: u64 = 1_000;

/// The `nth` message of its key.
#[derive(postrider::Message, Serialize, Deserialize)]
#[message(topic = "keys", key = key)]
struct Step {
    key: u64,
    nth: u64,
}

/// How far each key has got.
struct Seen {
    steps: Vec<AtomicU64>,
    left: AtomicU64,
    finished: Notify,
}

#[listener(
    topic = "keys",
    ordered,
    concurrency = 4,
    prefetch = 256,
    retry(attempts = 3, backoff = "fixed 1ms")
)]
async fn step(
    step: Step,
    Attempt(attempt): Attempt,
    State(seen): State<Arc<Seen>>,
) -> Result<(), HandlerError> {
    let Step { key, nth } = step;
    let at = &seen.steps[key as usize];
    assert_eq!(at.load(Ordering::Relaxed), nth, "key {key} out of order");
    if attempt == 1 && (key + nth * seen.steps.len() as u64).is_multiple_of(FAILS) {
        return Err(HandlerError::retryable("once"));
    }
    at.store(nth + 1, Ordering::Relaxed);
    if seen.left.fetch_sub(1, Ordering::Relaxed) == 1 {
        seen.finished.notify_one();
    }
    Ok(())
}

/// Prints a table: messages in a second by the number of keys.
pub(crate) async fn keys() {
    let mut rates = [const { Vec::new() }; KEYS.len()];
    for round in 0..ROUNDS {
        for (keys, rates) in KEYS.into_iter().zip(&mut rates) {
            let rate = measure(round, keys).await;
            eprintln!("ordered by {keys} keys: {rate:.0}/s");
            rates.push(rate);
        }
    }
    println!("| keys | messages, /s | × of {} keys |", KEYS[0]);
    println!("|---:|---:|---:|");
    for (keys, some) in KEYS.into_iter().zip(&rates) {
        println!("| {keys} | {} | {} |", rate(some), ratio(some, &rates[0]));
    }
}

/// Publishes all, then handles all: so many in a second.
async fn measure(round: u64, keys: u64) -> f64 {
    let seen = Arc::new(Seen {
        steps: (0..keys).map(|_| AtomicU64::new(0)).collect(),
        left: AtomicU64::new(MESSAGES),
        finished: Notify::new(),
    });
    let url = format!("memory://keys-{round}-{keys}?capacity={MESSAGES}");
    let app = App::new(&url).unwrap().name("keys").state(seen.clone());
    let running = app.listen(listeners![step]).start().await.unwrap();
    running.ready().await.unwrap();
    running.pause("step");
    let publisher = running.publisher();
    for begin in (0..MESSAGES).step_by(TOGETHER as usize) {
        let steps: Vec<_> = (begin..begin + TOGETHER)
            .map(|number| Step {
                key: number % keys,
                nth: number / keys,
            })
            .collect();
        for answer in publisher.send_all(&steps).await {
            answer.unwrap();
        }
    }
    let begun = Instant::now();
    running.resume("step");
    seen.finished.notified().await;
    let took = begun.elapsed();
    running.shutdown().await.unwrap();
    MESSAGES as f64 / took.as_secs_f64()
}
