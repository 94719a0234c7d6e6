//! Verdicts and confirms that come too late, on a Redis of the test's own.

use std::sync::Arc;
use std::time::{Duration, Instant};

use postrider::ErrorKind;
use postrider::prelude::*;
use postrider_own_broker::{OwnBroker, Server};
use tokio::sync::Semaphore;

use crate::kit::{Seen, status};

#[listener(topic = "contract.too_late", concurrency = 2)]
async fn waits(_: Json<u64>, id: MessageId, State(seen): State<Seen>, State(gate): State<Arc<Semaphore>>) {
    seen.add(id.0);
    gate.acquire().await.unwrap().forget();
}

async fn start(redis: &OwnBroker, seen: &Seen, gate: &Arc<Semaphore>) -> postrider::Running {
    let app = App::new(&format!("{}?lease=1s", redis.verb("url"))).unwrap();
    let app = app.name("shop").state(seen.clone()).state(gate.clone());
    let running = app.listen(listeners![waits]).start().await.unwrap();
    running.ready().await.unwrap();
    running
}

/// Its lease goes to another, who does nothing with it: it comes again when that one's is over, and counts once.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_another_has_taken_over_is_stale_and_counted() {
    let redis = OwnBroker::start(Server::Redis);
    let (seen, gate) = (Seen::default(), Arc::new(Semaphore::new(0)));
    let running = start(&redis, &seen, &gate).await;
    let publisher = running.publisher();
    publisher
        .topic("contract.too_late")
        .id("7")
        .send_json(&7)
        .await
        .unwrap();
    seen.count(1).await;
    redis.cli(&["XAUTOCLAIM", "contract.too_late", "shop", "another", "0", "0"]);
    seen.count(2).await;
    gate.add_permits(2);
    status(&running, |status| status.in_flight == 0).await;
    let counts = running.status()[0].counts;
    assert_eq!(
        (counts.received, counts.handled, counts.stale),
        (2, 1, 1),
        "{counts:?}"
    );
    assert_eq!(seen.all(), ["7", "7"]);
    running.shutdown().await.unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_publish_without_an_answer_is_unconfirmed_under_its_id() {
    let redis = OwnBroker::start(Server::Redis);
    let (seen, gate) = (Seen::default(), Arc::new(Semaphore::new(100)));
    let running = start(&redis, &seen, &gate).await;
    let url = format!("{}?publish_timeout=1s", redis.verb("url"));
    let publisher = Publisher::connect(&url).await.unwrap();
    let send = || publisher.topic("contract.too_late").id("7").send_json(&7);
    redis.verb("pause");
    let error = send().await.unwrap_err();
    assert_eq!(
        (error.kind(), error.message_id()),
        (ErrorKind::Unconfirmed, Some("7")),
        "{error}"
    );
    redis.verb("resume");
    let begun = Instant::now();
    while let Err(error) = send().await {
        assert!(
            error.is_retryable() && begun.elapsed() < Duration::from_secs(30),
            "{error}"
        );
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    // The first may have arrived as well.
    seen.count(1).await;
    status(&running, |status| status.in_flight == 0).await;
    assert!(seen.all().iter().all(|id| id == "7"), "{:?}", seen.all());
    running.shutdown().await.unwrap();
}
