//! Names and options of the URL.

mod common;

use std::sync::Arc;

use postrider_contract::{Broker, BrokerUrl, Error, ErrorKind, Message, Outgoing, Settled, Verdict};

use common::{at_once, client, open, payloads, settle, spec, to};

async fn connect(url: &str) -> Result<Arc<dyn Broker>, Error> {
    let url: BrokerUrl = url.parse()?;
    postrider_memory::connect(&url, client()).await
}

fn problem(result: Result<Arc<dyn Broker>, Error>) -> Error {
    let Err(error) = result else {
        panic!("it should be refused")
    };
    assert_eq!(error.kind(), ErrorKind::Config);
    error
}

#[tokio::test]
async fn one_name_is_one_broker_until_its_last_handle_goes() {
    let one = connect("memory://shared-name").await.unwrap();
    let two = connect("memory://shared-name").await.unwrap();
    let other = connect("memory://other-name").await.unwrap();
    let mut sub = open(&two, spec("t", "g")).await;
    other.publish(vec![to("t", "elsewhere")]).await;
    one.publish(vec![to("t", "here")]).await;
    assert_eq!(payloads(&at_once(&mut *sub.receiver).await), ["here"]);
    // A subscription keeps its broker, and unsettled it comes back to the next.
    drop((one, two));
    let again = connect("memory://shared-name").await.unwrap();
    drop(sub);
    let mut sub = open(&again, spec("t", "g")).await;
    let back = at_once(&mut *sub.receiver).await;
    assert_eq!((payloads(&back), back[0].redeliveries), (vec!["here"], Some(1)));
    drop((again, sub));
    let fresh = connect("memory://shared-name").await.unwrap();
    let verify = fresh
        .plan(&[spec("t", "g")], postrider_contract::Topology::Verify)
        .await;
    assert!(verify.is_err(), "a new broker knows nothing");
}

#[tokio::test]
async fn options_are_read_and_contradictions_refused() {
    let broker = connect("memory://limits?retain=5&capacity=9&max_payload=3&publish_timeout=1s")
        .await
        .unwrap();
    assert!(broker.capabilities().earliest);
    assert_eq!(broker.capabilities().max_payload, 3);
    let results = broker.publish(vec![to("t", "1234"), to("t", "123")]).await;
    assert_eq!(results[0].as_ref().unwrap_err().kind(), ErrorKind::TooLarge);
    assert!(results[1].is_ok());
    assert!(connect("memory://limits").await.unwrap().capabilities().earliest);
    let error = problem(connect("memory://limits?retain=6").await).to_string();
    assert!(error.contains("retain=5"), "{error}");
    assert!(
        connect("memory://limits?retain=5&connect_timeout=1s")
            .await
            .is_ok()
    );
}

/// Larger than what this connection may send: it is retried, dead-lettered and replayed all the same.
#[tokio::test]
async fn what_was_received_is_put_back_however_large() {
    let size = 100_000;
    let sender = connect("memory://sizes").await.unwrap();
    let broker = connect("memory://sizes?max_payload=3").await.unwrap();
    let mut wishes = spec("t", "g");
    wishes.dead_letter = Some("t.g.dlq".into());
    let mut sub = open(&broker, wishes).await;
    sender
        .publish(vec![to("t", &"x".repeat(size))])
        .await
        .remove(0)
        .unwrap();
    let first = at_once(&mut *sub.receiver).await.remove(0);
    let copy = |message: &Message| Outgoing::to_inbox("t", "g", message.clone());
    let emit = vec![copy(&first.message)];
    let settled = settle(&sub.settler, &first, Verdict::Ack { emit }).await;
    assert!(matches!(settled, Settled::Done));
    let again = at_once(&mut *sub.receiver).await.remove(0);
    let emit = vec![Outgoing::to_topic("t.g.dlq", again.message.clone())];
    let settled = settle(&sub.settler, &again, Verdict::Ack { emit }).await;
    assert!(matches!(settled, Settled::Done));
    let mut letters = broker.dead_letters("t.g.dlq", "t", "g");
    let id = letters.browse(None, 10).await.unwrap().remove(0).id;
    letters.replay(&[id]).await.remove(0).unwrap();
    let replayed = at_once(&mut *sub.receiver).await.remove(0);
    assert_eq!(replayed.message.payload_size(), size);
}

#[tokio::test]
async fn what_it_does_not_know_is_refused() {
    for url in [
        "memory://a,b",
        "memory://a:1",
        "memory://user@a",
        "memory://a/path",
        "memory://?capacity=0",
        "memory://?retain=x",
        "memory://?unknown=1",
        "redis://",
    ] {
        let error = problem(connect(url).await).to_string();
        assert!(!error.contains('\n'), "{error}");
    }
    assert!(connect(postrider_memory::LOCAL).await.is_ok());
}
