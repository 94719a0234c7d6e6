//! A paused instance keeps nothing from the others.

mod common;

use common::*;
use postrider_contract::{Order, Spec};
use tokio::time::{Duration, sleep, timeout};

/// Where order is kept, another instance becomes the reader, once nothing is unsettled.
#[tokio::test]
async fn order_is_kept_by_another() {
    let topic = unique("pause");
    let wishes = Spec {
        order: Order::ByKey,
        in_flight: 10,
        ..spec(&topic, "g")
    };
    let (one, two) = (connect(&url(), "one").await, connect(&url(), "two").await);
    let mut first = open(&one, wishes.clone()).await;
    publish(&one, &topic, (0..20).map(|n| n.to_string())).await;
    let got = first.receive(2).await;
    let mut second = open(&two, wishes).await;
    first.subscription.receiver.pause(true).await;
    second.silent(Duration::from_secs(1)).await;
    first.ack(&got[0]).await;
    second.silent(Duration::from_secs(1)).await;
    first.ack(&got[1]).await;
    for n in 2..20 {
        let next = second.receive(1).await.remove(0);
        assert_eq!(text(&next), n.to_string());
        assert_eq!(next.redeliveries, Some(0));
        second.ack(&next).await;
    }
    two.close(SOON).await.unwrap();

    first.subscription.receiver.pause(false).await;
    publish(&one, &topic, ["20".into()]).await;
    let got = first.receive(1).await.remove(0);
    first.ack(&got).await;
    // And once more, with nothing to give back.
    first.subscription.receiver.pause(true).await;
    sleep(Duration::from_millis(100)).await;
    first.subscription.receiver.pause(false).await;
    publish(&one, &topic, ["21".into()]).await;
    let got = first.receive(1).await.remove(0);
    first.ack(&got).await;
    assert!(!first.news.iter().any(|news| news.starts_with("Revoked")));
    one.close(SOON).await.unwrap();
}

/// A listener ends before its process does, which waits for the others.
#[tokio::test]
async fn order_is_kept_by_another_when_a_listener_ends() {
    let topic = unique("end");
    let wishes = Spec {
        order: Order::ByKey,
        ..spec(&topic, "g")
    };
    let (one, two) = (connect(&url(), "one").await, connect(&url(), "two").await);
    let mut first = open(&one, wishes.clone()).await;
    publish(&one, &topic, ["0".into()]).await;
    let got = first.receive(1).await.remove(0);
    first.ack(&got).await;
    let mut second = open(&two, wishes).await;
    drop(first);
    publish(&one, &topic, ["1".into()]).await;
    let got = timeout(Duration::from_secs(5), second.receive(1)).await;
    assert_eq!(texts(&got.expect("nobody reads")), ["1"]);
}
