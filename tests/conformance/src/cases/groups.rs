//! Who gets what.

use std::time::Duration;

use postrider_contract::{Message, Outgoing, Start, Topology, names};
use tokio::time::Instant;

use crate::Run;
use crate::kit::{Log, Worker, assert_each_once, spec};

/// Every group sees every message.
pub async fn two_groups_each_see_all(run: Run) {
    let topic = run.topic("t");
    let instance = run.connect().await;
    let [mut one, mut two] = instance.open([spec(&topic, "one"), spec(&topic, "two")]).await;
    instance.publish_numbered(&topic, 0..100).await;
    assert_each_once(&one.handle(100).await, 0..100);
    assert_each_once(&two.handle(100).await, 0..100);
    one.quiet().await;
    two.quiet().await;
    instance.close().await;
}

/// Instances of one group share its messages, and both get work.
pub async fn instances_of_a_group_share(run: Run) {
    let topic = run.topic("t");
    let [(one, first), (two, second)] = run.two(&spec(&topic, "g")).await;
    let log = Log::default();
    let first = Worker::start("first", first, &log, Duration::from_millis(1));
    let second = Worker::start("second", second, &log, Duration::from_millis(1));
    // An instance that has just come may be given its share a little later.
    let until = Instant::now() + run.patience();
    let mut chunk = 0;
    while chunk < 20 || ["first", "second"].iter().any(|name| log.begun_by(name) == 0) {
        assert!(Instant::now() < until, "an instance gets nothing");
        let message = |n: usize| {
            Message::new("x")
                .with_key(format!("key {n}"))
                .with_header(names::MESSAGE_ID, format!("id-{n}"))
        };
        let batch = (chunk * 20..chunk * 20 + 20).map(|n| Outgoing::to_topic(topic.clone(), message(n)));
        one.publish(batch.collect()).await;
        tokio::time::sleep(Duration::from_millis(if chunk < 20 { 5 } else { 100 })).await;
        chunk += 1;
    }
    log.until(chunk * 20, run.patience()).await;
    first.stop().await.quiet().await;
    second.stop().await.quiet().await;
    log.assert_once(0..chunk * 20);
    one.close().await;
    two.close().await;
}

/// A group that was declared and is not running sees everything that is published meanwhile.
pub async fn a_declared_group_misses_nothing(run: Run) {
    let topic = run.topic("t");
    let declarer = run.connect().await;
    declarer.plan(&[spec(&topic, "g")]).await;
    declarer.publish_numbered(&topic, 0..20).await;
    declarer.close().await;
    drop(declarer);
    let instance = run.connect().await;
    instance.publish_numbered(&topic, 20..40).await;
    let [mut sub] = instance.open([spec(&topic, "g")]).await;
    instance.publish_numbered(&topic, 40..60).await;
    assert_each_once(&sub.handle(60).await, 0..60);
    sub.quiet().await;
    instance.close().await;
}

/// A new group starts with what is published after it was declared.
pub async fn a_new_group_starts_with_its_declaration(run: Run) {
    let topic = run.topic("t");
    let instance = run.connect().await;
    instance.plan(&[spec(&topic, "old")]).await;
    instance.publish_numbered(&topic, 0..20).await;
    let [mut sub] = instance.open([spec(&topic, "new")]).await;
    instance.publish_numbered(&topic, 20..40).await;
    assert_each_once(&sub.handle(20).await, 20..40);
    sub.quiet().await;
    instance.close().await;
}

/// A group may start with retained history, where there is some; where there is none it is refused.
pub async fn earliest_reads_history(run: Run) {
    let topic = run.topic("t");
    let instance = run.connect().await;
    let mut wishes = spec(&topic, "late");
    wishes.start = Start::Earliest;
    if !instance.broker.capabilities().earliest {
        let problems = instance.broker.plan(&[wishes], Topology::Declare).await;
        let problems = problems.expect_err("without history this start is refused");
        assert!(
            problems
                .iter()
                .any(|problem| &*problem.listener == "listener_late")
        );
        return run.refused("`start = earliest` is refused at start-up: there is no history");
    }
    instance.plan(&[spec(&topic, "early")]).await;
    instance.publish_numbered(&topic, 0..20).await;
    let [mut sub] = instance.open([wishes.clone()]).await;
    instance.publish_numbered(&topic, 20..40).await;
    assert_each_once(&sub.handle(40).await, 0..40);
    instance.close().await;
    drop((sub, instance));
    // Only a group that was never declared starts there.
    let instance = run.connect().await;
    let [mut sub] = instance.open([wishes]).await;
    sub.quiet().await;
    instance.close().await;
}

/// What instance after instance takes and never settles shows how often that happened, where the broker counts it.
pub async fn redeliveries_are_counted(run: Run) {
    let topic = run.topic("t");
    let mut counts = Vec::new();
    for round in 0..4 {
        let instance = run.connect().await;
        let [mut sub] = instance.open([spec(&topic, "g")]).await;
        if round == 0 {
            instance.publish_numbered(&topic, 0..1).await;
        }
        let delivery = sub.one().await;
        counts.push(delivery.redeliveries);
        if round == 3 {
            sub.ack(&[delivery]).await;
        }
        instance.close().await;
        if !instance.broker.capabilities().counts_redeliveries {
            assert_eq!(counts, vec![None; counts.len()], "not counted is not zero");
        }
    }
    if counts.iter().any(Option::is_none) {
        run.refused("redeliveries are not counted");
    } else {
        assert_eq!(counts[0], Some(0), "the first delivery");
        assert!(counts.is_sorted() && counts[3] > counts[0], "counted: {counts:?}");
    }
}
