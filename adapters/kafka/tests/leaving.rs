//! Leaving a group that waits for somebody else.

mod support;

use std::time::{Duration, Instant};

use postrider_contract::Topology;
use rdkafka::ClientConfig;
use rdkafka::consumer::{BaseConsumer, Consumer};
use support::fence::Cluster;
use support::own::OwnBroker;
use support::{PATIENCE, client, connect_with, open, spec, unique};
use tokio::task::JoinSet;

/// A member has died, and the group waits for it as long as its session lasts. Who has just come and is given nothing yet
/// has nothing to lose by going at once.
#[tokio::test(flavor = "multi_thread")]
async fn who_has_nothing_to_commit_does_not_wait_for_the_group() {
    let own = OwnBroker::start();
    let (fence, url) = own.fenced("&session_timeout=60s").await;
    let former = postrider_kafka::connect(&url, client("former")).await.unwrap();
    let topic = unique("leaving");
    let spec = spec(&topic, "g");
    let _listener = open(&former, spec.clone()).await;
    fence.set(Cluster::Away);

    let url = own.url_with("&session_timeout=60s");
    let late = postrider_kafka::connect(&url, client("late")).await.unwrap();
    late.plan(std::slice::from_ref(&spec), Topology::Declare)
        .await
        .unwrap();
    let _subscription = late.open(vec![spec]).await.unwrap();
    let asking: BaseConsumer = ClientConfig::new()
        .set("bootstrap.servers", format!("127.0.0.1:{}", own.port()))
        .create()
        .unwrap();
    let begun = Instant::now();
    loop {
        let groups = asking.fetch_group_list(Some(&format!("{topic}.g")), PATIENCE);
        if groups.unwrap().groups()[0].state() == "PreparingRebalance" {
            break;
        }
        assert!(begun.elapsed() < PATIENCE, "it does not join");
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    let begun = Instant::now();
    late.close(Duration::from_secs(2)).await.unwrap();
    println!("closed after {:?}", begun.elapsed());
    assert!(begun.elapsed() < Duration::from_secs(4));
}

/// Of instances that end together, some are given the partitions of the others while they leave. None waits for that, and the
/// group is empty at once.
#[tokio::test(flavor = "multi_thread")]
async fn instances_that_end_together_leave_at_once() {
    let topic = unique("together");
    let mut longest = Duration::ZERO;
    for round in 0..5_u64 {
        let mut instances = Vec::new();
        for _ in 0..5 {
            let broker = connect_with("&session_timeout=1s&partitions=10").await;
            instances.push((open(&broker, spec(&topic, "g")).await, broker));
        }
        // So that all have their partitions.
        tokio::time::sleep(Duration::from_secs(2)).await;
        let mut closing = JoinSet::new();
        for ((_listener, broker), place) in instances.into_iter().zip(0_u64..) {
            closing.spawn(async move {
                // One first, the others at various times between two heartbeats.
                let later = if place == 0 { 0 } else { 20 + round * 37 % 200 };
                tokio::time::sleep(Duration::from_millis(later)).await;
                let begun = Instant::now();
                broker.close(Duration::from_secs(20)).await.unwrap();
                begun.elapsed()
            });
        }
        let took = closing.join_all().await;
        println!("closed after {took:?}");
        longest = took.into_iter().fold(longest, Duration::max);
    }
    assert!(longest < Duration::from_secs(5), "{longest:?}");
}
