//! Streams of dead letters that others cut or delete while somebody looks at them.

mod support;

use std::sync::Arc;

use lapin::options::QueueDeleteOptions;
use postrider_contract::{Broker, Bytes, DeadLetters, Message, Topology, names};
use support::own::OwnBroker;
use support::{connect, connect_to, dead, lapin, publish, spec, unique};

/// So many are looked at in one go.
const PAGE: usize = 5;

/// Dead letters with these payloads.
async fn die(broker: &Arc<dyn Broker>, topic: &str, payloads: impl IntoIterator<Item = String>) {
    for payload in payloads {
        let message = Message::new(payload).with_header(names::MESSAGE_ID, unique("m"));
        let letter = dead(&message, topic, "g").message;
        publish(broker, &names::dead_letter_topic(topic, "g"), letter).await;
    }
}

/// The ids of all, page by page until one is empty.
async fn all(letters: &mut dyn DeadLetters) -> Vec<Bytes> {
    let mut ids: Vec<Bytes> = Vec::new();
    loop {
        let page = letters.browse(ids.last(), PAGE).await.unwrap();
        if page.is_empty() {
            return ids;
        }
        ids.extend(page.into_iter().map(|letter| letter.id));
    }
}

/// What a policy has taken away since it was seen hides nothing of what is left.
#[tokio::test]
async fn behind_what_has_expired_the_rest_is_found() {
    let own = OwnBroker::start();
    let limits = r#"{"max-length-bytes": 100000, "stream-max-segment-size-bytes": 20000}"#;
    own.rabbitmqctl(&[
        "set_policy",
        "-p",
        "postrider",
        "cut",
        ".*dlq",
        limits,
        "--apply-to",
        "queues",
    ]);
    let broker = connect_to(&own.url()).await;
    // Cut beyond all that was seen, and in the middle of it.
    for (topic, small, large) in [("t", 10, 10_000), ("u", 2_000, 2_000)] {
        let dead_letters = names::dead_letter_topic(topic, "g");
        broker.plan(&[spec(topic, "g")], Topology::Declare).await.unwrap();
        let mut letters = broker.dead_letters(&dead_letters, topic, "g");
        let letters_of = |size| (0..30).map(move |_| "x".repeat(size));
        die(&broker, topic, letters_of(small)).await;
        assert_eq!(all(&mut *letters).await.len(), 30);
        die(&broker, topic, letters_of(large)).await;
        let left = all(&mut *broker.dead_letters(&dead_letters, topic, "g")).await;
        assert!((1..60 - PAGE).contains(&left.len()), "{} are left", left.len());
        assert_eq!(all(&mut *letters).await, left);
    }
}

/// A stream that was deleted and declared anew is read from its beginning, whether it is shorter or longer than the former.
#[tokio::test]
async fn a_stream_made_anew_is_read_from_its_beginning() {
    let broker = connect().await;
    for (before, after) in [(8, 3), (3, 12)] {
        let topic = unique("anew");
        let dead_letters = names::dead_letter_topic(&topic, "g");
        let wishes = [spec(&topic, "g")];
        broker.plan(&wishes, Topology::Declare).await.unwrap();
        let mut letters = broker.dead_letters(&dead_letters, &topic, "g");
        die(&broker, &topic, (0..before).map(|n| n.to_string())).await;
        let former = all(&mut *letters).await;
        assert_eq!(former.len(), before);

        let channel = lapin().await;
        let deleted = channel.queue_delete(dead_letters.as_str().into(), QueueDeleteOptions::default());
        deleted.await.unwrap();
        broker.plan(&wishes, Topology::Declare).await.unwrap();
        die(&broker, &topic, (0..after).map(|n| n.to_string())).await;
        let found = all(&mut *letters).await;
        assert_eq!(found.len(), after);
        assert!(found.iter().all(|id| !former.contains(id)));
    }
}
