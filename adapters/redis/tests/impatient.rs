//! Callers that give up before `publish_timeout` ends: none of them waits long enough to see that a connection is dead.

mod common;

use std::sync::Arc;
use std::time::Duration;

use common::detour::Detour;
use common::own::Own;
use common::*;
use postrider_contract::{Broker, Message, Outgoing};
use tokio::task::JoinSet;
use tokio::time::{Instant, sleep, timeout};

/// Publishes until one is confirmed, each within a second.
async fn confirmed(broker: Arc<dyn Broker>, topic: Arc<str>) {
    loop {
        let one = vec![Outgoing::to_topic(topic.clone(), Message::new("x"))];
        if let Ok(answers) = timeout(Duration::from_secs(1), broker.publish(one)).await
            && answers[0].is_ok()
        {
            break;
        }
    }
}

/// The same for twenty callers: at no time is nothing under way.
async fn all_confirmed(broker: &Arc<dyn Broker>, topic: &Arc<str>) {
    let mut publishing = JoinSet::new();
    for _ in 0..20 {
        publishing.spawn(confirmed(broker.clone(), topic.clone()));
        sleep(Duration::from_millis(50)).await;
    }
    timeout(2 * SOON, publishing.join_all())
        .await
        .expect("nothing is confirmed any more");
}

/// This connection dies under steady load.
async fn dies(detour: &Detour, broker: Arc<dyn Broker>) {
    let topic = unique("dead");
    confirmed(broker.clone(), topic.clone()).await;
    detour.hold();
    let begun = Instant::now();
    all_confirmed(&broker, &topic).await;
    assert!(begun.elapsed() > Duration::from_secs(2), "it was not dead");
}

#[tokio::test]
async fn a_dead_connection_is_left() {
    let own = Own::start(&[]);
    let detour = Detour::to(own.port).await;
    let broker = connect(&detour.pub_sub(), "a").await;
    dies(&detour, broker).await;
}

/// It has a connection of its own then, on which nobody else waits for anything.
#[tokio::test]
async fn a_dead_connection_that_waits_for_replicas_is_left() {
    let (own, replica) = (Own::start(&[]), Own::start(&[]));
    replica.tell(&format!("REPLICAOF 127.0.0.1 {}", own.port)).await;
    let detour = Detour::to(own.port).await;
    let broker = connect(&detour.streams("?wait_replicas=1"), "a").await;
    dies(&detour, broker).await;
}

/// What it is asked waits behind all that was sent before.
#[tokio::test]
async fn a_slow_connection_is_kept() {
    let own = Own::start(&[]);
    let detour = Detour::to(own.port).await;
    let topic = unique("slow");
    let broker = connect(&detour.pub_sub(), "a").await;
    detour.slow(2_000);
    let begun = Instant::now();
    publish(&broker, &topic, (0..8_000).map(|n| n.to_string())).await;
    assert!(begun.elapsed() > Duration::from_secs(13), "{:?}", begun.elapsed());
    detour.slow(0);
    publish(&broker, &topic, ["last".into()]).await;
    assert_eq!(detour.connections(), 1);
}

/// Each of them gives up before it is there.
#[tokio::test]
async fn a_connection_that_takes_long_is_made() {
    let own = Own::start(&[]);
    let detour = Detour::to(own.port).await;
    let topic = unique("long");
    let broker = connect(&detour.pub_sub(), "a").await;
    detour.slow(200);
    own.tell("CLIENT KILL TYPE normal").await;
    let begun = Instant::now();
    all_confirmed(&broker, &topic).await;
    assert!(begun.elapsed() > Duration::from_secs(2), "{:?}", begun.elapsed());
}
