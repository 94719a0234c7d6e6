//! A slow network: what is asked for at once must be no more than arrives in time.

mod common;

use std::sync::Arc;
use std::time::{Duration, SystemTime};

use common::detour::Detour;
use common::own::Own;
use common::*;
use postrider_contract::{Broker, Bytes, Event, Message, Order, Outgoing, Sharing, Spec, Topology, names};

const MESSAGES: usize = 14;
const SIZE: usize = 500_000;
/// All of them together take longer than a command has.
const RATE: usize = 800_000;

async fn publish_all(own: &Own, topic: &Arc<str>) {
    let direct = connect(&own.streams(""), "publisher").await;
    publish(&direct, topic, (0..MESSAGES).map(|_| "x".repeat(SIZE))).await;
}

async fn plan(broker: &Arc<dyn Broker>, spec: &Spec) {
    let specs = std::slice::from_ref(spec);
    broker.plan(specs, Topology::Declare).await.unwrap();
}

/// It was ready once, and nothing else was told.
fn nothing_broke(open: &Open) {
    let told = open.news.iter().filter(|news| *news != "Deliveries");
    assert_eq!(told.count(), 1, "{:?}", open.news);
}

/// All arrive, delivered so often before, and nothing breaks on the way.
async fn all_arrive(broker: &Arc<dyn Broker>, spec: Spec, redeliveries: Option<u32>) {
    let mut open = open(broker, spec).await;
    let got = open.receive(MESSAGES).await;
    assert!(got.iter().all(|one| one.redeliveries == redeliveries));
    nothing_broke(&open);
}

#[tokio::test]
async fn large_messages_arrive() {
    let own = Own::start(&[]);
    let detour = Detour::to(own.port).await;
    let topic = unique("slow");
    let broker = connect(&detour.streams(""), "a").await;
    let ordered = Spec {
        order: Order::ByKey,
        ..spec(&topic, "ordered")
    };
    plan(&broker, &spec(&topic, "g")).await;
    plan(&broker, &ordered).await;
    publish_all(&own, &topic).await;
    detour.slow(RATE);
    tokio::join!(
        all_arrive(&broker, spec(&topic, "g"), Some(0)),
        all_arrive(&broker, ordered, Some(0)),
    );
}

#[tokio::test]
async fn large_messages_arrive_at_everybody() {
    let own = Own::start(&[]);
    let detour = Detour::to(own.port).await;
    let topic = unique("slow");
    let broker = connect(&detour.streams(""), "a").await;
    let everyone = Spec {
        sharing: Sharing::Broadcast,
        dead_letter: None,
        ..spec(&topic, "everyone")
    };
    let mut open = open(&broker, everyone).await;
    detour.slow(RATE);
    publish_all(&own, &topic).await;
    assert_eq!(open.receive(MESSAGES).await.len(), MESSAGES);
    nothing_broke(&open);
}

/// What a former process of the name had been delivered is claimed.
#[tokio::test]
async fn large_messages_that_are_pending_arrive() {
    let own = Own::start(&[]);
    let detour = Detour::to(own.port).await;
    let topic = unique("slow");
    let broker = connect(&detour.streams(""), "a").await;
    plan(&broker, &spec(&topic, "g")).await;
    publish_all(&own, &topic).await;
    own.tell(&format!("XREADGROUP GROUP g a STREAMS {topic} >")).await;
    detour.slow(RATE);
    all_arrive(&broker, spec(&topic, "g"), Some(1)).await;
}

/// Nobody has seen what was claimed and did not arrive.
#[tokio::test]
async fn a_claim_that_does_not_arrive_does_not_count() {
    let own = Own::start(&[]);
    let detour = Detour::to(own.port).await;
    let topic = unique("slow");
    let broker = connect(&detour.streams(""), "a").await;
    let wishes = spec(&topic, "g");
    plan(&broker, &wishes).await;
    let direct = connect(&own.streams(""), "publisher").await;
    publish(&direct, &topic, ["x".repeat(1_000_000)]).await;
    own.tell(&format!("XREADGROUP GROUP g a STREAMS {topic} >")).await;
    detour.slow(100_000);
    let mut open = open(&broker, wishes).await;
    for _ in 0..2 {
        while !matches!(open.event(1, &mut Vec::new()).await, Event::Degraded(_)) {}
    }
    detour.slow(0);
    let got = open.receive(1).await.remove(0);
    assert_eq!(got.redeliveries, Some(1));
}

/// As many as a quick network brings at once are too many for a slow one, also where they are claimed.
#[tokio::test]
async fn many_that_are_pending_arrive() {
    const COUNT: usize = 20;
    let own = Own::start(&[]);
    let detour = Detour::to(own.port).await;
    let topic = unique("slow");
    let broker = connect(&detour.streams(""), "a").await;
    let wishes = spec(&topic, "g");
    plan(&broker, &wishes).await;
    let direct = connect(&own.streams(""), "publisher").await;
    publish(&direct, &topic, (0..COUNT).map(|_| "x".repeat(60_000))).await;
    own.tell(&format!("XREADGROUP GROUP g a STREAMS {topic} >")).await;
    detour.slow(150_000);
    let mut open = open(&broker, wishes).await;
    assert_eq!(open.receive(COUNT).await.len(), COUNT);
}

/// They come on the connection that everything else uses.
#[tokio::test]
async fn large_dead_letters_are_browsed_and_replayed() {
    let own = Own::start(&[]);
    let detour = Detour::to(own.port).await;
    let topic = unique("slow");
    let broker = connect(&detour.streams(""), "a").await;
    let mut open = open(&broker, spec(&topic, "g")).await;
    let dead: Arc<str> = names::dead_letter_topic(&topic, "g").into();
    publish_all(&own, &dead).await;
    detour.slow(RATE);
    let mut letters = broker.dead_letters(&dead, &topic, "g");
    let found = letters.browse(None, MESSAGES).await.unwrap();
    assert_eq!(found.len(), MESSAGES);
    let ids: Vec<Bytes> = found.into_iter().map(|letter| letter.id).collect();
    let (answers, got) = tokio::join!(letters.replay(&ids), open.receive(MESSAGES));
    assert!(answers.iter().all(Result::is_ok), "{answers:?}");
    assert_eq!(got.len(), MESSAGES);
    nothing_broke(&open);
}

/// The server does nothing else meanwhile, and replicas get it as one.
#[tokio::test]
async fn what_is_due_is_passed_on_a_few_at_once() {
    let own = Own::start(&[]);
    let topic = unique("due");
    let former = connect(&own.streams(""), "a").await;
    plan(&former, &spec(&topic, "g")).await;
    let due = SystemTime::now() + Duration::from_secs(3);
    let retry = |n: usize| {
        let message = Message::new(n.to_string() + &"x".repeat(SIZE));
        Outgoing::to_inbox(topic.clone(), "g", message).not_before(due)
    };
    for answer in former.publish((0..MESSAGES).map(retry).collect()).await {
        answer.unwrap();
    }
    former.close(SOON).await.unwrap();
    assert!(SystemTime::now() < due, "it took too long");
    tokio::time::sleep(Duration::from_secs(3)).await;
    let mut pass_on = redis::cmd("EVAL");
    pass_on.arg(include_str!("../src/scripts/due.lua")).arg(2);
    pass_on.arg(format!("{{{topic}}}.g.delayed"));
    pass_on.arg(format!("{{{topic}}}.g.inbox"));
    pass_on.arg("inbox").arg(100).arg(1_000_000);
    pass_on.exec_async(&mut own.raw().await).await.unwrap();
    let passed = own.tell(&format!("XLEN {{{topic}}}.g.inbox")).await;
    assert_eq!(passed, redis::Value::Int(2));
    let broker = connect(&own.streams(""), "b").await;
    let mut open = open(&broker, spec(&topic, "g")).await;
    let mut got = texts(&open.receive(MESSAGES).await);
    got.dedup();
    assert_eq!(got.len(), MESSAGES);
}
