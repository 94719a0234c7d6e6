//! Permissions that are withdrawn while messages flow: told as what they are, soon, and nothing that was confirmed is lost.

mod support;

use std::ops::{Deref, DerefMut};
use std::time::{Duration, Instant};

use postrider_contract::{DeadLetters, ErrorKind, Origin, Outgoing, Topology, Verdict, names};
use postrider_own_broker::Load;
use support::own::OwnBroker;
use support::{
    Listener, Log, PATIENCE, admin, client, dead_of, message, open, publish, retry_of, spec, text, unique,
    with_options,
};

const REFUSED: &str = "Topic authorization failed";

/// A load, and who decides what it may do.
struct Rules {
    own: OwnBroker,
    topic: String,
    load: Load,
}

impl Rules {
    async fn start() -> Self {
        let own = OwnBroker::with_acls();
        let topic = unique("orders");
        let url = own.url_with("&publish_timeout=5s");
        let broker = postrider_kafka::connect(&url, client("revoked")).await.unwrap();
        let load = Load::start(broker, spec(&topic, "g")).await;
        let rules = Self { own, topic, load };
        // Where there is one rule for a topic, what no rule allows is forbidden.
        rules.acls(&["--add", "--allow-principal", "User:*", "--operation", "All"]);
        rules.goes_on(100).await;
        rules
    }

    fn acls(&self, arguments: &[&str]) {
        let topic = ["--topic", &self.topic];
        self.own.cli(&[&["acls"], arguments, &topic].concat());
    }

    fn forbid(&self, operation: &str) {
        let everybody = ["--deny-principal", "User:ANONYMOUS", "--operation", operation];
        self.acls(&[&["--add"][..], &everybody].concat());
    }

    fn allow_again(&self, operation: &str) {
        let everybody = ["--deny-principal", "User:ANONYMOUS", "--operation", operation];
        self.acls(&[&["--remove", "--force"][..], &everybody].concat());
    }

    async fn nothing_is_lost(self) {
        let url = self.own.url_with("");
        let next = async { postrider_kafka::connect(&url, client("next")).await.unwrap() };
        self.load.nothing_is_lost(next).await;
    }
}

impl Deref for Rules {
    type Target = Load;

    fn deref(&self) -> &Load {
        &self.load
    }
}

impl DerefMut for Rules {
    fn deref_mut(&mut self) -> &mut Load {
        &mut self.load
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn writing_is_refused_until_it_is_allowed_again() {
    let rules = Rules::start().await;
    rules.forbid("Write");
    rules.denied(REFUSED).await;
    rules.allow_again("Write");
    rules.until(|seen| seen.since > 100).await;
    assert!(rules.is_consuming());
    rules.nothing_is_lost().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn refused_reading_ends_the_subscription_alone() {
    let mut rules = Rules::start().await;
    rules.forbid("Read");
    rules.over(REFUSED).await;
    rules.goes_on(100).await;
    rules.allow_again("Read");
    rules.nothing_is_lost().await;
}

/// Who may write nothing at all is refused a producer id, too, which librdkafka never asks for again.
#[tokio::test(flavor = "multi_thread")]
async fn a_refused_producer_id_is_asked_for_again() {
    let own = OwnBroker::with_acls();
    let acls = |arguments: &[&str]| own.cli(&[&["acls"], arguments].concat());
    // The cluster's own principal is the clients', and where there is one rule, what no rule allows is forbidden.
    for resource in [&["--cluster"][..], &["--topic", "*"]] {
        let all = ["--add", "--allow-principal", "User:*", "--operation", "All"];
        acls(&[&all[..], resource].concat());
    }
    let refusals = [
        &["--operation", "IdempotentWrite", "--cluster"][..],
        &["--operation", "Write", "--topic", "*"],
    ];
    let everybody = ["--deny-principal", "User:ANONYMOUS"];
    for refusal in refusals {
        acls(&[&["--add"][..], &everybody, refusal].concat());
    }
    let broker = postrider_kafka::connect(&own.url_with("&publish_timeout=5s"), client("refused"))
        .await
        .unwrap();
    let topic = unique("refused");
    let publish = async || {
        let outgoing = Outgoing::to_topic(topic.as_str(), message("x"));
        broker.publish(vec![outgoing]).await.remove(0)
    };
    // Longer than a refusal is believed.
    let begun = Instant::now();
    while begun.elapsed() < PATIENCE / 6 {
        let error = publish().await.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Denied, "{error}");
        assert!(
            error.to_string().contains("Cluster authorization failed"),
            "{error}"
        );
        tokio::time::sleep(PATIENCE / 100).await;
    }
    for refusal in refusals {
        acls(&[&["--remove", "--force"][..], &everybody, refusal].concat());
    }
    let begun = Instant::now();
    while let Err(error) = publish().await {
        assert_eq!(error.kind(), ErrorKind::Denied, "{error}");
        assert!(begun.elapsed() < PATIENCE, "{error}");
        tokio::time::sleep(PATIENCE / 100).await;
    }
    broker.close(PATIENCE).await.unwrap();
}

/// A start that fails over its position leaves nothing behind that shows a group which has lost one: it would go on with
/// everything that the topic retains.
#[tokio::test(flavor = "multi_thread")]
async fn a_group_that_was_refused_begins_where_it_is_declared() {
    let own = OwnBroker::with_acls();
    let topic = unique("begins");
    let broker = postrider_kafka::connect(&own.url_with(""), client("begins"))
        .await
        .unwrap();
    publish(&broker, &topic, &["old"]).await;
    let group = format!("{topic}.g");
    let refusal = ["--deny-principal", "User:ANONYMOUS", "--operation", "Read"];
    let acls = |what: &[&str]| own.cli(&[&["acls"], what, &refusal, &["--group", &group]].concat());
    acls(&["--add"]);
    let specs = [spec(&topic, "g")];
    let refused = broker.plan(&specs, Topology::Declare).await.unwrap_err();
    assert!(refused[0].what.contains("the position of group"), "{refused:?}");
    acls(&["--remove", "--force"]);
    let mut listener = open(&broker, spec(&topic, "g")).await;
    publish(&broker, &topic, &["new"]).await;
    assert_eq!(text(&listener.one().await), "new");
    broker.close(PATIENCE).await.unwrap();
}

/// What may not be deleted stays, and that is told, until it may.
#[tokio::test]
async fn refused_deletion_is_told_and_tried_again() {
    let own = OwnBroker::with_acls();
    let topic = unique("kept");
    let (retries, dead_topic) = (format!("{topic}.g.retry"), names::dead_letter_topic(&topic, "g"));
    let acls = |arguments: &[&str]| {
        let topics = ["--topic", &retries, "--topic", &dead_topic];
        own.cli(&[&["acls"], arguments, &topics].concat());
    };
    acls(&["--add", "--allow-principal", "User:*", "--operation", "All"]);
    let refusal = ["--deny-principal", "User:ANONYMOUS", "--operation", "Delete"];
    acls(&[&["--add"][..], &refusal].concat());

    let (log, _logged) = Log::begin();
    let broker = postrider_kafka::connect(&own.url_with("&partitions=1"), client("kept"))
        .await
        .unwrap();
    let mut listener = open(&broker, spec(&topic, "g")).await;
    publish(&broker, &topic, &["x"]).await;
    let delivery = listener.one().await;
    let emit = vec![
        retry_of(&delivery, "g", 2, Duration::ZERO),
        dead_of(&delivery, "g"),
    ];
    listener.settle(delivery.token, Verdict::Ack { emit }).await;
    let retry = listener.one().await;
    listener.ack(&retry).await;
    let mut dead = broker.dead_letters(&dead_topic, &topic, "g");
    let letter = dead.browse(None, 9).await.unwrap().remove(0);
    dead.purge(&[letter.id]).await.remove(0).unwrap();
    let told = || log.count("finished retries cannot be deleted and stay");
    let begun = Instant::now();
    while told() == 0 {
        assert!(begun.elapsed() < PATIENCE, "nothing was told");
        tokio::time::sleep(PATIENCE / 100).await;
    }

    acls(&[&["--remove", "--force"][..], &refusal].concat());
    let admin = admin(&own.url_with(""));
    let begins = |partition| {
        let watermarks = admin.inner().fetch_watermarks(&retries, partition, PATIENCE);
        watermarks.unwrap().0
    };
    let begun = Instant::now();
    while (0..3).all(|partition| begins(partition) == 0) {
        assert!(begun.elapsed() < PATIENCE, "it was not tried again");
        tokio::time::sleep(PATIENCE / 100).await;
    }
    assert_eq!(told(), 1);
    assert_eq!(log.count("resolved dead letters may not be deleted"), 1);
    broker.close(PATIENCE).await.unwrap();
}

/// What ARCHITECTURE.md says that a service must be allowed to do.
#[tokio::test(flavor = "multi_thread")]
async fn the_permissions_that_are_documented_are_enough() {
    let own = OwnBroker::with_password_and_rules("pencil");
    let _fence = own.fence().await;
    let topic = unique("allowed");
    let allow = |resource: &str, operations: &[&str]| {
        let mut arguments = vec!["acls", "--add", "--allow-principal", "User:user"];
        arguments.extend(["--resource-pattern-type", "prefixed", resource, &topic]);
        arguments.extend(operations.iter().flat_map(|operation| ["--operation", operation]));
        own.cli(&arguments);
    };
    let topics = [
        "Read",
        "Write",
        "Describe",
        "DescribeConfigs",
        "Delete",
        "Create",
        "AlterConfigs",
    ];
    allow("--topic", &topics);
    allow("--group", &["Read"]);
    let url = format!("kafka://user:pencil@127.0.0.1:{}", own.proxy_port());
    let broker = postrider_kafka::connect(&with_options(&url, ""), client("allowed"))
        .await
        .unwrap();
    let mut listener = open(&broker, spec(&topic, "g")).await;
    publish(&broker, &topic, &["x"]).await;
    let delivery = listener.one().await;
    let emit = vec![retry_of(&delivery, "g", 2, Duration::ZERO)];
    listener.settle(delivery.token, Verdict::Ack { emit }).await;
    let dead_topic = names::dead_letter_topic(&topic, "g");
    let mut dead = broker.dead_letters(&dead_topic, &topic, "g");
    // A refusal can come some time after a client was made.
    let given_up = async |listener: &mut Listener, dead: &mut Box<dyn DeadLetters>| {
        let delivery = listener.one().await;
        assert!(matches!(delivery.origin, Origin::ReturnPath { .. }));
        let emit = vec![dead_of(&delivery, "g")];
        listener.settle(delivery.token, Verdict::Ack { emit }).await;
        let begun = Instant::now();
        loop {
            let letters = dead.browse(None, 9).await.unwrap();
            assert_eq!(letters.len(), 1);
            if begun.elapsed() > PATIENCE / 10 {
                return [letters[0].id.clone()];
            }
        }
    };
    let letter = given_up(&mut listener, &mut dead).await;
    dead.replay(&letter).await.remove(0).unwrap();
    let letter = given_up(&mut listener, &mut dead).await;
    dead.purge(&letter).await.remove(0).unwrap();
    let status = broker.status(&[spec(&topic, "g")]).await.unwrap().remove(0);
    assert_eq!(
        (status.waiting, status.retrying, status.dead),
        (Some(0), Some(0), Some(0))
    );
    broker.close(PATIENCE).await.unwrap();
}
