//! The same work, written with the SDK.

use std::sync::Arc;
use std::time::Duration;

use futures_util::StreamExt;
use postrider::prelude::{Bytes, State, listener, listeners};
use postrider::{App, Publisher, Registration, Running};

use crate::probe::{Cost, Mark, Order, Probe, Sample};
use crate::raw::{GROUP, UNCONFIRMED};

/// Messages of one `send_all`, and bytes.
const TOGETHER: usize = 500;
const BYTES: usize = 1_000_000;
const DEADLINE: Duration = Duration::from_secs(30);

#[listener(topic = "bench.load", prefetch = 256)]
async fn consume(payload: Bytes, State(probe): State<Arc<Probe>>) {
    probe.handle(&payload);
}

#[listener(topic = "bench.load", group = "beside", prefetch = 256)]
async fn beside(payload: Bytes, State(probe): State<Arc<Probe>>) {
    probe.handle(&payload);
}

#[listener(topic = "bench.load", prefetch = 256, publish = "bench.out")]
async fn forward(sample: Sample, State(probe): State<Arc<Probe>>) -> Sample {
    probe.handle(&[]);
    sample
}

#[listener(topic = "bench.out")]
async fn receive(_payload: Bytes) {}

async fn start(url: &str, probe: &Arc<Probe>, listeners: Vec<Registration>) -> Running {
    let app = App::new(url).unwrap().name(GROUP).state(probe.clone());
    app.listen(listeners).start().await.unwrap()
}

/// Makes the topics and groups that every side uses.
pub(crate) async fn declare(url: &str) {
    let probe = Arc::new(Probe::new(1));
    let running = start(url, &probe, listeners![consume, receive]).await;
    running.ready().await.unwrap();
    running.shutdown().await.unwrap();
}

/// Handles until the probe has seen its last.
pub(crate) async fn consume_all(url: &str, probe: &Arc<Probe>, forwarding: bool) {
    let listeners = if forwarding {
        listeners![forward]
    } else {
        listeners![consume]
    };
    handle_all(url, probe, listeners).await;
}

/// The same in a group of its own, which has everything that the raw loops have too.
pub(crate) async fn consume_beside(url: &str, probe: &Arc<Probe>) {
    handle_all(url, probe, listeners![beside]).await;
}

async fn handle_all(url: &str, probe: &Arc<Probe>, listeners: Vec<Registration>) {
    let running = start(url, probe, listeners).await;
    probe.finished().await;
    running.shutdown().await.unwrap();
}

/// Publishes, all confirmed: one after the other, or many at once.
pub(crate) async fn publish(url: &str, many: bool, order: &Order) -> Cost {
    let publisher = Publisher::connect(url).await.unwrap();
    // Connected, and knows the topic.
    publisher.send(&order.sample(0)).await.unwrap();
    let begun = Mark::now();
    if many {
        let together = TOGETHER.min(BYTES / order.size);
        let starts = (0..order.count).step_by(together);
        let send = |from: u64| {
            let to = order.count.min(from + together as u64);
            let publisher = publisher.clone();
            async move {
                let samples: Vec<_> = (from..to).map(|number| order.sample(number)).collect();
                for answer in publisher.send_all(&samples).await {
                    answer.unwrap();
                }
            }
        };
        let at_once = UNCONFIRMED / together;
        futures_util::stream::iter(starts.map(send))
            .buffer_unordered(at_once)
            .collect::<()>()
            .await;
    } else {
        for number in 0..order.count {
            publisher.send(&order.sample(number)).await.unwrap();
        }
    }
    let cost = order.cost(&begun);
    publisher.close(DEADLINE).await.unwrap();
    cost
}

/// Publishes each message when it is due.
pub(crate) async fn publish_paced(url: &str, order: &Order) {
    let publisher = Publisher::connect(url).await.unwrap();
    let mut under_way = tokio::task::JoinSet::new();
    let mut number = 0;
    while number < order.count {
        order.wait(number).await;
        let mut due = Vec::new();
        while number < order.count && order.is_due(number) {
            due.push(order.sample(number));
            number += 1;
        }
        let publisher = publisher.clone();
        under_way.spawn(async move {
            for answer in publisher.send_all(&due).await {
                answer.unwrap();
            }
        });
        while under_way.try_join_next().is_some() {}
    }
    while under_way.join_next().await.is_some() {}
    publisher.close(DEADLINE).await.unwrap();
}
