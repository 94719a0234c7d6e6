//! What is refused before anything starts, and what declaring does.

use std::sync::Arc;

use postrider_contract::names::{LONGEST_HEADER, LONGEST_TOGETHER};
use postrider_contract::{ErrorKind, Message, Outgoing, Problem, Spec, Topology};

use crate::Run;
use crate::kit::{Instance, assert_each_once, kind, numbered, spec};

async fn problems(instance: &Instance, specs: &[Spec], mode: Topology) -> Vec<Problem> {
    match instance.broker.plan(specs, mode).await {
        Ok(()) => Vec::new(),
        Err(problems) => {
            assert!(!problems.is_empty(), "an error lists its problems");
            for problem in &problems {
                let (what, help) = (&problem.what, &problem.help);
                assert!(
                    !what.is_empty() && !help.is_empty(),
                    "it says what and what to do: {problem:?}"
                );
                assert!(
                    !what.contains('\n') && !help.contains('\n'),
                    "one line: {problem:?}"
                );
            }
            problems
        }
    }
}

/// Topics and groups that some broker would not take are refused by every one.
pub async fn illegal_names_are_refused(run: Run) {
    let instance = run.connect().await;
    let good = run.topic("t");
    let long = "x".repeat(201);
    let topics = [
        "", ".", "a..b", ".a", "a.", "a b", "a/b", "a*", "#", "ä", "a\n", "{a}", "amq.a", &long,
    ];
    for bad in topics {
        let topic: Arc<str> = bad.into();
        let mut wishes = spec(&topic, "g");
        wishes.dead_letter = None;
        let found = problems(&instance, &[wishes], Topology::Declare).await;
        assert!(!found.is_empty(), "topic {bad:?} is accepted");
    }
    let long = "x".repeat(101);
    for bad in ["", "a.b", "a b", "ä", "*", "{a}", "dlq", "retry", "inbox", &long] {
        let found = problems(&instance, &[spec(&good, bad)], Topology::Declare).await;
        assert!(!found.is_empty(), "group {bad:?} is accepted");
    }
    let (long, group) = (filled(&good, LONGEST_TOGETHER - 99), "g".repeat(99));
    let mut together = spec(&long, &group);
    together.dead_letter = Some(run.topic("dead"));
    let found = problems(&instance, &[together], Topology::Declare).await;
    assert!(
        !found.is_empty(),
        "a topic and a group that are too long together are accepted"
    );
    for suffix in ["retry", "inbox"] {
        let reserved = run.topic(suffix);
        let found = problems(&instance, &[spec(&reserved, "g")], Topology::Declare).await;
        assert!(!found.is_empty(), "the reserved topic {reserved} is accepted");
    }
    let mut own = spec(&good, "g");
    own.dead_letter = Some(good.clone());
    let found = problems(&instance, &[own], Topology::Declare).await;
    assert!(
        !found.is_empty(),
        "a dead-letter topic that is its own source is accepted"
    );
    let topic = run.topic("headers");
    for bad in ["a\0b", &"x".repeat(LONGEST_HEADER + 1)] {
        let message = Message::new("x").with_header(bad, "value");
        let outgoing = Outgoing::to_topic(topic.clone(), message);
        let mut answers = instance.broker.publish(vec![outgoing]).await;
        assert_eq!(kind(answers.remove(0)), ErrorKind::Rejected, "header {bad:?}");
    }
    instance.close().await;
}

/// Several wrong listeners are told about in one go, each by its name.
pub async fn every_problem_is_told(run: Run) {
    let instance = run.connect().await;
    let bad: Arc<str> = "a..b".into();
    let good = run.topic("t");
    let specs = [
        spec(&bad, "first"),
        spec(&good, "fine"),
        spec(&good, "wrong.group"),
        spec(&run.topic("inbox"), "third"),
    ];
    let found = problems(&instance, &specs, Topology::Declare).await;
    for listener in ["listener_first", "listener_wrong.group", "listener_third"] {
        assert!(
            found.iter().any(|it| &*it.listener == listener),
            "{listener} is missing in {found:?}"
        );
    }
    assert!(
        found.iter().all(|it| &*it.listener != "listener_fine"),
        "{found:?}"
    );
    instance.close().await;
}

/// Verify lists what is missing and makes none of it; after a declaration it has nothing to say.
pub async fn verify_makes_nothing(run: Run) {
    let topic = run.topic("t");
    let specs = [spec(&topic, "one"), spec(&topic, "two")];
    let instance = run.connect().await;
    for _ in 0..2 {
        let found = problems(&instance, &specs, Topology::Verify).await;
        for listener in ["listener_one", "listener_two"] {
            assert!(
                found.iter().any(|it| &*it.listener == listener),
                "{listener} is missing in {found:?}"
            );
        }
    }
    instance.plan(&specs[..1]).await;
    let found = problems(&instance, &specs, Topology::Verify).await;
    assert!(
        found.iter().all(|it| &*it.listener == "listener_two") && !found.is_empty(),
        "{found:?}"
    );
    instance.plan(&specs).await;
    let peer = run.connect().await;
    let found = problems(&peer, &specs, Topology::Verify).await;
    assert_eq!(found, [], "declared and verified");
    let [mut one] = peer.open_only([specs[0].clone()]).await;
    peer.publish_numbered(&topic, 0..3).await;
    assert_each_once(&one.handle(3).await, 0..3);
    instance.close().await;
    peer.close().await;
}

/// Declaring what is declared moves no position and loses nothing.
pub async fn planning_again_changes_nothing(run: Run) {
    let topic = run.topic("t");
    let wishes = spec(&topic, "g");
    let instance = run.connect().await;
    instance.plan(std::slice::from_ref(&wishes)).await;
    instance.publish_numbered(&topic, 0..10).await;
    instance.plan(std::slice::from_ref(&wishes)).await;
    let peer = run.connect().await;
    peer.plan(std::slice::from_ref(&wishes)).await;
    peer.close().await;
    let [mut sub] = instance.open([wishes]).await;
    assert_each_once(&sub.handle(10).await, 0..10);
    sub.quiet().await;
    instance.close().await;
}

/// Names as long as they may be work, return path included.
pub async fn longest_names_pass(run: Run) {
    let topics = [
        (filled(&run.topic("t"), 200), "g".to_owned()),
        (filled(&run.topic("u"), LONGEST_TOGETHER - 101), "g".repeat(100)),
    ];
    let instance = run.connect().await;
    for (topic, group) in topics {
        let mut wishes = spec(&topic, &group);
        wishes.dead_letter = Some(filled(&run.topic("dead"), 200));
        let [mut sub] = instance.open([wishes]).await;
        let message = numbered(0).with_header("x".repeat(LONGEST_HEADER), "value");
        instance
            .publish(vec![Outgoing::to_topic(topic.clone(), message)])
            .await;
        let delivery = sub.one().await;
        let copy = crate::kit::retry(&delivery, &group, 2, std::time::Duration::from_millis(100));
        sub.emit(&delivery, vec![copy]).await;
        sub.handle(1).await;
    }
    instance.close().await;
}

/// A topic as long as asked for.
fn filled(name: &str, length: usize) -> Arc<str> {
    format!("{name}.{}", "x".repeat(length - name.len() - 1)).into()
}
