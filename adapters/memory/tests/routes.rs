//! From a topic's name to who receives it.

mod common;

use std::sync::Arc;

use postrider_contract::{Message, Outgoing};
use postrider_memory::Memory;

use common::{at_once, client, open, payloads, spec};

#[tokio::test(start_paused = true)]
async fn a_group_declared_after_a_publish_receives_the_next() {
    let broker = Memory::default().connect(client());
    let topic: Arc<str> = "t".into();
    let publish = async |text: &'static str| {
        let message = Outgoing::to_topic(topic.clone(), Message::new(text));
        broker.publish(vec![message]).await.remove(0).unwrap().received
    };
    assert!(!publish("nobody's").await);
    let mut sub = open(&broker, spec("t", "g")).await;
    assert!(publish("received").await);
    assert_eq!(payloads(&at_once(&mut *sub.receiver).await), ["received"]);
}
