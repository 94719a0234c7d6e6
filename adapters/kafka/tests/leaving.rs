//! Leaving a group that waits for somebody else.

mod support;

use std::time::{Duration, Instant};

use postrider_contract::Topology;
use rdkafka::ClientConfig;
use rdkafka::consumer::{BaseConsumer, Consumer};
use support::fence::Cluster;
use support::own::OwnBroker;
use support::{PATIENCE, client, open, spec, unique};

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
