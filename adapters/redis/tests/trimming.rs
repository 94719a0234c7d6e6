//! What is trimmed, and what must stay.

mod common;

use std::sync::Arc;
use std::time::{Duration, SystemTime};

use common::own::Own;
use common::*;
use postrider_contract::{
    Broker, Delivery, Message, Order, Origin, Outgoing, Settled, Sharing, Spec, Token, Topology, Verdict,
};
use tokio::time::{Instant, sleep};

/// Entries of several nodes: whole ones are removed.
const MESSAGES: usize = 500;

fn numbers() -> impl Iterator<Item = String> {
    (0..MESSAGES).map(|number| number.to_string())
}

async fn length(own: &Own, key: &str) -> i64 {
    match own.tell(&format!("XLEN {key}")).await {
        redis::Value::Int(length) => length,
        other => panic!("{other:?}"),
    }
}

/// Everything has been looked at to be trimmed, since this was called: a topic that nobody reads was, twice.
async fn trimmed(own: &Own, broker: &Arc<dyn Broker>) {
    let witness = unique("witness");
    for _ in 0..2 {
        let before = length(own, &witness).await;
        publish(broker, &witness, numbers()).await;
        let until = Instant::now() + SOON;
        while length(own, &witness).await >= before + MESSAGES as i64 {
            assert!(Instant::now() < until, "nothing is trimmed");
            sleep(Duration::from_millis(20)).await;
        }
    }
}

/// What makes the stream again does not make its group.
#[tokio::test]
async fn retries_in_an_inbox_without_a_group_stay() {
    let own = Own::start(&[]);
    let topic = unique("inbox");
    let broker = connect(&own.streams("?retention=0s"), "a").await;
    let wishes = spec(&topic, "g");
    open(&broker, wishes.clone()).await;
    let specs = std::slice::from_ref(&wishes);
    broker.plan(specs, Topology::Verify).await.unwrap();
    let subscription = broker.open(specs.to_vec()).await.unwrap();
    let inbox = format!("{{{topic}}}.g.inbox");
    own.tell(&format!("DEL {inbox}")).await;
    let soon = SystemTime::now() + Duration::from_millis(100);
    let retry = |text| Outgoing::to_inbox(topic.clone(), "g", Message::new(text)).not_before(soon);
    for answer in broker.publish(numbers().map(retry).collect()).await {
        answer.unwrap();
    }
    let until = Instant::now() + SOON;
    while own.tell(&format!("ZCARD {{{topic}}}.g.delayed")).await != redis::Value::Int(0) {
        assert!(Instant::now() < until, "they are not passed on");
        sleep(Duration::from_millis(20)).await;
    }
    trimmed(&own, &broker).await;
    assert_eq!(length(&own, &inbox).await, MESSAGES as i64);
    drop(subscription);
}

/// A group that is set back has not read what lies behind, though later entries are pending.
#[tokio::test]
async fn what_a_group_that_was_set_back_has_not_read_stays() {
    let own = Own::start(&[]);
    let topic = unique("back");
    let broker = connect(&own.streams("?retention=0s"), "a").await;
    own.tell(&format!("XGROUP CREATE {topic} g 0 MKSTREAM")).await;
    publish(&broker, &topic, numbers()).await;
    own.tell(&format!(
        "XREADGROUP GROUP g c COUNT {} STREAMS {topic} >",
        MESSAGES - 1
    ))
    .await;
    let mut raw = own.raw().await;
    let first: redis::streams::StreamRangeReply = redis::cmd("XRANGE")
        .arg(&[&topic, "-", "+", "COUNT", "498"])
        .query_async(&mut raw)
        .await
        .unwrap();
    let mut acknowledge = redis::cmd("XACK");
    acknowledge.arg(&*topic).arg("g");
    for entry in &first.ids {
        acknowledge.arg(&entry.id);
    }
    own.tell(&format!("XGROUP SETID {topic} g 0")).await;
    acknowledge.exec_async(&mut raw).await.unwrap();
    trimmed(&own, &broker).await;
    assert_eq!(length(&own, &topic).await, MESSAGES as i64);
}

/// The server's clock was ahead once, or somebody chose an id of their own: all that follows lies behind that.
#[tokio::test]
async fn what_has_ids_of_the_future_is_trimmed() {
    let own = Own::start(&[]);
    let topic = unique("ahead");
    let broker = connect(&own.streams("?retention=0s"), "a").await;
    let wishes = Spec {
        in_flight: 1_000,
        ..spec(&topic, "g")
    };
    let mut open = open(&broker, wishes).await;
    own.tell(&format!("XADD {topic} 4102444800000-0 payload x")).await;
    publish(&broker, &topic, numbers()).await;
    let got = open.receive(MESSAGES + 1).await;
    for delivery in &got[..MESSAGES / 2] {
        open.ack(delivery).await;
    }
    let until = Instant::now() + SOON;
    while length(&own, &topic).await as usize > MESSAGES * 3 / 4 {
        assert!(Instant::now() < until, "nothing is trimmed");
        sleep(Duration::from_millis(20)).await;
    }
    trimmed(&own, &broker).await;
    let kept = length(&own, &topic).await as usize;
    assert!(kept > MESSAGES / 2, "of what is pending {kept} are left");
}

async fn fetched(broker: &Arc<dyn Broker>, topic: &Arc<str>, count: u64) {
    let until = Instant::now() + SOON;
    while broker.status(&[spec(topic, "g")]).await.unwrap()[0].unsettled != Some(count) {
        assert!(Instant::now() < until, "they are not fetched");
    }
}

/// A foreign program keeps the stream short: of four messages, three in hand, there is nothing else any more.
async fn orphaned(broker: &Arc<dyn Broker>, topic: &Arc<str>) -> (Open, Vec<Delivery>) {
    let wishes = Spec {
        in_flight: 4,
        ..spec(topic, "g")
    };
    let mut open = open(broker, wishes).await;
    publish(broker, topic, (0..4).map(|n| n.to_string())).await;
    let got = open.receive(3).await;
    fetched(broker, topic, 4).await;
    let mut raw = raw().await;
    let mut trim = redis::cmd("XTRIM");
    trim.arg(&**topic).arg("MAXLEN").arg(0);
    trim.exec_async(&mut raw).await.unwrap();
    let held: Vec<Token> = got.iter().map(|delivery| delivery.token).collect();
    for _ in 0..6 {
        open.subscription.settler.extend(&held).await;
        sleep(Duration::from_millis(300)).await;
    }
    (open, got)
}

#[tokio::test]
async fn what_is_in_hand_outlives_its_entry() {
    let topic = unique("orphaned");
    let broker = connect(&format!("{}?lease=1s", url()), "a").await;
    let (mut open, got) = orphaned(&broker, &topic).await;
    open.ack(&got[0]).await;
    let retry = Outgoing::to_inbox(topic.clone(), "g", got[1].message.clone());
    open.emit(&got[1], retry).await;
    let released = open.settle(&got[2], Verdict::Release).await;
    assert!(matches!(released, Settled::Done), "{released:?}");
    let mut again = open.receive(3).await;
    again.sort_by_key(text);
    assert_eq!(texts(&again), ["1", "2", "3"]);
    for delivery in &again {
        open.ack(delivery).await;
    }
    assert!(open.gaps.is_empty(), "{:?}", open.gaps);
}

/// A listener that drains has released it; a broker that closes at once has not.
#[tokio::test]
async fn what_outlives_its_entry_goes_to_others_at_the_end() {
    for drains in [true, false] {
        let topic = unique("orphaned");
        let broker = connect(&format!("{}?lease=1s", url()), "a").await;
        let (first, got) = orphaned(&broker, &topic).await;
        if drains {
            for delivery in &got {
                let released = first.settle(delivery, Verdict::Release).await;
                assert!(matches!(released, Settled::Done), "{released:?}");
            }
            drop(first);
            sleep(Duration::from_millis(100)).await;
        }
        broker.close(SOON).await.unwrap();
        let other = connect(&url(), "b").await;
        let mut second = open(&other, spec(&topic, "g")).await;
        let mut again = second.receive(4).await;
        again.sort_by_key(text);
        assert_eq!(texts(&again), ["0", "1", "2", "3"]);
        for delivery in &again {
            assert_eq!(delivery.origin, Origin::Topic);
            second.ack(delivery).await;
        }
        second.silent(Duration::from_millis(100)).await;
    }
}

/// Giving back is a claim as well, and the server forgets what is gone.
#[tokio::test]
async fn what_was_deleted_and_is_given_back_is_told() {
    let topic = unique("untold");
    let broker = connect(&url(), "a").await;
    let mut open = open(&broker, spec(&topic, "g")).await;
    publish(&broker, &topic, (0..3).map(|n| n.to_string())).await;
    let got = open.receive(1).await.remove(0);
    fetched(&broker, &topic, 3).await;
    let mut trim = redis::cmd("XTRIM");
    trim.arg(&*topic).arg("MAXLEN").arg(0);
    trim.exec_async(&mut raw().await).await.unwrap();
    open.subscription.receiver.pause(true).await;
    while open.gaps.is_empty() {
        open.event(1, &mut Vec::new()).await;
    }
    assert_eq!(open.gaps, [Some(2)]);
    open.ack(&got).await;
}

async fn gap(open: &mut Open) {
    while open.gaps.is_empty() {
        open.event(0, &mut Vec::new()).await;
    }
}

/// Of five, one is in hand: a foreign program keeps the stream so short that nobody has got the others.
#[tokio::test]
async fn what_is_trimmed_before_it_is_read_is_told() {
    let broadcast = |topic: &Arc<str>| Spec {
        sharing: Sharing::Broadcast,
        dead_letter: None,
        ..spec(topic, "everyone")
    };
    let ordered = |topic: &Arc<str>| Spec {
        order: Order::ByKey,
        ..spec(topic, "g")
    };
    let topic = unique("unread");
    for wishes in [
        spec(&topic, "g"),
        ordered(&unique("unread")),
        broadcast(&unique("unread")),
    ] {
        let topic = Arc::clone(wishes.topic());
        let counts = wishes.sharing == Sharing::Broadcast;
        let broker = connect(&url(), "a").await;
        let mut open = open(
            &broker,
            Spec {
                in_flight: 1,
                ..wishes
            },
        )
        .await;
        publish(&broker, &topic, (0..5).map(|n| n.to_string())).await;
        let first = open.receive(1).await.remove(0);
        let mut trim = redis::cmd("XTRIM");
        trim.arg(&*topic).arg("MAXLEN").arg(0);
        trim.exec_async(&mut raw().await).await.unwrap();
        publish(&broker, &topic, ["5".into()]).await;
        gap(&mut open).await;
        open.ack(&first).await;
        let last = open.receive(1).await.remove(0);
        assert_eq!(text(&last), "5");
        open.ack(&last).await;
        open.silent(Duration::from_millis(2_200)).await;
        assert_eq!(open.gaps, [counts.then_some(4)]);
    }
}

#[tokio::test]
async fn what_is_deleted_while_nobody_reads_is_told() {
    for by_itself in [true, false] {
        let topic = unique("unread");
        let former = connect(&url(), "a").await;
        let mut first = open(&former, spec(&topic, "g")).await;
        publish(&former, &topic, ["0".into()]).await;
        let got = first.receive(1).await.remove(0);
        first.ack(&got).await;
        former.close(SOON).await.unwrap();
        let mut raw = raw().await;
        for last in [false, true] {
            let mut add = redis::cmd("XADD");
            if last && !by_itself {
                add.arg(&[&*topic, "MAXLEN", "1", "*", "payload", "last"]);
            } else {
                add.arg(&[&*topic, "*", "payload", "last"]);
            }
            let id: String = add.query_async(&mut raw).await.unwrap();
            if !last && by_itself {
                redis::cmd("XDEL")
                    .arg(&[&*topic, &id])
                    .exec_async(&mut raw)
                    .await
                    .unwrap();
            }
        }
        let broker = connect(&url(), "b").await;
        let mut second = open(&broker, spec(&topic, "g")).await;
        gap(&mut second).await;
        let last = second.receive(1).await.remove(0);
        assert_eq!(text(&last), "last");
        second.silent(Duration::from_millis(2_200)).await;
        assert_eq!(second.gaps, [None]);
    }
}

/// Groups that read at their own pace miss nothing by our own trimming, also where the server starts again.
#[tokio::test]
async fn our_own_trimming_is_no_gap() {
    let own = Own::start(&[]);
    let topic = unique("own");
    let broker = connect(&own.streams("?retention=0s&lease=1s"), "a").await;
    let mut all = Vec::new();
    for (group, order) in [("one", Order::None), ("two", Order::ByKey)] {
        let wishes = Spec {
            order,
            in_flight: 20,
            ..spec(&topic, group)
        };
        all.push(open(&broker, wishes).await);
    }
    for round in 0..3 {
        publish(&broker, &topic, numbers()).await;
        for open in &mut all {
            for _ in 0..MESSAGES / 20 {
                for got in open.receive(20).await {
                    open.ack(&got).await;
                }
            }
            sleep(Duration::from_millis(300)).await;
        }
        trimmed(&own, &broker).await;
        assert!(length(&own, &topic).await < 200);
        if round == 1 {
            own.kill();
            own.up();
            for open in &mut all {
                open.ready().await;
            }
        }
    }
    for open in &mut all {
        open.silent(Duration::from_millis(1_200)).await;
        assert!(open.gaps.is_empty(), "{:?}", open.gaps);
    }
}
