use std::borrow::Cow;
use std::time::Duration;

/// What a broker declares it can do, so that the runtime refuses at start-up what it cannot.
#[allow(clippy::struct_excessive_bools, reason = "independent facts, not a state")]
#[derive(Debug, Clone)]
pub struct Capabilities {
    /// The broker's name in OpenTelemetry's `messaging.system`, such as `kafka` or `rabbitmq`.
    pub system: &'static str,
    /// What a confirmed message can count on.
    pub guarantee: Guarantee,
    /// Order by partition key can be kept within a group.
    pub ordered: bool,
    /// Every instance can have its own copy.
    pub broadcast: bool,
    /// History from before the group's first start can be read.
    pub earliest: bool,
    /// The broker can tell that a topic has no receiver.
    pub knows_receivers: bool,
    /// Redeliveries without a verdict are counted ([`Delivery::redeliveries`](crate::Delivery::redeliveries)).
    pub counts_redeliveries: bool,
    /// The longest delay that the return path carries.
    pub max_delay: Duration,
    /// The longest time that a delivery may stay unsettled before the broker takes it away; `None` is for ever.
    pub max_hold: Option<Duration>,
    /// Unsettled deliveries are leased for this long and must be extended; `None` where they are not.
    pub lease: Option<Duration>,
    /// The largest payload in bytes that can be published.
    pub max_payload: usize,
}

/// What a confirmed message can count on.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Guarantee {
    /// It is handled, parked for retry, or dead-lettered.
    AtLeastOnce,
    /// It can be lost, and this is when and what to do about it (shown at start-up).
    AtMostOnce(Cow<'static, str>),
}
