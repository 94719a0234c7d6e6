//! Credentials, permissions, addresses: clear, at once, and no secret told.

mod support;

use std::time::Duration;

use postrider_contract::{BrokerUrl, Error, ErrorKind, Outgoing, Topology};
use support::own::OwnBroker;
use support::{client, connect_to, message, open, spec, url};
use tokio::time::Instant;

async fn refused(url: &str) -> (Error, Duration) {
    let url: BrokerUrl = url.parse().expect("a URL");
    let started = Instant::now();
    let error = postrider_rabbitmq::connect(&url, client("tests")).await.err();
    let error = error.expect("refused");
    let told = format!("{error} {error:?}");
    assert!(!told.contains("hunter2"), "{told}");
    (error, started.elapsed())
}

#[tokio::test]
async fn wrong_credentials_and_virtual_hosts_fail_at_once() {
    let there = url();
    let (host, port) = (&there.hosts[0].0, there.hosts[0].1.expect("a port"));
    for wrong in [
        format!("amqp://guest:hunter2@{host}:{port}/postrider"),
        format!("amqp://hunter2:hunter2@{host}:{port}/postrider"),
        format!("amqp://guest:guest@{host}:{port}/no-such-host"),
    ] {
        let (error, took) = refused(&wrong).await;
        assert_eq!(error.kind(), ErrorKind::Denied, "{error}");
        // Tried again, it would take the usual `connect_timeout` of ten.
        assert!(took < Duration::from_secs(8), "{took:?}");
    }
}

#[tokio::test]
async fn an_unreachable_broker_is_waited_for_within_its_time() {
    let (error, took) = refused("amqp://guest:hunter2@127.0.0.1:1?connect_timeout=1s").await;
    assert_eq!(error.kind(), ErrorKind::Unavailable, "{error}");
    assert!(took < Duration::from_secs(8), "{took:?}");
    // Something that takes connections and says nothing.
    let silent = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let port = silent.local_addr().unwrap().port();
    let (error, took) = refused(&format!("amqp://127.0.0.1:{port}?connect_timeout=1s")).await;
    assert_eq!(error.kind(), ErrorKind::Unavailable, "{error}");
    assert!(took < Duration::from_secs(8), "{took:?}");
}

#[tokio::test]
async fn the_next_host_is_tried() {
    let there = url();
    let (host, port) = (&there.hosts[0].0, there.hosts[0].1.expect("a port"));
    let several: BrokerUrl = format!("amqp://guest:guest@127.0.0.1:1,{host}:{port}/postrider")
        .parse()
        .unwrap();
    connect_to(&several)
        .await
        .close(Duration::from_secs(1))
        .await
        .unwrap();
}

/// Without the permission to configure, declaring is a problem that says so, and verifying is none.
#[tokio::test]
async fn permissions_are_told() {
    let own = OwnBroker::start();
    let owner = connect_to(&own.url()).await;
    owner.plan(&[spec("t", "g")], Topology::Declare).await.unwrap();
    own.rabbitmqctl(&["add_user", "clerk", "hunter2"]);
    own.rabbitmqctl(&["set_permissions", "-p", "postrider", "clerk", "^$", ".*", ".*"]);
    let clerk: BrokerUrl = own
        .url_text()
        .replace("guest:guest", "clerk:hunter2")
        .parse()
        .unwrap();
    let broker = connect_to(&clerk).await;
    let problems = broker
        .plan(&[spec("t", "g")], Topology::Declare)
        .await
        .unwrap_err();
    let text = problems[0].to_string();
    assert!(
        text.contains("ACCESS_REFUSED") && text.contains("topology = verify"),
        "{text}"
    );
    let broker = connect_to(&clerk).await;
    broker.plan(&[spec("t", "g")], Topology::Verify).await.unwrap();
    let answer = broker
        .publish(vec![Outgoing::to_topic("t", message("m"))])
        .await
        .remove(0);
    assert!(answer.unwrap().received);

    // No permission to write: said of the publish, at once.
    own.rabbitmqctl(&["set_permissions", "-p", "postrider", "clerk", "^$", "^$", ".*"]);
    let broker = connect_to(&clerk).await;
    let answer = broker
        .publish(vec![Outgoing::to_topic("t", message("m"))])
        .await
        .remove(0);
    let error = answer.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Denied, "{error}");

    // A forbidden topic alone is denied, not what was under way beside it.
    own.rabbitmqctl(&["set_permissions", "-p", "postrider", "clerk", "^$", ".*", ".*"]);
    own.rabbitmqctl(&[
        "set_topic_permissions",
        "-p",
        "postrider",
        "clerk",
        "postrider",
        "^t$",
        ".*",
    ]);
    let broker = connect_to(&clerk).await;
    let topics = ["t", "forbidden", "t"];
    let answers = broker
        .publish(topics.map(|topic| Outgoing::to_topic(topic, message("m"))).into())
        .await;
    let kinds = answers
        .iter()
        .map(|answer| answer.as_ref().err().map(Error::kind));
    let denied: Vec<bool> = kinds.map(|kind| kind == Some(ErrorKind::Denied)).collect();
    assert_eq!(denied, [false, true, false], "{answers:?}");
}

/// Credentials that are revoked while connected end the subscription with a clear error, not with an endless retry.
#[tokio::test]
async fn revoked_credentials_are_the_end() {
    let own = OwnBroker::start();
    own.rabbitmqctl(&["add_user", "clerk", "hunter2"]);
    own.rabbitmqctl(&["set_permissions", "-p", "postrider", "clerk", ".*", ".*", ".*"]);
    let clerk: BrokerUrl = own
        .url_text()
        .replace("guest:guest", "clerk:hunter2")
        .parse()
        .unwrap();
    let broker = connect_to(&clerk).await;
    let mut sub = open(&broker, spec("t", "g")).await;
    own.rabbitmqctl(&["change_password", "clerk", "another"]);
    own.rabbitmqctl(&["close_all_user_connections", "clerk", "revoked"]);
    let deadline = Instant::now() + Duration::from_secs(20);
    let mut into = Vec::new();
    let error = loop {
        assert!(Instant::now() < deadline, "it ends");
        match tokio::time::timeout_at(deadline, sub.receiver.next(1, &mut into))
            .await
            .expect("in time")
        {
            Ok(_) => {}
            Err(error) => break error,
        }
    };
    assert_eq!(error.kind(), ErrorKind::Denied, "{error}");
    assert!(!format!("{error} {error:?}").contains("hunter2"));
    let answer = broker
        .publish(vec![Outgoing::to_topic("t", message("m"))])
        .await
        .remove(0);
    assert!(answer.is_err());
}
