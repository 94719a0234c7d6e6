//! Permissions that are withdrawn while messages flow: told as what they are, soon, and nothing that was confirmed is lost.

mod support;

use std::ops::{Deref, DerefMut};

use postrider_own_broker::Load;
use support::own::OwnBroker;
use support::{client, spec, unique};

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
