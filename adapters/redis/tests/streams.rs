//! The Streams transport against a real server.

mod common;

use std::time::{Duration, SystemTime};

use common::*;
use postrider_contract::{
    Address, Bytes, ErrorKind, Event, Message, Order, Origin, Outgoing, Settled, Sharing, Spec, Start,
    Topology, Value, Verdict, names,
};
use redis::AsyncCommands;
use tokio::time::Instant;

#[tokio::test]
async fn there_and_back() {
    let (topic, broker) = (unique("round"), connect(&url(), "a").await);
    let mut open = open(&broker, spec(&topic, "g")).await;
    let message = Message::new(&b"\0\xff{}"[..])
        .with_key("k")
        .with_header(names::MESSAGE_ID, "1")
        .with_header("payload", "a header")
        .with_header("bytes", Bytes::from_static(b"\xff\0"));
    let receipts = broker
        .publish(vec![Outgoing::to_topic(topic.clone(), message.clone())])
        .await;
    assert!(receipts[0].as_ref().unwrap().received);
    let got = open.receive(1).await.remove(0);
    assert_eq!(got.message, message);
    assert_eq!((got.origin, got.redeliveries), (Origin::Topic, Some(0)));
    assert_eq!(*got.topic, *topic);
    open.ack(&got).await;
    assert!(matches!(open.settle(&got, Verdict::ACK).await, Settled::Stale));
    let status = broker.status(&[spec(&topic, "g")]).await.unwrap()[0];
    assert_eq!(
        (status.waiting, status.unsettled, status.retrying, status.dead),
        (Some(0), Some(0), Some(0), Some(0))
    );
    broker.close(SOON).await.unwrap();
    assert!(matches!(open.event(1, &mut Vec::new()).await, Event::Closed));
}

#[tokio::test]
async fn what_was_given_back_waits() {
    let (topic, broker) = (unique("given"), connect(&url(), "a").await);
    let mut first = open(&broker, spec(&topic, "g")).await;
    publish(&broker, &topic, ["x".into(), "y".into(), "z".into()]).await;
    first.receive(3).await;
    let (other, spec) = (connect(&url(), "b").await, spec(&topic, "g"));
    let depths = async || {
        let status = other.status(std::slice::from_ref(&spec)).await.unwrap()[0];
        (status.waiting, status.unsettled)
    };
    assert_eq!(depths().await, (Some(0), Some(3)));
    broker.close(SOON).await.unwrap();
    assert_eq!(depths().await, (Some(3), Some(0)));
    let mut second = open(&other, spec.clone()).await;
    second.receive(3).await;
    assert_eq!(depths().await, (Some(0), Some(3)));
    other.close(SOON).await.unwrap();
}

#[tokio::test]
async fn a_retry_comes_back_when_it_is_due_and_no_sooner() {
    let (topic, broker) = (unique("retry"), connect(&url(), "a").await);
    let mut first = open(&broker, spec(&topic, "g")).await;
    let mut other = open(&broker, spec(&topic, "other")).await;
    publish(&broker, &topic, ["x".into()]).await;
    let got = first.receive(1).await.remove(0);
    other.receive(1).await;
    for delay in [30, 400, 1_500] {
        publish(&broker, &topic, [format!("again in {delay}")]).await;
        let got = first.receive(1).await.remove(0);
        other.receive(1).await;
        let mut copy = got.message.clone();
        copy.headers.set(names::ATTEMPT, 3i64);
        let due = SystemTime::now() + Duration::from_millis(delay);
        let outgoing = Outgoing::to_inbox(topic.clone(), "g", copy).not_before(due);
        first.emit(&got, outgoing).await;
        let again = first.receive(1).await.remove(0);
        let late = SystemTime::now().duration_since(due).expect("too early");
        // How late at most on an idle machine, the conformance suite asks.
        assert!(late < Duration::from_secs(2), "{late:?}");
        assert_eq!(text(&again), format!("again in {delay}"));
        assert_eq!(
            again.origin,
            Origin::ReturnPath {
                attempt: 3,
                replays: 0
            }
        );
        first.ack(&again).await;
    }
    first.ack(&got).await;
    other.silent(Duration::from_millis(200)).await;
    let inbox: usize = raw().await.xlen(format!("{{{topic}}}.g.inbox")).await.unwrap();
    assert_eq!(inbox, 0, "what is acknowledged in an inbox is deleted");
}

/// What is due is passed on for all topics of a process by one task.
#[tokio::test]
async fn a_retry_that_cannot_be_passed_on_holds_up_no_other() {
    let broker = connect(&url(), "a").await;
    let (nowhere, lost, good) = (unique("nowhere"), unique("lost"), unique("good"));
    let mut raw = raw().await;
    let later = async |topic: &std::sync::Arc<str>| {
        let due = SystemTime::now() + Duration::from_millis(50);
        let outgoing = Outgoing::to_inbox(topic.clone(), "g", Message::new("again")).not_before(due);
        broker.publish(vec![outgoing]).await.remove(0).unwrap();
    };
    let something_else = |key: String| {
        let mut set = redis::cmd("SET");
        set.arg(key).arg("something else");
        set
    };
    let inbox = something_else(format!("{{{nowhere}}}.g.inbox"));
    inbox.exec_async(&mut raw).await.unwrap();
    later(&nowhere).await;
    later(&lost).await;
    let delayed = something_else(format!("{{{lost}}}.g.delayed"));
    delayed.exec_async(&mut raw).await.unwrap();
    // Looked after from now on, behind the two.
    let mut open = open(&broker, spec(&good, "g")).await;
    later(&good).await;
    assert_eq!(texts(&open.receive(1).await), ["again"]);
}

#[tokio::test]
async fn spoofed_headers_on_a_topic_prove_nothing() {
    let (topic, broker) = (unique("spoof"), connect(&url(), "a").await);
    let mut open = open(&broker, spec(&topic, "g")).await;
    let message = Message::new("x").with_header(names::ATTEMPT, 4i64);
    broker
        .publish(vec![Outgoing::to_topic(topic.clone(), message)])
        .await;
    let mut raw = raw().await;
    let forged = [(":first", "1"), ("postrider-attempt", "7"), ("payload", "y")];
    raw.xadd::<_, _, _, _, String>(&*topic, "*", &forged)
        .await
        .unwrap();
    for got in open.receive(2).await {
        assert_eq!(got.origin, Origin::Topic);
    }
}

#[tokio::test]
async fn released_is_delivered_again() {
    let (topic, broker) = (unique("release"), connect(&url(), "a").await);
    let mut open = open(&broker, spec(&topic, "g")).await;
    publish(&broker, &topic, ["x".into()]).await;
    for n in 0..3 {
        let got = open.receive(1).await.remove(0);
        assert_eq!((got.redeliveries, got.origin), (Some(n), Origin::Topic));
        assert!(matches!(open.settle(&got, Verdict::Release).await, Settled::Done));
        assert!(matches!(open.settle(&got, Verdict::ACK).await, Settled::Stale));
    }
}

#[tokio::test]
async fn a_closing_instance_gives_back_at_once() {
    let topic = unique("leave");
    let (one, two) = (connect(&url(), "one").await, connect(&url(), "two").await);
    let mut first = open(&one, spec(&topic, "g")).await;
    publish(&one, &topic, (0..10).map(|n| n.to_string())).await;
    let held = first.receive(4).await;
    first.settle(&held[0], Verdict::Release).await;
    one.close(SOON).await.unwrap();
    let mut second = open(&two, spec(&topic, "g")).await;
    let begun = Instant::now();
    let mut got = second.receive(10).await;
    assert!(begun.elapsed() < Duration::from_secs(3), "{:?}", begun.elapsed());
    got.sort_by_key(|delivery| delivery.position.offset * 1000 + delivery.position.minor.unwrap());
    assert_eq!(texts(&got), (0..10).map(|n| n.to_string()).collect::<Vec<_>>());
    let counts: Vec<_> = got
        .iter()
        .map(|delivery| delivery.redeliveries.unwrap())
        .collect();
    assert_eq!(
        counts,
        [1, 1, 1, 1, 0, 0, 0, 0, 0, 0],
        "only what was handed out counts"
    );
    assert!(matches!(
        first.settle(&held[1], Verdict::ACK).await,
        Settled::Stale
    ));
    let consumers: Vec<redis::Value> = redis::cmd("XINFO")
        .arg("CONSUMERS")
        .arg(&*topic)
        .arg("g")
        .query_async(&mut raw().await)
        .await
        .unwrap();
    assert_eq!(
        consumers.len(),
        2,
        "the closed instance leaves no consumer behind: {consumers:?}"
    );
}

#[tokio::test]
async fn what_a_dead_instance_held_is_claimed_after_the_lease() {
    let topic = unique("claim");
    let url = format!("{}?lease=2s", url());
    let two = connect(&url, "two").await;
    let mut second = open(&two, spec(&topic, "g")).await;
    second.subscription.receiver.pause(true).await;
    // A consumer that reads and is never heard of again.
    publish(&two, &topic, ["a".into(), "b".into(), "c".into()]).await;
    tokio::time::sleep(Duration::from_millis(1200)).await;
    let mut raw = raw().await;
    let read = |consumer: &'static str, count: usize| {
        let mut read = redis::cmd("XREADGROUP");
        read.arg("GROUP")
            .arg("g")
            .arg(consumer)
            .arg("COUNT")
            .arg(count)
            .arg("STREAMS")
            .arg(&*topic)
            .arg(">");
        read
    };
    let begun = Instant::now();
    read("dead", 2)
        .query_async::<redis::Value>(&mut raw)
        .await
        .unwrap();
    second.subscription.receiver.pause(false).await;
    let first = second.receive(1).await;
    assert_eq!(texts(&first), ["c"]);
    let claimed = second.receive(2).await;
    assert_eq!(texts(&claimed), ["a", "b"]);
    assert!(begun.elapsed() >= Duration::from_millis(1_900));
    assert_eq!(claimed[0].redeliveries, Some(1));
}

/// As while a deploy that changes the lease is rolled out: each renews by its own.
#[tokio::test]
async fn an_instance_with_a_shorter_lease_waits_for_the_longer_one() {
    for transport in ["redis", "redis+pubsub"] {
        let topic = unique("leases");
        let at = |lease: &str| format!("{}?lease={lease}", url().replacen("redis", transport, 1));
        let (one, two) = (connect(&at("5s"), "one").await, connect(&at("1s"), "two").await);
        let mut first = open(&one, spec(&topic, "g")).await;
        publish(&one, &topic, ["x".into()]).await;
        let begun = Instant::now();
        let got = first.receive(1).await.remove(0);
        let mut second = open(&two, spec(&topic, "g")).await;
        second.silent(Duration::from_secs(4)).await;
        assert!(begun.elapsed() < Duration::from_secs(5));
        // Nobody extends it.
        assert_eq!(texts(&second.receive(1).await), ["x"]);
        drop(got);
    }
}

#[tokio::test]
async fn extended_leases_are_kept_and_raise_no_count() {
    let topic = unique("extend");
    let url = format!("{}?lease=2s", url());
    let (one, two) = (connect(&url, "one").await, connect(&url, "two").await);
    let mut first = open(&one, spec(&topic, "g")).await;
    let mut second = open(&two, spec(&topic, "g")).await;
    second.subscription.receiver.pause(true).await;
    tokio::time::sleep(Duration::from_millis(500)).await;
    publish(&one, &topic, ["slow".into()]).await;
    let held = first.receive(1).await.remove(0);
    second.subscription.receiver.pause(false).await;
    for _ in 0..12 {
        first.subscription.settler.extend(&[held.token]).await;
        second.silent(Duration::from_millis(250)).await;
    }
    let pending: Vec<(String, String, u64, u64)> = redis::cmd("XPENDING")
        .arg(&*topic)
        .arg("g")
        .arg("-")
        .arg("+")
        .arg(1)
        .query_async(&mut raw().await)
        .await
        .unwrap();
    assert_eq!((pending[0].1.as_str(), pending[0].3), ("one", 1));
    // Not extended any more: the other takes it, and the late verdict is stale.
    let taken = second.receive(1).await.remove(0);
    assert_eq!(taken.redeliveries, Some(1));
    first.subscription.settler.extend(&[held.token]).await;
    let retry = Outgoing::to_inbox(topic.clone(), "g", held.message.clone());
    let settled = first.settle(&held, Verdict::Ack { emit: vec![retry] }).await;
    assert!(matches!(settled, Settled::Stale), "{settled:?}");
    second.ack(&taken).await;
    second.silent(Duration::from_millis(300)).await;
}

#[tokio::test]
async fn own_pending_entries_come_first_after_a_restart() {
    let topic = unique("restart");
    let one = connect(&url(), "same").await;
    let mut first = open(&one, spec(&topic, "g")).await;
    publish(&one, &topic, (0..5).map(|n| n.to_string())).await;
    first.receive(3).await;
    // Not closed: as if it had been killed.
    std::mem::forget(first);
    let again = connect(&url(), "same").await;
    publish(&again, &topic, ["new".into()]).await;
    let mut second = open(&again, spec(&topic, "g")).await;
    let got = second.receive(5).await;
    assert_eq!(texts(&got), ["0", "1", "2", "3", "4"]);
    std::mem::forget(one);
}

#[tokio::test]
async fn dead_letters_are_browsed_replayed_and_purged() {
    let (topic, broker) = (unique("dead"), connect(&url(), "a").await);
    let mut open = open(&broker, spec(&topic, "g")).await;
    publish(&broker, &topic, (0..3).map(|n| n.to_string())).await;
    let dlq: std::sync::Arc<str> = names::dead_letter_topic(&topic, "g").into();
    for got in open.receive(3).await {
        let dead = got
            .message
            .clone()
            .with_header(names::DEAD_REASON, "permanent")
            .with_header(names::DEAD_REPLAYS, 1i64);
        open.emit(&got, Outgoing::to_topic(dlq.clone(), dead)).await;
    }
    let mut letters = broker.dead_letters(&dlq, &topic, "g");
    let some = letters.browse(None, 2).await.unwrap();
    let rest = letters.browse(Some(&some[1].id), 10).await.unwrap();
    assert_eq!((some.len(), rest.len()), (2, 1));
    assert_eq!(rest[0].message.payload.as_deref(), Some(&b"2"[..]));
    assert_eq!(
        broker.status(&[spec(&topic, "g")]).await.unwrap()[0].dead,
        Some(3)
    );
    for _ in 0..2 {
        assert!(letters.replay(&[some[0].id.clone()]).await[0].is_ok());
    }
    let back = open.receive(1).await.remove(0);
    assert_eq!(
        back.origin,
        Origin::ReturnPath {
            attempt: 1,
            replays: 2
        }
    );
    assert!(back.message.headers.get(names::DEAD_REASON).is_none());
    open.ack(&back).await;
    open.silent(Duration::from_millis(200)).await;
    assert!(
        letters
            .purge(&[some[1].id.clone(), Bytes::from_static(b"nonsense")])
            .await[0]
            .is_ok()
    );
    assert_eq!(letters.browse(None, 10).await.unwrap().len(), 1);
    assert_eq!(
        letters.replay(&[Bytes::from_static(b"nonsense")]).await[0]
            .as_ref()
            .unwrap_err()
            .kind(),
        ErrorKind::Rejected
    );
}

#[tokio::test]
async fn a_shared_dead_letter_topic_keeps_groups_apart() {
    let (topic, broker) = (unique("shared"), connect(&url(), "a").await);
    let failed = unique("failed");
    let spec = postrider_contract::Spec {
        dead_letter: Some(failed.clone()),
        ..spec(&topic, "g")
    };
    let mut open = open(&broker, spec).await;
    publish(&broker, &topic, ["x".into()]).await;
    let got = open.receive(1).await.remove(0);
    let dead = |group: &str| {
        got.message
            .clone()
            .with_header(names::DEAD_TOPIC, topic.to_string())
            .with_header(names::DEAD_GROUP, group)
    };
    broker
        .publish(vec![Outgoing::to_topic(failed.clone(), dead("other"))])
        .await;
    open.emit(&got, Outgoing::to_topic(failed.clone(), dead("g")))
        .await;
    let mut letters = broker.dead_letters(&failed, &topic, "g");
    let found = letters.browse(None, 10).await.unwrap();
    assert_eq!(found.len(), 1);
    assert!(letters.replay(&[found[0].id.clone()]).await[0].is_ok());
    let back = open.receive(1).await.remove(0);
    assert_eq!(
        back.origin,
        Origin::ReturnPath {
            attempt: 1,
            replays: 1
        }
    );
    assert!(letters.browse(None, 10).await.unwrap().is_empty());
    assert_eq!(
        broker
            .dead_letters(&failed, &topic, "other")
            .browse(None, 10)
            .await
            .unwrap()
            .len(),
        1
    );
}

#[tokio::test]
async fn groups_start_where_they_say() {
    let (topic, broker) = (unique("start"), connect(&url(), "a").await);
    publish(&broker, &topic, ["before".into()]).await;
    let earliest = postrider_contract::Spec {
        start: Start::Earliest,
        ..spec(&topic, "early")
    };
    broker
        .plan(&[spec(&topic, "new"), earliest.clone()], Topology::Declare)
        .await
        .unwrap();
    publish(&broker, &topic, ["after".into()]).await;
    let mut new = open(&broker, spec(&topic, "new")).await;
    let mut early = open(&broker, earliest).await;
    assert_eq!(texts(&new.receive(1).await), ["after"]);
    assert_eq!(texts(&early.receive(2).await), ["before", "after"]);
    new.silent(Duration::from_millis(100)).await;
}

#[tokio::test]
async fn broadcast_gives_everyone_a_copy() {
    let topic = unique("all");
    let (one, two) = (connect(&url(), "one").await, connect(&url(), "two").await);
    let spec = postrider_contract::Spec {
        sharing: Sharing::Broadcast,
        dead_letter: None,
        ..spec(&topic, "g")
    };
    let (mut first, mut second) = (open(&one, spec.clone()).await, open(&two, spec).await);
    publish(&one, &topic, ["x".into(), "y".into()]).await;
    for open in [&mut first, &mut second] {
        let got = open.receive(2).await;
        assert_eq!(texts(&got), ["x", "y"]);
        assert_eq!(got[0].redeliveries, None);
        assert!(matches!(
            open.settle(&got[0], Verdict::Release).await,
            Settled::Done
        ));
        let again = open.receive(1).await.remove(0);
        assert_eq!(text(&again), "x");
        open.ack(&again).await;
    }
}

#[tokio::test]
async fn ordered_is_read_by_one_instance_and_passes_on_in_order() {
    let topic = unique("ordered");
    let url = format!("{}?lease=2s", url());
    let (one, two) = (connect(&url, "one").await, connect(&url, "two").await);
    let spec = postrider_contract::Spec {
        order: Order::ByKey,
        in_flight: 10,
        ..spec(&topic, "g")
    };
    let mut first = open(&one, spec.clone()).await;
    publish(&one, &topic, (0..30).map(|n| n.to_string())).await;
    let got = first.receive(10).await;
    let mut second = open(&two, spec).await;
    second.silent(Duration::from_secs(3)).await;
    for delivery in &got[..4] {
        first.ack(delivery).await;
    }
    one.close(SOON).await.unwrap();
    let begun = Instant::now();
    let mut seen = Vec::new();
    while seen.len() < 26 {
        let got = second.receive(1).await;
        seen.extend(texts(&got));
        second.ack(&got[0]).await;
    }
    assert!(begun.elapsed() < Duration::from_secs(3));
    assert_eq!(seen, (4..30).map(|n| n.to_string()).collect::<Vec<_>>());
}

#[tokio::test]
async fn ordered_fails_over_when_the_leader_is_gone() {
    let topic = unique("failover");
    let url = format!("{}?lease=1s", url());
    let spec = postrider_contract::Spec {
        order: Order::ByKey,
        ..spec(&topic, "g")
    };
    let two = connect(&url, "two").await;
    two.plan(std::slice::from_ref(&spec), Topology::Declare)
        .await
        .unwrap();
    let mut raw = raw().await;
    // A leader that has read and is never heard of again.
    let leader = format!("{{{topic}}}.g.leader");
    raw.pset_ex::<_, _, ()>(&leader, "dead", 1_000).await.unwrap();
    publish(&two, &topic, (0..5).map(|n| n.to_string())).await;
    let mut read = redis::cmd("XREADGROUP");
    read.arg("GROUP")
        .arg("g")
        .arg("dead")
        .arg("COUNT")
        .arg(3)
        .arg("STREAMS")
        .arg(&*topic)
        .arg(">");
    read.query_async::<redis::Value>(&mut raw).await.unwrap();
    let mut second = open(&two, spec).await;
    let got = second.receive(5).await;
    assert_eq!(texts(&got), ["0", "1", "2", "3", "4"]);
    // Somebody else leads: everything here is revoked, and verdicts are stale.
    raw.set::<_, _, ()>(&leader, "other").await.unwrap();
    loop {
        if let Event::Revoked { lanes, deadline } = second.event(1, &mut Vec::new()).await {
            assert_eq!((lanes, deadline), (vec![0], Duration::ZERO));
            break;
        }
    }
    assert!(matches!(
        second.settle(&got[0], Verdict::ACK).await,
        Settled::Stale
    ));
}

/// Another may have led in between, and have left something behind.
#[tokio::test]
async fn a_lease_that_was_deleted_is_taken_up_anew() {
    let topic = unique("vanished");
    let broker = connect(&format!("{}?lease=2s", url()), "a").await;
    let wishes = Spec {
        order: Order::ByKey,
        in_flight: 1,
        ..spec(&topic, "g")
    };
    let mut open = open(&broker, wishes).await;
    publish(&broker, &topic, (0..3).map(|n| n.to_string())).await;
    let held = open.receive(1).await.remove(0);
    let mut other = redis::pipe();
    other.atomic().del(format!("{{{topic}}}.g.leader")).ignore();
    let read = other.cmd("XREADGROUP").arg("GROUP").arg("g").arg("other");
    read.arg("COUNT").arg(1).arg("STREAMS").arg(&*topic).arg(">");
    other.query_async::<redis::Value>(&mut raw().await).await.unwrap();
    while !matches!(open.event(1, &mut Vec::new()).await, Event::Revoked { .. }) {}
    assert!(matches!(open.settle(&held, Verdict::ACK).await, Settled::Stale));
    for next in ["0", "1", "2"] {
        let got = open.receive(1).await.remove(0);
        assert_eq!(text(&got), next);
        open.ack(&got).await;
    }
}

#[tokio::test]
async fn trims_what_everybody_has_acknowledged_and_nothing_else() {
    let topic = unique("trim");
    let broker = connect(&format!("{}?retention=0s", url()), "a").await;
    let mut fast = open(&broker, spec(&topic, "fast")).await;
    let mut slow = open(
        &broker,
        postrider_contract::Spec {
            in_flight: 1_000,
            ..spec(&topic, "slow")
        },
    )
    .await;
    publish(&broker, &topic, (0..1_000).map(|n| n.to_string())).await;
    for _ in 0..10 {
        for got in fast.receive(100).await {
            fast.ack(&got).await;
        }
    }
    let got = slow.receive(1_000).await;
    let mut raw = raw().await;
    tokio::time::sleep(Duration::from_millis(2_500)).await;
    assert_eq!(raw.xlen::<_, usize>(&*topic).await.unwrap(), 1_000);
    for delivery in got.iter().skip(300) {
        slow.ack(delivery).await;
    }
    tokio::time::sleep(Duration::from_millis(2_500)).await;
    assert_eq!(
        raw.xlen::<_, usize>(&*topic).await.unwrap(),
        1_000,
        "the oldest is still pending"
    );
    for delivery in &got[..300] {
        slow.ack(delivery).await;
    }
    let until = Instant::now() + SOON;
    while raw.xlen::<_, usize>(&*topic).await.unwrap() > 100 {
        assert!(Instant::now() < until, "whole nodes of a hundred are removed");
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
}

#[tokio::test]
async fn deleted_under_the_group_is_reported_as_loss() {
    let topic = unique("deleted");
    let broker = connect(&format!("{}?lease=1s", url()), "a").await;
    broker
        .plan(&[spec(&topic, "g")], Topology::Declare)
        .await
        .unwrap();
    publish(&broker, &topic, ["x".into(), "y".into()]).await;
    let mut raw = raw().await;
    let mut read = redis::cmd("XREADGROUP");
    read.arg("GROUP")
        .arg("g")
        .arg("dead")
        .arg("STREAMS")
        .arg(&*topic)
        .arg(">");
    read.query_async::<redis::Value>(&mut raw).await.unwrap();
    redis::cmd("XTRIM")
        .arg(&*topic)
        .arg("MAXLEN")
        .arg(0)
        .query_async::<()>(&mut raw)
        .await
        .unwrap();
    let mut open = open(&broker, spec(&topic, "g")).await;
    while open.gaps.is_empty() {
        open.event(1, &mut Vec::new()).await;
    }
    assert_eq!(open.gaps, [Some(2)]);
    assert_eq!(
        broker.status(&[spec(&topic, "g")]).await.unwrap()[0].unsettled,
        Some(0)
    );
}

#[tokio::test]
async fn plan_reports_everything_it_finds() {
    let broker = connect(&url(), "a").await;
    let (one, two) = (unique("one"), unique("two"));
    raw().await.set::<_, _, ()>(&*two, "no stream").await.unwrap();
    let problems = broker
        .plan(&[spec(&one, "g"), spec(&two, "g")], Topology::Verify)
        .await
        .unwrap_err();
    let all = problems
        .iter()
        .map(ToString::to_string)
        .collect::<Vec<_>>()
        .join("\n");
    for part in [
        format!("topic `{one}` is not there"),
        "the inbox of group `g`".into(),
        "which holds a string".into(),
        "dead-letter topic".into(),
    ] {
        assert!(all.contains(&part), "{all}");
    }
    let problems = broker
        .plan(&[spec(&one, "g"), spec(&two, "g")], Topology::Declare)
        .await
        .unwrap_err();
    assert_eq!(problems.len(), 1, "{problems:?}");
    broker.plan(&[spec(&one, "g")], Topology::Verify).await.unwrap();
    let problems = broker
        .plan(&[spec(&one, "other")], Topology::Verify)
        .await
        .unwrap_err();
    assert!(
        problems[0].to_string().contains("no consumer group `other`"),
        "{problems:?}"
    );
    let problems = broker
        .plan(&[spec(&"a..b".into(), "g.h")], Topology::Declare)
        .await
        .unwrap_err();
    assert!(problems.len() >= 2, "{problems:?}");
}

/// Where the mark is missing, a process that only publishes to the topic would trim the dead letters in it.
#[tokio::test]
async fn verifying_asks_for_the_mark_of_a_dead_letter_topic() {
    let (topic, failed, broker) = (unique("verified"), unique("failed"), connect(&url(), "a").await);
    let wishes = Spec {
        dead_letter: Some(failed.clone()),
        ..spec(&topic, "g")
    };
    let wishes = std::slice::from_ref(&wishes);
    broker.plan(wishes, Topology::Declare).await.unwrap();
    broker.plan(wishes, Topology::Verify).await.unwrap();
    let mark = format!("{{{failed}}}.dead-letters");
    raw().await.del::<_, ()>(&mark).await.unwrap();
    let problems = broker.plan(wishes, Topology::Verify).await.unwrap_err();
    assert_eq!(problems.len(), 1, "{problems:?}");
    assert!(
        problems[0].to_string().contains(&format!("SET {mark} 1")),
        "{problems:?}"
    );
    assert!(!raw().await.exists::<_, bool>(&mark).await.unwrap());
    raw().await.set::<_, _, ()>(&mark, 1).await.unwrap();
    broker.plan(wishes, Topology::Verify).await.unwrap();
}

#[tokio::test]
async fn too_large_is_refused_and_the_rest_of_the_batch_goes_out() {
    let topic = unique("large");
    let broker = connect(&format!("{}?max_payload=10", url()), "a").await;
    let mut open = open(&broker, spec(&topic, "g")).await;
    let batch =
        ["0123456789", "0123456789a", "b"].map(|text| Outgoing::to_topic(topic.clone(), Message::new(text)));
    let answers = broker.publish(batch.to_vec()).await;
    assert!(answers[0].is_ok() && answers[2].is_ok());
    assert_eq!(answers[1].as_ref().unwrap_err().kind(), ErrorKind::TooLarge);
    let got = open.receive(2).await;
    assert_eq!(texts(&got), ["0123456789", "b"]);
    // One settlement fails, the others go on; what failed is handed back and can be tried again.
    let mut batch = vec![
        postrider_contract::Settlement {
            token: got[0].token,
            verdict: Verdict::Ack {
                emit: vec![
                    Outgoing::to_topic(unique("elsewhere"), Message::new("ok")),
                    Outgoing::to_topic(topic.clone(), Message::new("much too large")),
                ],
            },
        },
        postrider_contract::Settlement {
            token: got[1].token,
            verdict: Verdict::ACK,
        },
    ];
    let mut out = Vec::new();
    open.subscription.settler.settle(&mut batch, &mut out).await;
    assert!(matches!(out[1], Settled::Done));
    let Settled::Failed(again, error) = out.swap_remove(0) else {
        panic!("{out:?}")
    };
    assert_eq!(error.kind(), ErrorKind::TooLarge);
    let Verdict::Ack { emit } = again.verdict else {
        panic!()
    };
    assert_eq!(emit.len(), 1, "what was confirmed is not sent again");
    open.ack(&got[0]).await;
}

#[tokio::test]
async fn many_headers_and_all_of_them_dead_lettered() {
    let (topic, broker) = (unique("headers"), connect(&url(), "a").await);
    let mut open = open(&broker, spec(&topic, "g")).await;
    let mut message = Message::new("x");
    for n in 0..10_000 {
        message
            .headers
            .append(format!("h{}", n % 100), Value::from(format!("{n}")));
    }
    broker
        .publish(vec![Outgoing::to_topic(topic.clone(), message.clone())])
        .await
        .remove(0)
        .unwrap();
    let got = open.receive(1).await.remove(0);
    assert_eq!(got.message, message);
    let retry = Outgoing::to_inbox(topic.clone(), "g", message.clone())
        .not_before(SystemTime::now() + Duration::from_millis(20));
    open.emit(&got, retry).await;
    let got = open.receive(1).await.remove(0);
    assert_eq!(got.message, message);
    let dlq = names::dead_letter_topic(&topic, "g");
    open.emit(&got, Outgoing::to_topic(dlq.as_str(), message.clone()))
        .await;
    let letters = broker
        .dead_letters(&dlq, &topic, "g")
        .browse(None, 1)
        .await
        .unwrap();
    assert_eq!(letters[0].message, message);
}

#[tokio::test]
async fn scheduled_to_a_topic_arrives_as_an_ordinary_entry() {
    let (topic, broker) = (unique("schedule"), connect(&url(), "a").await);
    let mut open = open(&broker, spec(&topic, "g")).await;
    let due = SystemTime::now() + Duration::from_millis(300);
    let message = Message::new(&b"\xff\0"[..]).with_key("k").with_header("a", "1");
    let outgoing = Outgoing::to_topic(topic.clone(), message.clone()).not_before(due);
    broker.publish(vec![outgoing]).await.remove(0).unwrap();
    let got = open.receive(1).await.remove(0);
    assert!(SystemTime::now() >= due);
    assert_eq!((got.message, got.origin), (message, Origin::Topic));
    let entries: redis::streams::StreamRangeReply = raw().await.xrange_all(&*topic).await.unwrap();
    assert_eq!(entries.ids[0].get::<String>("a").as_deref(), Some("1"));
}

#[tokio::test]
async fn replies_go_to_topics_and_nowhere_else() {
    let (topic, broker) = (unique("reply"), connect(&url(), "a").await);
    let mut open = open(&broker, spec(&topic, "g")).await;
    let reply = |to: &str| Outgoing {
        to: Address::Reply(Bytes::from(to.to_owned())),
        not_before: None,
        require_receiver: false,
        message: Message::new("r"),
    };
    let answers = broker
        .publish(vec![reply(&topic), reply("{x}.g.inbox"), reply("a.g.dlq")])
        .await;
    assert!(answers[0].is_ok());
    assert!(
        answers[1..]
            .iter()
            .all(|answer| answer.as_ref().unwrap_err().kind() == ErrorKind::Rejected)
    );
    assert_eq!(texts(&open.receive(1).await), ["r"]);
}

#[tokio::test]
async fn prefetch_never_exceeds_what_may_be_in_flight() {
    let topic = unique("prefetch");
    let broker = connect(&url(), "a").await;
    let mut open = open(
        &broker,
        postrider_contract::Spec {
            in_flight: 3,
            ..spec(&topic, "g")
        },
    )
    .await;
    publish(&broker, &topic, (0..50).map(|n| n.to_string())).await;
    let got = open.receive(3).await;
    tokio::time::sleep(Duration::from_millis(300)).await;
    let unsettled = broker.status(&[spec(&topic, "g")]).await.unwrap()[0]
        .unsettled
        .unwrap();
    assert!(unsettled <= 3, "{unsettled}");
    open.ack(&got[0]).await;
    open.receive(1).await;
}

#[tokio::test]
async fn a_vanished_stream_is_made_again_and_the_loss_told() {
    let (topic, broker) = (unique("vanish"), connect(&url(), "a").await);
    let mut open = open(&broker, spec(&topic, "g")).await;
    raw().await.del::<_, ()>(&*topic).await.unwrap();
    open.ready().await;
    assert_eq!(open.gaps, [None]);
    assert!(
        open.news.iter().any(|news| news.contains("topology")),
        "{:?}",
        open.news
    );
    publish(&broker, &topic, ["x".into()]).await;
    assert_eq!(texts(&open.receive(1).await), ["x"]);
}

/// A task that has done much already is made to yield in the middle of what it publishes.
#[tokio::test(flavor = "multi_thread")]
async fn a_large_batch_keeps_its_order_wherever_its_task_is() {
    const COUNT: u32 = 6_000;
    let topic = unique("large");
    let broker = connect(&url(), "a").await;
    let wishes = Spec {
        in_flight: COUNT,
        ..spec(&topic, "g")
    };
    let mut open = open(&broker, wishes).await;
    let publishing = tokio::spawn(async move {
        for _ in 0..126 {
            tokio::task::consume_budget().await;
        }
        let message = |n: u32| Message::new(n.to_string()).with_key("one");
        let batch = (0..COUNT).map(|n| Outgoing::to_topic(topic.clone(), message(n)));
        broker.publish(batch.collect()).await
    });
    assert!(publishing.await.unwrap().iter().all(Result::is_ok));
    let got = open.receive(COUNT as usize).await;
    let numbers: Vec<u32> = got
        .iter()
        .map(|delivery| text(delivery).parse().unwrap())
        .collect();
    assert!(numbers.is_sorted(), "{numbers:?}");
}

/// With room for one, which is as usual where handlers wait.
#[tokio::test]
async fn retries_that_wait_hold_up_no_messages() {
    let topic = unique("turns");
    let broker = connect(&url(), "a").await;
    let narrow = Spec {
        in_flight: 1,
        ..spec(&topic, "g")
    };
    let mut open = open(&broker, narrow).await;
    publish(&broker, &topic, ["first".into()]).await;
    let mut held = open.receive(1).await.remove(0);
    let retry = |n: u32| Outgoing::to_inbox(topic.clone(), "g", Message::new(n.to_string()));
    for answer in broker.publish((0..100).map(retry).collect()).await {
        answer.unwrap();
    }
    publish(&broker, &topic, ["new".into()]).await;
    let mut before = 0;
    loop {
        open.ack(&held).await;
        held = open.receive(1).await.remove(0);
        if text(&held) == "new" {
            break;
        }
        before += 1;
    }
    assert!(before <= 2, "{before} came before it");
    open.ack(&held).await;
    // Nothing new: they come alone.
    for _ in before..100 {
        let got = open.receive(1).await.remove(0);
        open.ack(&got).await;
    }
}
