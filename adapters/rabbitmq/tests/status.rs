//! How many dead letters wait.

mod support;

use std::sync::Arc;
use std::time::Duration;

use lapin::options::QueueDeleteOptions;
use postrider_contract::{Broker, Outgoing, Spec, Topology};
use support::{PATIENCE, connect, dead, lapin, message, spec, unique};
use tokio::time::{Instant, sleep};

/// Asks until so many dead letters are told for each. The broker counts what is in a stream every five seconds.
async fn waits_for(broker: &Arc<dyn Broker>, specs: &[Spec], wanted: &[Option<u64>]) {
    let deadline = Instant::now() + PATIENCE;
    loop {
        let told: Vec<_> = broker.status(specs).await.unwrap();
        let told: Vec<_> = told.iter().map(|status| status.dead).collect();
        if told == wanted {
            return;
        }
        assert!(Instant::now() < deadline, "{told:?} where there are {wanted:?}");
        sleep(Duration::from_millis(200)).await;
    }
}

/// A dead letter of this listener's is written.
async fn dies(broker: &Arc<dyn Broker>, of: &Spec) {
    let topic = of.dead_letter.clone().expect("a dead-letter topic");
    let letter = dead(&message("m"), of.topic(), &of.group).message;
    for answer in broker.publish(vec![Outgoing::to_topic(topic, letter)]).await {
        answer.expect("confirmed");
    }
}

/// Somebody deletes this listener's dead-letter topic.
async fn delete(of: &Spec) {
    let stream = of.dead_letter.as_deref().expect("a dead-letter topic");
    let channel = lapin().await;
    let deleted = channel.queue_delete(stream.into(), QueueDeleteOptions::default());
    deleted.await.unwrap();
}

/// Topics of one group have a dead-letter topic in common: each is told its own.
#[tokio::test]
async fn listeners_that_share_a_dead_letter_topic_are_counted_apart() {
    let shared = unique("shared");
    let specs = ["one", "two"].map(|topic| Spec {
        dead_letter: Some(shared.as_str().into()),
        ..spec(&unique(topic), "g")
    });
    let broker = connect().await;
    broker.plan(&specs, Topology::Declare).await.unwrap();
    dies(&broker, &specs[1]).await;
    waits_for(&broker, &specs, &[Some(0), Some(1)]).await;
}

/// A dead-letter topic that is deleted and declared anew is counted from its beginning.
#[tokio::test]
async fn a_deleted_dead_letter_topic_is_counted_anew() {
    let wishes = [spec(&unique("anew"), "g")];
    let broker = connect().await;
    broker.plan(&wishes, Topology::Declare).await.unwrap();
    dies(&broker, &wishes[0]).await;
    waits_for(&broker, &wishes, &[Some(1)]).await;

    delete(&wishes[0]).await;
    waits_for(&broker, &wishes, &[None]).await;
    broker.plan(&wishes, Topology::Declare).await.unwrap();
    waits_for(&broker, &wishes, &[Some(0)]).await;
    dies(&broker, &wishes[0]).await;
    waits_for(&broker, &wishes, &[Some(1)]).await;
}

/// As where it is cut by age, or declared anew between two looks.
#[tokio::test]
async fn a_dead_letter_topic_that_becomes_shorter_is_counted_anew() {
    let wishes = [spec(&unique("shorter"), "g")];
    let broker = connect().await;
    broker.plan(&wishes, Topology::Declare).await.unwrap();
    for _ in 0..3 {
        dies(&broker, &wishes[0]).await;
    }
    waits_for(&broker, &wishes, &[Some(3)]).await;
    delete(&wishes[0]).await;
    broker.plan(&wishes, Topology::Declare).await.unwrap();
    dies(&broker, &wishes[0]).await;
    waits_for(&broker, &wishes, &[Some(1)]).await;
}
