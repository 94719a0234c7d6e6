//! Credentials and permissions that are withdrawn while messages flow: told as what they are, soon, and nothing that was
//! confirmed is lost.

mod support;

use std::collections::BTreeSet;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use postrider_contract::{Broker, BrokerUrl, Error, ErrorKind, Outgoing, Settlement, Verdict, names};
use support::own::OwnBroker;
use support::{PATIENCE, Sub, connect_to, message, open, spec};
use tokio::sync::watch;
use tokio::task::JoinHandle;
use tokio::time::{Instant, timeout};

const TOPIC: &str = "orders";
const PASSWORD: &str = "hunter2";

/// What publishing came to.
#[derive(Default, Clone)]
struct Published {
    confirmed: BTreeSet<String>,
    denied: Option<Error>,
    /// Confirmed after the last refusal.
    since: u32,
}

/// Between two batches, under load.
const LOAD: Duration = Duration::from_millis(10);
/// The same, so slow that RabbitMQ looks at permissions again: it remembers them for a channel until that has nothing to do
/// for a second or more.
const CALM: Duration = Duration::from_secs(2);

/// A clerk who publishes and consumes.
struct Clerk {
    published: watch::Receiver<Published>,
    publishing: JoinHandle<()>,
    pace: watch::Sender<Duration>,
    /// What was handled.
    handled: Arc<watch::Sender<BTreeSet<String>>>,
    /// Ends with the subscription.
    consuming: JoinHandle<Error>,
}

impl Clerk {
    async fn start(own: &OwnBroker) -> Self {
        own.rabbitmqctl(&["add_user", "clerk", PASSWORD]);
        permit(own, ".*");
        let broker = connect_to(&url(own)).await;
        let sub = open(&broker, spec(TOPIC, "g")).await;
        let pace = watch::Sender::new(LOAD);
        let (publishing, published) = publish(broker, pace.subscribe());
        let handled = Arc::new(watch::Sender::default());
        let consuming = tokio::spawn(consume(sub, handled.clone()));
        let clerk = Self {
            published,
            publishing,
            pace,
            handled,
            consuming,
        };
        let handled = clerk
            .handled
            .subscribe()
            .wait_for(|handled| handled.len() > 500)
            .await
            .is_ok();
        assert!(handled);
        clerk
    }

    /// Waits for publishing to come to something.
    async fn until(&mut self, wanted: impl Fn(&Published) -> bool) -> Published {
        let begin = Instant::now();
        let published = timeout(PATIENCE, self.published.wait_for(|published| wanted(published))).await;
        let published = published.expect("in time").expect("it goes on").clone();
        println!("after {:?}: {:?}", begin.elapsed(), published.denied);
        published
    }

    /// Waits for a publish that is denied, and checks what it says.
    async fn denied(&mut self, said: &str) {
        let denied = self.until(|published| published.denied.is_some()).await.denied;
        check(&denied.expect("it is there"), said);
    }

    /// Waits for the end of the subscription, and checks what it says.
    async fn over(&mut self, said: &str) {
        let begin = Instant::now();
        let error = timeout(PATIENCE, &mut self.consuming).await.expect("it ends");
        println!("over after {:?}", begin.elapsed());
        check(&error.expect("no panic"), said);
    }

    /// Everything that was confirmed was handled, or is there for the next one.
    async fn nothing_is_lost(self, own: &OwnBroker) {
        self.publishing.abort();
        self.consuming.abort();
        while !(self.publishing.is_finished() && self.consuming.is_finished()) {
            tokio::task::yield_now().await;
        }
        let confirmed = self.published.borrow().confirmed.clone();
        let mut handled = self.handled.borrow().clone();
        let owner = connect_to(&own.url()).await;
        let mut sub = open(&owner, spec(TOPIC, "g")).await;
        let begin = Instant::now();
        while !confirmed.is_subset(&handled) {
            let lost = confirmed.difference(&handled).count();
            assert!(
                begin.elapsed() < PATIENCE,
                "{lost} of {} are lost",
                confirmed.len()
            );
            if let Some(delivery) = sub.within(Duration::from_secs(1)).await {
                handled.insert(id(&delivery));
                sub.ack(&delivery).await;
            }
        }
        println!("{} were confirmed, none is lost", confirmed.len());
    }
}

fn id(delivery: &postrider_contract::Delivery) -> String {
    let id = delivery.message.headers.get_str(names::MESSAGE_ID);
    id.expect("an id").to_owned()
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

fn check(error: &Error, said: &str) {
    let text = error.to_string();
    assert_eq!(error.kind(), ErrorKind::Denied, "{text}");
    assert!(text.contains(said), "{text}");
    assert!(!format!("{text} {error:?}").contains(PASSWORD));
}

fn publish(
    broker: Arc<dyn Broker>,
    mut pace: watch::Receiver<Duration>,
) -> (JoinHandle<()>, watch::Receiver<Published>) {
    static NEXT: AtomicU32 = AtomicU32::new(0);
    let (told, published) = watch::channel(Published::default());
    let publishing = tokio::spawn(async move {
        loop {
            let ids: Vec<String> = (0..20)
                .map(|_| NEXT.fetch_add(1, Ordering::Relaxed).to_string())
                .collect();
            let batch = ids
                .iter()
                .map(|id| Outgoing::to_topic(TOPIC, message(id)))
                .collect();
            let answers = broker.publish(batch).await;
            told.send_modify(|published| {
                for (id, answer) in ids.into_iter().zip(answers) {
                    match answer {
                        Ok(_) => {
                            published.confirmed.insert(id);
                            published.since += 1;
                        }
                        Err(error) if error.kind() == ErrorKind::Denied => {
                            published.denied = Some(error);
                            published.since = 0;
                        }
                        Err(error) => println!("{error}"),
                    }
                }
            });
            let wait = *pace.borrow_and_update();
            let _ = timeout(wait, pace.changed()).await;
        }
    });
    (publishing, published)
}

async fn consume(mut sub: Sub, handled: Arc<watch::Sender<BTreeSet<String>>>) -> Error {
    loop {
        let mut into = Vec::new();
        if let Err(error) = sub.receiver.next(50, &mut into).await {
            return error;
        }
        let mut batch = Vec::new();
        handled.send_modify(|handled| {
            for delivery in &into {
                handled.insert(id(delivery));
                let (token, verdict) = (delivery.token, Verdict::ACK);
                batch.push(Settlement { token, verdict });
            }
        });
        sub.settler.settle(&mut batch, &mut Vec::new()).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_deleted_user_ends_it() {
    let own = OwnBroker::start();
    let mut clerk = Clerk::start(&own).await;
    own.rabbitmqctl(&["delete_user", "clerk"]);
    clerk.denied("Login was refused").await;
    clerk.over("Login was refused").await;
    clerk.nothing_is_lost(&own).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn another_password_ends_it() {
    let own = OwnBroker::start();
    let mut clerk = Clerk::start(&own).await;
    own.rabbitmqctl(&["change_password", "clerk", "another"]);
    own.rabbitmqctl(&["close_all_user_connections", "clerk", "new password"]);
    clerk.denied("Login was refused").await;
    clerk.over("Login was refused").await;
    clerk.nothing_is_lost(&own).await;
}

/// Publishing is refused as soon as the broker looks. Consuming goes on, as the broker allows it, until the connection ends.
#[tokio::test(flavor = "multi_thread")]
async fn cleared_permissions_end_it() {
    let own = OwnBroker::start();
    let mut clerk = Clerk::start(&own).await;
    own.rabbitmqctl(&["clear_permissions", "-p", "postrider", "clerk"]);
    clerk.pace.send_replace(CALM);
    clerk.denied("refused for user 'clerk'").await;
    own.rabbitmqctl(&["close_all_user_connections", "clerk", "no permissions"]);
    clerk.over("refused for user 'clerk'").await;
    clerk.nothing_is_lost(&own).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn writing_is_refused_until_it_is_allowed_again() {
    let own = OwnBroker::start();
    let mut clerk = Clerk::start(&own).await;
    permit(&own, "^$");
    clerk.pace.send_replace(CALM);
    clerk.denied("access to exchange 'postrider'").await;
    permit(&own, ".*");
    clerk.pace.send_replace(LOAD);
    clerk.until(|published| published.since > 100).await;
    assert!(!clerk.consuming.is_finished());
    clerk.nothing_is_lost(&own).await;
}

/// Who may not read any more goes on publishing.
#[tokio::test(flavor = "multi_thread")]
async fn refused_reading_ends_the_subscription_alone() {
    let own = OwnBroker::start();
    let mut clerk = Clerk::start(&own).await;
    own.rabbitmqctl(&["set_permissions", "-p", "postrider", "clerk", ".*", ".*", "^$"]);
    own.rabbitmqctl(&["close_all_user_connections", "clerk", "no reading"]);
    clerk.over("refused for user 'clerk'").await;
    let before = clerk.published.borrow().confirmed.len();
    let after = clerk
        .until(|published| published.confirmed.len() > before + 100)
        .await;
    assert!(after.denied.is_none());
    clerk.nothing_is_lost(&own).await;
}
