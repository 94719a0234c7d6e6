//! What a test is told of: every attempt with its outcome, everything that was published.

use std::fmt;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::time::Instant;

use crate::contract::{Address, Delivery, Message, Outgoing, names};
use crate::listener::{Outcome, Reason};

/// One attempt of a listener at a message.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct Attempted {
    /// The listener's name.
    pub listener: String,
    /// The topic that the message was published to.
    pub topic: String,
    /// The message's id.
    pub message_id: String,
    /// Which attempt it was, from 1.
    pub attempt: u32,
    /// How it ended.
    pub ended: Ended,
    /// When, on the virtual clock, since the start of the app.
    pub at: Duration,
}

/// How an attempt ended.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub enum Ended {
    /// Acknowledged.
    Handled,
    /// Failed: tried again, or dead-lettered, as the listener's policy says.
    Failed {
        /// Why.
        reason: Reason,
        /// The error's text.
        error: String,
    },
    /// Given back, the attempt not used up.
    Released,
    /// Acknowledged without calling the handler: it was handled before (`dedup`).
    Duplicate,
}

impl fmt::Display for Ended {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Handled => f.write_str("handled"),
            Self::Failed { reason, error } => write!(f, "{reason}: {error}"),
            Self::Released => f.write_str("released"),
            Self::Duplicate => f.write_str("duplicate"),
        }
    }
}

/// Listens in on an app.
pub(crate) struct Tap {
    begin: Instant,
    seen: Mutex<Seen>,
}

#[derive(Default)]
pub(super) struct Seen {
    pub(super) attempts: Vec<Attempted>,
    /// With its topic and when.
    pub(super) published: Vec<(String, Message, Duration)>,
}

impl Tap {
    pub(super) fn new() -> Self {
        Self {
            begin: Instant::now(),
            seen: Mutex::default(),
        }
    }

    pub(super) fn elapsed(&self) -> Duration {
        self.begin.elapsed()
    }

    pub(super) fn seen(&self) -> MutexGuard<'_, Seen> {
        self.seen.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// An attempt came to an outcome.
    pub(crate) fn ended(&self, listener: &str, delivery: &Delivery, attempt: u32, outcome: &Outcome) {
        let ended = match outcome {
            Outcome::Ack { emit } => {
                for outgoing in emit {
                    self.published(outgoing);
                }
                Ended::Handled
            }
            Outcome::Failed(error) => Ended::Failed {
                reason: error.reason(),
                error: error.to_string(),
            },
            Outcome::Release => Ended::Released,
        };
        self.attempted(listener, delivery, attempt, ended);
    }

    /// The broker refuses what a handler published that had come to an end: it was never sent, and the attempt has failed.
    pub(crate) fn refused(
        &self,
        listener: &str,
        delivery: &Delivery,
        attempt: u32,
        emit: &[Outgoing],
        outcome: &Outcome,
    ) {
        let mut seen = self.seen();
        let id = delivery.message.headers.get_str(names::MESSAGE_ID);
        let ended = seen.attempts.iter().rposition(|known| {
            known.listener == listener
                && known.attempt == attempt
                && known.message_id == id.unwrap_or_default()
        });
        ended.map(|place| seen.attempts.remove(place));
        for Outgoing { to, message, .. } in emit {
            // Its id and time came later.
            let sent = seen.published.iter().rposition(|(topic, known, _)| {
                let same = (&known.key, &known.payload) == (&message.key, &message.payload);
                same && matches!(to, Address::Topic(to) if **to == **topic)
            });
            sent.map(|place| seen.published.remove(place));
        }
        drop(seen);
        self.ended(listener, delivery, attempt, outcome);
    }

    /// A message that was handled before.
    pub(crate) fn duplicate(&self, listener: &str, delivery: &Delivery, attempt: u32) {
        self.attempted(listener, delivery, attempt, Ended::Duplicate);
    }

    fn attempted(&self, listener: &str, delivery: &Delivery, attempt: u32, ended: Ended) {
        let id = delivery.message.headers.get_str(names::MESSAGE_ID);
        let attempted = Attempted {
            listener: listener.to_owned(),
            topic: delivery.topic.to_string(),
            message_id: id.unwrap_or_default().to_owned(),
            attempt,
            ended,
            at: self.elapsed(),
        };
        self.seen().attempts.push(attempted);
    }

    /// The broker has taken a message to a topic.
    pub(crate) fn published(&self, outgoing: &Outgoing) {
        if let Address::Topic(topic) = &outgoing.to {
            let message = outgoing.message.clone();
            self.seen()
                .published
                .push((topic.to_string(), message, self.elapsed()));
        }
    }
}
