//! 1, 2, 4 and 8 processes of one group, whose handlers wait as if for a database: what more instances bring.

use std::process::Stdio;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use postrider::prelude::{Deserialize, Serialize, listener, listeners};
use postrider::{App, Publisher};
use tokio::io::{AsyncBufReadExt, AsyncReadExt, BufReader};
use tokio::process::{Child, Command};

use crate::plot::{Line, plot};
use crate::system::System;

const PROCESSES: [u64; 4] = [1, 2, 4, 8];
/// For each process: about three seconds of work.
const MESSAGES: u64 = 6_000;
/// Until the members of a group have shared what there is.
const BALANCE: Duration = Duration::from_secs(4);

#[derive(postrider::Message, Serialize, Deserialize)]
#[message(topic = "bench.slow")]
struct Slow {
    number: u64,
}

#[listener(topic = "bench.slow", concurrency = 8)]
async fn slow(slow: Slow) {
    tokio::time::sleep(Duration::from_millis(2)).await;
    std::hint::black_box(slow.number);
}

fn address(name: &str, url: &str) -> String {
    // One for each process.
    if name == "kafka" {
        format!("{url}?partitions=8")
    } else {
        url.to_owned()
    }
}

/// A process of the group: tells how many it has handled, until its standard input ends.
pub(crate) async fn worker(broker: &str) {
    let url = address(broker, &System::new(broker).url);
    let app = App::new(&url).unwrap().name("bench").listen(listeners![slow]);
    let running = app.start().await.unwrap();
    running.ready().await.unwrap();
    let (mut input, mut ticks) = (
        tokio::io::stdin(),
        tokio::time::interval(Duration::from_millis(20)),
    );
    let mut byte = [0];
    loop {
        tokio::select! {
            read = input.read(&mut byte) => match read {
                Ok(1..) => {}
                _ => break,
            },
            _ = ticks.tick() => println!("{}", running.status()[0].counts.handled),
        }
    }
    running.shutdown().await.unwrap();
}

/// Prints a table, and draws it.
pub(crate) async fn processes(brokers: &[String], drawing: &str) {
    println!("\n| broker | 1 process, /s | 2 | 4 | 8 |");
    println!("|---|---:|---:|---:|---:|");
    let mut lines = Vec::new();
    for broker in brokers {
        let system = System::new(broker);
        let mut rates = Vec::new();
        for count in PROCESSES {
            let rate = tokio::time::timeout(Duration::from_secs(90), group(broker, &system.url, count)).await;
            rates.push(rate.expect("the processes did not finish"));
            eprintln!(
                "{}: {count} processes, {:.0}/s",
                system.name,
                rates[rates.len() - 1]
            );
        }
        let times = |rate: &f64| format!("× {:.1}", rate / rates[0]);
        let more: Vec<_> = rates[1..].iter().map(times).collect();
        println!("| {} | {:.0} | {} |", system.name, rates[0], more.join(" | "));
        lines.push(Line {
            name: system.name,
            points: PROCESSES.iter().map(|&count| count as f64).zip(rates).collect(),
        });
    }
    std::fs::write(
        drawing,
        plot("processes of one group", "messages in a second", &lines),
    )
    .unwrap();
}

/// Messages in a second, from the first fifth to the last message.
async fn group(broker: &str, url: &str, count: u64) -> f64 {
    let total = count * MESSAGES;
    let handled: Arc<[AtomicU64]> = (0..count).map(|_| AtomicU64::new(0)).collect();
    let mut children = Vec::new();
    for place in 0..count as usize {
        children.push(spawn(broker, place, handled.clone()).await);
    }
    tokio::time::sleep(BALANCE).await;
    let publisher = Publisher::connect(&address(broker, url)).await.unwrap();
    let all: Vec<_> = (0..total).map(|number| Slow { number }).collect();
    for some in all.chunks(500) {
        for answer in publisher.send_all(some).await {
            answer.unwrap();
        }
    }
    publisher.close(Duration::from_secs(10)).await.unwrap();
    let so_far = || handled.iter().map(|one| one.load(Ordering::Relaxed)).sum::<u64>();
    let (mut begun, mut before) = (None, 0);
    loop {
        let now = so_far();
        if begun.is_none() && now >= total / 5 {
            (begun, before) = (Some(Instant::now()), now);
        }
        if let Some(begun) = begun
            && now >= total
        {
            let rate = (total - before) as f64 / begun.elapsed().as_secs_f64();
            for mut child in children {
                // It ends when nobody talks to it.
                drop(child.stdin.take());
                assert!(child.wait().await.unwrap().success());
            }
            return rate;
        }
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
}

async fn spawn(broker: &str, place: usize, handled: Arc<[AtomicU64]>) -> Child {
    let mut child = Command::new(std::env::current_exe().unwrap())
        .args(["worker", broker])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .kill_on_drop(true)
        .spawn()
        .unwrap();
    let mut lines = BufReader::new(child.stdout.take().unwrap()).lines();
    // Its first line: it receives.
    lines.next_line().await.unwrap().expect("a worker ended");
    tokio::spawn(async move {
        while let Ok(Some(line)) = lines.next_line().await {
            handled[place].store(line.parse().unwrap(), Ordering::Relaxed);
        }
    });
    child
}
