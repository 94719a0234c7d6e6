//! Counting and timing, through the `metrics` facade: names and labels are OpenTelemetry's where it has some, the same on
//! every broker. Handles are resolved at start-up and added to once for each batch.

mod depths;
mod listener;
mod publisher;
mod stopwatch;

pub(crate) use depths::{Depths, INTERVAL, OWN_INTERVAL};
pub use listener::Counts;
pub(crate) use listener::{Meter, Subject, Tally, What};
pub(crate) use publisher::{Sent, TopicMeter};
#[cfg(feature = "ops")]
pub(crate) use stopwatch::FIRST_BUCKET;
pub(crate) use stopwatch::{LONG, Stopwatch};

use metrics::{Unit, describe_counter, describe_gauge, describe_histogram};

/// The labels of every series that can have them.
pub(crate) mod labels {
    pub(crate) const SYSTEM: &str = "messaging.system";
    pub(crate) const TOPIC: &str = "messaging.destination.name";
    pub(crate) const GROUP: &str = "messaging.consumer.group.name";
    pub(crate) const LISTENER: &str = "postrider.listener";
    pub(crate) const OPERATION: &str = "messaging.operation.name";
    pub(crate) const ERROR: &str = "error.type";
}

/// The names of all series.
pub(crate) mod names {
    pub(crate) const CONSUMED: &str = "messaging.client.consumed.messages";
    pub(crate) const SENT: &str = "messaging.client.sent.messages";
    pub(crate) const UNRECEIVED: &str = "postrider.unreceived";
    pub(crate) const ATTEMPTS: &str = "postrider.attempts";
    pub(crate) const HANDLED: &str = "postrider.handled";
    pub(crate) const RETRIED: &str = "postrider.retried";
    pub(crate) const DEAD_LETTERED: &str = "postrider.dead_lettered";
    pub(crate) const RELEASED: &str = "postrider.released";
    pub(crate) const FAILURES: &str = "postrider.failures";
    pub(crate) const STALE: &str = "postrider.stale";
    pub(crate) const LOST: &str = "postrider.lost";
    pub(crate) const DUPLICATES: &str = "postrider.duplicates";
    pub(crate) const RECONNECTS: &str = "postrider.reconnects";
    pub(crate) const SETTLE_FAILURES: &str = "postrider.settle.failures";

    pub(crate) const PROCESS_DURATION: &str = "messaging.process.duration";
    pub(crate) const OPERATION_DURATION: &str = "messaging.client.operation.duration";
    pub(crate) const BATCH_SIZE: &str = "postrider.batch.size";
    pub(crate) const RETRY_AGE: &str = "postrider.retry.age";

    pub(crate) const READY: &str = "postrider.ready";
    pub(crate) const IN_FLIGHT: &str = "postrider.in_flight";
    pub(crate) const WAITING: &str = "postrider.waiting";
    pub(crate) const UNSETTLED: &str = "postrider.unsettled";
    pub(crate) const RETRYING: &str = "postrider.retrying";
    pub(crate) const DEAD: &str = "postrider.dead";
}

/// Tells the recorder what each name means, where one is installed.
pub(crate) fn describe() {
    use names as n;
    let counters = [
        (n::CONSUMED, "Deliveries received, redeliveries too."),
        (
            n::SENT,
            "Messages published; with error.type those that the broker did not confirm.",
        ),
        (
            n::UNRECEIVED,
            "Confirmed messages of which the broker said that nobody receives them.",
        ),
        (
            n::ATTEMPTS,
            "Attempts that came to an outcome: those of published messages and of their retries.",
        ),
        (n::HANDLED, "Messages acknowledged as done."),
        (n::RETRIED, "Failed attempts that are tried again."),
        (n::DEAD_LETTERED, "Messages given up."),
        (n::RELEASED, "Deliveries given back with the attempt not used up."),
        (n::FAILURES, "Failed attempts by their reason, error.type."),
        (
            n::STALE,
            "Settlements that came after their connection or partition was gone.",
        ),
        (
            n::LOST,
            "Messages known to be lost where the broker cannot keep them.",
        ),
        (
            n::DUPLICATES,
            "Messages acknowledged without effect because they were handled before.",
        ),
        (
            n::RECONNECTS,
            "Times that messages flowed again after they had not.",
        ),
        (
            n::SETTLE_FAILURES,
            "Settlements that could not be carried out and were tried again.",
        ),
    ];
    for (name, what) in counters {
        describe_counter!(name, Unit::Count, what);
    }
    let seconds = [
        (n::PROCESS_DURATION, "How long handlers took."),
        (
            n::OPERATION_DURATION,
            "How long it took to publish, or to settle, a batch.",
        ),
        (
            n::RETRY_AGE,
            "How long ago a message first failed, at each later attempt.",
        ),
    ];
    for (name, what) in seconds {
        describe_histogram!(name, Unit::Seconds, what);
    }
    describe_histogram!(
        n::BATCH_SIZE,
        Unit::Count,
        "How many messages travelled together: received, handled, settled, sent."
    );
    let gauges = [
        (n::READY, "1 where messages flow, 0 where they do not."),
        (n::IN_FLIGHT, "Deliveries that this process holds unsettled."),
        (
            n::WAITING,
            "Messages that wait for the group, as the broker tells; NaN where it does not.",
        ),
        (
            n::UNSETTLED,
            "Messages delivered to the group and not settled, as the broker tells; NaN where it does not.",
        ),
        (
            n::RETRYING,
            "Messages on the group's return path, due or not, as the broker tells; NaN where it does not.",
        ),
        (
            n::DEAD,
            "Messages in the dead-letter topic, as the broker tells; NaN where it does not.",
        ),
    ];
    for (name, what) in gauges {
        describe_gauge!(name, Unit::Count, what);
    }
}
