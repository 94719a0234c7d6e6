//! How many wait, where the server's own count of them is wrong.

mod common;

use std::sync::Arc;
use std::time::Duration;

use common::own::Own;
use common::*;
use postrider_contract::Broker;
use tokio::time::{Instant, sleep};

async fn waiting(broker: &Arc<dyn Broker>, topic: &Arc<str>) -> Option<u64> {
    broker.status(&[spec(topic, "g")]).await.unwrap()[0].waiting
}

async fn publish_some(broker: &Arc<dyn Broker>, topic: &Arc<str>) {
    publish(broker, topic, (0..10).map(|n| n.to_string())).await;
}

async fn handle_some(open: &mut Open) {
    for got in open.receive(10).await {
        open.ack(&got).await;
    }
}

/// What a group reads is not told to the file, nor to replicas, in a way that counts it.
#[tokio::test]
async fn a_server_that_came_back_has_nothing_waiting() {
    let own = Own::start(&["--appendfsync", "always"]);
    let topic = unique("depths");
    let broker = connect(&own.streams(""), "a").await;
    let mut open = open(&broker, spec(&topic, "g")).await;
    publish_some(&broker, &topic).await;
    handle_some(&mut open).await;
    own.tell("BGREWRITEAOF").await;
    let until = Instant::now() + SOON;
    while !format!("{:?}", own.tell("INFO persistence").await).contains("aof_last_bgrewrite_status:ok")
        || !format!("{:?}", own.tell("INFO persistence").await).contains("aof_rewrite_in_progress:0")
    {
        assert!(Instant::now() < until, "it is still written");
        sleep(Duration::from_millis(50)).await;
    }
    publish_some(&broker, &topic).await;
    handle_some(&mut open).await;
    own.kill();
    own.up();
    open.ready().await;
    assert_eq!(waiting(&broker, &topic).await, Some(0));
}

/// A foreign program that keeps a stream short.
#[tokio::test]
async fn what_was_trimmed_does_not_wait() {
    let own = Own::start(&[]);
    let topic = unique("depths");
    let broker = connect(&own.streams(""), "a").await;
    let mut open = open(&broker, spec(&topic, "g")).await;
    publish_some(&broker, &topic).await;
    handle_some(&mut open).await;
    open.subscription.receiver.pause(true).await;
    sleep(Duration::from_millis(1_500)).await;
    publish_some(&broker, &topic).await;
    assert_eq!(waiting(&broker, &topic).await, Some(10));
    own.tell(&format!("XTRIM {topic} MAXLEN 3")).await;
    assert_eq!(waiting(&broker, &topic).await, Some(3));
    own.tell(&format!("XTRIM {topic} MAXLEN 0")).await;
    assert_eq!(waiting(&broker, &topic).await, Some(0));
}

/// Where something was deleted in between, the server cannot tell.
#[tokio::test]
async fn what_the_server_does_not_count_is_counted() {
    let own = Own::start(&[]);
    let topic = unique("depths");
    let broker = connect(&own.streams(""), "a").await;
    let mut open = open(&broker, spec(&topic, "g")).await;
    open.subscription.receiver.pause(true).await;
    sleep(Duration::from_millis(1_500)).await;
    publish_some(&broker, &topic).await;
    let added = own.tell(&format!("XADD {topic} * payload deleted")).await;
    publish_some(&broker, &topic).await;
    let id: String = redis::from_redis_value(added).unwrap();
    own.tell(&format!("XDEL {topic} {id}")).await;
    assert_eq!(waiting(&broker, &topic).await, Some(20));
    publish(&broker, &topic, (0..1_000).map(|n| n.to_string())).await;
    assert_eq!(waiting(&broker, &topic).await, None);
}
