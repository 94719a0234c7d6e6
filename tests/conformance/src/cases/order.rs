//! Order by partition key.

use std::time::Duration;

use postrider_contract::{Order, Outgoing, Spec, Topology};

use crate::Run;
use crate::kit::{Log, Worker, id, numbered, spec};

/// The wishes of an ordered listener; `None`, after checking that they are refused, where the broker keeps no order.
async fn ordered(run: &Run) -> Option<Spec> {
    let instance = run.connect().await;
    let mut wishes = spec(&run.topic("t"), "g");
    wishes.order = Order::ByKey;
    if instance.broker.capabilities().ordered {
        return Some(wishes);
    }
    let problems = instance.broker.plan(&[wishes], Topology::Declare).await;
    let problems = problems.expect_err("order that cannot be kept is refused");
    assert!(problems.iter().any(|problem| &*problem.listener == "listener_g"));
    run.refused("`ordered` is refused at start-up");
    None
}

/// Sixteen keys, sixty messages each, two instances; one of them closes in the middle. For each key the first handling
/// of every message is in the order of publishing.
pub async fn order_by_key_across_a_handover(run: Run) {
    let Some(wishes) = ordered(&run).await else { return };
    let topic = wishes.topic().clone();
    let [(one, first), (two, second)] = run.two(&wishes).await;
    let log = Log::default();
    let first = Worker::start("first", first, &log, Duration::from_millis(1));
    let second = Worker::start("second", second, &log, Duration::from_millis(1));
    for round in 0..30 {
        let message = |n: usize| numbered(n).with_key(format!("key {}", n / 3 % 16));
        let batch = (round * 32..round * 32 + 32).map(|n| Outgoing::to_topic(topic.clone(), message(n)));
        two.publish(batch.collect()).await;
    }
    log.until(300, run.patience()).await;
    let held = first.stop().await;
    one.close().await;
    drop((held, one));
    log.until(960, run.patience()).await;
    second.stop().await;
    let again = log.assert_complete(0..960);
    log.assert_order_by_key();
    println!("begun again after the handover: {again}");
    two.close().await;
}

/// What is released together comes again in its order, before what follows.
pub async fn released_keeps_its_place(run: Run) {
    let Some(wishes) = ordered(&run).await else { return };
    let topic = wishes.topic().clone();
    let instance = run.connect().await;
    let [mut sub] = instance.open([wishes]).await;
    let to_topic = |n| Outgoing::to_topic(topic.clone(), numbered(n).with_key("one key"));
    instance.publish((0..30).map(to_topic).collect()).await;
    let taken = sub.take(10).await;
    sub.ack(&taken[..2]).await;
    sub.release(&taken[2..]).await;
    let rest = sub.handle(28).await;
    let came: Vec<_> = rest.iter().map(|delivery| id(&delivery.message)).collect();
    let expected: Vec<_> = (2..30).map(|n| format!("id-{n}")).collect();
    assert_eq!(came, expected);
    instance.close().await;
}
