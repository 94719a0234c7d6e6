//! A topic that somebody deletes and makes again is another topic: a group reads all of it, wherever it was in the former.

mod support;

use std::sync::Arc;
use std::time::{Duration, Instant};

use postrider_contract::{Broker, Event, Spec};
use rdkafka::ClientConfig;
use rdkafka::TopicPartitionList;
use rdkafka::admin::{AdminOptions, NewPartitions, NewTopic, TopicReplication};
use rdkafka::consumer::{BaseConsumer, CommitMode, Consumer};
use support::fence::Cluster;
use support::own::OwnBroker;
use support::{Listener, PATIENCE, admin, client, delete_topic, open, publish, spec, text, unique};

const FORMER: [&str; 3] = ["a", "b", "c"];
/// More than were in the former topic: the position there is one in this, too.
const LATTER: [&str; 8] = ["1", "2", "3", "4", "5", "6", "7", "8"];

fn settings(own: &OwnBroker) -> ClientConfig {
    let mut settings = ClientConfig::new();
    settings.set("bootstrap.servers", format!("127.0.0.1:{}", own.port()));
    settings
}

/// Deletes a topic of one partition and makes it again, with messages.
async fn renew(own: &OwnBroker, topic: &str) {
    let admin = admin(&own.url_with(""));
    delete_topic(&admin, topic).await;
    let new = NewTopic::new(topic, 1, TopicReplication::Fixed(1));
    let deadline = Instant::now() + PATIENCE;
    loop {
        let made = admin.create_topics([&new], &AdminOptions::new()).await;
        match made.unwrap().remove(0) {
            Ok(_) => break,
            Err((_, code)) => assert!(Instant::now() < deadline, "{code}"),
        }
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    let beside = postrider_kafka::connect(&own.url_with(""), client("beside"))
        .await
        .unwrap();
    publish(&beside, topic, &LATTER).await;
    beside.close(PATIENCE).await.unwrap();
}

async fn read(listener: &mut Listener, expected: &[&str]) {
    let got = listener.drain(expected.len(), PATIENCE).await;
    let got: Vec<String> = got.iter().map(text).collect();
    assert_eq!(got, expected);
}

/// Waits until everything is committed.
async fn committed(broker: &Arc<dyn Broker>, spec: &Spec) {
    let deadline = Instant::now() + PATIENCE;
    loop {
        let status = broker.status(std::slice::from_ref(spec)).await.unwrap().remove(0);
        if (status.waiting, status.unsettled) == (Some(0), Some(0)) {
            return;
        }
        assert!(Instant::now() < deadline, "{status:?}");
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_running_group_reads_a_new_topic_from_its_beginning() {
    let own = OwnBroker::start();
    let (fence, url) = own.fenced("&partitions=1&session_timeout=60s").await;
    let broker = postrider_kafka::connect(&url, client("renewed")).await.unwrap();
    let topic = unique("renewed");
    let spec = spec(&topic, "g");
    let mut listener = open(&broker, spec.clone()).await;
    publish(&broker, &topic, &FORMER).await;
    read(&mut listener, &FORMER).await;
    committed(&broker, &spec).await;
    // It does not see it happen.
    fence.set(Cluster::Away);
    listener.event(|event| matches!(event, Event::Degraded(_))).await;
    renew(&own, &topic).await;
    fence.set(Cluster::Whole);
    read(&mut listener, &LATTER).await;
    committed(&broker, &spec).await;
    assert!(listener.some(9, Duration::from_secs(1)).await.is_empty());
    broker.close(PATIENCE).await.unwrap();
}

/// In a cluster whose brokers are of several versions some tell no ids: that is no other topic.
#[tokio::test(flavor = "multi_thread")]
async fn a_topic_without_an_id_is_not_a_new_one() {
    let own = OwnBroker::start();
    let (fence, url) = own.fenced("&partitions=1&session_timeout=60s").await;
    let broker = postrider_kafka::connect(&url, client("mixed")).await.unwrap();
    let topic = unique("mixed");
    let spec = spec(&topic, "g");
    let mut listener = open(&broker, spec.clone()).await;
    publish(&broker, &topic, &FORMER).await;
    read(&mut listener, &FORMER).await;
    for (cluster, payload) in [(Cluster::WithoutIds, "d"), (Cluster::Whole, "e")] {
        committed(&broker, &spec).await;
        fence.set(Cluster::Away);
        listener.event(|event| matches!(event, Event::Degraded(_))).await;
        fence.set(cluster);
        listener.ready().await;
        publish(&broker, &topic, &[payload]).await;
        read(&mut listener, &[payload]).await;
        assert!(listener.some(9, Duration::from_secs(2)).await.is_empty());
    }
    broker.close(PATIENCE).await.unwrap();
}

/// A member that does not know yet that its topic is gone commits its position, and leaves or dies.
#[tokio::test(flavor = "multi_thread")]
async fn a_position_on_the_former_topic_is_none_on_the_new() {
    let own = OwnBroker::start();
    let url = own.url_with("&partitions=1");
    let broker = postrider_kafka::connect(&url, client("former")).await.unwrap();
    let topic = unique("renewed");
    let spec = spec(&topic, "g");
    let mut listener = open(&broker, spec.clone()).await;
    publish(&broker, &topic, &FORMER).await;
    read(&mut listener, &FORMER).await;
    broker.close(PATIENCE).await.unwrap();

    let late: BaseConsumer = settings(&own)
        .set("group.id", format!("{topic}.g"))
        .create()
        .unwrap();
    let mut position = TopicPartitionList::new();
    position.add_partition(&topic, 0);
    let position = late.committed_offsets(position, PATIENCE).unwrap();
    renew(&own, &topic).await;
    late.commit(&position, CommitMode::Sync).unwrap();
    drop(late);

    let broker = postrider_kafka::connect(&url, client("latter")).await.unwrap();
    let mut listener = open(&broker, spec.clone()).await;
    read(&mut listener, &LATTER).await;
    committed(&broker, &spec).await;
    broker.close(PATIENCE).await.unwrap();
}

/// Somebody else makes it again with fewer partitions: retries that go with one of the others would wait for ever.
#[tokio::test(flavor = "multi_thread")]
async fn retries_that_go_with_no_partition_are_told() {
    let own = OwnBroker::start();
    let (fence, url) = own.fenced("&partitions=2").await;
    let broker = postrider_kafka::connect(&url, client("stranded")).await.unwrap();
    let topic = unique("stranded");
    let spec = spec(&topic, "g");
    let mut listener = open(&broker, spec.clone()).await;
    publish(&broker, &topic, &["a"]).await;
    read(&mut listener, &["a"]).await;
    committed(&broker, &spec).await;
    fence.set(Cluster::Away);
    listener.event(|event| matches!(event, Event::Degraded(_))).await;
    renew(&own, &topic).await;
    fence.set(Cluster::Whole);
    let is_told =
        |event: &Event| matches!(event, Event::Degraded(error) if error.to_string().contains(".retry"));
    println!("{:?}", listener.event(is_told).await);
    read(&mut listener, &LATTER).await;
    let mut none = Vec::new();
    let next = tokio::time::timeout(PATIENCE / 2, listener.receiver.next(0, &mut none)).await;
    assert!(next.is_err(), "they still wait: {next:?}");

    let more = NewPartitions::new(&topic, 2);
    let admin = admin(&own.url_with(""));
    let made = admin.create_partitions([&more], &AdminOptions::new()).await;
    made.unwrap().remove(0).unwrap();
    listener.ready().await;
    broker.close(PATIENCE).await.unwrap();
}
