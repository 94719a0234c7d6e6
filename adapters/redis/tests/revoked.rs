//! Credentials and permissions that are withdrawn while messages flow: told as what they are, soon, and nothing that was
//! confirmed is lost.

mod common;

use std::collections::BTreeSet;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use common::own::Own;
use common::{Open, SOON, connect, open, spec, text, unique};
use postrider_contract::{Broker, Error, ErrorKind, Message, Outgoing, Settled, Settlement, Verdict};
use tokio::sync::watch;
use tokio::task::JoinHandle;
use tokio::time::{Instant, sleep, timeout};

const PASSWORD: &str = "hunter2";

/// What a clerk came to.
#[derive(Default, Clone)]
struct Seen {
    confirmed: BTreeSet<String>,
    handled: BTreeSet<String>,
    /// The last refusal of a publish, and how many were confirmed since.
    denied: Option<Error>,
    since: u32,
    /// The last acknowledgement that failed, and how many were taken since.
    failed: Option<Error>,
    acknowledged: u32,
}

/// Publishes and consumes as a user of its own.
struct Clerk {
    topic: Arc<str>,
    seen: Arc<watch::Sender<Seen>>,
    publishing: JoinHandle<()>,
    consuming: JoinHandle<Error>,
}

impl Clerk {
    async fn start(own: &Own, scheme: &str) -> Self {
        own.tell(&format!("ACL SETUSER clerk on >{PASSWORD} ~* &* +@all"))
            .await;
        let broker = connect(
            &own.url(scheme, &format!("clerk:{PASSWORD}@"), "?publish_timeout=3s"),
            "a",
        )
        .await;
        let topic = unique("orders");
        let opened = open(&broker, spec(&topic, "g")).await;
        let seen: Arc<watch::Sender<Seen>> = Arc::default();
        let clerk = Self {
            publishing: tokio::spawn(publish(broker, topic.clone(), seen.clone())),
            consuming: tokio::spawn(consume(opened, seen.clone())),
            topic,
            seen,
        };
        clerk.until(|seen| seen.handled.len() > 500).await;
        clerk
    }

    async fn until(&self, wanted: impl Fn(&Seen) -> bool) -> Seen {
        let begin = Instant::now();
        let mut seen = self.seen.subscribe();
        let seen = timeout(SOON, seen.wait_for(|seen| wanted(seen))).await;
        let seen = seen.expect("in time").expect("it goes on").clone();
        println!("after {:?}: {:?} {:?}", begin.elapsed(), seen.denied, seen.failed);
        seen
    }

    /// Waits for a publish that is denied, and checks what it says.
    async fn denied(&self, said: &str) {
        let denied = self.until(|seen| seen.denied.is_some()).await.denied;
        check(&denied.expect("it is there"), said);
    }

    /// Waits for the end of the subscription, and checks what it says.
    async fn over(&mut self, said: &str) {
        let begin = Instant::now();
        let error = timeout(SOON, &mut self.consuming).await.expect("it ends");
        println!("over after {:?}", begin.elapsed());
        check(&error.expect("no panic"), said);
    }

    /// Everything that was confirmed was handled, or is there for the next one.
    async fn nothing_is_lost(self, own: &Own) {
        self.publishing.abort();
        self.consuming.abort();
        while !(self.publishing.is_finished() && self.consuming.is_finished()) {
            tokio::task::yield_now().await;
        }
        let Seen {
            confirmed,
            mut handled,
            ..
        } = self.seen.borrow().clone();
        // What the clerk held is taken over when its lease is over.
        let owner = connect(&own.streams("?lease=1s"), "b").await;
        let mut opened = open(&owner, spec(&self.topic, "g")).await;
        let begin = Instant::now();
        while !confirmed.is_subset(&handled) {
            let lost = confirmed.difference(&handled).count();
            assert!(begin.elapsed() < SOON, "{lost} of {} are lost", confirmed.len());
            let mut got = Vec::new();
            let next = opened.subscription.receiver.next(100, &mut got);
            if let Ok(event) = timeout(Duration::from_secs(1), next).await {
                event.unwrap();
            }
            for delivery in got {
                handled.insert(text(&delivery));
                opened.ack(&delivery).await;
            }
        }
        println!("{} were confirmed, none is lost", confirmed.len());
    }
}

fn check(error: &Error, said: &str) {
    let text = error.to_string();
    assert_eq!(error.kind(), ErrorKind::Denied, "{text}");
    assert!(text.contains(said), "{text}");
    assert!(!format!("{text} {error:?}").contains(PASSWORD));
}

async fn publish(broker: Arc<dyn Broker>, topic: Arc<str>, seen: Arc<watch::Sender<Seen>>) {
    static NEXT: AtomicU32 = AtomicU32::new(0);
    loop {
        let ids: Vec<String> = (0..20)
            .map(|_| NEXT.fetch_add(1, Ordering::Relaxed).to_string())
            .collect();
        let outgoing = |id: &String| Outgoing::to_topic(topic.clone(), Message::new(id.clone()));
        let answers = broker.publish(ids.iter().map(outgoing).collect()).await;
        seen.send_modify(|seen| {
            for (id, answer) in ids.into_iter().zip(answers) {
                match answer {
                    Ok(_) => {
                        seen.confirmed.insert(id);
                        seen.since += 1;
                    }
                    Err(error) if error.kind() == ErrorKind::Denied => {
                        seen.denied = Some(error);
                        seen.since = 0;
                    }
                    Err(error) => println!("{error}"),
                }
            }
        });
        sleep(Duration::from_millis(10)).await;
    }
}

/// Tries again what could not be settled, as the runtime does.
async fn consume(mut opened: Open, seen: Arc<watch::Sender<Seen>>) -> Error {
    let mut batch = Vec::new();
    loop {
        let mut into = Vec::new();
        let next = opened.subscription.receiver.next(50, &mut into);
        if let Ok(Err(error)) = timeout(Duration::from_millis(100), next).await {
            return error;
        }
        seen.send_modify(|seen| seen.handled.extend(into.iter().map(text)));
        batch.extend(into.iter().map(|delivery| Settlement {
            token: delivery.token,
            verdict: Verdict::ACK,
        }));
        let mut out = Vec::new();
        opened.subscription.settler.settle(&mut batch, &mut out).await;
        seen.send_modify(|seen| {
            for settled in out {
                match settled {
                    Settled::Failed(settlement, error) => {
                        batch.push(settlement);
                        seen.failed = Some(error);
                        seen.acknowledged = 0;
                    }
                    _ => seen.acknowledged += 1,
                }
            }
        });
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_deleted_user_ends_it() {
    let own = Own::start(&[]);
    let mut clerk = Clerk::start(&own, "redis").await;
    own.tell("ACL DELUSER clerk").await;
    clerk.denied("user or password").await;
    clerk.over("user or password").await;
    clerk.nothing_is_lost(&own).await;
}

/// A user that is switched off keeps its connections: nothing is refused before they end.
#[tokio::test(flavor = "multi_thread")]
async fn a_user_that_is_off_goes_on_until_it_connects_again() {
    let own = Own::start(&[]);
    let mut clerk = Clerk::start(&own, "redis").await;
    own.tell("ACL SETUSER clerk off").await;
    let before = clerk.seen.borrow().confirmed.len();
    let seen = clerk.until(|seen| seen.confirmed.len() > before + 100).await;
    assert!(seen.denied.is_none());
    own.tell("CLIENT KILL USER clerk").await;
    clerk.denied("user or password").await;
    clerk.over("user or password").await;
    clerk.nothing_is_lost(&own).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn keys_that_are_withdrawn_end_it() {
    let own = Own::start(&[]);
    let mut clerk = Clerk::start(&own, "redis").await;
    own.tell("ACL SETUSER clerk resetkeys").await;
    clerk.denied("does not allow").await;
    clerk.over("does not allow").await;
    clerk.nothing_is_lost(&own).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn publishing_is_refused_until_it_is_allowed_again() {
    let own = Own::start(&[]);
    let clerk = Clerk::start(&own, "redis").await;
    own.tell("ACL SETUSER clerk -xadd").await;
    clerk.denied("xadd").await;
    own.tell("ACL SETUSER clerk +xadd").await;
    clerk.until(|seen| seen.since > 100).await;
    assert!(!clerk.consuming.is_finished());
    clerk.nothing_is_lost(&own).await;
}

/// Told of every acknowledgement, so that the listener is unhealthy; what was not taken is kept.
#[tokio::test(flavor = "multi_thread")]
async fn acknowledging_is_refused_until_it_is_allowed_again() {
    let own = Own::start(&[]);
    let clerk = Clerk::start(&own, "redis").await;
    own.tell("ACL SETUSER clerk -xack").await;
    let failed = clerk.until(|seen| seen.failed.is_some()).await.failed;
    check(&failed.expect("it is there"), "xack");
    own.tell("ACL SETUSER clerk +xack").await;
    clerk.until(|seen| seen.acknowledged > 100).await;
    assert!(!clerk.consuming.is_finished());
    clerk.nothing_is_lost(&own).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_channel_that_is_withdrawn_ends_it() {
    let own = Own::start(&[]);
    let mut clerk = Clerk::start(&own, "redis+pubsub").await;
    own.tell("ACL SETUSER clerk resetchannels").await;
    clerk.denied("does not allow").await;
    clerk.over("does not allow").await;
    clerk.publishing.abort();
}
