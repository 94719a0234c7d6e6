//! The Pub/Sub transport against a real server.

mod common;

use std::sync::Arc;
use std::time::{Duration, SystemTime};

use common::*;
use postrider_contract::{
    Bytes, ErrorKind, Event, Guarantee, Message, Order, Origin, Outgoing, Settled, Sharing, Spec, Start,
    Topology, Verdict, names,
};
use redis::AsyncCommands;
use tokio::time::{Instant, sleep};

#[tokio::test]
async fn it_says_what_it_cannot_do() {
    let broker = connect(&pub_sub_url(), "a").await;
    let capabilities = broker.capabilities();
    assert!(matches!(&capabilities.guarantee, Guarantee::AtMostOnce(why) if why.contains("redis://")));
    assert!(!capabilities.ordered && !capabilities.earliest && capabilities.knows_receivers);
    let topic = unique("cannot");
    let wishes = [
        Spec {
            order: Order::ByKey,
            listener: "one".into(),
            ..spec(&topic, "g")
        },
        Spec {
            start: Start::Earliest,
            listener: "two".into(),
            ..spec(&topic, "h")
        },
    ];
    let problems = broker.plan(&wishes, Topology::Declare).await.unwrap_err();
    let told: Vec<&str> = problems.iter().map(|problem| &*problem.listener).collect();
    assert_eq!(told, ["one", "two"]);
    assert!(problems.iter().all(|problem| problem.help.contains("redis://")));
}

#[tokio::test]
async fn instances_share_and_groups_do_not() {
    let topic = unique("share");
    let brokers = [
        connect(&pub_sub_url(), "a").await,
        connect(&pub_sub_url(), "b").await,
        connect(&pub_sub_url(), "c").await,
    ];
    let mut one = open(&brokers[0], spec(&topic, "g")).await;
    let mut two = open(&brokers[1], spec(&topic, "g")).await;
    let mut other = open(&brokers[2], spec(&topic, "other")).await;
    publish(&brokers[0], &topic, (0..500).map(|n| n.to_string())).await;
    let (mut shared, mut all) = (Vec::new(), Vec::new());
    while all.len() < 500 {
        for got in other.receive(1).await {
            assert_eq!((got.origin, got.redeliveries), (Origin::Topic, Some(0)));
            other.ack(&got).await;
            all.push(text(&got));
        }
    }
    let until = Instant::now() + SOON;
    while shared.len() < 500 && Instant::now() < until {
        for open in [&mut one, &mut two] {
            let mut got = Vec::new();
            let _ = tokio::time::timeout(
                Duration::from_millis(50),
                open.subscription.receiver.next(50, &mut got),
            )
            .await;
            for got in got {
                open.ack(&got).await;
                shared.push(text(&got));
            }
        }
    }
    for texts in [&mut shared, &mut all] {
        texts.sort_by_key(|text| text.parse::<u32>().unwrap());
        assert_eq!(*texts, (0..500).map(|n| n.to_string()).collect::<Vec<_>>());
    }
    one.silent(Duration::from_millis(200)).await;
}

#[tokio::test]
async fn received_is_durable_retried_and_dead_lettered() {
    let topic = unique("durable");
    let broker = connect(&pub_sub_url(), "a").await;
    let mut first = open(&broker, spec(&topic, "g")).await;
    let message = Message::new(&b"\0\xff"[..]).with_key("k").with_header("a", "1");
    let receipts = broker
        .publish(vec![Outgoing::to_topic(topic.clone(), message.clone())])
        .await;
    assert!(receipts[0].as_ref().unwrap().received);
    let got = first.receive(1).await.remove(0);
    assert_eq!((&got.message, got.origin), (&message, Origin::Topic));
    let copy = message.clone().with_header(names::ATTEMPT, 2i64);
    let due = SystemTime::now() + Duration::from_millis(300);
    first
        .emit(&got, Outgoing::to_inbox(topic.clone(), "g", copy).not_before(due))
        .await;
    let again = first.receive(1).await.remove(0);
    assert!(SystemTime::now() >= due);
    assert_eq!(
        again.origin,
        Origin::ReturnPath {
            attempt: 2,
            replays: 0
        }
    );
    // Unsettled when this instance closes, so another one gets it, and from the return path still.
    broker.close(SOON).await.unwrap();
    let broker = connect(&pub_sub_url(), "b").await;
    let mut second = open(&broker, spec(&topic, "g")).await;
    let again = second.receive(1).await.remove(0);
    assert_eq!(
        (again.origin, again.redeliveries),
        (
            Origin::ReturnPath {
                attempt: 2,
                replays: 0
            },
            Some(1)
        )
    );
    let dlq: Arc<str> = names::dead_letter_topic(&topic, "g").into();
    second
        .emit(&again, Outgoing::to_topic(dlq.clone(), again.message.clone()))
        .await;
    // A listener on the dead-letter topic, declared only now.
    let early = Spec {
        start: Start::Earliest,
        ..spec(&dlq, "fix")
    };
    let mut fix = open(&broker, early).await;
    let dead = fix.receive(1).await.remove(0);
    assert_eq!(dead.message.payload, message.payload);
    fix.ack(&dead).await;
    let mut letters = broker.dead_letters(&dlq, &topic, "g");
    let found = letters.browse(None, 10).await.unwrap();
    assert_eq!(found.len(), 1, "a listener takes nothing away");
    assert!(letters.replay(&[found[0].id.clone()]).await[0].is_ok());
    let replayed = second.receive(1).await.remove(0);
    assert_eq!(
        replayed.origin,
        Origin::ReturnPath {
            attempt: 1,
            replays: 1
        }
    );
}

#[tokio::test]
async fn a_dead_letter_topic_of_any_name_is_kept() {
    let (topic, failed) = (unique("source"), unique("failed"));
    let broker = connect(&pub_sub_url(), "a").await;
    let mut source = open(
        &broker,
        Spec {
            dead_letter: Some(failed.clone()),
            ..spec(&topic, "g")
        },
    )
    .await;
    publish(&broker, &topic, ["x".into()]).await;
    let got = source.receive(1).await.remove(0);
    source
        .emit(&got, Outgoing::to_topic(failed.clone(), got.message.clone()))
        .await;
    // Another process finds out that it is a stream.
    let other = connect(&pub_sub_url(), "b").await;
    let mut listener = open(
        &other,
        Spec {
            start: Start::Earliest,
            ..spec(&failed, "h")
        },
    )
    .await;
    assert_eq!(texts(&listener.receive(1).await), ["x"]);
}

#[tokio::test]
async fn a_bare_body_is_a_message() {
    let topic = unique("bare");
    let broker = connect(&pub_sub_url(), "a").await;
    let mut open = open(&broker, spec(&topic, "g")).await;
    let mut raw = raw().await;
    for body in [&b"{\"a\":1}"[..], b"", b"\0PR\x01cut", b"\xff\0"] {
        raw.publish::<_, _, ()>(&*topic, body).await.unwrap();
        let got = open.receive(1).await.remove(0);
        assert_eq!(
            (got.message.payload.as_deref(), got.origin),
            (Some(body), Origin::Topic)
        );
        assert!(got.message.headers.is_empty());
    }
}

#[tokio::test]
async fn nobody_listening_is_told() {
    let topic = unique("nobody");
    let broker = connect(&pub_sub_url(), "a").await;
    let message = || Outgoing::to_topic(topic.clone(), Message::new("x"));
    let required = Outgoing {
        require_receiver: true,
        ..message()
    };
    let answers = broker.publish(vec![message(), required.clone()]).await;
    assert!(!answers[0].as_ref().unwrap().received);
    assert_eq!(answers[1].as_ref().unwrap_err().kind(), ErrorKind::NoReceiver);
    let _open = open(&broker, spec(&topic, "g")).await;
    assert!(broker.publish(vec![required]).await[0].as_ref().unwrap().received);
}

#[tokio::test]
async fn broadcast_gives_every_instance_a_copy() {
    let topic = unique("all");
    let (one, two) = (
        connect(&pub_sub_url(), "one").await,
        connect(&pub_sub_url(), "two").await,
    );
    let spec = Spec {
        sharing: Sharing::Broadcast,
        dead_letter: None,
        ..spec(&topic, "g")
    };
    let (mut first, mut second) = (open(&one, spec.clone()).await, open(&two, spec).await);
    publish(&one, &topic, ["x".into()]).await;
    for open in [&mut first, &mut second] {
        let got = open.receive(1).await.remove(0);
        assert!(matches!(open.settle(&got, Verdict::Release).await, Settled::Done));
        let got = open.receive(1).await.remove(0);
        open.ack(&got).await;
    }
}

#[tokio::test]
async fn what_another_instance_received_is_not_missed() {
    let topic = unique("claimed");
    let publisher = connect(&pub_sub_url(), "p").await;
    let (one, two) = (
        connect(&pub_sub_url(), "one").await,
        connect(&pub_sub_url(), "two").await,
    );
    let mut first = open(&one, spec(&topic, "g")).await;
    publish(&publisher, &topic, ["0".into()]).await;
    let got = first.receive(1).await.remove(0);
    first.ack(&got).await;
    first.subscription.receiver.pause(true).await;
    let mut second = open(&two, spec(&topic, "g")).await;
    // The frames that only the second instance is shown: claimed by it, so that the first misses nothing by them.
    let mut raw = raw().await;
    let seen = format!("{{{topic}}}.g.seen.*");
    let keys: Vec<String> = raw.keys(&seen).await.unwrap();
    assert_eq!(keys.len(), 1);
    for bit in 2..=5 {
        raw.setbit::<_, ()>(&keys[0], bit, true).await.unwrap();
    }
    // Numbers 2 to 5 are "published" while nobody listens to them, number 6 arrives.
    let mut frame = Vec::from(*b"\0PR\x01");
    let id = keys[0].rsplit('.').nth(1).unwrap();
    frame.extend((0..16).map(|n| u8::from_str_radix(&id[2 * n..2 * n + 2], 16).unwrap()));
    frame.extend(8u64.to_be_bytes());
    frame.extend(1u32.to_be_bytes());
    frame.extend(7u32.to_be_bytes());
    frame.extend(b"payload");
    frame.extend(1u32.to_be_bytes());
    frame.extend(b"8");
    raw.publish::<_, _, ()>(&*topic, frame).await.unwrap();
    assert_eq!(texts(&second.receive(1).await), ["8"]);
    sleep(Duration::from_secs(2)).await;
    first.subscription.receiver.pause(false).await;
    let gap = loop {
        if let Event::Gap { lost } = first.event(0, &mut Vec::new()).await {
            break lost;
        }
    };
    assert_eq!(
        gap,
        Some(2),
        "6 and 7 were received by nobody; 2 to 5 were by the other instance"
    );
}

#[tokio::test]
async fn a_full_queue_drops_and_counts() {
    let topic = unique("overflow");
    let publisher = connect(&pub_sub_url(), "p").await;
    let slow = connect(&format!("{}?queue=10", pub_sub_url()), "slow").await;
    let spec = Spec {
        sharing: Sharing::Broadcast,
        dead_letter: None,
        in_flight: 5,
        ..spec(&topic, "g")
    };
    let mut open = open(&slow, spec).await;
    publish(&publisher, &topic, ["0".into()]).await;
    let held = open.receive(1).await;
    publish(&publisher, &topic, (1..1_000).map(|n| n.to_string())).await;
    sleep(Duration::from_millis(2_500)).await;
    let mut received = 1;
    open.ack(&held[0]).await;
    let mut until = Instant::now() + SOON;
    let mut got = Vec::new();
    while let Ok(event) = tokio::time::timeout_at(until, open.subscription.receiver.next(5, &mut got)).await {
        if received + open.gaps.iter().flatten().sum::<u64>() >= 1_000 {
            // Whatever is too much has this time to come.
            until = until.min(Instant::now() + Duration::from_secs(2));
        }
        if let Event::Gap { lost } = event.unwrap() {
            open.gaps.push(lost);
        }
        for got in got.drain(..) {
            received += 1;
            open.ack(&got).await;
        }
    }
    let lost = open.gaps.iter().flatten().sum::<u64>();
    assert!(lost > 900, "{lost}");
    assert_eq!(received + lost, 1_000);
}

#[tokio::test]
async fn depths_are_told() {
    let topic = unique("depth");
    let broker = connect(&pub_sub_url(), "a").await;
    let spec = Spec {
        in_flight: 4,
        ..spec(&topic, "g")
    };
    let mut open = open(&broker, spec.clone()).await;
    publish(&broker, &topic, (0..10).map(|n| n.to_string())).await;
    let held = open.receive(4).await;
    let later = SystemTime::now() + Duration::from_secs(50);
    open.emit(
        &held[0],
        Outgoing::to_inbox(topic.clone(), "g", Message::new("x")).not_before(later),
    )
    .await;
    open.receive(1).await;
    let until = Instant::now() + SOON;
    loop {
        let status = broker.status(std::slice::from_ref(&spec)).await.unwrap()[0];
        let told = (status.waiting, status.unsettled, status.retrying, status.dead);
        if told == (Some(5), Some(4), Some(1), Some(0)) {
            break;
        }
        assert!(Instant::now() < until, "{told:?}");
        sleep(Duration::from_millis(20)).await;
    }
}

#[tokio::test]
async fn scheduled_to_a_channel() {
    let topic = unique("schedule");
    let broker = connect(&pub_sub_url(), "a").await;
    let mut open = open(&broker, spec(&topic, "g")).await;
    let due = SystemTime::now() + Duration::from_millis(1_500);
    let message = Message::new("x").with_header("a", Bytes::from_static(b"\xff"));
    broker
        .publish(vec![
            Outgoing::to_topic(topic.clone(), message.clone()).not_before(due),
        ])
        .await
        .remove(0)
        .unwrap();
    publish(&broker, &topic, ["y".into()]).await;
    let got = open.receive(2).await;
    assert!(SystemTime::now() >= due);
    assert_eq!(got[1].message, message);
    sleep(Duration::from_millis(1_700)).await;
    open.silent(Duration::from_millis(100)).await;
    assert!(
        open.gaps.is_empty(),
        "what is scheduled leaves no gap: {:?}",
        open.gaps
    );
}
