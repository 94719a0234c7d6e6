//! What is refused at start-up, and how it says so.

use std::time::Duration;

use postrider::prelude::*;
use postrider::{App, ErrorKind, Topology};

use tracing::instrument::WithSubscriber;

use crate::kit::{Log, Seen, Target};
use crate::on_every_broker;

#[listener(topic = "contract.never.declared")]
async fn undeclared(_payload: Bytes) {}

async fn verifying_lists_what_is_missing_and_makes_nothing(target: Target) {
    let keep_alive = target.publisher().await;
    for _ in 0..2 {
        let app = target
            .app()
            .topology(Topology::Verify)
            .listen(listeners![undeclared]);
        let error = app.start().await.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Topology, "{error}");
        assert!(error.to_string().contains("undeclared"), "{error}");
    }
    drop(keep_alive);
}

async fn starting_twice_is_fine(target: Target) {
    let seen = Seen::default();
    let keep_alive = target.publisher().await;
    for _ in 0..2 {
        let running = target.start(&seen, listeners![undeclared]).await;
        running.shutdown().await.unwrap();
    }
    let app = target
        .app()
        .topology(Topology::Verify)
        .listen(listeners![undeclared]);
    app.start().await.unwrap().shutdown().await.unwrap();
    drop(keep_alive);
}

#[listener(topic = "contract.never.declared", group = "its-own")]
async fn with_a_group(_payload: Bytes) {}

#[listener(topic = "contract.never.copied", broadcast)]
async fn copied(_payload: Bytes) {}

/// Nothing is made: what is missing is refused.
async fn a_group_that_is_only_the_name_of_the_file_is_told(target: Target) {
    let warnings = async |app: App| {
        let log = Log::default();
        let app = app
            .topology(Topology::Verify)
            .listen(listeners![undeclared, with_a_group, copied]);
        app.start().with_subscriber(log.subscriber()).await.unwrap_err();
        log.lines("name of this program's file")
    };
    let told = warnings(App::new(&target.url).unwrap()).await;
    // Nobody shares the embedded broker.
    assert_eq!(told.len(), usize::from(target.broker != "memory"), "{told:?}");
    for line in told {
        for part in ["WARN", "`undeclared`", ".name(", "POSTRIDER__APP__NAME"] {
            assert!(line.contains(part), "{part} is missing: {line}");
        }
        assert!(!line.contains("with_a_group"), "{line}");
        // Every instance has its own copy.
        assert!(!line.contains("copied"), "{line}");
    }
    assert_eq!(warnings(target.app()).await, [""; 0]);
}

on_every_broker! {
    verifying_lists_what_is_missing_and_makes_nothing
    starting_twice_is_fine
    a_group_that_is_only_the_name_of_the_file_is_told
}

/// What is configured holds for a publisher without an app, too. In a process of its own, since it is configured by a variable.
#[tokio::test]
async fn a_publisher_alone_makes_nothing_where_that_is_configured() {
    const VARIABLE: &str = "POSTRIDER__APP__TOPOLOGY";
    let Some(target) = Target::find("kafka") else {
        return;
    };
    if std::env::var_os(VARIABLE).is_none() {
        let again = std::process::Command::new(std::env::current_exe().unwrap())
            .args([
                "startup::a_publisher_alone_makes_nothing_where_that_is_configured",
                "--exact",
            ])
            .env(VARIABLE, "verify")
            .status();
        assert!(again.unwrap().success());
        return;
    }
    let publisher = target.publisher().await;
    let error = publisher.topic(&*target.name).send_json(&7).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Topology, "{error}");
    publisher.close(Duration::from_secs(10)).await.unwrap();
}

#[listener(topic = "contract.history", start = earliest)]
async fn historian(_payload: Bytes) {}

#[tokio::test]
async fn a_start_without_history_is_refused_with_the_brokers_own_way_out() {
    let listen = |url| App::new(url).unwrap().listen(listeners![historian]);
    let error = listen("memory://forgets").start().await.unwrap_err().to_string();
    assert!(
        error.contains("`historian`") && error.contains("?retain="),
        "{error}"
    );
    let kept = listen("memory://keeps?retain=10").start().await.unwrap();
    kept.shutdown().await.unwrap();
}

/// Starts an app on this URL, which must fail, and answers the one line it says.
async fn refusal(url: &str) -> (ErrorKind, String) {
    let started = match App::new(url) {
        Ok(app) => app.listen(listeners![undeclared]).start().await.map(drop),
        Err(error) => Err(error),
    };
    let error = started.unwrap_err();
    let text = format!("{error} {error:?}");
    assert!(!text.contains("hunter2"), "a secret shows: {text}");
    assert_eq!(error.to_string().lines().count(), 1, "{error}");
    (error.kind(), error.to_string())
}

#[tokio::test]
async fn urls_that_cannot_be_used_are_refused_in_one_line() {
    for (url, part) in [
        ("nonsense", "has no scheme"),
        ("pigeon://h", "`pigeon` is unknown"),
        ("memory://?capasity=1", "`capasity` is unknown; known options: "),
        ("memory://?capacity=many", "`capacity` is not a whole number"),
    ] {
        let (kind, text) = refusal(url).await;
        assert_eq!(kind, ErrorKind::Config, "{text}");
        assert!(text.contains(part), "{text}");
    }
}

#[cfg(all(feature = "kafka", feature = "rabbitmq", feature = "redis"))]
mod networked {
    use super::*;

    #[tokio::test]
    async fn unknown_options_list_the_known() {
        for scheme in ["kafka", "amqp", "redis", "redis+pubsub"] {
            let (kind, text) = refusal(&format!("{scheme}://u:hunter2@127.0.0.1:1?colour=hunter2")).await;
            assert_eq!(kind, ErrorKind::Config, "{text}");
            assert!(text.contains("is unknown; known options: "), "{text}");
        }
    }

    #[tokio::test]
    async fn an_unreachable_broker_is_said_so() {
        for scheme in ["kafka", "amqp", "redis", "redis+pubsub"] {
            let (kind, text) = refusal(&format!("{scheme}://127.0.0.1:1?connect_timeout=500ms")).await;
            assert_eq!(kind, ErrorKind::Unavailable, "{scheme}: {text}");
            assert!(text.contains("127.0.0.1:1"), "{text}");
        }
    }

    #[tokio::test]
    async fn wrong_credentials_are_denied_at_once() {
        let begin = std::time::Instant::now();
        for broker in ["rabbitmq", "redis"] {
            let Some(target) = Target::find(broker) else {
                continue;
            };
            let (scheme, rest) = target.url.split_once("://").unwrap();
            let address = rest.rsplit('@').next().unwrap();
            let (kind, text) = refusal(&format!("{scheme}://mallory:hunter2@{address}")).await;
            assert_eq!(kind, ErrorKind::Denied, "{broker}: {text}");
        }
        assert!(
            begin.elapsed().as_secs() < 8,
            "denied only after {:?}",
            begin.elapsed()
        );
    }
}
