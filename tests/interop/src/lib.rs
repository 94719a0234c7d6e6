//! Services as processes of their own, and programs without Postrider beside them: see `tests/`.

use std::io::Write as _;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use postrider::prelude::*;

/// Work that takes a while.
#[derive(Message, Serialize, Deserialize)]
#[message(topic = "interop.load")]
pub struct Work {
    /// Which.
    pub id: u32,
    /// How long it takes, in milliseconds; [`DEADLY`] ends the process, [`BLOCKING`] blocks a thread.
    pub millis: u64,
}

/// Blocks a thread for longer than any test, as a call of a database may.
pub const BLOCKING: u64 = u64::MAX - 1;

/// What no process survives.
pub const DEADLY: u64 = u64::MAX;

/// Where effects are written to: a line each, by one write, so that whoever reads sees whole ones.
#[derive(Clone)]
pub struct Effects(Arc<PathBuf>);

impl Effects {
    /// In this file.
    pub fn new(path: impl Into<PathBuf>) -> Self {
        Self(Arc::new(path.into()))
    }

    fn add(&self, effect: &str, id: u32) -> std::io::Result<()> {
        let mut file = std::fs::OpenOptions::new()
            .append(true)
            .create(true)
            .open(&*self.0)?;
        file.write_all(format!("{effect} {id}\n").as_bytes())
    }
}

/// Notes that it begins, works, and notes the effect.
///
/// # Errors
/// The file cannot be written.
#[listener(topic = "interop.load", concurrency = 8, prefetch = 64)]
pub async fn work(work: Work, State(effects): State<Effects>) -> Result<(), HandlerError> {
    carry_out(&work, &effects).await
}

/// The same, one after the other.
///
/// # Errors
/// The file cannot be written.
#[listener(topic = "interop.order", ordered, prefetch = 64)]
pub async fn in_order(work: Work, State(effects): State<Effects>) -> Result<(), HandlerError> {
    carry_out(&work, &effects).await
}

/// The same, many at once.
///
/// # Errors
/// The file cannot be written.
#[listener(topic = "interop.batch", batch(size = 64, wait = "50ms"), prefetch = 64)]
pub async fn together(batch: Vec<Work>, State(effects): State<Effects>) -> Result<(), HandlerError> {
    for work in batch {
        carry_out(&work, &effects).await?;
    }
    Ok(())
}

async fn carry_out(work: &Work, effects: &Effects) -> Result<(), HandlerError> {
    effects.add("begin", work.id)?;
    if work.millis == DEADLY {
        std::process::abort();
    }
    if work.millis == BLOCKING {
        tokio::task::spawn_blocking(|| std::thread::sleep(Duration::from_secs(600))).await?;
    }
    tokio::time::sleep(Duration::from_millis(work.millis)).await;
    effects.add("end", work.id)?;
    Ok(())
}

/// One of very many.
#[derive(Message, Serialize, Deserialize)]
#[message(topic = "interop.backlog")]
pub struct Waiting {
    /// Which.
    pub id: u32,
    /// Fills it up.
    pub padding: String,
}

/// How many of [`Waiting`] are noted together.
pub const TOGETHER: u32 = 1_000;

/// Notes every thousandth that it handles.
///
/// # Errors
/// The file cannot be written.
#[listener(topic = "interop.backlog", concurrency = 4, prefetch = 256)]
pub async fn catch_up(_: Waiting, State(effects): State<Effects>) -> Result<(), HandlerError> {
    static HANDLED: AtomicU32 = AtomicU32::new(0);
    let handled = HANDLED.fetch_add(1, Ordering::Relaxed) + 1;
    if handled.is_multiple_of(TOGETHER) {
        effects.add("handled", handled)?;
    }
    Ok(())
}

/// A broker's URL; `None`, and a word, where the tests were told to leave this broker out.
///
/// # Panics
/// It is to be tested and does not run.
pub fn broker(name: &str) -> Option<String> {
    let wanted = std::env::var("POSTRIDER_TEST_BROKERS");
    if wanted.is_ok_and(|wanted| !wanted.split(',').any(|one| one == name)) {
        println!("left out: {name} is not among POSTRIDER_TEST_BROKERS");
        return None;
    }
    let variable = format!("POSTRIDER_TEST_{}_URL", name.to_uppercase());
    let url = std::env::var(&variable);
    Some(url.unwrap_or_else(|_| {
        panic!("{variable} is not set: start the brokers with tests/run or tests/brokers/ctl")
    }))
}
