//! Who takes: the active instance of an ordered group, the one that is free, the next in line.

mod common;

use std::time::Duration;

use postrider_contract::{Event, Order, Sharing, Topology, Verdict};
use postrider_memory::Memory;
use tokio::time::{sleep, timeout};

use common::{at_once, client, now, open, payloads, settle, spec, to};

#[tokio::test(start_paused = true)]
async fn one_instance_of_an_ordered_group_is_active() {
    let memory = Memory::default();
    let (one, two) = (memory.connect(client()), memory.connect(client()));
    let mut wishes = spec("t", "g");
    wishes.order = Order::ByKey;
    let mut active = open(&one, wishes.clone()).await;
    let mut standby = open(&two, wishes.clone()).await;
    one.publish((0..4).map(|n| to("t", &n.to_string())).collect())
        .await;
    assert!(at_once(&mut *standby.receiver).await.is_empty());
    let held = at_once(&mut *active.receiver).await;
    settle(&active.settler, &held[1], Verdict::ACK).await;
    let waiting = tokio::spawn(async move {
        let mut into = Vec::new();
        assert!(matches!(
            standby.receiver.next(10, &mut into).await,
            Ok(Event::Deliveries)
        ));
        into
    });
    sleep(Duration::from_secs(1)).await;
    one.close(Duration::ZERO).await.unwrap();
    let taken_over = waiting.await.unwrap();
    assert_eq!(payloads(&taken_over), ["0", "2", "3"]);
    assert!(taken_over.iter().all(|delivery| delivery.redeliveries == Some(1)));
}

#[tokio::test]
async fn a_group_does_not_change_its_order_while_it_runs() {
    let memory = Memory::default();
    let broker = memory.connect(client());
    let sub = open(&broker, spec("t", "g")).await;
    let mut ordered = spec("t", "g");
    ordered.order = Order::ByKey;
    let ordered = [ordered];
    let problems = broker.plan(&ordered, Topology::Declare).await.unwrap_err();
    assert!(problems[0].what.contains("ordered"), "{}", problems[0]);
    drop(sub);
    assert!(broker.plan(&ordered, Topology::Declare).await.is_ok());
}

#[tokio::test(start_paused = true)]
async fn a_wake_up_goes_on_to_whoever_is_free() {
    let memory = Memory::default();
    let broker = memory.connect(client());
    let mut idle = open(&broker, spec("t", "g")).await;
    let mut busy = open(&broker, spec("t", "g")).await;
    // One receive is dropped while it waits, one asks for nothing: neither keeps the message from the other.
    assert!(now(idle.receiver.next(10, &mut Vec::new())).await.is_none());
    let news = tokio::spawn(async move {
        timeout(Duration::from_secs(60), idle.receiver.next(0, &mut Vec::new()))
            .await
            .is_err()
    });
    let taking = tokio::spawn(async move {
        let mut into = Vec::new();
        assert!(matches!(
            busy.receiver.next(10, &mut into).await,
            Ok(Event::Deliveries)
        ));
        into.len()
    });
    sleep(Duration::from_millis(10)).await;
    broker.publish(vec![to("t", "a")]).await;
    assert_eq!(taking.await.unwrap(), 1);
    assert!(news.await.unwrap());
}

#[tokio::test]
async fn a_broadcast_copy_leaves_nothing_behind() {
    let memory = Memory::default();
    let broker = memory.connect(client());
    let mut wishes = spec("t", "g");
    wishes.sharing = Sharing::Broadcast;
    let sub = open(&broker, wishes.clone()).await;
    assert!(
        broker
            .publish(vec![to("t", "a")])
            .await
            .remove(0)
            .unwrap()
            .received
    );
    drop(sub);
    assert!(
        !broker
            .publish(vec![to("t", "b")])
            .await
            .remove(0)
            .unwrap()
            .received
    );
    let status = broker.status(&[wishes]).await.unwrap();
    assert_eq!(status[0].waiting, Some(0));
}
