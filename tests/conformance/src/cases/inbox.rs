//! The return path: retries with a delay, for one group only.

use std::time::{Duration, SystemTime};

use postrider_contract::{ErrorKind, Message, Origin, Outgoing, Settled, Verdict, names};
use tokio::time::{Instant, timeout};

use crate::Run;
use crate::kit::{assert_each_once, assert_same_content, count_ids, id, numbered, retry, spec};

/// How late a retry may be on an idle broker: the larger of 10 % and 250 ms.
fn late(wait: Duration) -> Duration {
    (wait / 10).max(Duration::from_millis(250))
}

/// A retry comes back to the group that asked for it, with everything that was sent, and no other group sees it.
pub async fn a_retry_returns_to_its_group_only(run: Run) {
    let topic = run.topic("t");
    let instance = run.connect().await;
    let [mut one, mut two] = instance.open([spec(&topic, "one"), spec(&topic, "two")]).await;
    let message = numbered(0).with_key("key").with_header("x-own", "kept");
    instance
        .publish(vec![Outgoing::to_topic(topic.clone(), message)])
        .await;
    two.handle(1).await;
    let delivery = one.one().await;
    let mut copy = retry(&delivery, "one", 7, Duration::from_millis(600));
    copy.message.headers.set(names::REPLAYS, 3i64);
    copy.message
        .headers
        .set(names::FIRST_FAILURE, 1_700_000_000_000i64);
    one.emit(&delivery, vec![copy.clone()]).await;
    let again = one.one().await;
    assert_eq!(
        again.origin,
        Origin::ReturnPath {
            attempt: 7,
            replays: 3
        }
    );
    assert_eq!(again.topic, topic, "the topic it was published to");
    assert_same_content(&again.message, &copy.message);
    one.ack(&[again]).await;
    two.quiet().await;
    one.quiet().await;
    instance.close().await;
}

/// Never early; late by no more than the contract says. A busy machine gets three tries at the second; the worst is noted.
pub async fn a_retry_is_never_early_and_hardly_late(run: Run) {
    let topic = run.topic("t");
    let instance = run.connect().await;
    let [mut sub] = instance.open([spec(&topic, "g")]).await;
    for wait in [50, 400, 1000, 3000].map(Duration::from_millis) {
        let mut lateness = Vec::new();
        while lateness.len() < 3 {
            instance.publish_numbered(&topic, 0..1).await;
            let delivery = sub.one().await;
            let copy = retry(&delivery, "g", 2, wait);
            let due = copy.not_before.expect("a retry has a time");
            sub.emit(&delivery, vec![copy]).await;
            let again = sub.one().await;
            let came = SystemTime::now();
            sub.ack(&[again]).await;
            assert!(came >= due, "{:?} early", due.duration_since(came));
            lateness.push(came.duration_since(due).unwrap_or_default());
            if lateness.last() <= Some(&late(wait)) {
                break;
            }
        }
        let best = lateness.iter().min().copied().unwrap_or_default();
        run.late(wait, lateness.iter().max().copied().unwrap_or_default());
        assert!(best <= late(wait), "a wait of {wait:?} was late by {lateness:?}");
    }
    instance.close().await;
}

/// Without a delay it comes at once.
pub async fn a_retry_at_once(run: Run) {
    let topic = run.topic("t");
    let instance = run.connect().await;
    let [mut sub] = instance.open([spec(&topic, "g")]).await;
    instance.publish_numbered(&topic, 0..20).await;
    for delivery in sub.take(20).await {
        let mut copy = retry(&delivery, "g", 2, Duration::ZERO);
        copy.not_before = None;
        sub.emit(&delivery, vec![copy]).await;
    }
    let began = Instant::now();
    let again = sub.handle(20).await;
    assert!(
        began.elapsed() < Duration::from_secs(5),
        "it took {:?}",
        began.elapsed()
    );
    assert_each_once(&again, 0..20);
    let returned = Origin::ReturnPath {
        attempt: 2,
        replays: 0,
    };
    assert!(again.iter().all(|it| it.origin == returned));
    sub.quiet().await;
    instance.close().await;
}

/// A retry leaves the in-flight window: even with one in flight, others are handled while it waits.
pub async fn a_retry_blocks_nothing(run: Run) {
    let topic = run.topic("t");
    let mut wishes = spec(&topic, "g");
    wishes.in_flight = 1;
    let instance = run.connect().await;
    let [mut sub] = instance.open([wishes]).await;
    instance.publish_numbered(&topic, 0..1).await;
    let delivery = sub.one().await;
    let wait = Duration::from_secs(8);
    let due = Instant::now() + wait;
    sub.emit(&delivery, vec![retry(&delivery, "g", 2, wait)]).await;
    instance.publish_numbered(&topic, 1..21).await;
    let others = sub.handle(20).await;
    assert!(Instant::now() < due, "the others had to wait for the retry");
    assert_each_once(&others, 1..21);
    let again = sub.handle(1).await;
    assert_eq!(id(&again[0].message), "id-0");
    assert!(Instant::now() >= due, "early");
    instance.close().await;
}

/// Waits of different lengths end in the order of their ends, not of their beginnings.
pub async fn retries_come_in_due_order(run: Run) {
    let topic = run.topic("t");
    let instance = run.connect().await;
    let [mut sub] = instance.open([spec(&topic, "g")]).await;
    instance.publish_numbered(&topic, 0..4).await;
    let deliveries = sub.take(4).await;
    let waits = [3200u64, 800, 2400, 1600];
    let mut expected = Vec::new();
    for (delivery, wait) in deliveries.iter().zip(waits) {
        expected.push((wait, id(&delivery.message)));
        let copy = retry(delivery, "g", 2, Duration::from_millis(wait));
        sub.emit(delivery, vec![copy]).await;
    }
    expected.sort();
    for (wait, expected) in expected {
        let again = sub.handle(1).await;
        assert_eq!(id(&again[0].message), expected, "the one that waits {wait} ms");
    }
    instance.close().await;
}

/// Every client goes away while a retry waits, and closes nothing; it comes to whoever comes back, not early.
pub async fn retries_survive_all_clients(run: Run) {
    let topic = run.topic("t");
    let instance = run.connect().await;
    let [mut sub] = instance.open([spec(&topic, "g")]).await;
    instance.publish_numbered(&topic, 0..10).await;
    let mut due = Vec::new();
    for (n, delivery) in (0u32..).zip(sub.take(10).await) {
        // Half are due before anybody is back, half after.
        let copy = retry(
            &delivery,
            "g",
            2,
            Duration::from_millis(if n < 5 { 300 } else { 5000 }),
        );
        due.push((id(&delivery.message), copy.not_before));
        sub.emit(&delivery, vec![copy]).await;
    }
    drop((sub, instance));
    tokio::time::sleep(Duration::from_secs(1)).await;
    let instance = run.connect().await;
    let [mut sub] = instance.open([spec(&topic, "g")]).await;
    let mut again = Vec::new();
    while again.len() < 10 {
        let some = timeout(run.patience(), sub.some(10)).await;
        let some = some.unwrap_or_else(|_| panic!("lost: only {:?} came", count_ids(&again)));
        for delivery in &some {
            let due = due.iter().find(|(name, _)| *name == id(&delivery.message));
            assert!(
                due.is_some_and(|(_, due)| *due <= Some(SystemTime::now())),
                "early"
            );
            assert_eq!(
                delivery.origin,
                Origin::ReturnPath {
                    attempt: 2,
                    replays: 0
                }
            );
        }
        sub.ack(&some).await;
        again.extend(some);
    }
    assert_each_once(&again, 0..10);
    instance.close().await;
}

/// A producer may write our headers; they prove nothing.
pub async fn a_spoofed_attempt_is_not_trusted(run: Run) {
    let topic = run.topic("t");
    let instance = run.connect().await;
    let [mut sub] = instance.open([spec(&topic, "g")]).await;
    let message = numbered(0)
        .with_header(names::ATTEMPT, 4i64)
        .with_header(names::REPLAYS, 9i64)
        .with_header(names::POSITION, "0");
    instance
        .publish(vec![Outgoing::to_topic(topic.clone(), message)])
        .await;
    let delivery = sub.one().await;
    assert_eq!(delivery.origin, Origin::Topic);
    // Its own retry is believed, whatever it said before.
    let copy = retry(&delivery, "g", 2, Duration::ZERO);
    sub.emit(&delivery, vec![copy]).await;
    let again = sub.handle(1).await;
    assert_eq!(
        again[0].origin,
        Origin::ReturnPath {
            attempt: 2,
            replays: 0
        }
    );
    instance.close().await;
}

/// Publishing to a topic never reaches an inbox, however the topic is called.
pub async fn an_inbox_has_no_back_door(run: Run) {
    let topic = run.topic("t");
    let instance = run.connect().await;
    let [mut sub] = instance.open([spec(&topic, "g")]).await;
    for suffix in [".inbox", ".retry", ".g.inbox", ".g.retry", ".g"] {
        let name = format!("{topic}{suffix}");
        let message = numbered(0).with_header(names::ATTEMPT, 4i64);
        // Refused or received by nobody: both are right.
        drop(
            instance
                .broker
                .publish(vec![Outgoing::to_topic(name, message)])
                .await,
        );
    }
    sub.quiet_for(Duration::from_secs(1)).await;
    instance.close().await;
}

/// One acknowledgement may emit to several addresses; all of it is there.
pub async fn several_copies_before_one_acknowledgement(run: Run) {
    let (source, left, right) = (run.topic("source"), run.topic("left"), run.topic("right"));
    let instance = run.connect().await;
    let specs = [spec(&source, "g"), spec(&left, "g"), spec(&right, "g")];
    let [mut sub, mut lefts, mut rights] = instance.open(specs).await;
    instance.publish_numbered(&source, 0..30).await;
    let verdicts = sub.take(30).await.into_iter().map(|delivery| {
        let emit = vec![
            Outgoing::to_topic(left.clone(), delivery.message.clone()),
            Outgoing::to_topic(right.clone(), delivery.message.clone()),
            retry(&delivery, "g", 2, Duration::ZERO),
        ];
        (delivery.token, Verdict::Ack { emit })
    });
    let verdicts: Vec<_> = verdicts.collect();
    crate::kit::all_done(&sub.settle(verdicts).await);
    for sub in [&mut sub, &mut lefts, &mut rights] {
        assert_each_once(&sub.handle(30).await, 0..30);
        sub.quiet().await;
    }
    instance.close().await;
}

/// A copy that cannot be published fails its settlement alone: it is handed back, and the original is unsettled still.
pub async fn a_copy_that_fails_leaves_the_original(run: Run) {
    let topic = run.topic("t");
    let instance = run.connect().await;
    let max = instance.broker.capabilities().max_payload;
    let [mut sub] = instance.open([spec(&topic, "g")]).await;
    instance.publish_numbered(&topic, 0..3).await;
    let deliveries = sub.take(3).await;
    let large = Outgoing::to_topic(run.topic("elsewhere"), Message::new(vec![7; max + 1]));
    let settled = sub
        .settle([
            (deliveries[0].token, Verdict::ACK),
            (deliveries[1].token, Verdict::Ack { emit: vec![large] }),
            (deliveries[2].token, Verdict::ACK),
        ])
        .await;
    assert!(
        matches!(settled[0], Settled::Done),
        "the first is {:?}",
        settled[0]
    );
    assert!(
        matches!(settled[2], Settled::Done),
        "the last is {:?}",
        settled[2]
    );
    let Settled::Failed(handed_back, error) = &settled[1] else {
        panic!("a copy that cannot be published is {:?}", settled[1]);
    };
    assert_eq!(error.kind(), ErrorKind::TooLarge);
    assert_eq!(handed_back.token, deliveries[1].token);
    assert!(matches!(&handed_back.verdict, Verdict::Ack { emit } if emit.len() == 1));
    sub.quiet().await;
    instance.close().await;
    drop((sub, instance));
    let instance = run.connect().await;
    let [mut sub] = instance.open([spec(&topic, "g")]).await;
    let again = sub.handle(1).await;
    assert_eq!(id(&again[0].message), id(&deliveries[1].message), "the original");
    sub.quiet().await;
    instance.close().await;
}

/// A message for later on a topic is kept until then, or refused; it is not sent early in silence.
pub async fn a_topic_message_for_later_is_never_early(run: Run) {
    let topic = run.topic("t");
    let instance = run.connect().await;
    let [mut sub] = instance.open([spec(&topic, "g")]).await;
    let due = SystemTime::now() + Duration::from_secs(2);
    let outgoing = Outgoing::to_topic(topic, numbered(0)).not_before(due);
    match instance.broker.publish(vec![outgoing]).await.remove(0) {
        Ok(_) => {
            sub.handle(1).await;
            assert!(SystemTime::now() >= due, "early");
        }
        Err(error) => {
            assert_eq!(error.kind(), ErrorKind::Unsupported);
            run.refused("a message to a topic for later is refused");
        }
    }
    instance.close().await;
}
