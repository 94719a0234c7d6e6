//! What others do to our keys.

mod common;

use std::time::{Duration, SystemTime};

use common::own::Own;
use common::*;
use postrider_contract::{Message, Outgoing, Sharing, Spec};

/// Nobody may publish for long.
#[tokio::test]
async fn a_broadcast_listener_is_ready_without_its_stream() {
    let own = Own::start(&[]);
    let topic = unique("deleted");
    let broker = connect(&own.streams(""), "a").await;
    let everyone = Spec {
        sharing: Sharing::Broadcast,
        dead_letter: None,
        ..spec(&topic, "everyone")
    };
    let mut open = open(&broker, everyone).await;
    publish(&broker, &topic, ["before".into()]).await;
    assert_eq!(texts(&open.receive(1).await), ["before"]);
    own.tell(&format!("DEL {topic}")).await;
    own.tell("CLIENT KILL TYPE normal").await;
    open.ready().await;
    assert_eq!(open.gaps, [None]);
    let one = || vec![Outgoing::to_topic(topic.clone(), Message::new("after"))];
    while broker.publish(one()).await.remove(0).is_err() {}
    assert_eq!(texts(&open.receive(1).await), ["after"]);
}

/// It is passed on as it is, which a listener can give up.
#[tokio::test]
async fn what_is_scheduled_and_no_frame_holds_up_nothing() {
    let own = Own::start(&[]);
    let topic = unique("scheduled");
    let broker = connect(&own.streams(""), "a").await;
    let mut open = open(&broker, spec(&topic, "g")).await;
    // Nothing of a frame, and one without a field.
    let empty = "e".repeat(28) + "\0\0\0\0";
    for member in ["x", &empty] {
        own.tell(&format!("ZADD {{{topic}}}.scheduled 1 {member}")).await;
    }
    let soon = SystemTime::now() + Duration::from_millis(100);
    let ours = Outgoing::to_topic(topic.clone(), Message::new("ours")).not_before(soon);
    broker.publish(vec![ours]).await.remove(0).unwrap();
    let mut got = texts(&open.receive(3).await);
    got.sort();
    assert_eq!(got, [&empty, "ours", "x"]);
}
