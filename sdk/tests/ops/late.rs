//! What Kafka confirms too late or never: a publish keeps its id, and an acknowledgement of what went to another instance is
//! counted.

use std::sync::Arc;
use std::time::{Duration, Instant};

use postrider::prelude::*;
use postrider::{ErrorKind, Running};
use postrider_own_broker::{OwnBroker, Server};
use tokio::sync::Semaphore;

use crate::http::get;
use crate::kit::{Seen, Target, eventually};
use crate::value;

#[listener(topic = "late.order", concurrency = 8)]
async fn slow(_: Json<u64>, State(gate): State<Arc<Semaphore>>) {
    let _open = gate.acquire().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_is_acknowledged_too_late_is_counted() {
    const PUBLISHED: u64 = 8;
    let Some(target) = Target::find("kafka") else {
        return;
    };
    let gates = [Arc::new(Semaphore::new(0)), Arc::new(Semaphore::new(1))];
    let start = async |gate: &Arc<Semaphore>| {
        let app = App::new(&format!("{}?partitions=2&revoke_timeout=200ms", target.url)).unwrap();
        let app = app.name(&target.name).state(gate.clone()).ops("0").unwrap();
        let running = app.listen(listeners![slow]).start().await.unwrap();
        running.ready().await.unwrap();
        running
    };
    let counts = |running: &Running| running.status()[0].counts;
    let first = start(&gates[0]).await;
    let publisher = first.publisher();
    for number in 0..PUBLISHED {
        let draft = publisher.topic("late.order").key(number.to_string());
        draft.send_json(&number).await.unwrap();
    }
    let status = |running: &Running| format!("{:#?}", running.status());
    eventually(|| status(&first), || counts(&first).received == PUBLISHED).await;
    // One of the partitions goes there.
    let second = start(&gates[1]).await;
    eventually(|| status(&second), || counts(&second).handled > 0).await;
    gates[0].add_permits(1);
    let settled = || counts(&first).handled + counts(&first).stale == PUBLISHED;
    eventually(|| status(&first), settled).await;
    let stale = counts(&first).stale;
    eventually(|| status(&second), || counts(&second).handled == stale).await;
    assert!((1..PUBLISHED).contains(&stale), "{stale}");
    let (_, metrics) = get(first.ops_address().unwrap(), "/metrics").await;
    let told = value(&metrics, "postrider_stale_total", &[&target.name]).unwrap() as u64;
    assert_eq!(told, stale);
    for running in [first, second] {
        running.shutdown().await.unwrap();
    }
}

#[listener(topic = "late.order")]
async fn told(_: Json<u64>, id: MessageId, State(seen): State<Seen>) {
    seen.add(id.0);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_a_frozen_broker_does_not_confirm_is_sent_again_under_its_id() {
    if Target::find("kafka").is_none() {
        return;
    }
    let own = OwnBroker::start(Server::Kafka);
    let app = App::new(&(own.verb("url") + "?publish_timeout=2s")).unwrap();
    let (app, seen) = (app.name("late"), Seen::default());
    let running = app.state(seen.clone()).listen(listeners![told]).start().await;
    let running = running.unwrap();
    running.ready().await.unwrap();
    let publisher = running.publisher();
    publisher.topic("late.order").send_json(&0).await.unwrap();
    seen.count(1).await;
    own.verb("pause");
    let error = publisher.topic("late.order").send_json(&1).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Unconfirmed, "{error}");
    let id = error.message_id().unwrap().to_owned();
    own.verb("resume");
    let begin = Instant::now();
    let again = || publisher.topic("late.order").id(id.as_str());
    while let Err(error) = again().send_json(&1).await {
        assert!(begin.elapsed() < Duration::from_secs(30), "{error}");
        assert_eq!(error.message_id(), Some(id.as_str()), "{error}");
    }
    // It may have arrived the first time.
    eventually(|| format!("{:?}", seen.all()), || seen.all().contains(&id)).await;
    running.shutdown().await.unwrap();
}
