//! A paused instance keeps nothing from the others.

mod support;

use std::ops::Range;
use std::time::Duration;

use lapin::options::QueueDeclareOptions;
use lapin::types::FieldTable;
use postrider_contract::{Order, Spec, names};
use support::{PATIENCE, Sub, connect, lapin, message, open, publish, spec, unique};
use tokio::time::{Instant, timeout};

const MESSAGES: u32 = 20;

/// Waits until so many have not been fetched.
async fn left(queue: &str, wanted: u32) {
    let channel = lapin().await;
    let options = QueueDeclareOptions {
        passive: true,
        ..QueueDeclareOptions::default()
    };
    let deadline = Instant::now() + PATIENCE;
    loop {
        let looked = channel.queue_declare(queue.into(), options, FieldTable::default());
        if looked.await.unwrap().message_count() == wanted {
            return;
        }
        assert!(Instant::now() < deadline, "they are fetched");
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
}

/// Takes these, in order where that is kept.
async fn takes(sub: &mut Sub, numbers: Range<u32>, in_order: bool) {
    let mut came = Vec::new();
    for _ in numbers.clone() {
        let delivery = sub.one().await;
        sub.ack(&delivery).await;
        let id = delivery.message.headers.get_str(names::MESSAGE_ID);
        came.push(id.unwrap().parse::<u32>().unwrap());
    }
    if !in_order {
        came.sort_unstable();
    }
    assert_eq!(came, numbers.collect::<Vec<_>>());
}

/// Fetches a part of what is there and is paused: another instance gets everything, and it gets on when that is gone.
async fn a_pause_leaves_everything_to_others(wishes: Spec, queue: String) {
    let topic = wishes.topic().clone();
    let in_order = wishes.order == Order::ByKey;
    let first = connect().await;
    let mut sub = open(&first, wishes.clone()).await;
    for n in 0..MESSAGES {
        publish(&first, &topic, message(&n.to_string()).with_key("k")).await;
    }
    left(&queue, MESSAGES - wishes.in_flight).await;
    sub.receiver.pause(true).await;

    let second = connect().await;
    let mut next = open(&second, wishes).await;
    let mut none = Vec::new();
    tokio::select! {
        () = takes(&mut next, 0..MESSAGES, in_order) => {}
        () = async { loop { sub.receiver.next(0, &mut none).await.unwrap(); } } => {}
    }
    drop(next);
    second.close(PATIENCE).await.unwrap();

    sub.receiver.pause(false).await;
    publish(&first, &topic, message("100").with_key("k")).await;
    takes(&mut sub, 100..101, in_order).await;
    // And once more, with nothing to give back.
    sub.receiver.pause(true).await;
    publish(&first, &topic, message("101").with_key("k")).await;
    let brought = timeout(Duration::from_millis(500), sub.receiver.next(0, &mut none)).await;
    assert!(none.is_empty(), "{brought:?}");
    sub.receiver.pause(false).await;
    takes(&mut sub, 101..102, in_order).await;
    first.close(PATIENCE).await.unwrap();
}

#[tokio::test]
async fn what_was_fetched_goes_to_others() {
    let topic = unique("pause");
    let mut wishes = spec(&topic, "g");
    wishes.in_flight = 10;
    a_pause_leaves_everything_to_others(wishes, format!("{topic}.g")).await;
}

/// Where order is kept, another instance becomes the active one.
#[tokio::test]
async fn order_is_kept_by_another() {
    let topic = unique("pause");
    let mut wishes = spec(&topic, "g");
    wishes.in_flight = 10;
    wishes.order = Order::ByKey;
    a_pause_leaves_everything_to_others(wishes, format!("{topic}.g:ordered")).await;
}
