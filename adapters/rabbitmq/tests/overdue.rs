//! Handlers that take long, and a server whose consumer timeout is short.

mod support;

use std::collections::{HashSet, VecDeque};
use std::sync::Arc;
use std::time::Duration;

use postrider_contract::{Broker, Event, Order, Outgoing, Settled, Sharing, Verdict, names};
use support::own::OwnBroker;
use support::{Sub, connect_to, message, open, publish, spec};
use tokio::time::{Instant, timeout, timeout_at};

const MESSAGES: usize = 70;
/// How long each is handled, one at a time.
const EACH: Duration = Duration::from_millis(200);
/// Halving from 64 to what is handled in time takes four or five ends of a channel.
const USUAL: u32 = 6;

/// A server that closes a channel on which something was unsettled for a second.
async fn impatient() -> (OwnBroker, Arc<dyn Broker>) {
    let own = OwnBroker::start();
    own.rabbitmqctl(&[
        "eval",
        "application:set_env(rabbit, consumer_timeout, 1000), application:set_env(rabbit, channel_tick_interval, 250).",
    ]);
    let broker = connect_to(&own.url_with("?consumer_timeout=1s")).await;
    (own, broker)
}

/// What was fetched and never started while the channel was closed again and again is no sign of a crash.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_waits_behind_slow_handlers_is_rarely_redelivered() {
    let (_own, broker) = impatient().await;
    let mut wishes = spec("t", "g");
    wishes.in_flight = 64;
    let mut sub = open(&broker, wishes).await;
    for n in 0..MESSAGES {
        publish(&broker, "t", message(&n.to_string())).await;
    }
    // As the runtime does: all that comes is taken, and what was not started is dropped when its channel is lost.
    let mut taken = VecDeque::new();
    let mut handled = HashSet::new();
    let mut most = 0;
    let (mut revoked, mut ready) = (0, 0);
    while handled.len() < MESSAGES {
        let mut running = taken.pop_front();
        let until = Instant::now() + EACH;
        loop {
            let mut came = Vec::new();
            let room = 64 - taken.len() - usize::from(running.is_some());
            let event = match &running {
                Some(_) => timeout_at(until, sub.receiver.next(room, &mut came)).await,
                None => timeout(support::PATIENCE, sub.receiver.next(room, &mut came)).await,
            };
            let Ok(event) = event else { break };
            match event.unwrap() {
                Event::Revoked { .. } => {
                    taken.clear();
                    running = None;
                    revoked += 1;
                    break;
                }
                Event::Ready => ready += 1,
                _ => {}
            }
            most = came
                .iter()
                .filter_map(|delivery| delivery.redeliveries)
                .fold(most, u32::max);
            taken.extend(came);
            if running.is_none() && !taken.is_empty() {
                break;
            }
        }
        // Too late where its channel was just lost: then it comes again.
        if let Some(delivery) = running
            && let Settled::Done = sub.settle(&delivery, Verdict::ACK).await
        {
            let id = delivery.message.headers.get_str(names::MESSAGE_ID);
            handled.insert(id.unwrap().to_owned());
        }
    }
    println!("{revoked} channels were lost, and a message was redelivered {most} times at most");
    assert!(revoked > 0, "the server closes channels");
    assert!(most <= USUAL, "redelivered {most} times");

    // Handled fast, as much as before is fetched again: twice as much by each consumer that takes over.
    let until = Instant::now() + support::PATIENCE;
    let mut left = 0_usize;
    while ready < 2 * revoked {
        if left == 0 {
            // Many together: how long a confirm takes is not what is looked at.
            left = 64;
            let fast = (0..left).map(|_| Outgoing::to_topic("t", message("fast")));
            for answer in broker.publish(fast.collect()).await {
                answer.expect("confirmed");
            }
        }
        let mut came = Vec::new();
        let event = timeout_at(until, sub.receiver.next(64, &mut came)).await;
        match event.expect("more is fetched").unwrap() {
            Event::Revoked { .. } => revoked += 1,
            Event::Ready => ready += 1,
            _ => {}
        }
        left = left.saturating_sub(came.len());
        for delivery in came {
            sub.ack(&delivery).await;
        }
    }
}

/// Where order is kept, more is fetched by a channel that is opened anew when nothing is unsettled: that moment comes also where
/// something always waits to be handled.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_ordered_listener_fetches_more_again_under_a_backlog() {
    const WISH: usize = 8;
    let (_own, broker) = impatient().await;
    let mut wishes = spec("t", "g");
    wishes.order = Order::ByKey;
    wishes.in_flight = WISH as u32;
    let mut sub = open(&broker, wishes).await;
    for n in 0..500 {
        publish(&broker, "t", message(&n.to_string())).await;
    }
    let too_slow = sub.one().await;
    sub.until(|event| matches!(event, Event::Degraded(_))).await;
    assert!(matches!(
        sub.settle(&too_slow, Verdict::ACK).await,
        Settled::Stale
    ));
    sub.until(|event| matches!(event, Event::Ready)).await;

    // As much as comes is in hand, and half of it is settled when no more does.
    let until = Instant::now() + support::PATIENCE;
    let mut held = Vec::new();
    let mut most = 0;
    while held.len() < WISH {
        assert!(Instant::now() < until, "{most} are fetched");
        let mut came = Vec::new();
        match timeout(Duration::from_millis(20), sub.receiver.next(WISH, &mut came)).await {
            Ok(Ok(Event::Revoked { .. })) => held.clear(),
            Ok(event) => drop(event.unwrap()),
            Err(_) => {
                for first in held.drain(..held.len().div_ceil(2)) {
                    sub.ack(&first).await;
                }
            }
        }
        held.extend(came);
        most = most.max(held.len());
    }
}

/// A copy of its own with twice as much in its queue as is fetched.
async fn copy(broker: &Arc<dyn Broker>) -> Sub {
    let mut wishes = spec("t", "g");
    wishes.sharing = Sharing::Broadcast;
    wishes.in_flight = 8;
    let sub = open(broker, wishes).await;
    for n in 0..16 {
        publish(broker, "t", message(&n.to_string())).await;
    }
    sub
}

/// Takes all of it, and nothing is told as lost.
async fn takes_all(sub: &mut Sub) {
    let until = Instant::now() + support::PATIENCE;
    let mut handled = HashSet::new();
    while handled.len() < 16 {
        let mut came = Vec::new();
        let next = timeout_at(until, sub.receiver.next(8, &mut came)).await;
        let event = next.unwrap_or_else(|_| panic!("{} came", handled.len()));
        assert!(!matches!(event, Ok(Event::Gap { .. })), "{event:?}");
        for delivery in came {
            sub.ack(&delivery).await;
            let id = delivery.message.headers.get_str(names::MESSAGE_ID);
            handled.insert(id.unwrap().to_owned());
        }
    }
}

/// Nobody else has what waits for a `broadcast` listener that is paused for longer.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_long_pause_takes_nothing_from_a_copy() {
    let (_own, broker) = impatient().await;
    let mut sub = copy(&broker).await;
    sub.receiver.pause(true).await;
    let mut none = Vec::new();
    let told = timeout(Duration::from_secs(4), sub.receiver.next(0, &mut none)).await;
    assert!(told.is_err(), "{told:?}");
    sub.receiver.pause(false).await;
    takes_all(&mut sub).await;
}

/// Its queue outlives the channel, and goes with the subscription.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_lost_channel_takes_nothing_from_a_copy() {
    let (own, broker) = impatient().await;
    let mut sub = copy(&broker).await;
    let too_slow = sub.one().await;
    sub.until(|event| matches!(event, Event::Degraded(_))).await;
    sub.until(|event| matches!(event, Event::Revoked { .. })).await;
    sub.until(|event| matches!(event, Event::Ready)).await;
    let late = sub.settle(&too_slow, Verdict::Release).await;
    assert!(matches!(late, Settled::Stale), "{late:?}");
    takes_all(&mut sub).await;

    drop(sub);
    let until = Instant::now() + support::PATIENCE;
    while own
        .rabbitmqctl(&["-q", "list_queues", "-p", "postrider", "name"])
        .contains("amq.gen")
    {
        assert!(Instant::now() < until, "nobody reads it any more");
    }
}

/// What is in hand for too long comes again each time, and the queue itself counts nothing.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_a_copy_holds_for_too_long_is_counted() {
    let (own, _) = impatient().await;
    let broker = connect_to(&own.url()).await;
    let mut sub = copy(&broker).await;
    for expected in 0..4 {
        let too_slow = sub.one().await;
        assert_eq!(too_slow.redeliveries, Some(expected));
        sub.until(|event| matches!(event, Event::Degraded(_))).await;
        sub.waiting.clear();
        sub.until(|event| matches!(event, Event::Revoked { .. })).await;
        sub.until(|event| matches!(event, Event::Ready)).await;
    }
}

/// What came of a queue that is gone stays in hand, also when the channel of the next one is lost: nobody else gets it.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_is_left_of_a_former_copy_is_not_revoked() {
    let (own, _) = impatient().await;
    let broker = connect_to(&own.url()).await;
    let mut sub = copy(&broker).await;
    let of_the_former = sub.one().await;
    own.rabbitmqctl(&["close_all_user_connections", "guest", "for a test"]);
    sub.until(|event| matches!(event, Event::Gap { .. })).await;
    sub.until(|event| matches!(event, Event::Ready)).await;
    sub.waiting.clear();
    publish(&broker, "t", message("next")).await;
    let of_the_next = sub.one().await;
    let revoked = sub.until(|event| matches!(event, Event::Revoked { .. })).await;
    let Event::Revoked { lanes, .. } = revoked else {
        unreachable!("it is asked for above");
    };
    assert_eq!(lanes, [of_the_next.token.lane]);
    assert_ne!(lanes, [of_the_former.token.lane]);
}
