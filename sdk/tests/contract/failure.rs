//! Retries, dead letters, panics, timeouts, manual acknowledgement.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use postrider::ListenerState;
use postrider::contract::{Address, Outgoing};
use postrider::dead_letters::Filter;
use postrider::prelude::*;

use crate::kit::{Seen, Target, dead, status};
use crate::on_every_broker;

#[derive(Message, Serialize, Deserialize)]
#[message(topic = "contract.failing")]
struct Order {
    id: u32,
}

/// Listeners that succeed at the third attempt, on a topic of its own for each test.
macro_rules! third_time {
    ($($name:ident on $topic:literal)*) => {$(
        #[listener(topic = $topic, concurrency = 2, retry(attempts = 4, backoff = "1s"))]
        async fn $name(order: Order, attempt: Attempt, State(seen): State<Seen>) -> Result<(), HandlerError> {
            seen.add(format!("{} attempt {}", order.id, attempt.0));
            if order.id == 1 && attempt.0 < 3 {
                return Err(std::io::Error::other("gateway").into());
            }
            Ok(())
        }
    )*};
}
third_time! {
    third_time on "contract.failing"
    spoofed on "contract.spoofed"
    restarted on "contract.restarted"
}

async fn a_failure_is_tried_again_later_and_blocks_nothing(target: Target) {
    let (seen, other) = (Seen::default(), Seen::default());
    let running = target.start(&seen, listeners![third_time]).await;
    let bystander = target.other().start(&other, listeners![bystander]).await;
    // At once: the others are handled while the first waits.
    for answer in running
        .publisher()
        .send_all(&[1, 2, 3].map(|id| Order { id }))
        .await
    {
        answer.unwrap();
    }
    seen.count(5).await;
    status(&running, |status| status.counts.handled == 3).await;
    let all = seen.all();
    let of_first: Vec<_> = all.iter().filter(|one| one.starts_with("1 ")).collect();
    assert_eq!(of_first, ["1 attempt 1", "1 attempt 2", "1 attempt 3"]);
    assert_eq!(
        all.iter().position(|one| one == "1 attempt 2"),
        Some(3),
        "others went on meanwhile: {all:?}"
    );
    let times = seen.times();
    let at = |what: &str| times[all.iter().position(|one| one == what).unwrap()];
    for (before, after) in [("1 attempt 1", "1 attempt 2"), ("1 attempt 2", "1 attempt 3")] {
        let waited = at(after) - at(before);
        // The clock of the wait starts after the handler noted its time, so it is never early by that clock.
        assert!(waited >= Duration::from_millis(999), "early: {waited:?}");
        assert!(waited < Duration::from_millis(2_200), "late: {waited:?}");
    }
    assert_eq!(running.status()[0].counts.retried, 2);
    other.count(3).await;
    tokio::time::sleep(Duration::from_millis(300)).await;
    assert_eq!(
        other.all().len(),
        3,
        "retries of one group reach no other: {:?}",
        other.all()
    );
    running.shutdown().await.unwrap();
    bystander.shutdown().await.unwrap();
}

#[listener(topic = "contract.failing")]
async fn bystander(order: Order, State(seen): State<Seen>) {
    seen.add(order.id.to_string());
}

#[listener(
    topic = "contract.hopeless",
    concurrency = 2,
    retry(attempts = 2, backoff = "50ms"),
    timeout = "300ms"
)]
async fn hopeless(order: Order, State(seen): State<Seen>) -> Result<(), HandlerError> {
    seen.add(order.id.to_string());
    match order.id {
        1 => Err("refused".into()),
        2 => Err(HandlerError::permanent("no such article")),
        3 => panic!("boom"),
        4 => std::future::pending().await,
        _ => Ok(()),
    }
}

async fn what_cannot_be_handled_is_dead_lettered_with_its_reason(target: Target) {
    let seen = Seen::default();
    let running = target.start(&seen, listeners![hopeless]).await;
    let publisher = running.publisher();
    for id in [1, 2, 3, 4, 5] {
        publisher
            .topic("contract.hopeless")
            .header("tenant", "t-1")
            .send(&Order { id })
            .await
            .unwrap();
    }
    publisher
        .topic("contract.hopeless")
        .send_bytes(&b"\xff\x00 not json"[..])
        .await
        .unwrap();
    status(&running, |status| {
        status.counts.handled == 1 && status.counts.dead_lettered == 5
    })
    .await;
    let mut letters = dead(&running, "hopeless").await;
    letters.sort_by(|a, b| a.1.cmp(&b.1));
    let told: Vec<_> = letters
        .iter()
        .map(|(dead, payload)| {
            (
                String::from_utf8_lossy(payload).into_owned(),
                dead.reason.as_str(),
                dead.attempts,
                dead.error.as_str(),
            )
        })
        .collect();
    let expected = [
        (r#"{"id":1}"#, "retries_exhausted", 2, "refused"),
        (r#"{"id":2}"#, "permanent", 1, "no such article"),
        (
            r#"{"id":3}"#,
            "retries_exhausted",
            2,
            "the handler panicked: boom",
        ),
        (
            r#"{"id":4}"#,
            "retries_exhausted",
            2,
            "the handler ran past its timeout of 300ms",
        ),
    ];
    for ((payload, reason, attempts, error), told) in expected.iter().zip(&told) {
        assert_eq!(
            (told.0.as_str(), told.1, told.2, told.3),
            (*payload, *reason, *attempts, *error)
        );
    }
    let (garbage, bytes) = &letters[4];
    assert_eq!(
        (garbage.reason.as_str(), garbage.attempts, &bytes[..]),
        ("decode", 1, &b"\xff\x00 not json"[..])
    );
    for (dead, _) in &letters {
        assert_eq!(
            (dead.topic.as_str(), dead.group.as_str()),
            ("contract.hopeless", target.name.as_str())
        );
        assert_eq!(dead.application, target.name);
        assert!(dead.first_failure <= dead.last_failure);
    }
    // Looking changes nothing.
    assert_eq!(dead(&running, "hopeless").await.len(), 5);
    running.shutdown().await.unwrap();
}

/// Answers to the address in the payload, which came from outside.
#[listener(topic = "contract.asking")]
async fn answers(address: Bytes) -> Outcome {
    let answer = postrider::contract::Message::new("an answer");
    let mut emit = Outgoing::to_topic("contract.unused", answer);
    emit.to = Address::Reply(address);
    Outcome::Ack { emit: vec![emit] }
}

async fn an_answer_to_an_address_of_garbage_is_given_up(target: Target) {
    let seen = Seen::default();
    let running = target.start(&seen, listeners![answers]).await;
    let publisher = running.publisher();
    let asking = publisher.topic("contract.asking");
    asking.send_bytes(&b"\xff\x00"[..]).await.unwrap();
    status(&running, |status| {
        status.counts.dead_lettered == 1 && status.in_flight == 0
    })
    .await;
    assert_eq!(running.status()[0].state, ListenerState::Ready);
    let (letter, payload) = &dead(&running, "answers").await[0];
    assert_eq!(
        (letter.reason.as_str(), &payload[..]),
        ("permanent", &b"\xff\x00"[..])
    );
    assert!(
        letter.error.starts_with("what it publishes is refused: "),
        "{}",
        letter.error
    );
    running.shutdown().await.unwrap();
}

#[listener(
    topic = "contract.oversize",
    max_size = "16B",
    retry(attempts = 3, backoff = "50ms")
)]
async fn narrow(_: Bytes, State(seen): State<Seen>) {
    seen.add("handled");
}

async fn what_is_over_the_listener_s_limit_is_given_up_whole(target: Target) {
    let seen = Seen::default();
    let running = target.start(&seen, listeners![narrow]).await;
    let publisher = running.publisher();
    let large = b"\xff seventeen bytes".to_vec();
    for payload in [large.clone(), b"sixteen bytes ok".to_vec()] {
        publisher
            .topic("contract.oversize")
            .send_bytes(payload)
            .await
            .unwrap();
    }
    status(&running, |status| {
        status.counts.handled == 1 && status.counts.dead_lettered == 1
    })
    .await;
    assert_eq!(seen.all(), ["handled"]);
    let (letter, payload) = &dead(&running, "narrow").await[0];
    assert_eq!((letter.reason.as_str(), letter.attempts), ("too_large", 1));
    assert_eq!(*payload, large);
    running.shutdown().await.unwrap();
}

/// More often than a message may be delivered without a verdict.
const RELEASES: usize = 30;

#[listener(topic = "contract.patient")]
async fn patient(order: Order, State(seen): State<Seen>) -> Outcome {
    seen.add(order.id.to_string());
    if seen.all().len() <= RELEASES {
        return Outcome::Release;
    }
    Outcome::ACK
}

async fn what_is_released_often_is_handled_at_last(target: Target) {
    let seen = Seen::default();
    let running = target.start(&seen, listeners![patient]).await;
    let publisher = running.publisher();
    publisher
        .topic("contract.patient")
        .send(&Order { id: 1 })
        .await
        .unwrap();
    status(&running, |status| {
        status.counts.handled + status.counts.dead_lettered == 1
    })
    .await;
    let counts = running.status()[0].counts;
    assert_eq!((counts.handled, counts.released as usize), (1, RELEASES));
    running.shutdown().await.unwrap();
}

#[listener(topic = "contract.manual", ack = manual, retry(attempts = 3, backoff = "50ms"))]
async fn manual(
    order: Order,
    ack: Acker,
    attempt: Attempt,
    State(seen): State<Seen>,
) -> Result<(), HandlerError> {
    seen.add(format!("{} {}", order.id, attempt.0));
    match (order.id, attempt.0) {
        (1, _) | (_, 2) => {
            ack.ack().await?;
            if ack.ack().await.is_ok() {
                seen.add(format!("{} acknowledged again", order.id));
            }
            // After it has settled, an error changes nothing any more.
            Err("too late".into())
        }
        (2, _) => Ok(()),
        _ => ack.fail("not now").await.map_err(Into::into),
    }
}

async fn manual_handlers_settle_once(target: Target) {
    let seen = Seen::default();
    let running = target.start(&seen, listeners![manual]).await;
    for id in [1, 2, 3] {
        running
            .publisher()
            .topic("contract.manual")
            .send(&Order { id })
            .await
            .unwrap();
    }
    status(&running, |status| status.counts.handled == 3).await;
    assert_eq!(seen.sorted(), ["1 1", "2 1", "2 2", "3 1", "3 2"]);
    running.shutdown().await.unwrap();
}

#[listener(
    topic = "contract.copies.failing",
    broadcast,
    retry(attempts = 3, backoff = "50ms")
)]
async fn copies_fail(order: Order, attempt: Attempt, State(seen): State<Seen>) -> Result<(), HandlerError> {
    seen.add(format!("{} {}", order.id, attempt.0));
    match (order.id, attempt.0) {
        (1, _) | (_, 1) => Err("not now".into()),
        _ => Ok(()),
    }
}

/// Its retries wait in the process that holds the copy.
async fn a_broadcast_that_fails_is_tried_again_and_given_up(target: Target) {
    let seen = Seen::default();
    let running = target.start(&seen, listeners![copies_fail]).await;
    let publisher = running.publisher();
    for id in [1, 2] {
        let draft = publisher.topic("contract.copies.failing");
        draft.send(&Order { id }).await.unwrap();
    }
    status(&running, |status| {
        (status.counts.handled, status.counts.dead_lettered) == (1, 1)
    })
    .await;
    assert_eq!(seen.sorted(), ["1 1", "1 2", "1 3", "2 1", "2 2"]);
    running.shutdown().await.unwrap();
}

async fn a_spoofed_attempt_is_not_believed(target: Target) {
    let seen = Seen::default();
    let running = target.start(&seen, listeners![spoofed]).await;
    let draft = running.publisher();
    let draft = draft
        .topic("contract.spoofed")
        .header("postrider-attempt", 4i64)
        .header("postrider-replays", 9i64);
    draft.send(&Order { id: 2 }).await.unwrap();
    seen.count(1).await;
    assert_eq!(seen.all(), ["2 attempt 1"]);
    running.shutdown().await.unwrap();
}

async fn a_retry_outlives_its_process(target: Target) {
    let seen = Seen::default();
    let keep_alive = target.publisher().await;
    let first = target.start(&seen, listeners![restarted]).await;
    first
        .publisher()
        .topic("contract.restarted")
        .send(&Order { id: 1 })
        .await
        .unwrap();
    status(&first, |status| status.counts.retried == 1).await;
    first.shutdown().await.unwrap();
    let second = target.start(&seen, listeners![restarted]).await;
    status(&second, |status| status.counts.handled == 1).await;
    assert_eq!(seen.all(), ["1 attempt 1", "1 attempt 2", "1 attempt 3"]);
    second.shutdown().await.unwrap();
    drop(keep_alive);
}

#[listener(topic = "contract.repaired", retry(attempts = 1))]
async fn repaired(order: Order, attempt: Attempt, State(seen): State<Seen>) -> Result<(), HandlerError> {
    seen.add(format!("{} {}", order.id, attempt.0));
    if seen.all().len() > 1 {
        Ok(())
    } else {
        Err("broken".into())
    }
}

async fn a_dead_letter_is_replayed_to_its_group(target: Target) {
    let seen = Seen::default();
    let running = target.start(&seen, listeners![repaired]).await;
    running
        .publisher()
        .topic("contract.repaired")
        .send(&Order { id: 9 })
        .await
        .unwrap();
    status(&running, |status| status.counts.dead_lettered == 1).await;
    let mut letters = running.dead_letters("repaired").unwrap();
    let one = Filter::all().limit(1);
    assert_eq!(letters.replay(one.clone()).await.unwrap().done, 1);
    seen.count(2).await;
    status(&running, |status| status.counts.handled == 1).await;
    tokio::time::sleep(Duration::from_millis(500)).await;
    assert_eq!(seen.all(), ["9 1", "9 1"], "replayed once, at attempt 1");
    assert_eq!(letters.replay(one).await.unwrap().matched, 0);
    running.shutdown().await.unwrap();
}

#[listener(
    topic = "contract.aged",
    retry(attempts = 50, backoff = "1s", max_age = "4500ms")
)]
async fn aged(_order: Order) -> Result<(), HandlerError> {
    Err("not today".into())
}

async fn what_fails_for_too_long_is_given_up(target: Target) {
    let seen = Seen::default();
    let running = target.start(&seen, listeners![aged]).await;
    let publisher = running.publisher();
    publisher
        .topic("contract.aged")
        .send(&Order { id: 1 })
        .await
        .unwrap();
    status(&running, |status| status.counts.dead_lettered == 1).await;
    let (letter, _) = dead(&running, "aged").await.pop().unwrap();
    assert_eq!(letter.reason, "too_old");
    // Of more there is no time, and each of fewer would have been late by more than is allowed.
    assert!((3..=6).contains(&letter.attempts), "{letter:?}");
    let age = letter.last_failure.duration_since(letter.first_failure).unwrap();
    assert!(age >= Duration::from_millis(4_500), "{age:?}");
    running.shutdown().await.unwrap();
}

#[listener(
    topic = "contract.resting",
    concurrency = 2,
    breaker(failures = 3, pause = "1s"),
    retry(attempts = 5, backoff = "100ms")
)]
async fn resting(
    order: Order,
    State(seen): State<Seen>,
    State(mended): State<Mended>,
) -> Result<(), HandlerError> {
    seen.add(order.id.to_string());
    if mended.0.load(Ordering::Relaxed) {
        return Ok(());
    }
    Err("the gateway is down".into())
}

#[derive(Clone, Default)]
struct Mended(Arc<AtomicBool>);

async fn attempts_are_not_used_up_while_a_dependency_is_down(target: Target) {
    let (seen, mended) = (Seen::default(), Mended::default());
    let app = target.app().state(seen.clone()).state(mended.clone());
    let running = app.listen(listeners![resting]).start().await.unwrap();
    running.ready().await.unwrap();
    let orders: Vec<Order> = (0..40).map(|id| Order { id }).collect();
    let publisher = running.publisher();
    for order in &orders {
        publisher.topic("contract.resting").send(order).await.unwrap();
    }
    status(&running, |status| {
        matches!(status.state, ListenerState::Degraded(_))
    })
    .await;
    let begun = Instant::now();
    tokio::time::sleep(Duration::from_millis(2500)).await;
    // Three that opened it, one that ran beside the third, and one for each second.
    let tried = seen.all().len();
    let most = 5 + begun.elapsed().as_secs() as usize;
    assert!((3..=most).contains(&tried), "{:?}", seen.all());
    mended.0.store(true, Ordering::Relaxed);
    status(&running, |status| status.counts.handled == 40).await;
    let status = &running.status()[0];
    assert_eq!(
        (&status.state, status.counts.dead_lettered),
        (&ListenerState::Ready, 0)
    );
    running.shutdown().await.unwrap();
}

on_every_broker! {
    attempts_are_not_used_up_while_a_dependency_is_down
    what_fails_for_too_long_is_given_up
    a_failure_is_tried_again_later_and_blocks_nothing
    what_cannot_be_handled_is_dead_lettered_with_its_reason
    an_answer_to_an_address_of_garbage_is_given_up
    what_is_over_the_listener_s_limit_is_given_up_whole
    what_is_released_often_is_handled_at_last
    manual_handlers_settle_once
    a_broadcast_that_fails_is_tried_again_and_given_up
    a_spoofed_attempt_is_not_believed
    a_retry_outlives_its_process
    a_dead_letter_is_replayed_to_its_group
}
