use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;

use crate::{
    Bytes, Capabilities, DedupStore, Delivery, Error, Message, Outgoing, Problem, Settled, Settlement, Spec,
    Token, Topology,
};

/// Who connects: known to the broker where it shows client names.
#[derive(Debug, Clone)]
pub struct Client {
    /// The application's name; instances share it.
    pub application: Arc<str>,
    /// This process, unique among the instances.
    pub instance: Arc<str>,
}

/// A connected broker. Object-safe, because the URL chooses at run time.
#[async_trait]
pub trait Broker: Send + Sync + 'static {
    /// What this broker, as it is configured, can do. Fixed once connected.
    fn capabilities(&self) -> &Capabilities;

    /// Checks the subscriptions against the broker and, with [`Topology::Declare`], makes what they need: topics, the
    /// group's position, the inbox, the dead-letter topic. Idempotent. A group sees everything published after its first
    /// `plan`, whether or not anything is running.
    ///
    /// # Errors
    /// *Every* problem found, not the first.
    async fn plan(&self, all: &[Spec], mode: Topology) -> Result<(), Vec<Problem>>;

    /// Starts receiving. One [`Subscription`] for each spec, in the same order; called once, after [`Broker::plan`].
    async fn open(&self, all: Vec<Spec>) -> Result<Vec<Subscription>, Error>;

    /// Sends a batch; an answer for each, in the same order, when its fate is known. Messages to one topic with one key
    /// keep their order within a batch, and between calls where the first returned before the second began. Many calls may be under way at once: an
    /// adapter pipelines them.
    async fn publish(&self, batch: Vec<Outgoing>) -> Vec<Result<Receipt, Error>>;

    /// The dead letters in `topic` (a dead-letter topic) that belong to `(source, group)`.
    fn dead_letters(&self, dead_letter_topic: &str, source: &str, group: &str) -> Box<dyn DeadLetters>;

    /// Depths as the broker itself knows them, one answer for each spec, in the same order.
    async fn status(&self, all: &[Spec]) -> Result<Vec<Status>, Error>;

    /// A store of marks on this broker's own server, for listeners with `dedup` that were given no other; `None` where the
    /// broker cannot look up a key. It ends with the broker.
    fn dedup_store(&self) -> Option<Arc<dyn DedupStore>> {
        None
    }

    /// Flushes what is being published, gives back what is unsettled, and disconnects. Idempotent. Every open
    /// [`Receiver`] answers [`Event::Closed`] afterwards.
    async fn close(&self, deadline: Duration) -> Result<(), Error>;
}

/// A live subscription: the two halves are used by different tasks at the same time. It ends when they are dropped: what it held
/// goes to its peers, also where the broker is not closed.
pub struct Subscription {
    /// Brings deliveries.
    pub receiver: Box<dyn Receiver>,
    /// Takes verdicts.
    pub settler: Arc<dyn Settler>,
}

/// Brings deliveries and news of the subscription.
#[async_trait]
pub trait Receiver: Send {
    /// Waits for something to happen. Appends at most `max` deliveries (`max` may be 0: then only news is waited for)
    /// and answers [`Event::Deliveries`], or appends nothing and answers another event. Deliveries of earlier calls
    /// that are not settled yet plus `max` never exceed [`Spec::in_flight`].
    ///
    /// Cancel-safe: dropping the future loses nothing.
    ///
    /// # Errors
    /// The subscription is over and cannot be mended by trying again.
    async fn next(&mut self, max: usize, into: &mut Vec<Delivery>) -> Result<Event, Error>;

    /// Stops or resumes fetching; the connection, membership and leases are kept. Deliveries fetched before may still
    /// come.
    async fn pause(&mut self, paused: bool);
}

/// What [`Receiver::next`] tells.
#[derive(Debug)]
#[non_exhaustive]
pub enum Event {
    /// Deliveries were appended.
    Deliveries,
    /// Messages flow (again).
    Ready,
    /// Nothing flows for now; the adapter is mending it.
    Degraded(Error),
    /// Messages were lost where the broker cannot keep them; the count where it is known.
    Gap {
        /// How many, if that can be told.
        lost: Option<u64>,
    },
    /// These lanes are being taken away. The runtime drops what it has not started, lets running handlers finish,
    /// settles, and then calls [`Settler::released`]; the adapter waits for that, at most until the deadline.
    Revoked {
        /// [`Token::lane`] of what is taken.
        lanes: Vec<u32>,
        /// How long the adapter waits. Zero: already lost, settle nothing.
        deadline: Duration,
    },
    /// The broker was closed from this side.
    Closed,
}

/// Takes verdicts. All calls may run at the same time as [`Receiver::next`], and as each other: what emits is settled by a call
/// of its own where order is not kept, so that a publish that is not confirmed holds up no other acknowledgement.
#[async_trait]
pub trait Settler: Send + Sync {
    /// Carries out a batch of verdicts, in any order. Drains `batch` and appends one answer for each, in the same order.
    ///
    /// For [`Verdict::Ack`](crate::Verdict::Ack) with `emit`: everything in it is published and confirmed first; if that fails, the original
    /// stays unsettled and the answer is [`Settled::Failed`], which hands the settlement back.
    async fn settle(&self, batch: &mut Vec<Settlement>, out: &mut Vec<Settled>);

    /// These are still being worked on: renews their leases ([`Capabilities::lease`]).
    async fn extend(&self, held: &[Token]);

    /// These lanes, revoked before, hold nothing any more.
    async fn released(&self, lanes: &[u32]);
}

/// What a confirmed publish left.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Receipt {
    /// False where the broker can tell that nobody received it (it is gone then); true otherwise.
    pub received: bool,
}

/// Depths of one subscription as the broker knows them; `None` where it cannot tell.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Status {
    /// Messages waiting for the group, not delivered yet.
    pub waiting: Option<u64>,
    /// Delivered to some instance of the group and not settled.
    pub unsettled: Option<u64>,
    /// Waiting on the return path, due or not.
    pub retrying: Option<u64>,
    /// In the dead-letter topic.
    pub dead: Option<u64>,
}

/// A dead letter as it lies in its topic.
#[derive(Debug, Clone)]
pub struct DeadLetter {
    /// Identifies it within its dead-letter topic, for [`DeadLetters::replay`] and [`DeadLetters::purge`], and as the
    /// cursor after which [`DeadLetters::browse`] goes on.
    pub id: Bytes,
    /// The message, with its `postrider-dead-*` headers.
    pub message: Message,
}

/// Looks at dead letters without losing, reordering or marking any, also while a listener on the dead-letter topic runs.
#[async_trait]
pub trait DeadLetters: Send {
    /// Up to `max` dead letters, oldest first, after the one with id `after`. Empty: there are no more.
    async fn browse(&mut self, after: Option<&Bytes>, max: usize) -> Result<Vec<DeadLetter>, Error>;

    /// Sends each to the inbox of its group, at attempt 1, counting `replays`, and takes it out of the dead letters once
    /// that is confirmed. Idempotent by id; an answer for each.
    async fn replay(&mut self, ids: &[Bytes]) -> Vec<Result<(), Error>>;

    /// Takes each out of the dead letters for good. Idempotent by id; an answer for each.
    async fn purge(&mut self, ids: &[Bytes]) -> Vec<Result<(), Error>>;
}
