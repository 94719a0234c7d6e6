//! Credentials and permissions that are withdrawn while messages flow: told as what they are, soon, and nothing that was
//! confirmed is lost.

mod common;

use common::own::Own;
use common::{connect, spec, unique};
use postrider_own_broker::Load;

const PASSWORD: &str = "hunter2";

/// A clerk who publishes and consumes as a user of their own.
async fn start(own: &Own, scheme: &str) -> Load {
    own.tell(&format!("ACL SETUSER clerk on >{PASSWORD} ~* &* +@all"))
        .await;
    let url = own.url(scheme, &format!("clerk:{PASSWORD}@"), "?publish_timeout=3s");
    let clerk = Load::start(connect(&url, "a").await, spec(&unique("orders"), "g")).await;
    clerk.with_secret(PASSWORD)
}

async fn nothing_is_lost(clerk: Load, own: &Own) {
    // What the clerk held is taken over when its lease is over.
    let url = own.streams("?lease=1s");
    clerk.nothing_is_lost(connect(&url, "b")).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_deleted_user_ends_it() {
    let own = Own::start(&[]);
    let mut clerk = start(&own, "redis").await;
    own.tell("ACL DELUSER clerk").await;
    clerk.denied("user or password").await;
    clerk.over("user or password").await;
    nothing_is_lost(clerk, &own).await;
}

/// A user that is switched off keeps its connections: nothing is refused before they end.
#[tokio::test(flavor = "multi_thread")]
async fn a_user_that_is_off_goes_on_until_it_connects_again() {
    let own = Own::start(&[]);
    let mut clerk = start(&own, "redis").await;
    own.tell("ACL SETUSER clerk off").await;
    clerk.goes_on(100).await;
    own.tell("CLIENT KILL USER clerk").await;
    clerk.denied("user or password").await;
    clerk.over("user or password").await;
    nothing_is_lost(clerk, &own).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn keys_that_are_withdrawn_end_it() {
    let own = Own::start(&[]);
    let mut clerk = start(&own, "redis").await;
    own.tell("ACL SETUSER clerk resetkeys").await;
    clerk.denied("does not allow").await;
    clerk.over("does not allow").await;
    nothing_is_lost(clerk, &own).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn publishing_is_refused_until_it_is_allowed_again() {
    let own = Own::start(&[]);
    let clerk = start(&own, "redis").await;
    own.tell("ACL SETUSER clerk -xadd").await;
    clerk.denied("xadd").await;
    own.tell("ACL SETUSER clerk +xadd").await;
    clerk.until(|seen| seen.since > 100).await;
    assert!(clerk.is_consuming());
    nothing_is_lost(clerk, &own).await;
}

/// Told of every acknowledgement, so that the listener is unhealthy; what was not taken is kept.
#[tokio::test(flavor = "multi_thread")]
async fn acknowledging_is_refused_until_it_is_allowed_again() {
    let own = Own::start(&[]);
    let clerk = start(&own, "redis").await;
    own.tell("ACL SETUSER clerk -xack").await;
    let failed = clerk.until(|seen| seen.failed.is_some()).await.failed;
    clerk.check(&failed.expect("it is there"), "xack");
    own.tell("ACL SETUSER clerk +xack").await;
    clerk.until(|seen| seen.acknowledged > 100).await;
    assert!(clerk.is_consuming());
    nothing_is_lost(clerk, &own).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_channel_that_is_withdrawn_ends_it() {
    let own = Own::start(&[]);
    let mut clerk = start(&own, "redis+pubsub").await;
    own.tell("ACL SETUSER clerk resetchannels").await;
    clerk.denied("does not allow").await;
    clerk.over("does not allow").await;
}
