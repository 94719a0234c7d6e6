//! Publishes and consumes while a test breaks something, and knows afterwards what must not be lost.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::{Duration, Instant};

use postrider_contract::{
    Broker, Delivery, Error, ErrorKind, Event, Message, Outgoing, Settled, Settlement, Spec, Subscription,
    Topology, Verdict, names,
};
use tokio::sync::watch;
use tokio::task::JoinHandle;
use tokio::time::timeout;

/// How long is waited for what must happen.
const PATIENCE: Duration = Duration::from_secs(60);
/// Between two batches that are published.
const PACE: Duration = Duration::from_millis(10);

/// What publishing and consuming came to.
#[derive(Debug, Default, Clone)]
pub struct Seen {
    /// Payloads.
    pub confirmed: BTreeSet<String>,
    /// Payloads.
    pub handled: BTreeSet<String>,
    /// The last publish that was denied.
    pub denied: Option<Error>,
    /// How many were confirmed since.
    pub since: u32,
    /// The last acknowledgement that failed.
    pub failed: Option<Error>,
    /// How many were acknowledged since.
    pub acknowledged: u32,
}

/// Somebody who publishes to a topic and consumes it.
pub struct Load {
    spec: Spec,
    seen: Arc<watch::Sender<Seen>>,
    /// `None` ends publishing.
    pace: watch::Sender<Option<Duration>>,
    publishing: JoinHandle<Arc<dyn Broker>>,
    /// Ends with the subscription.
    consuming: JoinHandle<Error>,
    secret: Option<&'static str>,
}

impl Load {
    /// Begins, and waits until it runs.
    pub async fn start(broker: Arc<dyn Broker>, spec: Spec) -> Self {
        let subscription = open(&broker, &spec).await;
        let seen: Arc<watch::Sender<Seen>> = Arc::default();
        let pace = watch::Sender::new(Some(PACE));
        let publishing = publish(broker, spec.topic().clone(), seen.clone(), pace.subscribe());
        let load = Self {
            spec,
            publishing: tokio::spawn(publishing),
            consuming: tokio::spawn(consume(subscription, seen.clone())),
            pace,
            seen,
            secret: None,
        };
        load.until(|seen| seen.handled.len() > 500).await;
        load
    }

    /// A password that no error may tell.
    pub fn with_secret(mut self, secret: &'static str) -> Self {
        self.secret = Some(secret);
        self
    }

    /// How long it waits between two batches; `None` is as at first.
    pub fn pace(&self, pace: Option<Duration>) {
        self.pace.send_replace(Some(pace.unwrap_or(PACE)));
    }

    /// What it has come to so far.
    pub fn seen(&self) -> Seen {
        self.seen.borrow().clone()
    }

    /// Whether the subscription lives.
    pub fn is_consuming(&self) -> bool {
        !self.consuming.is_finished()
    }

    /// Waits for something to be seen.
    pub async fn until(&self, wanted: impl Fn(&Seen) -> bool) -> Seen {
        let begin = Instant::now();
        let mut seen = self.seen.subscribe();
        let seen = timeout(PATIENCE, seen.wait_for(|seen| wanted(seen))).await;
        let seen = seen.expect("in time").expect("it goes on").clone();
        println!("after {:?}: {:?} {:?}", begin.elapsed(), seen.denied, seen.failed);
        seen
    }

    /// Waits for so many more that are confirmed, none of them denied.
    pub async fn goes_on(&self, more: usize) {
        let before = self.seen().confirmed.len();
        let seen = self.until(|seen| seen.confirmed.len() > before + more).await;
        assert!(seen.denied.is_none(), "{:?}", seen.denied);
    }

    /// Waits for a publish that is denied, and checks what it says.
    pub async fn denied(&self, said: &str) {
        let denied = self.until(|seen| seen.denied.is_some()).await.denied;
        self.check(&denied.expect("it is there"), said);
    }

    /// Waits for the end of the subscription, and checks what it says.
    pub async fn over(&mut self, said: &str) {
        let begin = Instant::now();
        let error = timeout(PATIENCE, &mut self.consuming).await.expect("it ends");
        println!("over after {:?}", begin.elapsed());
        self.check(&error.expect("no panic"), said);
    }

    /// An error that denies, says this and keeps the secret.
    pub fn check(&self, error: &Error, said: &str) {
        let text = error.to_string();
        assert_eq!(error.kind(), ErrorKind::Denied, "{text}");
        assert!(text.contains(said), "{text}");
        if let Some(secret) = self.secret {
            assert!(!format!("{text} {error:?}").contains(secret), "{text}");
        }
    }

    /// Ends publishing, consuming and the connection.
    async fn stop(mut self) -> (Spec, Seen) {
        self.pace.send_replace(None);
        let broker = timeout(PATIENCE, &mut self.publishing).await;
        let broker = broker.expect("a publish ends");
        self.consuming.abort();
        while self.is_consuming() {
            tokio::task::yield_now().await;
        }
        // Its rights may be gone, and its connection with them.
        let _ = broker.expect("no panic").close(PATIENCE).await;
        (self.spec, self.seen.borrow().clone())
    }

    /// Ends it. Everything that was confirmed was handled, or is there for the next one, who connects then.
    pub async fn nothing_is_lost(self, connect: impl Future<Output = Arc<dyn Broker>>) {
        let (spec, seen) = self.stop().await;
        let Seen {
            confirmed,
            mut handled,
            ..
        } = seen;
        let broker = connect.await;
        let mut next = open(&broker, &spec).await;
        let begin = Instant::now();
        while !confirmed.is_subset(&handled) {
            let lost = confirmed.difference(&handled).count();
            let all = confirmed.len();
            assert!(begin.elapsed() < PATIENCE, "{lost} of {all} are lost");
            let mut got = Vec::new();
            let event = timeout(Duration::from_secs(1), next.receiver.next(1_000, &mut got)).await;
            if let Ok(event) = event {
                event.unwrap();
            }
            handled.extend(got.iter().map(text));
            let mut batch = acknowledged(&got);
            next.settler.settle(&mut batch, &mut Vec::new()).await;
        }
        println!("{} were confirmed, none is lost", confirmed.len());
        broker.close(PATIENCE).await.unwrap();
    }
}

async fn open(broker: &Arc<dyn Broker>, spec: &Spec) -> Subscription {
    broker
        .plan(std::slice::from_ref(spec), Topology::Declare)
        .await
        .unwrap();
    broker.open(vec![spec.clone()]).await.unwrap().remove(0)
}

fn text(delivery: &Delivery) -> String {
    String::from_utf8_lossy(delivery.message.payload.as_deref().unwrap_or_default()).into_owned()
}

fn acknowledged(deliveries: &[Delivery]) -> Vec<Settlement> {
    let settlement = |delivery: &Delivery| Settlement {
        token: delivery.token,
        verdict: Verdict::ACK,
    };
    deliveries.iter().map(settlement).collect()
}

async fn publish(
    broker: Arc<dyn Broker>,
    topic: Arc<str>,
    seen: Arc<watch::Sender<Seen>>,
    mut pace: watch::Receiver<Option<Duration>>,
) -> Arc<dyn Broker> {
    let mut next = 0_u32;
    loop {
        let ids: Vec<String> = (next..next + 20).map(|n| n.to_string()).collect();
        next += 20;
        let outgoing = |id: &String| {
            let message = Message::new(id.clone()).with_header(names::MESSAGE_ID, id.as_str());
            Outgoing::to_topic(topic.clone(), message)
        };
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
        let Some(wait) = *pace.borrow_and_update() else {
            return broker;
        };
        let _ = timeout(wait, pace.changed()).await;
    }
}

/// Tries again what could not be settled, as the runtime does.
async fn consume(mut subscription: Subscription, seen: Arc<watch::Sender<Seen>>) -> Error {
    let mut batch = Vec::new();
    loop {
        let mut got = Vec::new();
        let event = timeout(
            Duration::from_millis(100),
            subscription.receiver.next(50, &mut got),
        )
        .await;
        match event {
            Ok(Err(error)) => return error,
            Ok(Ok(Event::Closed)) => return Error::new(ErrorKind::Closed, "closed"),
            Ok(Ok(Event::Revoked { lanes, .. })) => subscription.settler.released(&lanes).await,
            _ => {}
        }
        // Before the acknowledgement: what is acknowledged and not noted would count as lost.
        seen.send_modify(|seen| seen.handled.extend(got.iter().map(text)));
        batch.extend(acknowledged(&got));
        let mut answers = Vec::new();
        subscription.settler.settle(&mut batch, &mut answers).await;
        seen.send_modify(|seen| {
            for answer in answers {
                match answer {
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
