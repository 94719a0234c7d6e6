//! The marks of handled messages.

mod common;

use std::time::Duration;

use common::own::Own;
use common::*;
use postrider_contract::{DedupScope, ErrorKind};
use tokio::time::{Instant, sleep};

const HOUR: Duration = Duration::from_secs(3600);

#[tokio::test]
async fn a_mark_is_of_one_group_at_one_topic_and_ends_with_its_window() {
    let own = Own::start(&[]);
    let broker = connect(&own.streams(""), "a").await;
    let store = broker.dedup_store().unwrap();
    let scope = DedupScope {
        topic: "order.created",
        group: "g",
    };
    let odd: &[u8] = b"\0 {x}\r\n\xff";
    for id in [&b"7"[..], odd] {
        assert!(!store.seen(scope, id).await.unwrap());
        store.mark(scope, id, HOUR).await.unwrap();
        assert!(store.seen(scope, id).await.unwrap());
    }
    let others = [
        ("order.created", "h", "7"),
        ("order", "g", "7"),
        ("order.created", "g", "77"),
    ];
    for (topic, group, id) in others {
        let scope = DedupScope { topic, group };
        assert!(
            !store.seen(scope, id.as_bytes()).await.unwrap(),
            "{topic} {group} {id}"
        );
    }

    let mut raw = own.raw().await;
    let left: i64 = redis::cmd("PTTL")
        .arg("{order.created}.g.handled.7")
        .query_async(&mut raw)
        .await
        .unwrap();
    assert!((3_590_000..=3_600_000).contains(&left), "{left}");

    let begin = Instant::now();
    store.mark(scope, b"7", Duration::from_millis(300)).await.unwrap();
    assert!(store.seen(scope, b"7").await.unwrap());
    while store.seen(scope, b"7").await.unwrap() {
        assert!(begin.elapsed() < Duration::from_secs(5), "it does not end");
        sleep(Duration::from_millis(5)).await;
    }
    assert!(
        begin.elapsed() >= Duration::from_millis(290),
        "{:?}",
        begin.elapsed()
    );
    store.mark(scope, b"7", Duration::MAX).await.unwrap();
    assert!(store.seen(scope, b"7").await.unwrap());
}

#[tokio::test]
async fn marks_survive_the_server_being_killed_and_errors_are_said() {
    let own = Own::start(&[]);
    let broker = connect(&own.streams(""), "a").await;
    let store = broker.dedup_store().unwrap();
    assert!(
        store.describe().contains(&own.port.to_string()),
        "{}",
        store.describe()
    );
    let scope = DedupScope {
        topic: "order.created",
        group: "g",
    };
    store.mark(scope, b"7", HOUR).await.unwrap();
    own.kill();
    let error = store.seen(scope, b"7").await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Unavailable, "{error}");
    let error = store.mark(scope, b"8", HOUR).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Unavailable, "{error}");
    own.up();
    assert!(store.seen(scope, b"7").await.unwrap());
    assert!(!store.seen(scope, b"8").await.unwrap());
}
