//! What cases are written with.

use std::collections::{BTreeMap, HashSet};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, SystemTime};

use postrider_contract::{
    Broker, Delivery, Error, Event, Message, Order, Outgoing, Receipt, Receiver, Settled, Settlement,
    Settler, Sharing, Source, Spec, Start, Subscription, Token, Topology, Verdict, names,
};
use tokio::time::{Instant, timeout, timeout_at};

use crate::Harness;

/// How long something that must happen may take on a slow machine.
pub(crate) const PATIENCE: Duration = Duration::from_secs(30);

/// How long the suite watches for what must not happen.
pub(crate) const WATCH: Duration = Duration::from_millis(700);

/// One case on one broker: makes names of its own and connects.
#[derive(Clone)]
pub struct Run {
    harness: Arc<dyn Harness>,
    case: &'static str,
    stamp: Arc<str>,
}

impl Run {
    /// A case of this name.
    pub fn new(harness: Arc<dyn Harness>, case: &'static str) -> Self {
        static NTH: AtomicU64 = AtomicU64::new(0);
        let since = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH);
        let stamp = format!(
            "{:x}-{:x}-{}",
            since.unwrap_or_default().as_micros(),
            std::process::id(),
            NTH.fetch_add(1, Ordering::Relaxed)
        );
        Self {
            harness,
            case,
            stamp: stamp.into(),
        }
    }

    /// The harness.
    pub fn harness(&self) -> &dyn Harness {
        &*self.harness
    }

    /// A topic that only this run knows.
    pub fn topic(&self, name: &str) -> Arc<str> {
        format!("conformance.{}.{}.{name}", self.case, self.stamp).into()
    }

    /// One more instance.
    pub async fn connect(&self) -> Instance {
        let broker = self.harness.connect("conformance").await;
        let broker =
            broker.unwrap_or_else(|error| panic!("{} cannot be reached: {error}", self.harness.name()));
        Instance { broker }
    }
}

/// A listener's wishes with the usual values: 100 in flight, retries up to a minute, the usual dead-letter topic.
pub fn spec(topic: &Arc<str>, group: &str) -> Spec {
    Spec {
        listener: format!("listener_{group}").into(),
        source: Source::Topic(topic.clone()),
        group: group.into(),
        sharing: Sharing::Group,
        order: Order::None,
        start: Start::New,
        in_flight: 100,
        dead_letter: Some(names::dead_letter_topic(topic, group).into()),
        max_delay: Some(Duration::from_secs(60)),
        publishes: Vec::new(),
    }
}

/// A message that names itself in its id and payload.
pub fn numbered(n: usize) -> Message {
    Message::new(format!("payload {n}")).with_header(names::MESSAGE_ID, format!("id-{n}"))
}

/// The id that [`numbered`] gave.
pub fn id(message: &Message) -> String {
    message
        .headers
        .get_str(names::MESSAGE_ID)
        .unwrap_or("no message-id")
        .to_owned()
}

/// A connected instance.
pub struct Instance {
    /// Its connection.
    pub broker: Arc<dyn Broker>,
}

impl Instance {
    /// Declares without opening.
    pub async fn plan(&self, specs: &[Spec]) {
        if let Err(problems) = self.broker.plan(specs, Topology::Declare).await {
            let problems: Vec<_> = problems.iter().map(ToString::to_string).collect();
            panic!("plan refuses: {}", problems.join("; "));
        }
    }

    /// Declares and opens, and waits until messages flow.
    pub async fn open<const N: usize>(&self, specs: [Spec; N]) -> [Subscribed; N] {
        self.plan(&specs).await;
        self.open_only(specs).await
    }

    /// Opens what is declared, and waits until messages flow.
    pub async fn open_only<const N: usize>(&self, specs: [Spec; N]) -> [Subscribed; N] {
        let in_flight = specs.each_ref().map(|spec| spec.in_flight as usize);
        let opened = self
            .broker
            .open(specs.to_vec())
            .await
            .expect("open what was planned");
        assert_eq!(opened.len(), N, "one subscription for each spec");
        let mut subscribed: Vec<_> = opened
            .into_iter()
            .zip(in_flight)
            .map(|(subscription, in_flight)| Subscribed::new(subscription, in_flight))
            .collect();
        for one in &mut subscribed {
            one.until_ready().await;
        }
        subscribed
            .try_into()
            .unwrap_or_else(|_| panic!("one subscription for each spec"))
    }

    /// Publishes; every message must be confirmed.
    pub async fn publish(&self, batch: Vec<Outgoing>) -> Vec<Receipt> {
        let count = batch.len();
        let results = self.broker.publish(batch).await;
        assert_eq!(results.len(), count, "an answer for each message");
        results
            .into_iter()
            .collect::<Result<_, _>>()
            .expect("the broker confirms")
    }

    /// Publishes the numbered messages of this range to a topic.
    pub async fn publish_numbered(&self, topic: &Arc<str>, range: std::ops::Range<usize>) {
        let batch = range
            .map(|n| Outgoing::to_topic(topic.clone(), numbered(n)))
            .collect();
        self.publish(batch).await;
    }

    /// Closes in the orderly way.
    pub async fn close(&self) {
        self.broker.close(Duration::from_secs(10)).await.expect("close");
    }
}

/// A live subscription that keeps to the rules of the runtime: never more than `in_flight` unsettled.
pub struct Subscribed {
    /// Brings deliveries.
    pub receiver: Box<dyn Receiver>,
    /// Takes verdicts.
    pub settler: Arc<dyn Settler>,
    in_flight: usize,
    held: HashSet<Token>,
    waiting: Vec<Delivery>,
    ready: bool,
}

impl Subscribed {
    fn new(subscription: Subscription, in_flight: usize) -> Self {
        Self {
            receiver: subscription.receiver,
            settler: subscription.settler,
            in_flight,
            held: HashSet::new(),
            waiting: Vec::new(),
            ready: false,
        }
    }

    /// Waits for the word that messages flow.
    pub async fn until_ready(&mut self) {
        let deadline = Instant::now() + PATIENCE;
        while !self.ready {
            let told = timeout_at(deadline, self.step(0)).await;
            told.expect("the subscription says that it is ready");
        }
    }

    /// Waits for one event and keeps what it brings. True where that was deliveries.
    pub async fn step(&mut self, max: usize) -> bool {
        let before = self.waiting.len();
        let event = self.receiver.next(max, &mut self.waiting).await;
        let brought = self.waiting.len() - before;
        match event.expect("the subscription lives") {
            Event::Deliveries => {
                assert!((1..=max).contains(&brought), "asked for {max}, got {brought}");
                for delivery in &self.waiting[before..] {
                    assert!(self.held.insert(delivery.token), "a token names one delivery");
                }
                return true;
            }
            Event::Ready => self.ready = true,
            Event::Degraded(_) => self.ready = false,
            Event::Gap { lost } => panic!("the broker lost {lost:?} messages"),
            Event::Revoked { lanes, .. } => {
                self.held.retain(|token| !lanes.contains(&token.lane));
                self.waiting
                    .retain(|delivery| !lanes.contains(&delivery.token.lane));
                self.settler.released(&lanes).await;
                return false;
            }
            Event::Closed => panic!("the subscription is closed"),
            other => panic!("an event that this suite does not know: {other:?}"),
        }
        assert_eq!(brought, 0, "only Deliveries brings some");
        false
    }

    /// How many more it may take.
    pub fn room(&self) -> usize {
        self.in_flight - self.held.len()
    }

    /// Exactly this many deliveries, unsettled.
    pub async fn take(&mut self, count: usize) -> Vec<Delivery> {
        let deadline = Instant::now() + PATIENCE;
        while self.waiting.len() < count {
            let max = self.room().min(count - self.waiting.len());
            assert!(max > 0, "the case holds more than it may");
            let step = timeout_at(deadline, self.step(max)).await;
            assert!(
                step.is_ok(),
                "{count} deliveries expected, {} came",
                self.waiting.len()
            );
        }
        self.waiting.drain(..count).collect()
    }

    /// One delivery, unsettled.
    pub async fn one(&mut self) -> Delivery {
        self.take(1).await.remove(0)
    }

    /// This many deliveries, acknowledged one batch after another.
    pub async fn handle(&mut self, count: usize) -> Vec<Delivery> {
        let mut handled = Vec::new();
        while handled.len() < count {
            let chunk = (count - handled.len()).min(self.room());
            let mut more = self.take(chunk.clamp(1, 50)).await;
            self.ack(&more).await;
            handled.append(&mut more);
        }
        handled
    }

    /// Nothing comes for a while.
    pub async fn quiet(&mut self) {
        self.quiet_for(WATCH).await;
    }

    /// Nothing comes for this long.
    pub async fn quiet_for(&mut self, time: Duration) {
        let until = Instant::now() + time;
        let max = self.room();
        while let Ok(brought) = timeout_at(until, self.step(max)).await {
            let ids: Vec<_> = self
                .waiting
                .iter()
                .map(|delivery| id(&delivery.message))
                .collect();
            assert!(!brought, "nothing should come, but did: {ids:?}");
        }
    }

    /// Settles; an answer for each.
    pub async fn settle(&mut self, verdicts: impl IntoIterator<Item = (Token, Verdict)>) -> Vec<Settled> {
        let mut batch: Vec<_> = verdicts
            .into_iter()
            .map(|(token, verdict)| Settlement { token, verdict })
            .collect();
        let tokens: Vec<_> = batch.iter().map(|settlement| settlement.token).collect();
        let mut out = Vec::new();
        let settling = self.settler.settle(&mut batch, &mut out);
        timeout(PATIENCE, settling).await.expect("settling ends");
        assert_eq!(out.len(), tokens.len(), "an answer for each settlement");
        assert!(batch.is_empty(), "the batch is drained");
        for (token, settled) in tokens.iter().zip(&out) {
            if !matches!(settled, Settled::Failed(..)) {
                self.held.remove(token);
            }
        }
        out
    }

    /// Acknowledges; all must be done.
    pub async fn ack(&mut self, deliveries: &[Delivery]) {
        let verdicts: Vec<_> = deliveries
            .iter()
            .map(|delivery| (delivery.token, Verdict::ACK))
            .collect();
        all_done(&self.settle(verdicts).await);
    }

    /// Acknowledges one, publishing first.
    pub async fn emit(&mut self, delivery: &Delivery, emit: Vec<Outgoing>) {
        all_done(&self.settle([(delivery.token, Verdict::Ack { emit })]).await);
    }

    /// Gives back; all must be done.
    pub async fn release(&mut self, deliveries: &[Delivery]) {
        let verdicts: Vec<_> = deliveries
            .iter()
            .map(|delivery| (delivery.token, Verdict::Release))
            .collect();
        all_done(&self.settle(verdicts).await);
    }
}

pub(crate) fn all_done(settled: &[Settled]) {
    for one in settled {
        assert!(matches!(one, Settled::Done), "settled as {one:?}");
    }
}

/// How often each id is there.
pub fn count_ids<'a>(deliveries: impl IntoIterator<Item = &'a Delivery>) -> BTreeMap<String, usize> {
    let mut counts = BTreeMap::new();
    for delivery in deliveries {
        *counts.entry(id(&delivery.message)).or_default() += 1;
    }
    counts
}

/// Each numbered message of this range exactly once.
pub fn assert_each_once<'a>(
    deliveries: impl IntoIterator<Item = &'a Delivery>,
    range: std::ops::Range<usize>,
) {
    let expected: BTreeMap<_, _> = range.map(|n| (format!("id-{n}"), 1)).collect();
    let counts = count_ids(deliveries);
    let missing: Vec<_> = expected.keys().filter(|id| !counts.contains_key(*id)).collect();
    let repeated: Vec<_> = counts
        .iter()
        .filter(|(id, n)| **n > 1 || !expected.contains_key(*id))
        .collect();
    assert!(
        missing.is_empty() && repeated.is_empty(),
        "missing: {missing:?}; more than once or foreign: {repeated:?}"
    );
}

/// The error's kind, or a failure.
pub fn kind<T: std::fmt::Debug>(result: Result<T, Error>) -> postrider_contract::ErrorKind {
    result.expect_err("an error").kind()
}
