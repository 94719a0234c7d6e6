//! A copy for every instance, which nobody else has.

mod support;

use postrider_contract::Sharing;
use support::own::OwnBroker;
use support::{connect_to, message, open, publish, spec};

/// Where there is nothing yet, it needs no listener with a group beside it.
#[tokio::test]
async fn it_may_be_the_first_of_a_virtual_host() {
    let own = OwnBroker::start();
    let broker = connect_to(&own.url()).await;
    let mut wishes = spec("t", "g");
    wishes.sharing = Sharing::Broadcast;
    let mut sub = open(&broker, wishes).await;
    publish(&broker, "t", message("m")).await;
    let came = sub.one().await;
    sub.ack(&came).await;
}
