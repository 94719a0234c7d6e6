//! What cases are written with.

mod check;
mod instance;
mod subscribed;
mod worker;

use std::ops::Range;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, SystemTime};

use postrider_contract::{Delivery, Message, Order, Outgoing, Sharing, Source, Spec, Start, names};

use crate::Harness;
use crate::record::Notes;

pub use check::{all_done, assert_each_once, assert_same_content, count_ids, eventually, kind};
pub use instance::Instance;
pub use subscribed::Subscribed;
pub use worker::{Log, Worker};

/// How long the suite watches for what must not happen.
pub const WATCH: Duration = Duration::from_millis(700);

/// One case on one broker: makes names of its own and connects.
#[derive(Clone)]
pub struct Run {
    harness: Arc<dyn Harness>,
    case: &'static str,
    stamp: Arc<str>,
    pub(crate) notes: Notes,
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
            notes: Notes::default(),
        }
    }

    /// The harness.
    pub fn harness(&self) -> &dyn Harness {
        &*self.harness
    }

    /// How long to wait for what must happen.
    pub fn patience(&self) -> Duration {
        self.harness.patience()
    }

    /// A topic that only this run knows.
    pub fn topic(&self, name: &str) -> Arc<str> {
        format!("conformance.{}.{}.{name}", self.case, self.stamp).into()
    }

    /// Notes that the broker cannot do what the case is about, or not all of it, and has said so.
    pub fn refused(&self, what: &str) {
        println!("{} on {}: refused: {what}", self.case, self.harness.name());
        self.notes.refused(what);
    }

    /// Notes how late a retry of this wait came.
    pub fn late(&self, wait: Duration, late: Duration) {
        println!(
            "{} on {}: {wait:?} was late by {late:?}",
            self.case,
            self.harness.name()
        );
        self.notes.late(wait, late);
    }

    /// One more instance.
    pub async fn connect(&self) -> Instance {
        let broker = self.harness.connect("conformance").await;
        let broker =
            broker.unwrap_or_else(|error| panic!("{} cannot be reached: {error}", self.harness.name()));
        Instance::new(broker, self.harness.patience())
    }

    /// Two instances with the same wishes, both ready. The first goes on receiving news while the second joins.
    pub async fn two(&self, spec: &Spec) -> [(Instance, Subscribed); 2] {
        let (one, two) = (self.connect().await, self.connect().await);
        let [mut first] = one.open([spec.clone()]).await;
        let [second] = {
            let joining = two.open([spec.clone()]);
            let mut joining = std::pin::pin!(joining);
            loop {
                tokio::select! {
                    opened = &mut joining => break opened,
                    _ = first.step(0) => (),
                }
            }
        };
        [(one, first), (two, second)]
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

/// A retry of this delivery as the runtime sends it: to the group's inbox, counting the attempt.
pub fn retry(delivery: &Delivery, group: &str, attempt: u32, wait: Duration) -> Outgoing {
    let copy = delivery
        .message
        .clone()
        .with_header(names::ATTEMPT, attempt)
        .with_header(names::REPLAYS, 0i64)
        .with_header(names::POSITION, delivery.position.to_string());
    Outgoing::to_inbox(delivery.topic.clone(), group, copy).not_before(SystemTime::now() + wait)
}

/// A dead letter of this delivery as the runtime sends it.
pub fn dead(delivery: &Delivery, group: &str, dead_letter_topic: &str) -> Outgoing {
    let copy = delivery
        .message
        .clone()
        .with_header(names::DEAD_REASON, "permanent")
        .with_header(names::DEAD_ERROR, "no such order")
        .with_header(names::DEAD_ATTEMPTS, 5i64)
        .with_header(names::DEAD_REPLAYS, 0i64)
        .with_header(names::DEAD_TOPIC, &*delivery.topic)
        .with_header(names::DEAD_GROUP, group)
        .with_header(names::DEAD_POSITION, delivery.position.to_string());
    Outgoing::to_topic(dead_letter_topic, copy)
}

/// The numbered messages of this range, for a topic.
pub fn numbered_for(topic: &Arc<str>, range: Range<usize>) -> Vec<Outgoing> {
    range
        .map(|n| Outgoing::to_topic(topic.clone(), numbered(n)))
        .collect()
}
