//! What cases assert.

use std::collections::BTreeMap;
use std::fmt::Debug;
use std::future::Future;
use std::ops::Range;
use std::time::Duration;

use postrider_contract::{Delivery, Error, ErrorKind, Message, Settled, Value};
use tokio::time::{Instant, sleep};

use crate::kit::id;

/// Every settlement was carried out.
pub fn all_done(settled: &[Settled]) {
    for one in settled {
        match one {
            Settled::Done => (),
            // Without what was handed back: that may be a megabyte of payload.
            Settled::Failed(_, error) => panic!("not settled: {error}"),
            other => panic!("settled as {other:?}"),
        }
    }
}

/// How often each id is there.
pub fn count_ids<'a>(deliveries: impl IntoIterator<Item = &'a Delivery>) -> BTreeMap<String, usize> {
    let mut counts = BTreeMap::new();
    for delivery in deliveries {
        *counts.entry(id(&delivery.message)).or_default() += 1;
    }
    counts
}

/// Each numbered message of this range exactly once.
pub fn assert_each_once<'a>(deliveries: impl IntoIterator<Item = &'a Delivery>, range: Range<usize>) {
    let expected: BTreeMap<_, _> = range.map(|n| (format!("id-{n}"), 1)).collect();
    let counts = count_ids(deliveries);
    let missing: Vec<_> = expected.keys().filter(|id| !counts.contains_key(*id)).collect();
    let wrong = |(id, n): &(&String, &usize)| **n > 1 || !expected.contains_key(*id);
    let repeated: Vec<_> = counts.iter().filter(wrong).collect();
    assert!(
        missing.is_empty() && repeated.is_empty(),
        "missing: {missing:?}; more than once or foreign: {repeated:?}"
    );
}

/// The error's kind, or a failure.
pub fn kind<T: Debug>(result: Result<T, Error>) -> ErrorKind {
    result.expect_err("an error").kind()
}

/// Key, payload and every header of what was sent are in what came. Headers are compared as bytes: not every broker has
/// typed ones.
pub fn assert_same_content(came: &Message, sent: &Message) {
    let bytes = |message: &Message| message.payload.clone().unwrap_or_default();
    assert_eq!(came.key, sent.key, "the key");
    assert!(bytes(came) == bytes(sent), "the payload differs");
    for (name, value) in sent.headers.iter() {
        let there = came.headers.get(name).map(Value::to_bytes);
        assert_eq!(there, Some(value.to_bytes()), "header {name}");
    }
}

/// Asks until the answer satisfies, and says the last one where it never does.
pub async fn eventually<T: Debug, F: Future<Output = T>>(
    what: &str,
    patience: Duration,
    mut ask: impl FnMut() -> F,
    satisfies: impl Fn(&T) -> bool,
) {
    let until = Instant::now() + patience;
    loop {
        let answer = ask().await;
        if satisfies(&answer) {
            return;
        }
        assert!(Instant::now() < until, "{what}: {answer:?}");
        sleep(Duration::from_millis(50)).await;
    }
}
