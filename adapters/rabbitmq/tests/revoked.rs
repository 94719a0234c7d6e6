//! Credentials and permissions that are withdrawn while messages flow: told as what they are, soon, and nothing that was
//! confirmed is lost.

mod support;

use std::time::Duration;

use postrider_contract::{BrokerUrl, Error, ErrorKind, Outgoing};
use postrider_own_broker::Load;
use support::own::OwnBroker;
use support::{PATIENCE, connect_to, message, publish, spec};
use tokio::time::{Instant, sleep};

const PASSWORD: &str = "hunter2";
/// Between two batches, so slow that RabbitMQ looks at permissions again: it remembers them for a channel until that has
/// nothing to do for a second or more.
const CALM: Duration = Duration::from_secs(2);

/// A clerk who publishes and consumes as a user of their own.
async fn start(own: &OwnBroker) -> Load {
    own.rabbitmqctl(&["add_user", "clerk", PASSWORD]);
    permit(own, ".*");
    let clerk = Load::start(connect_to(&url(own)).await, spec("orders", "g")).await;
    clerk.with_secret(PASSWORD)
}

fn url(own: &OwnBroker) -> BrokerUrl {
    let text = own
        .url_text()
        .replace("guest:guest", &format!("clerk:{PASSWORD}"));
    (text + "?publish_timeout=3s").parse().unwrap()
}

/// What the clerk may write to; configuring and reading is allowed.
fn permit(own: &OwnBroker, write: &str) {
    own.rabbitmqctl(&["set_permissions", "-p", "postrider", "clerk", ".*", write, ".*"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_deleted_user_ends_it() {
    let own = OwnBroker::start();
    let mut clerk = start(&own).await;
    own.rabbitmqctl(&["delete_user", "clerk"]);
    clerk.denied("Login was refused").await;
    clerk.over("Login was refused").await;
    clerk.nothing_is_lost(connect_to(&own.url())).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn another_password_ends_it() {
    let own = OwnBroker::start();
    let mut clerk = start(&own).await;
    own.rabbitmqctl(&["change_password", "clerk", "another"]);
    own.rabbitmqctl(&["close_all_user_connections", "clerk", "new password"]);
    clerk.denied("Login was refused").await;
    clerk.over("Login was refused").await;
    clerk.nothing_is_lost(connect_to(&own.url())).await;
}

/// Nothing restarts a process that only publishes.
#[tokio::test]
async fn a_password_that_is_given_back_lets_publish_again() {
    let own = OwnBroker::start();
    own.rabbitmqctl(&["add_user", "clerk", PASSWORD]);
    permit(&own, ".*");
    let broker = connect_to(&url(&own)).await;
    publish(&broker, "orders", message("before")).await;
    own.rabbitmqctl(&["change_password", "clerk", "another"]);
    own.rabbitmqctl(&["close_all_user_connections", "clerk", "new password"]);
    let deadline = Instant::now() + PATIENCE;
    let kind = |result: Result<_, Error>| result.map(drop).map_err(|error| error.kind());
    let send = || async {
        let sent = broker.publish(vec![Outgoing::to_topic("orders", message("m"))]);
        kind(sent.await.remove(0))
    };
    while send().await != Err(ErrorKind::Denied) {
        assert!(Instant::now() < deadline, "it is told as denied");
    }
    own.rabbitmqctl(&["change_password", "clerk", PASSWORD]);
    let deadline = Instant::now() + PATIENCE;
    while send().await != Ok(()) {
        assert!(Instant::now() < deadline, "publishing goes on");
        sleep(Duration::from_millis(100)).await;
    }
}

/// Publishing is refused as soon as the broker looks. Consuming goes on, as the broker allows it, until the connection ends.
#[tokio::test(flavor = "multi_thread")]
async fn cleared_permissions_end_it() {
    let own = OwnBroker::start();
    let mut clerk = start(&own).await;
    own.rabbitmqctl(&["clear_permissions", "-p", "postrider", "clerk"]);
    clerk.pace(Some(CALM));
    clerk.denied("refused for user 'clerk'").await;
    own.rabbitmqctl(&["close_all_user_connections", "clerk", "no permissions"]);
    clerk.over("refused for user 'clerk'").await;
    clerk.nothing_is_lost(connect_to(&own.url())).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn writing_is_refused_until_it_is_allowed_again() {
    let own = OwnBroker::start();
    let clerk = start(&own).await;
    permit(&own, "^$");
    clerk.pace(Some(CALM));
    clerk.denied("access to exchange 'postrider'").await;
    permit(&own, ".*");
    clerk.pace(None);
    clerk.until(|seen| seen.since > 100).await;
    assert!(clerk.is_consuming());
    clerk.nothing_is_lost(connect_to(&own.url())).await;
}

/// Who may not read any more goes on publishing.
#[tokio::test(flavor = "multi_thread")]
async fn refused_reading_ends_the_subscription_alone() {
    let own = OwnBroker::start();
    let mut clerk = start(&own).await;
    own.rabbitmqctl(&["set_permissions", "-p", "postrider", "clerk", ".*", ".*", "^$"]);
    own.rabbitmqctl(&["close_all_user_connections", "clerk", "no reading"]);
    clerk.over("refused for user 'clerk'").await;
    clerk.goes_on(100).await;
    clerk.nothing_is_lost(connect_to(&own.url())).await;
}
