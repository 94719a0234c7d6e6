//! Keeps the messages of this run apart from those that an earlier one, killed half-way, has left on the broker.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};

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
    /// By listener.
    foreign: Arc<Mutex<HashMap<String, u64>>>,
}

#[postrider::async_trait]
impl Middleware for ThisRun {
    async fn handle(&self, cx: &Context, next: Next<'_>) -> Outcome {
        if cx.headers().get_str(RUN_ID) != Some(self.id.as_str()) {
            let mut foreign = self.foreign.lock().unwrap_or_else(PoisonError::into_inner);
            *foreign.entry(cx.listener().to_owned()).or_default() += 1;
            return Outcome::ACK;
        }
        let mut outcome = next.run(cx).await;
        if let Outcome::Ack { emit } = &mut outcome {
            for returned in emit {
                returned.message.headers.set(RUN_ID, self.id.as_str());
            }
        }
        outcome
    }
}

impl ThisRun {
    pub(crate) fn new(id: RunId) -> Self {
        Self {
            id,
            foreign: Arc::default(),
        }
    }

    /// How many messages of other runs each listener has met.
    pub(crate) fn foreign(&self) -> HashMap<String, u64> {
        self.foreign
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .clone()
    }
}
