//! Names of exchanges and queues, and the arguments that they are declared with.

use std::sync::Arc;

use lapin::types::{AMQPValue, FieldTable};

/// The exchange that topics are published to, unless the URL names another.
pub(crate) const EXCHANGE: &str = "postrider";
/// Brings what has no delay to the inbox of a group: a direct exchange, routing key = inbox.
pub(crate) const INBOX: &str = "postrider.inbox";
/// The delay ladder's exchanges and queues begin so.
pub(crate) const LADDER: &str = "postrider.delay.";
/// Where the ladder ends: a topic exchange.
pub(crate) const LADDER_EXIT: &str = "postrider.delay.out";
/// What left the ladder for an inbox that nobody has any more: kept until its group is declared again.
pub(crate) const UNROUTED: &str = "postrider.unrouted";
/// What left the ladder for a topic that nobody receives.
pub(crate) const DISCARDED: &str = "postrider.discarded";
/// Marks in dead-letter streams: a direct exchange that no listener is bound to.
pub(crate) const MARKS: &str = "postrider.marks";

/// Redeliveries after which the *broker* gives a message up to its dead-letter topic. The runtime does so after 20; this
/// is for what never reaches it, such as properties that the client library cannot parse. Stated because 4.0 and later
/// drop after 20 if nothing is.
pub(crate) const DELIVERY_LIMIT: i64 = 200;

/// Names that depend on the topic exchange.
#[derive(Debug, Clone)]
pub(crate) struct Layout {
    pub(crate) exchange: Arc<str>,
}

impl Layout {
    pub(crate) fn new(exchange: impl Into<Arc<str>>) -> Self {
        Self {
            exchange: exchange.into(),
        }
    }

    /// The inbox of a group, and the name of its queue where it is not ordered. Under another exchange than the usual one
    /// it is set apart, so that two exchanges in one virtual host share no queue.
    pub(crate) fn inbox(&self, topic: &str, group: &str) -> String {
        if &*self.exchange == EXCHANGE {
            format!("{topic}.{group}")
        } else {
            format!("{}/{topic}.{group}", self.exchange)
        }
    }

    /// The queue of a group. Single active consumer cannot be switched on an existing queue, so an ordered group has one
    /// of its own.
    pub(crate) fn queue(&self, topic: &str, group: &str, ordered: bool) -> String {
        let inbox = self.inbox(topic, group);
        if ordered { inbox + ":ordered" } else { inbox }
    }

    /// The stream that keeps a dead-letter topic.
    pub(crate) fn stream(&self, dead_letter_topic: &str) -> String {
        if &*self.exchange == EXCHANGE {
            dead_letter_topic.to_owned()
        } else {
            format!("{}/{dead_letter_topic}", self.exchange)
        }
    }
}

/// A table from names and values.
fn table<const N: usize>(entries: [(&str, AMQPValue); N]) -> FieldTable {
    let mut table = FieldTable::default();
    for (name, value) in entries {
        table.insert(name.into(), value);
    }
    table
}

fn text(value: &str) -> AMQPValue {
    AMQPValue::LongString(value.into())
}

/// A group's queue: quorum, and what the broker itself gives up goes to the default dead-letter topic. That target does
/// not follow the listener's configuration, because arguments of an existing queue cannot change.
pub(crate) fn group_queue(exchange: &str, dead_letter_topic: &str, ordered: bool) -> FieldTable {
    let mut arguments = table([
        ("x-queue-type", text("quorum")),
        ("x-delivery-limit", AMQPValue::LongLongInt(DELIVERY_LIMIT)),
        ("x-dead-letter-exchange", text(exchange)),
        ("x-dead-letter-routing-key", text(dead_letter_topic)),
        ("x-dead-letter-strategy", text("at-least-once")),
        ("x-overflow", text("reject-publish")),
    ]);
    if ordered {
        arguments.insert("x-single-active-consumer".into(), AMQPValue::Boolean(true));
    }
    arguments
}

/// One level of the ladder.
pub(crate) fn ladder_queue(wait_ms: u64, next: &str) -> FieldTable {
    table([
        ("x-queue-type", text("quorum")),
        ("x-message-ttl", AMQPValue::LongLongInt(wait_ms as i64)),
        ("x-dead-letter-exchange", text(next)),
        ("x-dead-letter-strategy", text("at-least-once")),
        ("x-overflow", text("reject-publish")),
    ])
}

/// The ladder's exit: what has no destination goes elsewhere.
pub(crate) fn ladder_exit() -> FieldTable {
    table([("alternate-exchange", text(UNROUTED))])
}

/// A plain quorum queue that drops nothing.
pub(crate) fn keeping_queue() -> FieldTable {
    table([
        ("x-queue-type", text("quorum")),
        ("x-delivery-limit", AMQPValue::LongLongInt(1_000_000_000)),
    ])
}

/// A queue that holds nothing.
pub(crate) fn discarding_queue() -> FieldTable {
    table([
        ("x-queue-type", text("classic")),
        ("x-max-length", AMQPValue::LongLongInt(0)),
    ])
}

/// A dead-letter topic's stream: no limit of age or size.
pub(crate) fn dead_letter_stream() -> FieldTable {
    table([("x-queue-type", text("stream"))])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn another_exchange_shares_no_queue() {
        let usual = Layout::new(EXCHANGE);
        let other = Layout::new("shop");
        assert_eq!(usual.queue("a.b", "g", false), "a.b.g");
        assert_eq!(usual.queue("a.b", "g", true), "a.b.g:ordered");
        assert_eq!(usual.inbox("a.b", "g"), "a.b.g");
        assert_eq!(other.queue("a.b", "g", false), "shop/a.b.g");
        assert_eq!(other.stream("a.b.g.dlq"), "shop/a.b.g.dlq");
    }
}
