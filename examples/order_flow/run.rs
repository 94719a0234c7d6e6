//! Keeps the messages of this run apart from those that an earlier one, killed half-way, has left on the broker.

use std::collections::{HashMap, HashSet};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use postrider::{Outcome, prelude::*};

/// The header that every message of a run carries.
pub(crate) const RUN_ID: &str = "run-id";

/// This run.
#[derive(Debug, Clone)]
pub(crate) struct RunId(Arc<str>);

impl RunId {
    pub(crate) fn new() -> Self {
        Self(uuid::Uuid::now_v7().to_string().into())
    }

    pub(crate) fn as_str(&self) -> &str {
        &self.0
    }
}

/// Middleware around every listener: handles what belongs to this run, and acknowledges the rest without effect.
#[derive(Clone)]
pub(crate) struct ThisRun {
    id: RunId,
    seen: Arc<Mutex<Seen>>,
}

#[derive(Default)]
struct Seen {
    /// Messages of other runs, by listener.
    foreign: HashMap<String, u64>,
    /// What is being handled, or failed and is to come again: listener and message id.
    open: HashSet<(String, String)>,
}

#[postrider::async_trait]
impl Middleware for ThisRun {
    async fn handle(&self, cx: &Context, next: Next<'_>) -> Outcome {
        let listener = cx.listener().to_owned();
        if cx.headers().get_str(RUN_ID) != Some(self.id.as_str()) {
            *self.seen().foreign.entry(listener).or_default() += 1;
            return Outcome::ACK;
        }
        let delivery = (listener, cx.message_id().unwrap_or_default().to_owned());
        self.seen().open.insert(delivery.clone());
        // A handler that panics or runs out of time does not come back here: its message stays open.
        let mut outcome = next.run(cx).await;
        match &mut outcome {
            Outcome::Ack { emit } => {
                for returned in emit {
                    returned.message.headers.set(RUN_ID, self.id.as_str());
                }
                self.seen().open.remove(&delivery);
            }
            Outcome::Failed(error) if !error.is_retryable() => drop(self.seen().open.remove(&delivery)),
            _ => {}
        }
        outcome
    }
}

impl ThisRun {
    pub(crate) fn new(id: RunId) -> Self {
        let seen = Arc::default();
        Self { id, seen }
    }

    /// How many messages of other runs each listener has met.
    pub(crate) fn foreign(&self) -> HashMap<String, u64> {
        self.seen().foreign.clone()
    }

    /// The messages that are being handled or are to come again, by listener and message id.
    pub(crate) fn open(&self) -> HashSet<(String, String)> {
        self.seen().open.clone()
    }

    fn seen(&self) -> MutexGuard<'_, Seen> {
        self.seen.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
