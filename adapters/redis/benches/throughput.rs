//! Against the best loop on the raw client: pipelined `XADD`, one `XREADGROUP` and one `XACK` for many.
//!
//! `POSTRIDER_TEST_REDIS_URL=… cargo bench -p postrider-redis`. Raw and adapter take turns; the medians are compared.

#[path = "../tests/common/mod.rs"]
mod common;

use std::sync::Arc;
use std::time::Instant;

use common::{Open, SOON, connect, open, raw, spec, unique, url};
use postrider_contract::{Broker, Message, Outgoing, Settlement, Spec, Verdict};
use redis::Value;
use redis::aio::MultiplexedConnection;

const MESSAGES: usize = 100_000;
const BATCH: usize = 500;
const ROUNDS: usize = 7;
const PAYLOAD: &str =
    r#"{"order_id":123456,"sku":"A-100-200","quantity":3,"customer":"0190a7f0","note":"leave at the door"}"#;

#[tokio::main]
async fn main() {
    let mut took: [Vec<f64>; 4] = Default::default();
    for _ in 0..ROUNDS {
        let topic = unique("bench");
        let broker = connect(&format!("{}?retention=1h", url()), "bench").await;
        let spec = Spec {
            in_flight: 2 * BATCH as u32,
            ..spec(&topic, "g")
        };
        let mut open = open(&broker, spec).await;
        open.subscription.receiver.pause(true).await;
        let mut raw = raw().await;
        let other = unique("bench");
        redis::cmd("XGROUP")
            .arg("CREATE")
            .arg(&*other)
            .arg("g")
            .arg("$")
            .arg("MKSTREAM")
            .exec_async(&mut raw)
            .await
            .unwrap();
        took[0].push(raw_publish(&mut raw, &other).await);
        took[1].push(adapter_publish(&broker, &topic).await);
        took[2].push(raw_consume(&mut raw, &other).await);
        took[3].push(adapter_consume(&mut open).await);
        broker.close(SOON).await.unwrap();
        redis::cmd("DEL")
            .arg(&*topic)
            .arg(&*other)
            .exec_async(&mut raw)
            .await
            .unwrap();
    }
    let [raw_publish, publish, raw_consume, consume] = took.map(median);
    for (what, raw, adapter) in [
        ("publish", raw_publish, publish),
        ("consume", raw_consume, consume),
    ] {
        println!(
            "{what}: raw {raw:.0}/s, adapter {adapter:.0}/s, {:.3} of raw",
            adapter / raw
        );
    }
}

fn median(mut rates: Vec<f64>) -> f64 {
    rates.sort_by(f64::total_cmp);
    rates[rates.len() / 2]
}

fn rate(begun: Instant) -> f64 {
    MESSAGES as f64 / begun.elapsed().as_secs_f64()
}

fn message(number: usize) -> Message {
    Message::new(PAYLOAD)
        .with_header("message-id", format!("0190a7f0-0000-7000-8000-{number:012}"))
        .with_header("content-type", "application/json")
}

async fn raw_publish(raw: &mut MultiplexedConnection, topic: &str) -> f64 {
    let begun = Instant::now();
    for batch in 0..MESSAGES / BATCH {
        let mut adds = redis::Pipeline::with_capacity(BATCH);
        for number in 0..BATCH {
            adds.cmd("XADD").arg(topic).arg("*");
            adds.arg("message-id")
                .arg(format!("0190a7f0-0000-7000-8000-{:012}", batch * BATCH + number));
            adds.arg("content-type")
                .arg("application/json")
                .arg("payload")
                .arg(PAYLOAD);
        }
        adds.query_async::<Vec<Value>>(raw).await.unwrap();
    }
    rate(begun)
}

async fn adapter_publish(broker: &Arc<dyn Broker>, topic: &Arc<str>) -> f64 {
    let begun = Instant::now();
    for batch in 0..MESSAGES / BATCH {
        let batch =
            (0..BATCH).map(|number| Outgoing::to_topic(topic.clone(), message(batch * BATCH + number)));
        for answer in broker.publish(batch.collect()).await {
            answer.unwrap();
        }
    }
    rate(begun)
}

async fn raw_consume(raw: &mut MultiplexedConnection, topic: &str) -> f64 {
    let begun = Instant::now();
    let mut read = redis::cmd("XREADGROUP");
    read.arg("GROUP")
        .arg("g")
        .arg("c")
        .arg("COUNT")
        .arg(BATCH)
        .arg("STREAMS")
        .arg(topic)
        .arg(">");
    let mut acknowledging: Option<tokio::task::JoinHandle<()>> = None;
    let mut done = 0;
    while done < MESSAGES {
        let reply: redis::streams::StreamReadReply = read.query_async(raw).await.unwrap();
        let mut ack = redis::cmd("XACK");
        ack.arg(topic).arg("g");
        for entry in &reply.keys[0].ids {
            assert!(
                matches!(&entry.map["payload"], Value::BulkString(payload) if payload.len() == PAYLOAD.len())
            );
            ack.arg(&entry.id);
        }
        done += reply.keys[0].ids.len();
        if let Some(before) = acknowledging.take() {
            before.await.unwrap();
        }
        let mut raw = raw.clone();
        acknowledging = Some(tokio::spawn(
            async move { ack.exec_async(&mut raw).await.unwrap() },
        ));
    }
    acknowledging.unwrap().await.unwrap();
    rate(begun)
}

async fn adapter_consume(open: &mut Open) -> f64 {
    let begun = Instant::now();
    open.subscription.receiver.pause(false).await;
    let (mut done, mut got, mut out) = (0, Vec::new(), Vec::new());
    let mut settling: Option<tokio::task::JoinHandle<usize>> = None;
    while done < MESSAGES {
        open.subscription.receiver.next(BATCH, &mut got).await.unwrap();
        if got.is_empty() {
            continue;
        }
        done += got.len();
        let mut batch: Vec<Settlement> = got
            .drain(..)
            .map(|delivery| {
                assert_eq!(delivery.message.payload_size(), PAYLOAD.len());
                Settlement {
                    token: delivery.token,
                    verdict: Verdict::ACK,
                }
            })
            .collect();
        if let Some(before) = settling.take() {
            before.await.unwrap();
        }
        let settler = Arc::clone(&open.subscription.settler);
        let mut answers = std::mem::take(&mut out);
        settling = Some(tokio::spawn(async move {
            settler.settle(&mut batch, &mut answers).await;
            answers.len()
        }));
    }
    settling.unwrap().await.unwrap();
    rate(begun)
}
