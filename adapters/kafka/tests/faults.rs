//! What goes wrong with a broker, on one of the test's own.

mod support;

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::{Duration, Instant};

use postrider_contract::{Broker, ErrorKind, Event, Outgoing, Settled, Spec, Topology, Verdict, names};
use rdkafka::admin::{AdminOptions, NewPartitions};
use support::fence::{Cluster, Fence};
use support::own::OwnBroker;
use support::{
    PATIENCE, admin, client, delete_topic, message, nothing_waits, open, publish, retry_of, spec, text,
    unique, with_options,
};
use tokio::sync::Semaphore;

/// So many brokers at a time: five starting and freezing side by side starve each other on a small machine.
static TURNS: Semaphore = Semaphore::const_new(2);

async fn connect(broker: &OwnBroker, options: &str) -> Arc<dyn Broker> {
    postrider_kafka::connect(&broker.url_with(options), client("faults"))
        .await
        .unwrap()
}

/// Publishes until it is taken: the producer finds back after the consumer.
async fn publish_again(broker: &Arc<dyn Broker>, topic: &str, payload: &str) {
    let deadline = Instant::now() + PATIENCE;
    let outgoing = || vec![Outgoing::to_topic(topic, message(payload))];
    while let Err(error) = broker.publish(outgoing()).await.remove(0) {
        assert!(error.is_retryable() && Instant::now() < deadline, "{error}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_dead_broker_is_told_and_survived() {
    let _turn = TURNS.acquire().await;
    let own = OwnBroker::start();
    let topic = unique("down");
    let broker = connect(&own, "&publish_timeout=3s").await;
    let mut listener = open(&broker, spec(&topic, "g")).await;
    publish(&broker, &topic, &["1", "2"]).await;
    let held = listener.one().await;
    own.verb("kill");
    listener.event(|event| matches!(event, Event::Degraded(_))).await;

    let begun = Instant::now();
    let error = broker
        .publish(vec![Outgoing::to_topic(topic.as_str(), message("x"))])
        .await
        .remove(0)
        .unwrap_err();
    println!("{error:?} after {:?}", begun.elapsed());
    assert_eq!(error.kind(), ErrorKind::Unavailable, "it was never sent");
    assert!(begun.elapsed() < Duration::from_secs(10));

    // A copy that cannot be confirmed keeps the original.
    let emit = vec![retry_of(&held, "g", 2, Duration::ZERO)];
    let settled = listener.settle(held.token, Verdict::Ack { emit }).await;
    assert!(!matches!(settled, Settled::Done), "{settled:?}");

    own.up();
    listener.event(|event| matches!(event, Event::Ready)).await;
    publish_again(&broker, &topic, "3").await;
    // What was held is still ours, or comes again.
    let again = listener.settle(held.token, Verdict::ACK).await;
    let mut got = BTreeSet::new();
    got.extend(matches!(again, Settled::Done).then(|| text(&held)));
    while got.len() < 3 {
        let some = listener.drain(1, PATIENCE).await;
        assert!(!some.is_empty(), "nothing more than {got:?}");
        got.extend(some.iter().map(text));
    }
    assert!(got.iter().eq(["1", "2", "3"]), "{got:?}");
    broker.close(PATIENCE).await.unwrap();
}

/// Publishes to all of these at once, which are refused as never sent. Answers when the last of them was.
async fn refused_at_once(
    broker: &Arc<dyn Broker>,
    kind: ErrorKind,
    topics: impl Iterator<Item = String>,
) -> Duration {
    let begun = Instant::now();
    let mut publishes = tokio::task::JoinSet::new();
    for topic in topics {
        let broker = broker.clone();
        publishes.spawn(async move {
            let outgoing = Outgoing::to_topic(topic.as_str(), message("x"));
            broker.publish(vec![outgoing]).await.remove(0).unwrap_err()
        });
    }
    while let Some(error) = publishes.join_next().await {
        let error = error.unwrap();
        assert_eq!(error.kind(), kind, "it was never sent: {error}");
    }
    begun.elapsed()
}

/// They wait for one that looks for a broker, or for a topic, and no longer than each may.
#[tokio::test(flavor = "multi_thread")]
async fn publishes_at_once_are_answered_in_time() {
    let _turn = TURNS.acquire().await;
    let own = OwnBroker::start();
    let topic = unique("together");
    let broker = connect(&own, "&publish_timeout=3s").await;
    publish(&broker, &topic, &["1"]).await;
    own.verb("pause");
    // It takes ten seconds and more to find out that nobody answers for a topic.
    let took = refused_at_once(&broker, ErrorKind::Unavailable, (0..5).map(|_| unique("new"))).await;
    println!("frozen: {took:?}");
    assert!(took < Duration::from_secs(30), "{took:?}");
    own.verb("kill");
    let error = loop {
        let outgoing = Outgoing::to_topic(topic.as_str(), message("x"));
        let error = broker.publish(vec![outgoing]).await.remove(0).unwrap_err();
        if error.kind() == ErrorKind::Unavailable {
            break error;
        }
    };
    println!("{error:?}");
    let took = refused_at_once(&broker, ErrorKind::Unavailable, (0..50).map(|_| topic.clone())).await;
    println!("killed: {took:?}");
    assert!(took < Duration::from_secs(10), "{took:?}");
    broker.close(PATIENCE).await.unwrap();
}

/// The depths of many partitions are asked for together, as is where a group begins: one after the other took 10 s.
#[tokio::test(flavor = "multi_thread")]
async fn a_slow_broker_tells_of_many_partitions_in_time() {
    let _turn = TURNS.acquire().await;
    let own = OwnBroker::start();
    let (fence, url) = own.fenced("&partitions=150").await;
    let broker = postrider_kafka::connect(&url, client("faults")).await.unwrap();
    let all = [spec(&unique("slow"), "g")];
    broker.plan(&all, Topology::Declare).await.unwrap();
    publish(&broker, all[0].topic(), &["x"; 10]).await;
    fence.set(Cluster::Slow);
    let begun = Instant::now();
    let status = broker.status(&all).await.unwrap().remove(0);
    println!("{status:?} after {:?}", begun.elapsed());
    assert_eq!((status.waiting, status.dead), (Some(10), Some(0)));
    assert!(begun.elapsed() < Duration::from_secs(5), "{:?}", begun.elapsed());
    let begun = Instant::now();
    broker.plan(&all, Topology::Declare).await.unwrap();
    println!("planned after {:?}", begun.elapsed());
    assert!(begun.elapsed() < Duration::from_secs(5), "{:?}", begun.elapsed());
    broker.close(PATIENCE).await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_frozen_broker_leaves_publishes_unconfirmed() {
    let _turn = TURNS.acquire().await;
    let own = OwnBroker::start();
    let topic = unique("frozen");
    let broker = connect(&own, "&publish_timeout=3s").await;
    let mut listener = open(&broker, spec(&topic, "g")).await;
    publish(&broker, &topic, &["1"]).await;
    assert_eq!(listener.drain(1, PATIENCE).await.len(), 1);
    own.verb("pause");
    let begun = Instant::now();
    let error = broker
        .publish(vec![Outgoing::to_topic(topic.as_str(), message("2"))])
        .await
        .remove(0)
        .unwrap_err();
    println!("{error:?} after {:?}", begun.elapsed());
    assert_eq!(error.kind(), ErrorKind::Unconfirmed);
    // Past the session timeout.
    tokio::time::sleep(Duration::from_secs(8)).await;
    own.verb("resume");
    // A broker that slept for so long is not led by anybody for a while.
    let deadline = Instant::now() + PATIENCE;
    while let Err(error) = broker
        .publish(vec![Outgoing::to_topic(topic.as_str(), message("3"))])
        .await
        .remove(0)
    {
        assert!(error.is_retryable() && Instant::now() < deadline, "{error}");
    }
    // "1" comes again if its acknowledgement was frozen too, "2" if it had arrived.
    loop {
        let delivery = listener.one().await;
        listener.ack(&delivery).await;
        println!("{}", text(&delivery));
        if text(&delivery) == "3" {
            break;
        }
    }
    broker.close(PATIENCE).await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_deleted_topic_makes_stale_and_is_made_again() {
    let _turn = TURNS.acquire().await;
    let own = OwnBroker::start();
    let topic = unique("deleted");
    let broker = connect(&own, "&partitions=1").await;
    let mut listener = open(&broker, spec(&topic, "g")).await;
    publish(&broker, &topic, &["1"]).await;
    let held = listener.one().await;
    let admin = admin(&own.url_with(""));
    delete_topic(&admin, &topic).await;
    let begun = Instant::now();
    listener.misses_its_topic().await;
    println!("degraded after {:?}", begun.elapsed());
    listener.event(|event| matches!(event, Event::Ready)).await;
    println!("ready after {:?}", begun.elapsed());
    let settled = listener.settle(held.token, Verdict::ACK).await;
    assert!(matches!(settled, Settled::Stale), "{settled:?}");
    publish(&broker, &topic, &["2"]).await;
    let got: Vec<String> = listener.drain(1, PATIENCE).await.iter().map(text).collect();
    println!("delivered after {:?}", begun.elapsed());
    assert_eq!(got, ["2"]);
    broker.close(PATIENCE).await.unwrap();
}

/// Where topics are somebody else's to make, a retry topic that is deleted stays so: the listener is degraded, and goes on.
#[tokio::test(flavor = "multi_thread")]
async fn what_is_settled_is_committed_though_the_retry_topic_is_gone() {
    let _turn = TURNS.acquire().await;
    let own = OwnBroker::start();
    let topic = unique("half");
    let broker = connect(&own, "").await;
    let spec = spec(&topic, "g");
    let mut listener = open(&broker, spec.clone()).await;
    broker
        .plan(std::slice::from_ref(&spec), Topology::Verify)
        .await
        .unwrap();
    let admin = admin(&own.url_with(""));
    let retries = format!("{topic}.g.retry");
    delete_topic(&admin, &retries).await;
    listener.misses_its_topic().await;
    publish(&broker, &topic, &["1"]).await;
    assert_eq!(listener.drain(1, PATIENCE).await.len(), 1);
    nothing_waits(&broker, &spec, PATIENCE).await;
    broker.close(PATIENCE).await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn publishing_goes_on_after_its_topic_was_deleted() {
    let _turn = TURNS.acquire().await;
    let own = OwnBroker::start();
    let topics: Vec<String> = (0..20).map(|_| unique("republished")).collect();
    let broker = connect(&own, "&publish_timeout=20s").await;
    for topic in &topics {
        publish(&broker, topic, &["1"]).await;
    }
    let admin = admin(&own.url_with(""));
    let names: Vec<&str> = topics.iter().map(String::as_str).collect();
    for deleted in admin.delete_topics(&names, &AdminOptions::new()).await.unwrap() {
        deleted.unwrap();
    }
    let begun = Instant::now();
    let batch = topics.iter().flat_map(|topic| {
        let to = || Outgoing::to_topic(topic.as_str(), message("2"));
        [to(), to(), to()]
    });
    for answer in broker.publish(batch.collect()).await {
        answer.unwrap();
    }
    println!("published after {:?}", begun.elapsed());
    broker.close(PATIENCE).await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn what_differs_is_told() {
    let _turn = TURNS.acquire().await;
    let own = OwnBroker::start();
    let topic = unique("differs");
    let broker = connect(&own, "").await;
    let spec = spec(&topic, "g");
    // Made by somebody else, with Kafka's defaults.
    let admin = admin(&own.url_with(""));
    let dead = names::dead_letter_topic(&topic, "g");
    let new = rdkafka::admin::NewTopic::new(&dead, 1, rdkafka::admin::TopicReplication::Fixed(1));
    admin.create_topics([&new], &AdminOptions::new()).await.unwrap();
    let problems = broker
        .plan(std::slice::from_ref(&spec), Topology::Declare)
        .await
        .unwrap_err();
    let text = problems
        .iter()
        .map(ToString::to_string)
        .collect::<Vec<_>>()
        .join("\n");
    println!("{text}");
    assert!(
        text.contains("retention.ms=604800000") && text.contains("max.message.bytes=1048588"),
        "{text}"
    );
    broker.close(PATIENCE).await.unwrap();
}

/// Whether the broker refuses the password, or the connection breaks before it has seen one: librdkafka has one code for both.
#[tokio::test(flavor = "multi_thread")]
async fn a_connection_that_breaks_before_the_password_is_no_refusal() {
    let _turn = TURNS.acquire().await;
    let own = OwnBroker::with_password("pencil");
    let fence = own.fence().await;
    let connect = async |password: &str| {
        let url = format!("kafka://user:{password}@127.0.0.1:{}", own.proxy_port());
        let url = with_options(&url, "&publish_timeout=3s");
        postrider_kafka::connect(&url, client("faults")).await
    };
    let refused = connect("crayon").await.err().unwrap();
    assert_eq!(refused.kind(), ErrorKind::Denied, "{refused}");
    let broker = connect("pencil").await.unwrap();
    let topic = unique("password");
    let mut listener = open(&broker, spec(&topic, "g")).await;
    publish(&broker, &topic, &["1"]).await;
    assert_eq!(listener.drain(1, PATIENCE).await.len(), 1);

    fence.set(Cluster::Away);
    tokio::time::sleep(Duration::from_millis(100)).await;
    fence.set(Cluster::Brief);
    listener.event(|event| matches!(event, Event::Degraded(_))).await;
    let begun = Instant::now();
    while begun.elapsed() < PATIENCE / 4 {
        assert!(listener.some(1, PATIENCE / 30).await.is_empty());
        let outgoing = Outgoing::to_topic(topic.as_str(), message("2"));
        let error = broker.publish(vec![outgoing]).await.remove(0).unwrap_err();
        assert!(error.is_retryable(), "{error}");
    }
    let away = connect("pencil").await.err().unwrap();
    assert_eq!(away.kind(), ErrorKind::Unavailable, "{away}");

    fence.set(Cluster::Whole);
    listener.event(|event| matches!(event, Event::Ready)).await;
    publish_again(&broker, &topic, "3").await;
    while text(&listener.one().await) != "3" {}
    broker.close(PATIENCE).await.unwrap();
}

/// Whoever waits for one that looks for a broker is refused with it.
#[tokio::test(flavor = "multi_thread")]
async fn publishes_at_once_are_told_of_a_refusal() {
    let _turn = TURNS.acquire().await;
    let own = OwnBroker::with_password("pencil");
    let fence = own.fence().await;
    let port = own.proxy_port();
    let url = with_options(
        &format!("kafka://user:pencil@127.0.0.1:{port}"),
        "&publish_timeout=3s",
    );
    let broker = postrider_kafka::connect(&url, client("faults")).await.unwrap();
    let topic = unique("changed");
    publish(&broker, &topic, &["1"]).await;
    // It is out of reach for as long as another one takes to start.
    drop(fence);
    let other = OwnBroker::with_password("crayon");
    let _fence = Fence::start(port, other.behind_port()).await;
    let took = refused_at_once(&broker, ErrorKind::Denied, (0..50).map(|_| topic.clone())).await;
    println!("{took:?}");
    broker.close(PATIENCE).await.unwrap();
}

/// librdkafka asks for ever to be taken into a group that refuses it.
#[tokio::test(flavor = "multi_thread")]
async fn a_group_that_takes_nobody_in_is_told() {
    let _turn = TURNS.acquire().await;
    let own = OwnBroker::start();
    let topic = unique("refused");
    // Shorter than the broker allows.
    let broker = connect(&own, "&session_timeout=500ms").await;
    let specs = vec![spec(&topic, "g")];
    broker.plan(&specs, Topology::Declare).await.unwrap();
    let mut subscription = broker.open(specs).await.unwrap().remove(0);
    let mut none = Vec::new();
    let next = subscription.receiver.next(1, &mut none);
    let told = tokio::time::timeout(PATIENCE, next).await.unwrap();
    let error = told.unwrap_err().to_string();
    assert!(error.contains("session timeout"), "{error}");
    broker.close(PATIENCE).await.unwrap();
}

/// What is made again under a running group is as it was when the group began: its consumers go by that.
#[tokio::test(flavor = "multi_thread")]
async fn topics_are_made_again_as_they_were() {
    let _turn = TURNS.acquire().await;
    let own = OwnBroker::start();
    let (topic, failed) = (unique("grown"), unique("failed"));
    let broker = connect(&own, "&partitions=1&retry_partitions=6").await;
    let with_letters = Spec {
        dead_letter: Some(failed.as_str().into()),
        ..spec(&topic, "g")
    };
    let mut listener = open(&broker, with_letters.clone()).await;
    let mut of_letters = open(&broker, spec(&failed, "h")).await;
    let admin = admin(&own.url_with(""));
    let grown = admin
        .create_partitions([&NewPartitions::new(&topic, 6)], &AdminOptions::new())
        .await;
    grown.unwrap().remove(0).unwrap();
    let retries = format!("{topic}.g.retry");
    for (topic, listener) in [(&retries, &mut listener), (&failed, &mut of_letters)] {
        delete_topic(&admin, topic).await;
        listener.misses_its_topic().await;
        listener.event(|event| matches!(event, Event::Ready)).await;
    }
    // All of the retries come, wherever they lie.
    let copies = (0..10).map(|n| Outgoing::to_inbox(topic.as_str(), "g", message(&n.to_string())));
    for answer in broker.publish(copies.collect()).await {
        answer.unwrap();
    }
    assert_eq!(listener.drain(10, PATIENCE).await.len(), 10);
    // Dead letters are kept, whatever their topic's name.
    broker.plan(&[with_letters], Topology::Verify).await.unwrap();
    broker.close(PATIENCE).await.unwrap();
}
