//! Partitions that stand still while others go on: the listener is degraded for as long as they do.

mod support;

use std::os::unix::fs::FileExt as _;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use postrider_contract::{Broker, Event, Outgoing, Topology};
use support::own::OwnBroker;
use support::{Listener, PATIENCE, admin, client, connect_with, message, open, publish, spec, unique};

async fn connect(broker: &OwnBroker, options: &str) -> Arc<dyn Broker> {
    postrider_kafka::connect(&broker.url_with(options), client("standstill"))
        .await
        .unwrap()
}

/// The log of the first partition.
fn log_of(own: &OwnBroker, topic: &str) -> PathBuf {
    own.directory()
        .join(format!("data/{topic}-0/00000000000000000000.log"))
}

fn write(log: &Path, at: u64, bytes: &[u8]) {
    let log = std::fs::OpenOptions::new().write(true).open(log).unwrap();
    log.write_all_at(bytes, at).unwrap();
}

/// That no event comes for so long; deliveries wait meanwhile.
async fn stays_as_it_is(listener: &mut Listener, time: Duration) {
    let mut none = Vec::new();
    let next = listener.receiver.next(0, &mut none);
    let told = tokio::time::timeout(time, next).await;
    assert!(told.is_err(), "it still stands still: {told:?}");
}

/// It brings so many, and says that it is ready again, perhaps before the last of them.
async fn flows_again(listener: &mut Listener, count: usize) {
    let (mut came, mut is_ready) = (0, false);
    while came < count || !is_ready {
        let mut some = Vec::new();
        let next = tokio::time::timeout(PATIENCE, listener.receiver.next(100, &mut some)).await;
        match next.expect("it flows again").unwrap() {
            Event::Ready => is_ready = true,
            Event::Degraded(_) => is_ready = false,
            Event::Revoked { lanes, .. } => listener.settler.released(&lanes).await,
            _ => {}
        }
        for delivery in &some {
            listener.ack(delivery).await;
        }
        came += some.len();
    }
    assert_eq!(came, count);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_partition_that_cannot_be_read_is_told() {
    let own = OwnBroker::start();
    let topic = unique("corrupt");
    let broker = connect(&own, "&partitions=2&compression=gzip&prefetch=1024").await;
    let spec = spec(&topic, "g");
    broker
        .plan(std::slice::from_ref(&spec), Topology::Declare)
        .await
        .unwrap();
    let keyed = |n: u32| message(&n.to_string()).with_key(n.to_string());
    let batch = (0..100).map(|n| Outgoing::to_topic(topic.as_str(), keyed(n)));
    for answer in broker.publish(batch.collect()).await {
        answer.unwrap();
    }
    let log = log_of(&own, &topic);
    let whole = std::fs::read(&log).unwrap();
    // What follows the header of a batch is compressed.
    write(&log, 61, &vec![0xff; whole.len() - 61]);

    let mut listener = open(&broker, spec.clone()).await;
    let told = listener.event(|event| matches!(event, Event::Degraded(_))).await;
    println!("{told:?}");
    // Nothing is taken, and therefore nothing fetched.
    stays_as_it_is(&mut listener, PATIENCE / 2).await;
    let readable = listener.drain(100, PATIENCE / 10).await.len();
    assert!((1..100).contains(&readable), "{readable}");
    stays_as_it_is(&mut listener, PATIENCE / 5).await;
    let status = broker.status(&[spec]).await.unwrap().remove(0);
    assert_eq!(status.waiting, Some(100 - readable as u64), "{status:?}");

    write(&log, 61, &whole[61..]);
    flows_again(&mut listener, 100 - readable).await;
    broker.close(PATIENCE).await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_partition_that_nobody_leads_is_told() {
    let own = OwnBroker::start();
    let broker = connect(&own, "&partitions=2&publish_timeout=5s").await;
    // The groups' positions are all on the first broker then.
    open(&broker, spec(&unique("before"), "g")).await;
    let second = own.second();
    let admin = admin(&own.url_with(""));
    let brokers = || {
        admin
            .inner()
            .fetch_metadata(None, PATIENCE)
            .unwrap()
            .brokers()
            .len()
    };
    while brokers() < 2 {
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    let topic = unique("led");
    let mut listener = open(&broker, spec(&topic, "g")).await;
    let publish = async |broker: &Arc<dyn Broker>, from: u32| {
        let keyed = |n: u32| message(&n.to_string()).with_key(n.to_string());
        let batch = (from..from + 20).map(|n| Outgoing::to_topic(topic.as_str(), keyed(n)));
        let answers = broker.publish(batch.collect()).await;
        answers.iter().filter(|answer| answer.is_ok()).count()
    };
    assert_eq!(publish(&broker, 0).await, 20);
    assert_eq!(listener.drain(20, PATIENCE).await.len(), 20);

    let another = spec(&topic, "another");
    broker
        .plan(std::slice::from_ref(&another), Topology::Declare)
        .await
        .unwrap();
    second.verb("kill");
    let told = listener.event(|event| matches!(event, Event::Degraded(_))).await;
    println!("{told:?}");
    stays_as_it_is(&mut listener, PATIENCE / 5).await;
    let arrived = publish(&broker, 20).await;
    assert!((1..20).contains(&arrived), "{arrived}");
    assert_eq!(listener.drain(arrived, PATIENCE).await.len(), arrived);

    // A process that begins meanwhile does what those do that had begun before.
    let other = connect(&own, "&partitions=2&publish_timeout=5s").await;
    let as_well = publish(&other, 40).await;
    assert!((1..20).contains(&as_well), "{as_well}");
    assert_eq!(listener.drain(as_well, PATIENCE).await.len(), as_well);
    let mut another = open(&other, another).await;
    let all = arrived + as_well;
    assert_eq!(another.drain(all, PATIENCE).await.len(), all);
    other.close(PATIENCE).await.unwrap();

    second.verb("start");
    listener.ready().await;
    assert_eq!(publish(&broker, 60).await, 20);
    assert!(listener.drain(20, PATIENCE).await.len() >= 20);
    broker.close(PATIENCE).await.unwrap();
}

/// What is done behind it is remembered until it is settled, and only so much of that.
#[tokio::test(flavor = "multi_thread")]
async fn a_partition_that_waits_for_one_message_is_told() {
    let (topic, broker) = (unique("held"), connect_with("&partitions=1").await);
    let mut listener = open(&broker, spec(&topic, "g")).await;
    // More than are read ahead: their partition is paused all along, which has nothing to do with the other.
    let due = SystemTime::now() + PATIENCE * 10;
    let retry = || Outgoing::to_inbox(topic.as_str(), "g", message("later")).not_before(due);
    for answer in broker.publish((0..2100).map(|_| retry()).collect()).await {
        answer.unwrap();
    }
    publish(&broker, &topic, &vec!["x"; 20_000]).await;
    let held = listener.one().await;
    let before = listener.drain(19_999, PATIENCE / 10).await.len();
    println!("{before} before it stands still");
    assert!((16_000..19_999).contains(&before), "{before}");
    let told = listener.event(|event| matches!(event, Event::Degraded(_))).await;
    println!("{told:?}");
    stays_as_it_is(&mut listener, PATIENCE / 4).await;

    listener.ack(&held).await;
    flows_again(&mut listener, 19_999 - before).await;
    broker.close(PATIENCE).await.unwrap();
}
