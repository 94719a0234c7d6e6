//! The end of a pause that the broker does not answer.

mod support;

use postrider_contract::Event;
use support::own::OwnBroker;
use support::{connect_to, message, open, publish, spec};

/// A frozen broker whose connection lives: the listener says that nothing flows, and gets on when the broker does.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_resume_without_an_answer_is_told_and_mended() {
    let own = OwnBroker::start();
    // Longer than an answer is waited for.
    let broker = connect_to(&own.url_with("?heartbeat=60s")).await;
    let mut sub = open(&broker, spec("t", "g")).await;
    publish(&broker, "t", message("before")).await;
    let before = sub.one().await;
    sub.ack(&before).await;
    sub.receiver.pause(true).await;
    own.verb("pause");
    sub.receiver.pause(false).await;
    let told = sub.until(|event| matches!(event, Event::Degraded(_))).await;
    println!("{told:?}");
    own.verb("resume");
    sub.until(|event| matches!(event, Event::Ready)).await;
    publish(&broker, "t", message("after")).await;
    let after = sub.one().await;
    assert_eq!(after.message, message("after"));
    sub.ack(&after).await;
}
