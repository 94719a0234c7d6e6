//! Shutdown under load: what was acknowledged does not come again, what was not does.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use postrider::prelude::*;

use crate::kit::{Seen, Target};
use crate::on_every_broker;

#[derive(Message, Serialize, Deserialize)]
#[message(topic = "contract.load")]
struct Order {
    id: u32,
}

/// Set when the drain has begun: until then handlers wait once [`MANY`] have ended.
#[derive(Clone, Default)]
struct Drains(Arc<AtomicBool>);

const MANY: usize = 200;

#[listener(topic = "contract.load", concurrency = 8)]
async fn loaded(order: Order, State(seen): State<Seen>, State(drains): State<Drains>) {
    loop {
        tokio::time::sleep(Duration::from_millis(2)).await;
        if seen.all().len() < MANY || drains.0.load(Ordering::Relaxed) {
            break;
        }
    }
    seen.add(format!("{:05}", order.id));
}

async fn nothing_acknowledged_comes_again_after_a_drain(target: Target) {
    let seen = Seen::default();
    let publisher = target.publisher().await;
    let drains = Drains::default();
    let start = async || {
        let app = target.app().state(seen.clone()).state(drains.clone());
        let running = app.listen(listeners![loaded]).start().await.unwrap();
        running.ready().await.unwrap();
        running
    };
    let first = start().await;
    let orders: Vec<Order> = (0..2000).map(|id| Order { id }).collect();
    for answer in publisher.send_all(&orders).await {
        answer.unwrap();
    }
    seen.count(MANY).await;
    let begun = async { drains.0.store(true, Ordering::Relaxed) };
    let (ended, ()) = tokio::join!(first.shutdown(), begun);
    ended.unwrap();
    let handled = seen.all().len();
    assert!(handled < 2000, "the drain came in the middle");
    let second = start().await;
    seen.count(2000).await;
    tokio::time::sleep(Duration::from_millis(500)).await;
    assert_eq!(
        seen.sorted(),
        (0..2000).map(|id| format!("{id:05}")).collect::<Vec<_>>(),
        "first handled {handled}"
    );
    second.shutdown().await.unwrap();
}

#[listener(topic = "contract.stuck", retry(attempts = 1))]
async fn stuck(order: Order, attempt: Attempt, State(seen): State<Seen>) {
    let before = seen.all().len();
    seen.add(format!("{} {}", order.id, attempt.0));
    if before == 0 {
        std::future::pending::<()>().await;
    }
}

async fn a_handler_that_is_cut_off_gets_its_message_again(target: Target) {
    let seen = Seen::default();
    let keep_alive = target.publisher().await;
    let app = target
        .app()
        .state(seen.clone())
        .drain_deadline(Duration::from_millis(300));
    let first = app.listen(listeners![stuck]).start().await.unwrap();
    first.ready().await.unwrap();
    first
        .publisher()
        .topic("contract.stuck")
        .send(&Order { id: 1 })
        .await
        .unwrap();
    seen.count(1).await;
    first.shutdown().await.unwrap();
    let second = target.start(&seen, listeners![stuck]).await;
    seen.count(2).await;
    assert_eq!(seen.all(), ["1 1", "1 1"], "the attempt was not used up");
    second.shutdown().await.unwrap();
    drop(keep_alive);
}

on_every_broker! {
    nothing_acknowledged_comes_again_after_a_drain
    a_handler_that_is_cut_off_gets_its_message_again
}
