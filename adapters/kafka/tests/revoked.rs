//! Permissions that are withdrawn while messages flow: told as what they are, soon, and nothing that was confirmed is lost.

mod support;

use std::collections::BTreeSet;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::{Duration, Instant};

use postrider_contract::{Broker, Delivery, Error, ErrorKind, Event, Outgoing, Settlement, Verdict};
use support::own::OwnBroker;
use support::{Listener, PATIENCE, client, message, open, spec, text, unique};
use tokio::sync::watch;
use tokio::task::JoinHandle;
use tokio::time::{sleep, timeout};

/// What publishing and consuming came to.
#[derive(Default, Clone)]
struct Seen {
    confirmed: BTreeSet<String>,
    handled: BTreeSet<String>,
    /// The last refusal of a publish, and how many were confirmed since.
    denied: Option<Error>,
    since: u32,
}

struct Load {
    own: OwnBroker,
    topic: String,
    seen: Arc<watch::Sender<Seen>>,
    /// Ends when it is told to.
    publishing: JoinHandle<Arc<dyn Broker>>,
    stop: watch::Sender<bool>,
    /// Ends with the subscription.
    consuming: JoinHandle<Error>,
}

impl Load {
    async fn start() -> Self {
        let own = OwnBroker::with_acls();
        let topic = unique("orders");
        let url = own.url_with("&publish_timeout=5s");
        let broker = postrider_kafka::connect(&url, client("revoked")).await.unwrap();
        let listener = open(&broker, spec(&topic, "g")).await;
        let seen: Arc<watch::Sender<Seen>> = Arc::default();
        let (stop, stopped) = watch::channel(false);
        let load = Self {
            publishing: tokio::spawn(publish(broker, topic.clone(), seen.clone(), stopped)),
            stop,
            consuming: tokio::spawn(consume(listener, seen.clone())),
            own,
            topic,
            seen,
        };
        // Where there is one rule for a topic, what no rule allows is forbidden.
        load.acls(&["--add", "--allow-principal", "User:*", "--operation", "All"]);
        load.until(|seen| seen.handled.len() > 500).await;
        load
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

    async fn until(&self, wanted: impl Fn(&Seen) -> bool) -> Seen {
        let begin = Instant::now();
        let mut seen = self.seen.subscribe();
        let seen = timeout(PATIENCE, seen.wait_for(|seen| wanted(seen))).await;
        let seen = seen.expect("in time").expect("it goes on").clone();
        println!("after {:?}: {:?}", begin.elapsed(), seen.denied);
        seen
    }

    /// Everything that was confirmed was handled, or is there for the next one.
    async fn nothing_is_lost(self) {
        self.stop.send_replace(true);
        let broker = timeout(PATIENCE, self.publishing).await.expect("a publish ends");
        broker.unwrap().close(PATIENCE).await.unwrap();
        let Seen {
            confirmed,
            mut handled,
            ..
        } = self.seen.borrow().clone();
        let broker = postrider_kafka::connect(&self.own.url_with(""), client("next"))
            .await
            .unwrap();
        let mut listener = open(&broker, spec(&self.topic, "g")).await;
        let begin = Instant::now();
        while !confirmed.is_subset(&handled) {
            let lost = confirmed.difference(&handled).count();
            assert!(
                begin.elapsed() < PATIENCE,
                "{lost} of {} are lost",
                confirmed.len()
            );
            let more = listener.drain(1_000, Duration::from_secs(2)).await;
            handled.extend(more.iter().map(text));
        }
        println!("{} were confirmed, none is lost", confirmed.len());
        broker.close(PATIENCE).await.unwrap();
    }
}

fn check(error: &Error, said: &str) {
    let text = error.to_string();
    assert_eq!(error.kind(), ErrorKind::Denied, "{text}");
    assert!(text.contains(said), "{text}");
}

async fn publish(
    broker: Arc<dyn Broker>,
    topic: String,
    seen: Arc<watch::Sender<Seen>>,
    stopped: watch::Receiver<bool>,
) -> Arc<dyn Broker> {
    static NEXT: AtomicU32 = AtomicU32::new(0);
    while !*stopped.borrow() {
        let id = || NEXT.fetch_add(1, Ordering::Relaxed).to_string();
        let ids: Vec<String> = (0..20).map(|_| id()).collect();
        let outgoing = |id: &String| Outgoing::to_topic(topic.as_str(), message(id));
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
    broker
}

async fn consume(mut listener: Listener, seen: Arc<watch::Sender<Seen>>) -> Error {
    loop {
        let mut into = Vec::new();
        match listener.receiver.next(50, &mut into).await {
            Err(error) => return error,
            Ok(Event::Closed) => return Error::new(ErrorKind::Closed, "closed"),
            Ok(Event::Revoked { lanes, .. }) => listener.settler.released(&lanes).await,
            Ok(_) => {}
        }
        seen.send_modify(|seen| seen.handled.extend(into.iter().map(text)));
        let settlement = |delivery: &Delivery| Settlement {
            token: delivery.token,
            verdict: Verdict::ACK,
        };
        let mut batch = into.iter().map(settlement).collect();
        listener.settler.settle(&mut batch, &mut Vec::new()).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn writing_is_refused_until_it_is_allowed_again() {
    let load = Load::start().await;
    load.forbid("Write");
    let denied = load.until(|seen| seen.denied.is_some()).await.denied;
    check(&denied.unwrap(), "Topic authorization failed");
    load.allow_again("Write");
    load.until(|seen| seen.since > 100).await;
    assert!(!load.consuming.is_finished());
    load.nothing_is_lost().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn refused_reading_ends_the_subscription_alone() {
    let mut load = Load::start().await;
    load.forbid("Read");
    let begin = Instant::now();
    let error = timeout(PATIENCE, &mut load.consuming).await.expect("it ends");
    println!("over after {:?}", begin.elapsed());
    check(&error.unwrap(), "Topic authorization failed");
    let before = load.seen.borrow().confirmed.len();
    let after = load.until(|seen| seen.confirmed.len() > before + 100).await;
    assert!(after.denied.is_none());
    load.allow_again("Read");
    load.nothing_is_lost().await;
}
