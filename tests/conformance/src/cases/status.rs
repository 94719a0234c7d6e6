//! Depths as the broker knows them.

use std::time::Duration;

use postrider_contract::{Spec, Status};

use crate::Run;
use crate::kit::{Instance, dead, eventually, retry, spec};

/// What waits for a group that is not running is counted.
pub async fn a_backlog_is_told(run: Run) {
    let topic = run.topic("t");
    let wishes = spec(&topic, "g");
    let instance = run.connect().await;
    instance.plan(std::slice::from_ref(&wishes)).await;
    instance.publish_numbered(&topic, 0..10).await;
    told(&run, &instance, &wishes, [10, 0, 0, 0]).await;
    instance.close().await;
}

/// Waiting, unsettled, retrying and dead, where the broker can tell; what it cannot is noted. Some brokers refresh their
/// figures now and then.
pub async fn depths_are_told(run: Run) {
    let topic = run.topic("t");
    let mut wishes = spec(&topic, "g");
    wishes.in_flight = 4;
    let instance = run.connect().await;
    let [mut sub] = instance.open([wishes.clone()]).await;
    told(&run, &instance, &wishes, [0, 0, 0, 0]).await;
    instance.publish_numbered(&topic, 0..10).await;
    let held = sub.take(4).await;
    told(&run, &instance, &wishes, [6, 4, 0, 0]).await;
    let wait = Duration::from_secs(50);
    sub.emit(&held[0], vec![retry(&held[0], "g", 2, wait)]).await;
    let letters = wishes.dead_letter.as_deref().unwrap_or_default();
    sub.emit(&held[1], vec![dead(&held[1], "g", letters)]).await;
    sub.ack(&held[2..]).await;
    sub.handle(6).await;
    told(&run, &instance, &wishes, [0, 0, 1, 1]).await;
    let status = instance.status(&wishes).await;
    let depths = [
        ("unsettled", status.unsettled),
        ("retrying", status.retrying),
        ("dead", status.dead),
    ];
    let untold = depths.iter().filter(|(_, depth)| depth.is_none());
    let untold: Vec<&str> = untold.map(|(name, _)| *name).collect();
    if !untold.is_empty() {
        run.refused(&format!("not told: {}", untold.join(", ")));
    }
    instance.close().await;
}

async fn told(run: &Run, instance: &Instance, spec: &Spec, expected: [u64; 4]) {
    let [waiting, unsettled, retrying, dead] = expected;
    let fits = |told: Option<u64>, expected: u64| told.is_none_or(|told| told == expected);
    let what = format!("waiting, unsettled, retrying, dead should be {expected:?}");
    let ask = || instance.status(spec);
    let satisfies = |status: &Status| {
        fits(status.waiting, waiting)
            && fits(status.unsettled, unsettled)
            && fits(status.retrying, retrying)
            && fits(status.dead, dead)
    };
    eventually(&what, run.patience() / 2, ask, satisfies).await;
    let status = instance.status(spec).await;
    assert!(
        status.waiting.is_some(),
        "every broker knows what waits for a group: {status:?}"
    );
}
