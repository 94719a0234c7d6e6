//! Many messages, many instances, and handlers that are slow.

mod support;

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use postrider_contract::{Delivery, ErrorKind, Event, Outgoing, Settled, Settlement, Topology, Verdict};
use support::{Listener, PATIENCE, connect_with, message, nothing_waits, open, retry_of, spec, text, unique};
use tokio::sync::Mutex;

type Seen = Arc<Mutex<HashMap<u32, u32>>>;

/// One test at a time: one of them measures the memory of the process.
static TURN: Mutex<()> = Mutex::const_new(());

/// Works as the runtime does: handles a window side by side, settles in any order, gives up what is revoked.
async fn work(mut listener: Listener, seen: Seen, stop: Arc<AtomicBool>, deadline: Duration) -> Listener {
    let mut window: Vec<Delivery> = Vec::new();
    let mut revoked: Vec<u32> = Vec::new();
    while !stop.load(Ordering::Relaxed) {
        let room = 50 - window.len();
        match tokio::time::timeout(
            Duration::from_millis(50),
            listener.receiver.next(room, &mut window),
        )
        .await
        {
            Ok(Ok(Event::Revoked { lanes, .. })) => {
                window.retain(|delivery| !lanes.contains(&delivery.token.lane));
                revoked.extend(lanes);
            }
            Ok(Ok(Event::Closed)) => break,
            Ok(Err(error)) => panic!("{error}"),
            _ => {}
        }
        listener.settler.released(&std::mem::take(&mut revoked)).await;
        fastrand::shuffle(&mut window);
        let mut batch = Vec::new();
        let mut done = Vec::new();
        for delivery in window.drain(window.len() / 3..) {
            let verdict = match fastrand::u8(..20) {
                0 => Verdict::Release,
                1 => Verdict::Ack {
                    emit: vec![retry_of(
                        &delivery,
                        "g",
                        2,
                        Duration::from_millis(fastrand::u64(..1500)),
                    )],
                },
                _ => {
                    done.push(text(&delivery).parse::<u32>().unwrap());
                    Verdict::ACK
                }
            };
            batch.push(Settlement {
                token: delivery.token,
                verdict,
            });
        }
        // An effect after the work, before the acknowledgement: a premature one would show as a loss.
        for number in done {
            *seen.lock().await.entry(number).or_default() += 1;
        }
        let mut out = Vec::new();
        listener.settler.settle(&mut batch, &mut out).await;
        for settled in out {
            // Some are closed in the middle of their work.
            if let Settled::Failed(_, error) = settled {
                assert_eq!(error.kind(), ErrorKind::Closed, "{error}");
            }
        }
        if deadline > Duration::ZERO {
            tokio::time::sleep(deadline).await;
        }
    }
    listener
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn rebalances_under_out_of_order_settling_lose_nothing() {
    let _turn = TURN.lock().await;
    const COUNT: u32 = 20_000;
    let topic = unique("churn");
    let seen = Seen::default();
    let options = "&partitions=6&revoke_timeout=2s";
    let first = connect_with(options).await;
    let listener = open(&first, spec(&topic, "g")).await;
    let stop = Arc::new(AtomicBool::new(false));
    let base = tokio::spawn(work(
        listener,
        seen.clone(),
        stop.clone(),
        Duration::from_millis(5),
    ));

    let publisher = connect_with(options).await;
    let published = {
        let topic = topic.clone();
        tokio::spawn(async move {
            for chunk in (0..COUNT).collect::<Vec<_>>().chunks(200) {
                let keyed = |n: &u32| {
                    Outgoing::to_topic(topic.as_str(), message(&n.to_string()).with_key(n.to_string()))
                };
                let answers = publisher.publish(chunk.iter().map(keyed).collect()).await;
                assert!(answers.iter().all(Result::is_ok));
                tokio::time::sleep(Duration::from_millis(100)).await;
            }
            publisher.close(PATIENCE).await.unwrap();
        })
    };
    // Others come and go meanwhile, some with a goodbye and some without.
    let mut rebalances = 0;
    while !published.is_finished() {
        let broker = connect_with(options).await;
        let listener = open(&broker, spec(&topic, "g")).await;
        let stop = Arc::new(AtomicBool::new(false));
        let working = tokio::spawn(work(
            listener,
            seen.clone(),
            stop.clone(),
            Duration::from_millis(5),
        ));
        tokio::time::sleep(Duration::from_millis(500 + fastrand::u64(..2000))).await;
        if fastrand::bool() {
            stop.store(true, Ordering::Relaxed);
            let listener = working.await.unwrap();
            broker.close(PATIENCE).await.unwrap();
            drop(listener);
        } else {
            broker.close(PATIENCE).await.unwrap();
            working.await.unwrap();
        }
        rebalances += 2;
    }
    published.await.unwrap();
    let deadline = Instant::now() + Duration::from_secs(60);
    while seen.lock().await.len() < COUNT as usize && Instant::now() < deadline {
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    stop.store(true, Ordering::Relaxed);
    base.await.unwrap();
    let (count, twice) = {
        let seen = seen.lock().await;
        (seen.len(), seen.values().filter(|&&times| times > 1).count())
    };
    println!("kafka churn: sent {COUNT}, handled {count}, duplicates {twice}, rebalances {rebalances}");
    assert_eq!(count, COUNT as usize);
    // Nothing is committed past what is settled: the depth is 0 only because all was handled.
    nothing_waits(&first, &spec(&topic, "g"), PATIENCE).await;
    first.close(PATIENCE).await.unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_slow_listener_holds_the_broker_back() {
    const COUNT: u32 = 60_000;
    /// Of 88 MiB that wait; the client library alone would take 64 unless told.
    const ALLOWED_KIB: u64 = 32 * 1024;
    let _turn = TURN.lock().await;
    let topic = unique("slow");
    let publisher = connect_with("").await;
    let planned = publisher.plan(&[spec(&topic, "g")], Topology::Declare).await;
    planned.unwrap();
    let body = "x".repeat(1_500);
    for _ in 0..COUNT / 1000 {
        let batch = (0..1000)
            .map(|_| Outgoing::to_topic(topic.as_str(), message(&body)))
            .collect();
        assert!(publisher.publish(batch).await.iter().all(Result::is_ok));
    }
    publisher.close(PATIENCE).await.unwrap();
    let before = resident();
    let broker = connect_with("&prefetch=65536").await;
    let mut listener = open(&broker, spec(&topic, "g")).await;
    // Longer than a full mailbox holds up the poll: partitions are paused and resumed.
    let mut count = 0;
    for _ in 0..3 {
        let some = listener.some(100, PATIENCE).await;
        count += some.len();
        tokio::time::sleep(Duration::from_millis(1500)).await;
        for delivery in &some {
            listener.ack(delivery).await;
        }
    }
    let more = resident().saturating_sub(before);
    println!("{more} KiB more after three slow windows");
    assert!(more <= ALLOWED_KIB, "{more} KiB");
    let begun = Instant::now();
    while count < COUNT as usize {
        let some = listener.some(1000, Duration::from_secs(10)).await;
        assert!(!some.is_empty(), "{count} of {COUNT} came");
        count += some.len();
        let mut batch = some
            .iter()
            .map(|d| Settlement {
                token: d.token,
                verdict: Verdict::ACK,
            })
            .collect();
        let mut out = Vec::new();
        listener.settler.settle(&mut batch, &mut out).await;
        assert!(out.iter().all(|settled| matches!(settled, Settled::Done)));
    }
    println!("the rest in {:?}", begun.elapsed());
    assert_eq!(count, COUNT as usize);
    assert!(listener.some(1, Duration::from_millis(500)).await.is_empty());
    broker.close(PATIENCE).await.unwrap();
}

fn resident() -> u64 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:"));
    line.and_then(|rest| rest.trim().trim_end_matches(" kB").parse().ok())
        .unwrap_or(0)
}
