//! What others do to our keys.

mod common;

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
