//! Order by key while one instance drains and the next takes over.

mod support;

use std::time::Duration;

use postrider_contract::{Order, Verdict};
use support::{PATIENCE, connect, message, open, publish, spec, unique};

/// What the draining instance holds comes to the next one before anything that follows.
#[tokio::test]
async fn the_next_instance_begins_with_what_the_former_held() {
    let topic = unique("handover");
    let mut ordered = spec(&topic, "g");
    ordered.order = Order::ByKey;
    ordered.in_flight = 4;
    let (first, second) = (connect().await, connect().await);
    let mut former = open(&first, ordered.clone()).await;
    let mut next = open(&second, ordered).await;
    for n in 0..12 {
        publish(&first, &topic, message(&n.to_string()).with_key("k")).await;
    }
    let held = [former.one().await, former.one().await, former.one().await];
    former.ack(&held[0]).await;

    // A drain: no more is fetched, what was not started is given back, what runs is finished, then everything ends.
    former.receiver.pause(true).await;
    former.settle(&held[2], Verdict::Release).await;
    assert!(
        next.within(Duration::from_millis(500)).await.is_none(),
        "it is not its turn"
    );
    former.ack(&held[1]).await;
    drop(former);
    first.close(PATIENCE).await.unwrap();

    for n in 2..12 {
        let delivery = next.one().await;
        assert_eq!(
            delivery.message,
            message(&n.to_string()).with_key("k"),
            "in order"
        );
        next.ack(&delivery).await;
    }
    second.close(PATIENCE).await.unwrap();
}
