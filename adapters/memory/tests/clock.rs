//! Delays under a stopped clock: nothing here sleeps.

mod common;

use std::time::{Duration, SystemTime};

use postrider_contract::{Event, Outgoing, Verdict};
use tokio::time::{Instant, advance};

use common::{at_once, client, open, payloads, settle, spec, to};

#[tokio::test(start_paused = true)]
async fn a_retry_is_due_by_the_virtual_clock() {
    let broker = postrider_memory::isolated(client());
    let mut sub = open(&broker, spec("t", "g")).await;
    broker.publish(vec![to("t", "a")]).await;
    let delivery = at_once(&mut *sub.receiver).await.remove(0);
    let copy = Outgoing::to_inbox("t", "g", delivery.message.clone());
    let copy = copy.not_before(SystemTime::now() + Duration::from_secs(600));
    settle(&sub.settler, &delivery, Verdict::Ack { emit: vec![copy] }).await;
    // A wait counts from the publish, less the little that passed since it was reckoned.
    advance(Duration::from_secs(599)).await;
    assert!(at_once(&mut *sub.receiver).await.is_empty());
    advance(Duration::from_secs(1)).await;
    assert_eq!(payloads(&at_once(&mut *sub.receiver).await), ["a"]);
}

#[tokio::test(start_paused = true)]
async fn a_waiting_receiver_wakes_when_the_first_is_due() {
    let broker = postrider_memory::isolated(client());
    let mut sub = open(&broker, spec("t", "g")).await;
    let wait = Duration::from_secs;
    let later = |payload, secs| to("t", payload).not_before(SystemTime::now() + wait(secs));
    broker
        .publish(vec![later("slow", 3000), later("quick", 1000)])
        .await;
    let began = Instant::now();
    let late = broker.clone();
    let sooner = tokio::spawn(async move {
        tokio::time::sleep(wait(100)).await;
        // Sooner than what the receiver sleeps until.
        late.publish(vec![
            to("t", "quickest").not_before(SystemTime::now() + wait(200)),
        ])
        .await;
    });
    let mut into = Vec::new();
    for (payload, secs) in [("quickest", 300), ("quick", 1000), ("slow", 3000)] {
        let event = sub.receiver.next(10, &mut into).await;
        assert!(matches!(event, Ok(Event::Deliveries)));
        assert_eq!(payloads(&into), [payload]);
        let took = began.elapsed();
        assert!(
            took.abs_diff(wait(secs)) < Duration::from_millis(100),
            "{payload} took {took:?}"
        );
        into.clear();
    }
    sooner.await.unwrap();
}

#[tokio::test(start_paused = true)]
async fn a_time_past_or_far_away_is_no_trouble() {
    let broker = postrider_memory::isolated(client());
    let mut sub = open(&broker, spec("t", "g")).await;
    let past = to("t", "past").not_before(SystemTime::UNIX_EPOCH);
    let far = SystemTime::now() + Duration::from_secs(1 << 40);
    broker.publish(vec![to("t", "far").not_before(far), past]).await;
    assert_eq!(payloads(&at_once(&mut *sub.receiver).await), ["past"]);
}
