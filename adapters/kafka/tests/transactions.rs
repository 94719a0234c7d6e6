//! Topics that other programs write in transactions: what ends one takes an offset and is no message.

mod support;

use postrider_contract::{BrokerUrl, Event};
use rdkafka::admin::AdminOptions;
use rdkafka::producer::{BaseProducer, BaseRecord, Producer};
use rdkafka::topic_partition_list::Offset;
use rdkafka::{ClientConfig, TopicPartitionList};
use support::{
    PATIENCE, admin, connect, connect_with, nothing_waits, open, publish, spec, text, unique, url_with,
};

/// Another program's.
fn producer(url: &BrokerUrl, name: &str) -> BaseProducer {
    let (host, port) = &url.hosts[0];
    let producer: BaseProducer = ClientConfig::new()
        .set("bootstrap.servers", format!("{host}:{}", port.unwrap()))
        .set("transactional.id", name)
        .create()
        .unwrap();
    producer.init_transactions(PATIENCE).unwrap();
    producer
}

fn send(producer: &BaseProducer, topic: &str, payload: &str) {
    producer.begin_transaction().unwrap();
    let record = BaseRecord::<(), str>::to(topic).payload(payload);
    producer.send(record).unwrap();
    producer.flush(PATIENCE).unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn what_ends_a_transaction_does_not_wait_and_is_not_lost() {
    let (topic, broker) = (unique("transactions"), connect_with("&partitions=1").await);
    let spec = spec(&topic, "g");
    let mut listener = open(&broker, spec.clone()).await;
    let producer = producer(&url_with(""), &topic);
    send(&producer, &topic, "1");
    producer.commit_transaction(PATIENCE).unwrap();
    assert_eq!(text(&listener.drain(1, PATIENCE).await[0]), "1");
    nothing_waits(&broker, &spec, PATIENCE / 2).await;
    send(&producer, &topic, "never");
    producer.abort_transaction(PATIENCE).unwrap();
    nothing_waits(&broker, &spec, PATIENCE / 2).await;
    // What is unsettled keeps the position before it.
    send(&producer, &topic, "2");
    producer.commit_transaction(PATIENCE).unwrap();
    let held = listener.one().await;
    tokio::time::sleep(PATIENCE / 10).await;
    broker.close(PATIENCE).await.unwrap();
    drop(held);

    let broker = connect().await;
    let mut listener = open(&broker, spec.clone()).await;
    assert_eq!(text(&listener.drain(1, PATIENCE).await[0]), "2");
    tokio::time::sleep(PATIENCE / 10).await;
    broker.close(PATIENCE).await.unwrap();

    // Nothing is left of it when the group comes back.
    let mut all = TopicPartitionList::new();
    all.add_partition_offset(&topic, 0, Offset::End).unwrap();
    let deleted = admin(&url_with(""))
        .delete_records(&all, &AdminOptions::new())
        .await;
    println!("{deleted:?}");
    let broker = connect().await;
    let mut listener = open(&broker, spec).await;
    publish(&broker, &topic, &["3"]).await;
    let mut got = Vec::new();
    while got.is_empty() {
        let event = listener.receiver.next(1, &mut got).await.unwrap();
        assert!(!matches!(event, Event::Gap { .. }), "{event:?}");
    }
    assert_eq!(text(&got[0]), "3");
    broker.close(PATIENCE).await.unwrap();
}

/// The group was away, what it had not read is deleted, and of what is left the first is no message.
#[tokio::test(flavor = "multi_thread")]
async fn what_is_gone_before_the_end_of_a_transaction_is_told() {
    let (topic, broker) = (unique("transactions"), connect_with("&partitions=1").await);
    let spec = spec(&topic, "g");
    let mut listener = open(&broker, spec.clone()).await;
    publish(&broker, &topic, &["1"]).await;
    assert_eq!(text(&listener.drain(1, PATIENCE).await[0]), "1");
    broker.close(PATIENCE).await.unwrap();
    let producer = producer(&url_with(""), &topic);
    send(&producer, &topic, "gone");
    producer.commit_transaction(PATIENCE).unwrap();
    let mut first = TopicPartitionList::new();
    first.add_partition_offset(&topic, 0, Offset::Offset(2)).unwrap();
    let deleted = admin(&url_with(""))
        .delete_records(&first, &AdminOptions::new())
        .await;
    println!("{deleted:?}");

    let broker = connect().await;
    let mut listener = open(&broker, spec).await;
    let told = async {
        loop {
            let event = listener.receiver.next(1, &mut Vec::new()).await.unwrap();
            if let Event::Gap { lost } = event {
                return lost;
            }
        }
    };
    let lost = tokio::time::timeout(PATIENCE, told).await.expect("it is told");
    // The end of the transaction is counted, too.
    assert_eq!(lost, Some(2));
    broker.close(PATIENCE).await.unwrap();
}
