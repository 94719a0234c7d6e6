//! The everyday path against a real broker.

mod support;

use std::collections::BTreeSet;
use std::time::{Duration, Instant, SystemTime};

use postrider_contract::{
    Address, Bytes, Error, ErrorKind, Event, Message, Origin, Outgoing, Settled, Sharing, Start, Topology,
    Value, Verdict, names,
};
use rdkafka::admin::{AdminOptions, NewTopic, TopicReplication};
use rdkafka::producer::{BaseProducer, BaseRecord, Producer};
use rdkafka::topic_partition_list::Offset;
use rdkafka::{ClientConfig, TopicPartitionList};
use support::{
    Log, PATIENCE, admin, connect, connect_with, dead_of, message, open, publish, retry_of, spec, text,
    unique, url_with,
};

const QUIET: Duration = Duration::from_secs(2);

#[tokio::test]
async fn everything_published_after_plan_arrives() {
    let (topic, broker) = (unique("after-plan"), connect().await);
    publish(&broker, &topic, &["before"]).await;
    let spec = spec(&topic, "g");
    broker
        .plan(std::slice::from_ref(&spec), Topology::Declare)
        .await
        .unwrap();
    publish(&broker, &topic, &["one", "two"]).await;
    let mut listener = open(&broker, spec).await;
    publish(&broker, &topic, &["three"]).await;
    let mut got: Vec<String> = listener.drain(3, PATIENCE).await.iter().map(text).collect();
    got.sort();
    assert_eq!(got, ["one", "three", "two"]);
    assert!(listener.some(1, Duration::from_millis(300)).await.is_empty());
    broker.close(PATIENCE).await.unwrap();
    assert!(matches!(
        listener.receiver.next(1, &mut Vec::new()).await,
        Ok(Event::Closed)
    ));
    broker.close(PATIENCE).await.unwrap();
}

/// With the newer protocol a member hears nothing of an assignment that is empty.
#[tokio::test(flavor = "multi_thread")]
async fn an_instance_without_partitions_is_ready_and_takes_over() {
    let topic = unique("spare");
    for protocol in ["classic", "consumer"] {
        let options = format!("&partitions=1&group_protocol={protocol}");
        let (first, second) = (connect_with(&options).await, connect_with(&options).await);
        let mut working = open(&first, spec(&topic, protocol)).await;
        let mut spare = open(&second, spec(&topic, protocol)).await;
        publish(&first, &topic, &["1"]).await;
        assert_eq!(text(&working.one().await), "1");
        assert!(spare.some(1, QUIET / 4).await.is_empty());
        first.close(PATIENCE).await.unwrap();
        assert_eq!(text(&spare.one().await), "1");
        second.close(PATIENCE).await.unwrap();
    }
}

#[tokio::test]
async fn history_for_who_asks() {
    let (topic, broker) = (unique("earliest"), connect().await);
    publish(&broker, &topic, &["old"]).await;
    let mut spec = spec(&topic, "g");
    spec.start = Start::Earliest;
    let mut listener = open(&broker, spec).await;
    assert_eq!(text(&listener.one().await), "old");
    broker.close(PATIENCE).await.unwrap();
}

#[tokio::test]
async fn messages_keep_what_they_have() {
    let (topic, broker) = (unique("intact"), connect().await);
    let mut listener = open(&broker, spec(&topic, "g")).await;
    let mut sent = message("body")
        .with_key("k1")
        .with_header(names::CONTENT_TYPE, "application/json");
    sent.headers.append("raw", Bytes::from_static(b"\xff\xfe"));
    sent.headers.append("twice", "a");
    sent.headers.append("twice", "b\r\nc");
    sent.headers.append("none", Value::Null);
    sent.headers.append("empty", "");
    sent.headers.set(names::TIMESTAMP, 1_700_000_000_000i64);
    let tombstone = Message {
        payload: None,
        ..sent.clone()
    };
    let empty = Message {
        payload: Some(Bytes::new()),
        key: Some(Bytes::new()),
        ..sent.clone()
    };
    let bare = Message {
        headers: postrider_contract::Headers::default(),
        key: None,
        ..sent.clone()
    };
    for message in [&sent, &tombstone, &empty, &bare] {
        let answers = broker
            .publish(vec![Outgoing::to_topic(topic.as_str(), message.clone())])
            .await;
        assert!(answers.iter().all(Result::is_ok));
        let got = listener.one().await;
        listener.ack(&got).await;
        assert_eq!(got.message.key, message.key);
        assert_eq!(got.message.payload, message.payload);
        assert_eq!(got.origin, Origin::Topic);
        assert_eq!(&*got.topic, topic);
        let values = |message: &Message| -> Vec<(String, Value)> {
            let mut values: Vec<_> = message
                .headers
                .iter()
                .map(|(n, v)| (n.to_owned(), v.clone()))
                .collect();
            values.sort_by(|a, b| a.0.cmp(&b.0));
            values
        };
        if message.headers.is_empty() {
            assert!(
                got.message
                    .headers
                    .get(names::TIMESTAMP)
                    .and_then(Value::as_i64)
                    .is_some()
            );
        } else {
            assert_eq!(values(&got.message), values(message));
        }
    }
    broker.close(PATIENCE).await.unwrap();
}

#[tokio::test]
async fn retry_is_delayed_private_and_counted() {
    let (topic, broker) = (unique("retry"), connect().await);
    let mut listener = open(&broker, spec(&topic, "g")).await;
    let other_broker = connect().await;
    let mut other = open(&other_broker, spec(&topic, "h")).await;
    publish(&broker, &topic, &["x"]).await;
    let first = listener.one().await;
    let mut delivery = first;
    for (attempt, delay) in [(2, 600), (3, 1500), (4, 0)] {
        let delay = Duration::from_millis(delay);
        let due = SystemTime::now() + delay;
        let emit = vec![retry_of(&delivery, "g", attempt, delay)];
        assert!(matches!(
            listener.settle(delivery.token, Verdict::Ack { emit }).await,
            Settled::Done
        ));
        delivery = listener.one().await;
        let late = SystemTime::now().duration_since(due).expect("early");
        println!("attempt {attempt}: {late:?} after it was due");
        // How late at most on an idle machine, the conformance suite asks.
        assert!(late < Duration::from_secs(2), "{late:?} late");
        assert_eq!(delivery.origin, Origin::ReturnPath { attempt, replays: 0 });
        assert_eq!(&*delivery.topic, topic);
        assert_eq!(text(&delivery), "x");
    }
    listener.ack(&delivery).await;
    assert_eq!(
        other.drain(10, QUIET).await.len(),
        1,
        "the other group sees the original alone"
    );
    broker.close(PATIENCE).await.unwrap();
    other_broker.close(PATIENCE).await.unwrap();
}

#[tokio::test]
async fn a_header_alone_proves_nothing() {
    let (topic, broker) = (unique("spoof"), connect().await);
    let mut listener = open(&broker, spec(&topic, "g")).await;
    let spoofed = message("x")
        .with_header(names::ATTEMPT, 99i64)
        .with_header("postrider-not-before", i64::MAX);
    broker
        .publish(vec![Outgoing::to_topic(topic.as_str(), spoofed)])
        .await
        .remove(0)
        .unwrap();
    let received = listener.one().await;
    assert_eq!(received.origin, Origin::Topic);
    // Nor does it on the return path: what is due is delivered.
    let copy = Outgoing::to_inbox(topic.as_str(), "g", received.message);
    let retried = listener
        .settle(received.token, Verdict::Ack { emit: vec![copy] })
        .await;
    assert!(matches!(retried, Settled::Done), "{retried:?}");
    assert!(matches!(listener.one().await.origin, Origin::ReturnPath { .. }));
    broker.close(PATIENCE).await.unwrap();
}

#[tokio::test]
async fn released_comes_again_before_the_rest() {
    let (topic, broker) = (unique("release"), connect_with("&partitions=1").await);
    let mut listener = open(&broker, spec(&topic, "g")).await;
    publish(&broker, &topic, &["1", "2", "3"]).await;
    let mut two = Vec::new();
    while two.len() < 2 {
        two.extend(listener.some(2 - two.len(), PATIENCE).await);
    }
    for delivery in &two {
        assert!(matches!(
            listener.settle(delivery.token, Verdict::Release).await,
            Settled::Done
        ));
    }
    let got = listener.drain(3, PATIENCE).await;
    assert_eq!(got.iter().map(text).collect::<Vec<_>>(), ["1", "2", "3"]);
    assert!(got.iter().all(|delivery| delivery.redeliveries == Some(0)));
    for delivery in &two {
        assert!(matches!(
            listener.settle(delivery.token, Verdict::ACK).await,
            Settled::Stale
        ));
    }
    broker.close(PATIENCE).await.unwrap();
}

#[tokio::test]
async fn unsettled_goes_to_the_next_instance() {
    let (topic, broker) = (unique("handover"), connect_with("&partitions=1").await);
    let mut listener = open(&broker, spec(&topic, "g")).await;
    publish(&broker, &topic, &["a", "b", "c", "d"]).await;
    let mut all = Vec::new();
    while all.len() < 4 {
        all.extend(listener.some(4, PATIENCE).await);
    }
    // b and d are done ahead of a and c.
    listener.ack(&all[1]).await;
    listener.ack(&all[3]).await;
    broker.close(PATIENCE).await.unwrap();
    assert!(matches!(
        listener.settle(all[0].token, Verdict::ACK).await,
        Settled::Stale
    ));

    let next = connect_with("&partitions=1").await;
    let mut listener = open(&next, spec(&topic, "g")).await;
    let mut got = listener.drain(2, PATIENCE).await;
    got.extend(listener.drain(2, QUIET).await);
    assert_eq!(got.iter().map(text).collect::<Vec<_>>(), ["a", "c"]);
    // Both were delivered before.
    assert!(got.iter().all(|delivery| delivery.redeliveries == Some(1)));
    next.close(PATIENCE).await.unwrap();

    let last = connect().await;
    let status = last.status(&[spec(&topic, "g")]).await.unwrap();
    assert_eq!(
        (status[0].waiting, status[0].retrying, status[0].dead),
        (Some(0), Some(0), Some(0))
    );
}

#[tokio::test]
async fn instances_share_and_hand_over() {
    let (topic, one, two) = (unique("share"), connect().await, connect().await);
    let mut first = open(&one, spec(&topic, "g")).await;
    let mut second = open(&two, spec(&topic, "g")).await;
    let keyed = |n: u32| Outgoing::to_topic(topic.as_str(), message(&n.to_string()).with_key(n.to_string()));
    let deadline = Instant::now() + PATIENCE;
    let (mut a, mut b, mut sent) = (BTreeSet::new(), BTreeSet::new(), 0);
    // The second may be given its share a little after it has joined.
    while a.is_empty() || b.is_empty() || a.union(&b).count() < sent as usize {
        assert!(Instant::now() < deadline, "{} and {} of {sent}", a.len(), b.len());
        if a.is_empty() || b.is_empty() {
            let answers = one.publish((sent..sent + 300).map(keyed).collect()).await;
            assert!(answers.iter().all(Result::is_ok));
            sent += 300;
        }
        let (more, too) = tokio::join!(first.drain(300, QUIET), second.drain(300, QUIET));
        a.extend(more.iter().map(text));
        b.extend(too.iter().map(text));
    }
    println!("{} and {} of {sent}", a.len(), b.len());
    one.close(PATIENCE).await.unwrap();
    publish(&two, &topic, &["after"; 9]).await;
    assert_eq!(second.drain(9, PATIENCE).await.len(), 9, "the rest is taken over");
    two.close(PATIENCE).await.unwrap();
}

#[tokio::test]
async fn everyone_gets_a_broadcast() {
    let (topic, one, two) = (unique("broadcast"), connect().await, connect().await);
    publish(&one, &topic, &["before"]).await;
    let mut spec = spec(&topic, "g");
    spec.sharing = Sharing::Broadcast;
    spec.dead_letter = None;
    spec.max_delay = None;
    let mut first = open(&one, spec.clone()).await;
    let mut second = open(&two, spec).await;
    publish(&one, &topic, &["x"]).await;
    for listener in [&mut first, &mut second] {
        let mut got = listener.drain(1, PATIENCE).await;
        got.extend(listener.drain(1, QUIET).await);
        assert_eq!(got.iter().map(text).collect::<Vec<_>>(), ["x"]);
    }
    one.close(PATIENCE).await.unwrap();
    two.close(PATIENCE).await.unwrap();
}

#[tokio::test]
async fn listeners_of_one_group_share_a_consumer() {
    let (a, b, broker) = (unique("many-a"), unique("many-b"), connect().await);
    let specs = vec![spec(&a, "g"), spec(&b, "g")];
    broker.plan(&specs, Topology::Declare).await.unwrap();
    let mut opened = broker.open(specs).await.unwrap().into_iter();
    let mut listener = |topic: &str| {
        let subscription = opened.next().unwrap();
        let (receiver, settler) = (subscription.receiver, subscription.settler);
        (topic.to_owned(), support::Listener { receiver, settler })
    };
    let mut listeners = [listener(&a), listener(&b)];
    publish(&broker, &a, &["for a"]).await;
    publish(&broker, &b, &["for b"]).await;
    for (topic, listener) in &mut listeners {
        let got = listener.drain(1, PATIENCE).await;
        assert_eq!(got.len(), 1);
        assert_eq!(&*got[0].topic, topic);
        assert!(listener.some(4, QUIET).await.is_empty());
    }
    broker.close(PATIENCE).await.unwrap();
}

#[tokio::test]
async fn dead_letters_are_seen_replayed_and_purged() {
    let (topic, broker) = (unique("dead"), connect().await);
    let mut listener = open(&broker, spec(&topic, "g")).await;
    publish(&broker, &topic, &["p", "q", "r"]).await;
    let mut all = Vec::new();
    while all.len() < 3 {
        all.extend(listener.some(3, PATIENCE).await);
    }
    all.sort_by_key(text);
    for delivery in &all {
        let emit = vec![dead_of(delivery, "g")];
        assert!(matches!(
            listener.settle(delivery.token, Verdict::Ack { emit }).await,
            Settled::Done
        ));
    }
    let dead_topic = names::dead_letter_topic(&topic, "g");
    let mut dead = broker.dead_letters(&dead_topic, &topic, "g");
    let letters = dead.browse(None, 10).await.unwrap();
    let payloads: Vec<_> = letters
        .iter()
        .map(|letter| letter.message.payload.clone().unwrap())
        .collect();
    assert_eq!(payloads, ["p", "q", "r"]);
    let page = dead.browse(Some(&letters[0].id), 1).await.unwrap();
    assert_eq!(page[0].id, letters[1].id);
    assert!(dead.browse(Some(&letters[2].id), 10).await.unwrap().is_empty());
    assert!(
        broker
            .dead_letters(&dead_topic, &topic, "other")
            .browse(None, 10)
            .await
            .unwrap()
            .is_empty()
    );

    // The one in the middle first: it stays in the topic and is not shown.
    for answer in dead.replay(&[letters[1].id.clone(), letters[1].id.clone()]).await {
        answer.unwrap();
    }
    dead.replay(&[letters[1].id.clone()]).await.remove(0).unwrap();
    let mut again = listener.drain(1, PATIENCE).await;
    again.extend(listener.drain(9, QUIET).await);
    assert_eq!(again.len(), 1, "replayed once");
    assert_eq!(
        (text(&again[0]), again[0].origin),
        (
            "q".to_owned(),
            Origin::ReturnPath {
                attempt: 1,
                replays: 1
            }
        )
    );
    assert!(
        again[0]
            .message
            .headers
            .iter()
            .all(|(name, _)| !name.starts_with(names::DEAD_PREFIX))
    );
    let left = dead.browse(None, 10).await.unwrap();
    assert_eq!(
        left.iter().map(|letter| &letter.id).collect::<Vec<_>>(),
        [&letters[0].id, &letters[2].id]
    );
    assert_eq!(
        broker.status(&[spec(&topic, "g")]).await.unwrap()[0].dead,
        Some(2)
    );

    dead.purge(&[letters[0].id.clone()]).await.remove(0).unwrap();
    // Another process sees the same.
    let second = connect().await;
    let mut dead = second.dead_letters(&dead_topic, &topic, "g");
    let left = dead.browse(None, 10).await.unwrap();
    assert_eq!(
        left.iter().map(|letter| &letter.id).collect::<Vec<_>>(),
        [&letters[2].id]
    );
    dead.purge(&[letters[0].id.clone()]).await.remove(0).unwrap();
    assert!(dead.purge(&["nonsense".into()]).await.remove(0).is_err());
    dead.replay(&[letters[2].id.clone()]).await.remove(0).unwrap();
    assert_eq!(text(&listener.one().await), "r");
    assert_eq!(
        broker.status(&[spec(&topic, "g")]).await.unwrap()[0].dead,
        Some(0)
    );
    broker.close(PATIENCE).await.unwrap();
}

#[tokio::test]
async fn a_listener_on_dead_letters_sees_them_alone() {
    let (topic, broker) = (unique("dead-listener"), connect().await);
    let mut listener = open(&broker, spec(&topic, "g")).await;
    let dead_topic = names::dead_letter_topic(&topic, "g");
    let watching = connect().await;
    let mut watcher = open(&watching, spec(&dead_topic, "watch")).await;
    publish(&broker, &topic, &["p", "q"]).await;
    for _ in 0..2 {
        let delivery = listener.one().await;
        let emit = vec![dead_of(&delivery, "g")];
        listener.settle(delivery.token, Verdict::Ack { emit }).await;
    }
    let mut dead = broker.dead_letters(&dead_topic, &topic, "g");
    let letters = dead.browse(None, 10).await.unwrap();
    assert_eq!(letters.len(), 2);
    // Not seen by the watcher yet: it stays, although it is purged.
    dead.purge(&[letters[0].id.clone()]).await.remove(0).unwrap();
    assert_eq!(dead.browse(None, 10).await.unwrap().len(), 1);
    assert_eq!(watcher.drain(2, PATIENCE).await.len(), 2);
    assert!(watcher.drain(9, QUIET).await.is_empty());
    broker.close(PATIENCE).await.unwrap();
    watching.close(PATIENCE).await.unwrap();
}

#[tokio::test]
async fn failed_copies_keep_the_original() {
    let (topic, broker) = (unique("failed-copy"), connect().await);
    let mut listener = open(&broker, spec(&topic, "g")).await;
    publish(&broker, &topic, &["x"]).await;
    let delivery = listener.one().await;
    let large = Message::new(vec![0u8; 100_000_000]);
    let emit = vec![Outgoing::to_topic(names::dead_letter_topic(&topic, "g"), large)];
    let settled = listener.settle(delivery.token, Verdict::Ack { emit }).await;
    let Settled::Failed(back, error) = settled else {
        panic!("{settled:?}")
    };
    assert_eq!(
        (back.token, error.kind()),
        (delivery.token, ErrorKind::TooLarge),
        "{error}"
    );
    listener.ack(&delivery).await;
    broker.close(PATIENCE).await.unwrap();
}

#[tokio::test]
async fn the_largest_message_can_be_dead_lettered() {
    let (topic, broker) = (unique("largest"), connect().await);
    let mut listener = open(&broker, spec(&topic, "g")).await;
    let largest = message("").with_header("app", "h".repeat(50_000));
    let largest = Message {
        payload: Some(vec![7u8; 1_000_000].into()),
        ..largest
    };
    broker
        .publish(vec![Outgoing::to_topic(topic.as_str(), largest.clone())])
        .await
        .remove(0)
        .unwrap();
    let over = Message::new(vec![7u8; 1_000_001]);
    let error = broker
        .publish(vec![Outgoing::to_topic(topic.as_str(), over)])
        .await
        .remove(0)
        .unwrap_err();
    assert_eq!(error.kind(), ErrorKind::TooLarge);
    let delivery = listener.one().await;
    let mut dead = dead_of(&delivery, "g");
    dead.message.headers.set(names::DEAD_ERROR, "e".repeat(4096));
    assert!(matches!(
        listener
            .settle(delivery.token, Verdict::Ack { emit: vec![dead] })
            .await,
        Settled::Done
    ));
    let letters = broker
        .dead_letters(&names::dead_letter_topic(&topic, "g"), &topic, "g")
        .browse(None, 1)
        .await;
    assert_eq!(letters.unwrap()[0].message.payload, largest.payload);
    broker.close(PATIENCE).await.unwrap();
}

/// The broker holds what is sent at once to the limit of a topic, not only each message.
#[tokio::test]
async fn many_messages_of_a_lowered_size_are_taken() {
    let options = "&max_payload=1000&partitions=1";
    let (topic, broker) = (unique("lowered"), connect_with(options).await);
    let mut listener = open(&broker, spec(&topic, "g")).await;
    let payload = "x".repeat(900);
    publish(&broker, &topic, &[payload.as_str(); 1000]).await;
    assert_eq!(listener.drain(1000, PATIENCE).await.len(), 1000);
    broker.close(PATIENCE).await.unwrap();
}

/// The limit of a topic is for what is compressed, and copies are not.
#[tokio::test]
async fn what_was_compressed_is_retried_and_dead_lettered() {
    let (topic, broker) = (unique("compressed"), connect().await);
    let mut listener = open(&broker, spec(&topic, "g")).await;
    let url = url_with("");
    let (host, port) = &url.hosts[0];
    let other: BaseProducer = ClientConfig::new()
        .set("bootstrap.servers", format!("{host}:{}", port.unwrap()))
        .set("compression.type", "gzip")
        .set("message.max.bytes", "10000000")
        .create()
        .unwrap();
    let payload = vec![0u8; 3_000_000];
    let record = BaseRecord::<(), [u8]>::to(&topic).payload(&payload);
    other.send(record).unwrap();
    other.flush(PATIENCE).unwrap();
    let delivery = listener.one().await;
    let emit = vec![retry_of(&delivery, "g", 2, Duration::ZERO)];
    let retried = listener.settle(delivery.token, Verdict::Ack { emit }).await;
    assert!(matches!(retried, Settled::Done), "{retried:?}");
    let delivery = listener.one().await;
    let emit = vec![dead_of(&delivery, "g")];
    let given_up = listener.settle(delivery.token, Verdict::Ack { emit }).await;
    assert!(matches!(given_up, Settled::Done), "{given_up:?}");
    let letters = broker
        .dead_letters(&names::dead_letter_topic(&topic, "g"), &topic, "g")
        .browse(None, 1)
        .await;
    let letter = letters.unwrap().remove(0).message;
    assert_eq!(letter.payload_size(), payload.len());
    broker.close(PATIENCE).await.unwrap();
}

/// A topic for what comes back that takes all of this program's messages, and not all that others may have compressed.
#[tokio::test]
async fn a_topic_that_takes_less_than_there_may_be_is_told() {
    let (topic, broker) = (unique("narrow"), connect().await);
    let spec = spec(&topic, "g");
    let dead = spec.dead_letter.clone().unwrap();
    let made = NewTopic::new(&dead, 1, TopicReplication::Fixed(1))
        .set("retention.ms", "-1")
        .set("max.message.bytes", "2000000");
    let admin = admin(&url_with(""));
    let made = admin.create_topics([&made], &AdminOptions::new()).await;
    made.unwrap().remove(0).unwrap();
    let (log, capturing) = Log::begin();
    broker.plan(&[spec], Topology::Declare).await.unwrap();
    drop(capturing);
    let text = log.text();
    let told: Vec<&str> = text.lines().filter(|line| line.contains("WARN")).collect();
    println!("{text}");
    assert_eq!(told.len(), 1, "{told:?}");
    for part in [&dead, "2000000", "--add-config max.message.bytes=99000000"] {
        assert!(told[0].contains(part), "{part} in {}", told[0]);
    }
    broker.close(PATIENCE).await.unwrap();
}

/// Kafka keeps no two topics whose names differ only in dots and underscores.
#[tokio::test]
async fn names_that_cannot_be_beside_each_other_are_told() {
    let (dotted, broker) = (unique("alike"), connect().await);
    let score = dotted.replace('.', "_");
    let both = [spec(&dotted, "g"), spec(&score, "g")];
    for all in [&both[..], &both[..1], &both[1..]] {
        let Err(problems) = broker.plan(all, Topology::Declare).await else {
            assert_eq!(all.len(), 1, "one of them is there");
            continue;
        };
        for problem in problems {
            println!("{problem}");
            let names = [&dotted, &score].map(|topic| format!("topic `{topic}"));
            let told = names.iter().all(|name| problem.what.contains(name));
            assert!(told, "{problem}");
        }
    }
    broker.close(PATIENCE).await.unwrap();
}

#[tokio::test]
async fn verify_lists_what_is_missing_and_makes_nothing() {
    let (topic, broker) = (unique("verify"), connect().await);
    let spec = spec(&topic, "g");
    let problems = broker
        .plan(std::slice::from_ref(&spec), Topology::Verify)
        .await
        .unwrap_err();
    let text = problems
        .iter()
        .map(ToString::to_string)
        .collect::<Vec<_>>()
        .join("\n");
    println!("{text}");
    for part in [
        format!("`{topic}`"),
        format!("`{topic}.g.retry`"),
        format!("`{topic}.g.dlq`"),
    ] {
        assert!(text.contains(&part), "{part} in {text}");
    }
    let error = broker
        .publish(vec![Outgoing::to_topic(topic.as_str(), message("x"))])
        .await
        .remove(0)
        .unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Topology);
    let again = broker
        .plan(std::slice::from_ref(&spec), Topology::Verify)
        .await
        .unwrap_err();
    assert_eq!(again, problems);
    broker
        .plan(std::slice::from_ref(&spec), Topology::Declare)
        .await
        .unwrap();
    broker
        .plan(std::slice::from_ref(&spec), Topology::Verify)
        .await
        .unwrap();
    broker
        .plan(std::slice::from_ref(&spec), Topology::Declare)
        .await
        .unwrap();
}

#[tokio::test]
async fn publishing_to_nobody_keeps_it_for_later() {
    let (topic, broker) = (unique("nobody"), connect().await);
    publish(&broker, &topic, &["x"]).await;
    let later = Outgoing::to_topic(topic.as_str(), message("y"))
        .not_before(SystemTime::now() + Duration::from_secs(60));
    let reply = Outgoing {
        to: Address::Reply(Bytes::from(topic.clone())),
        ..Outgoing::to_topic("", message("z"))
    };
    let mut answers = broker.publish(vec![later, reply]).await.into_iter();
    assert_eq!(
        answers.next().unwrap().unwrap_err().kind(),
        ErrorKind::Unsupported
    );
    answers.next().unwrap().unwrap();
    let mut spec = spec(&topic, "g");
    spec.start = Start::Earliest;
    let mut listener = open(&broker, spec).await;
    assert_eq!(listener.drain(2, PATIENCE).await.len(), 2);
    broker.close(PATIENCE).await.unwrap();
    let closed: Result<_, Error> = broker
        .publish(vec![Outgoing::to_topic(topic, message("x"))])
        .await
        .remove(0);
    assert_eq!(closed.unwrap_err().kind(), ErrorKind::Closed);
}

#[tokio::test]
async fn paused_fetches_nothing_and_loses_nothing() {
    let (topic, broker) = (unique("pause"), connect().await);
    let mut listener = open(&broker, spec(&topic, "g")).await;
    listener.receiver.pause(true).await;
    tokio::time::sleep(Duration::from_millis(300)).await;
    publish(&broker, &topic, &["1", "2", "3"]).await;
    assert!(listener.some(9, Duration::from_secs(1)).await.is_empty());
    listener.receiver.pause(false).await;
    assert_eq!(listener.drain(3, PATIENCE).await.len(), 3);
    broker.close(PATIENCE).await.unwrap();
}

#[tokio::test]
async fn a_wrong_address_fails_within_the_time() {
    let url = "kafka://127.0.0.1:1?connect_timeout=1s".parse().unwrap();
    let client = postrider_contract::Client {
        application: "a".into(),
        instance: "i".into(),
    };
    let begun = Instant::now();
    let error = postrider_kafka::connect(&url, client).await.err().unwrap();
    println!("{error}");
    assert_eq!(error.kind(), ErrorKind::Unavailable);
    assert!(begun.elapsed() < Duration::from_secs(4));
    assert!(error.to_string().contains("127.0.0.1:1"), "{error}");
}

/// Retention deleted what a group had not read.
#[tokio::test]
async fn what_the_broker_deleted_is_told() {
    let (topic, broker) = (unique("retention"), connect_with("&partitions=1").await);
    open(&broker, spec(&topic, "g")).await;
    publish(&broker, &topic, &["1", "2", "3", "4", "5"]).await;
    broker.close(PATIENCE).await.unwrap();
    let admin = admin(&url_with(""));
    let mut kept = TopicPartitionList::new();
    kept.add_partition_offset(&topic, 0, Offset::Offset(3)).unwrap();
    admin.delete_records(&kept, &AdminOptions::new()).await.unwrap();

    let broker = connect().await;
    let mut listener = open(&broker, spec(&topic, "g")).await;
    let gap = listener.event(|event| matches!(event, Event::Gap { .. })).await;
    assert!(matches!(gap, Event::Gap { lost: Some(3) }), "{gap:?}");
    let got = listener.drain(2, PATIENCE).await;
    assert_eq!(got.iter().map(text).collect::<Vec<_>>(), ["4", "5"]);
    broker.close(PATIENCE).await.unwrap();
}
