//! A copy for every instance, which nobody else has.

mod support;

use std::time::Duration;

use postrider_contract::{Event, Settled, Sharing, Spec, names};
use support::own::OwnBroker;
use support::{PATIENCE, connect_to, dead, message, open, publish, spec};
use tokio::time::timeout;

fn copies() -> Spec {
    Spec {
        sharing: Sharing::Broadcast,
        ..spec("t", "g")
    }
}

/// Where there is nothing yet, it needs no listener with a group beside it.
#[tokio::test]
async fn it_may_be_the_first_of_a_virtual_host() {
    let own = OwnBroker::start();
    let broker = connect_to(&own.url()).await;
    let mut sub = open(&broker, copies()).await;
    publish(&broker, "t", message("m")).await;
    let came = sub.one().await;
    sub.ack(&came).await;
}

/// The queue is gone with its connection, and what was in it: that is told, and what is in hand can still become a dead
/// letter, since it does not come again.
#[tokio::test(flavor = "multi_thread")]
async fn a_lost_connection_takes_nothing_that_is_in_hand() {
    let own = OwnBroker::start();
    let broker = connect_to(&own.url()).await;
    let mut sub = open(&broker, copies()).await;
    publish(&broker, "t", message("failing")).await;
    publish(&broker, "t", message("handled")).await;
    let (failing, handled) = (sub.one().await, sub.one().await);

    own.rabbitmqctl(&["close_all_user_connections", "guest", "for a test"]);
    let mut seen = Vec::new();
    while !matches!(seen.last(), Some(Event::Ready)) {
        let event = timeout(PATIENCE, sub.receiver.next(1, &mut Vec::new())).await;
        seen.push(event.expect("it comes back").unwrap());
    }
    let told = |event: &Event| matches!(event, Event::Gap { lost: None });
    assert!(seen.iter().any(told), "{seen:?}");

    let letter = dead(&failing.message, "t", "g");
    let settled = sub.emit(&failing, vec![letter]).await;
    assert!(matches!(settled, Settled::Done), "{settled:?}");
    sub.ack(&handled).await;
    let mut letters = broker.dead_letters(&names::dead_letter_topic("t", "g"), "t", "g");
    let found = letters.browse(None, 10).await.unwrap();
    assert_eq!(found.len(), 1);
    assert_eq!(
        found[0].message.headers.get_str(names::MESSAGE_ID),
        Some("failing")
    );
}

/// Nor anything that has arrived and waits for room.
#[tokio::test(flavor = "multi_thread")]
async fn a_lost_connection_takes_nothing_that_has_arrived() {
    let own = OwnBroker::start();
    let broker = connect_to(&own.url()).await;
    let mut sub = open(&broker, copies()).await;
    for n in 0..5 {
        publish(&broker, "t", message(&n.to_string())).await;
    }
    let busy = timeout(Duration::from_secs(1), sub.receiver.next(0, &mut Vec::new())).await;
    assert!(busy.is_err(), "{busy:?}");
    own.rabbitmqctl(&["close_all_user_connections", "guest", "for a test"]);
    loop {
        let event = timeout(PATIENCE, sub.receiver.next(0, &mut Vec::new())).await;
        if let Event::Ready = event.expect("it comes back").unwrap() {
            break;
        }
    }
    for n in 0..5 {
        let came = sub.one().await;
        let id = came.message.headers.get_str(names::MESSAGE_ID);
        assert_eq!(id, Some(n.to_string().as_str()));
        sub.ack(&came).await;
    }
}

/// Another takes the place of a queue that somebody deleted, and what that had is told as lost.
#[tokio::test(flavor = "multi_thread")]
async fn a_deleted_queue_is_replaced() {
    let own = OwnBroker::start();
    let broker = connect_to(&own.url()).await;
    let mut sub = open(&broker, copies()).await;
    let queues = own.rabbitmqctl(&["-q", "list_queues", "-p", "postrider", "name"]);
    let queue = queues.lines().find(|name| name.starts_with("amq.gen")).unwrap();
    own.rabbitmqctl(&["delete_queue", "-p", "postrider", queue]);
    sub.until(|event| matches!(event, Event::Gap { .. })).await;
    sub.until(|event| matches!(event, Event::Ready)).await;
    publish(&broker, "t", message("after")).await;
    let came = sub.one().await;
    sub.ack(&came).await;
}
