//! What the broker cannot keep is counted: published = handled + lost.

use postrider::prelude::*;

use crate::http::get;
use crate::kit::{Seen, Target, eventually};
use crate::value;

/// Each instance its own copy, on Redis Pub/Sub in memory: what does not fit is dropped.
#[listener(topic = "losses.news", broadcast, prefetch = 5)]
async fn slow_reader(number: Json<u64>, State(seen): State<Seen>) {
    seen.add(number.0.to_string());
    // Outlasts the publishing of all the others.
    while number.0 == 0 && seen.all().len() < 2 {
        tokio::time::sleep(std::time::Duration::from_millis(5)).await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_redis_pubsub_loses_is_counted() {
    const PUBLISHED: u64 = 1_000;
    let Some(target) = Target::find("redis_pubsub") else {
        return;
    };
    let seen = Seen::default();
    let app = App::new(&format!("{}?queue=10", target.url))
        .unwrap()
        .name(&target.name);
    let app = app.state(seen.clone()).ops("0").unwrap();
    let running = app.listen(listeners![slow_reader]).start().await.unwrap();
    running.ready().await.unwrap();
    let publisher = target.publisher().await;
    for number in 0..PUBLISHED {
        publisher.topic("losses.news").send_json(&number).await.unwrap();
        if number == 0 {
            seen.count(1).await;
        }
    }
    seen.add("all are published");
    let counted = || {
        let counts = running.status()[0].counts;
        counts.handled + counts.lost == PUBLISHED
    };
    eventually(|| format!("{:#?}", running.status()), counted).await;
    let (_, metrics) = get(running.ops_address().unwrap(), "/metrics").await;
    let of = |name: &str| value(&metrics, name, &[&target.name]).unwrap() as u64;
    let (handled, lost) = (of("postrider_handled_total"), of("postrider_lost_total"));
    assert_eq!(handled + lost, PUBLISHED);
    assert!(lost > 900, "{lost}");
    running.shutdown().await.unwrap();
}
