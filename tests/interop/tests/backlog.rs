//! However much waits at the broker, a consumer takes no more memory than one that is idle, within a bound.
//!
//! `POSTRIDER_BACKLOG=10000000 cargo test -p postrider-interop --test backlog -- --nocapture` for a long look.

#[allow(dead_code, reason = "shared with other tests of processes")]
#[path = "common/service.rs"]
mod service;

use std::time::{Duration, Instant};

use postrider::prelude::*;
use postrider_interop::{TOGETHER, Waiting, broker, catch_up};
use service::{Process, Service};

const PROGRAM: &str = env!("CARGO_BIN_EXE_backlog");
/// How many wait, unless `POSTRIDER_BACKLOG` says otherwise.
const USUAL: u32 = 100_000;
/// How long each is then, in bytes: together several times what a consumer may take. With `POSTRIDER_BACKLOG` they are short.
const USUAL_LENGTH: usize = 1_500;
/// How many are handled while the memory is watched.
const WATCHED: u32 = 50_000;
/// What a consumer may take beyond an idle one, in KiB.
const ALLOWED: u64 = 32 * 1024;

/// A line of the kernel's account of a process's memory, in KiB.
fn memory(process: &Process, line: &str) -> u64 {
    let status = std::fs::read_to_string(format!("/proc/{}/status", process.id())).unwrap();
    let found = status.lines().find_map(|found| found.strip_prefix(line)).unwrap();
    found
        .trim_start_matches(':')
        .trim()
        .trim_end_matches(" kB")
        .parse()
        .unwrap()
}

async fn memory_stays_flat(name: &str) {
    let Some(url) = broker(name) else { return };
    let (backlog, length) = match std::env::var("POSTRIDER_BACKLOG") {
        Ok(text) => (text.parse().expect("POSTRIDER_BACKLOG is a number"), 64),
        Err(_) => (USUAL, USUAL_LENGTH),
    };
    let service = Service::new(PROGRAM, url);
    service.declare(listeners![catch_up]).await;
    let idle = service.start();
    // At rest it takes no more than some seconds before.
    let (mut at_rest, begun) = (0, Instant::now());
    loop {
        assert!(
            begun.elapsed() < Duration::from_secs(60),
            "it grows without work: {at_rest} KiB"
        );
        tokio::time::sleep(Duration::from_secs(3)).await;
        let now = memory(&idle, "VmRSS");
        if now <= at_rest + 256 {
            break;
        }
        at_rest = now;
    }
    drop(idle);

    let publisher = Publisher::connect(&service.url).await.unwrap();
    let padding = "x".repeat(length);
    for first in (0..backlog).step_by(10_000) {
        let some = first..backlog.min(first + 10_000);
        let some: Vec<Waiting> = some
            .map(|id| Waiting {
                id,
                padding: padding.clone(),
            })
            .collect();
        for answer in publisher.send_all(&some).await {
            answer.unwrap();
        }
        if first % 1_000_000 == 0 && first > 0 {
            println!("{first} of {backlog} published");
        }
    }
    publisher.close(Duration::from_secs(10)).await.unwrap();

    let busy = service.start();
    service
        .wait("handled", (WATCHED.min(backlog) / TOGETHER) as usize)
        .await;
    let most = memory(&busy, "VmHWM");
    println!("{backlog} waiting: {at_rest} KiB idle, at most {most} KiB while catching up");
    assert!(
        most <= at_rest + ALLOWED,
        "{most} KiB while catching up, {at_rest} KiB idle: more than {ALLOWED} KiB beyond"
    );
}

#[tokio::test]
async fn kafka() {
    memory_stays_flat("kafka").await;
}

#[tokio::test]
async fn rabbitmq() {
    memory_stays_flat("rabbitmq").await;
}

#[tokio::test]
async fn redis() {
    memory_stays_flat("redis").await;
}
