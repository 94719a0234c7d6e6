//! Every instance its own copy.

use std::time::Duration;

use postrider_contract::{Sharing, Spec, Topology};

use crate::Run;
use crate::kit::{assert_each_once, spec};

/// The wishes of a broadcast listener; `None`, after checking that they are refused, where there is no broadcast.
async fn broadcast(run: &Run) -> Option<Spec> {
    let instance = run.connect().await;
    let mut wishes = spec(&run.topic("t"), "g");
    wishes.sharing = Sharing::Broadcast;
    wishes.dead_letter = None;
    wishes.max_delay = None;
    if instance.broker.capabilities().broadcast {
        return Some(wishes);
    }
    let problems = instance.broker.plan(&[wishes], Topology::Declare).await;
    let problems = problems.expect_err("broadcast that cannot be kept is refused");
    assert!(problems.iter().any(|problem| &*problem.listener == "listener_g"));
    run.refused("`broadcast` is refused at start-up");
    None
}

/// Two instances each get all; a shared group beside them gets one.
pub async fn every_instance_gets_a_copy(run: Run) {
    let Some(wishes) = broadcast(&run).await else {
        return;
    };
    let topic = wishes.topic().clone();
    let [(one, mut first), (two, mut second)] = run.two(&wishes).await;
    let three = run.connect().await;
    let [mut shared] = three.open([spec(&topic, "shared")]).await;
    one.publish_numbered(&topic, 0..20).await;
    for sub in [&mut first, &mut second, &mut shared] {
        assert_each_once(&sub.handle(20).await, 0..20);
        sub.quiet_for(Duration::from_millis(200)).await;
    }
    for instance in [one, two, three] {
        instance.close().await;
    }
}

/// Nothing is kept for an instance that is gone, and the next starts with what comes.
pub async fn a_copy_ends_with_its_instance(run: Run) {
    let Some(wishes) = broadcast(&run).await else {
        return;
    };
    let topic = wishes.topic().clone();
    let one = run.connect().await;
    let [mut first] = one.open([wishes.clone()]).await;
    one.publish_numbered(&topic, 0..5).await;
    first.handle(5).await;
    one.close().await;
    drop((first, one));
    let two = run.connect().await;
    two.publish_numbered(&topic, 5..10).await;
    let [mut second] = two.open([wishes]).await;
    two.publish_numbered(&topic, 10..15).await;
    assert_each_once(&second.handle(5).await, 10..15);
    second.quiet().await;
    two.close().await;
}
