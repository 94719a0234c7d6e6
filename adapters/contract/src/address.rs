use std::sync::Arc;
use std::time::SystemTime;

use crate::{Bytes, Message};

/// Where a message goes.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Address {
    /// A topic: every group that listens there gets a copy. A dead-letter topic is an ordinary topic.
    Topic(Arc<str>),
    /// The private return address of one consumer group on one topic. No other group sees what is sent here, and a
    /// producer cannot reach it by publishing to a topic.
    Inbox {
        /// The topic that the group listens to.
        topic: Arc<str>,
        /// The group.
        group: Arc<str>,
    },
    /// Whatever a `reply-to` property named, in the broker's own form.
    Reply(Bytes),
}

/// A message on its way to an address.
#[derive(Debug, Clone, PartialEq)]
pub struct Outgoing {
    /// Where it goes.
    pub to: Address,
    /// Delivered not before this time; `None` is at once. It may be late (by no more than the larger of 10 % and 250 ms
    /// on an idle broker), never early.
    pub not_before: Option<SystemTime>,
    /// An error, [`ErrorKind::NoReceiver`](crate::ErrorKind::NoReceiver), where the broker can tell that nobody receives
    /// the topic.
    pub require_receiver: bool,
    /// What is sent.
    pub message: Message,
}

impl Outgoing {
    /// A message for a topic, at once.
    pub fn to_topic(topic: impl Into<Arc<str>>, message: Message) -> Self {
        Self {
            to: Address::Topic(topic.into()),
            not_before: None,
            require_receiver: false,
            message,
        }
    }

    /// A message for the private inbox of a group, at once.
    pub fn to_inbox(topic: impl Into<Arc<str>>, group: impl Into<Arc<str>>, message: Message) -> Self {
        let to = Address::Inbox {
            topic: topic.into(),
            group: group.into(),
        };
        Self {
            to,
            not_before: None,
            require_receiver: false,
            message,
        }
    }

    /// The same message, not before `time`.
    pub fn not_before(mut self, time: SystemTime) -> Self {
        self.not_before = Some(time);
        self
    }
}
