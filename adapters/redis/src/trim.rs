//! Removes from topics what every group has acknowledged, after the retention.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use postrider_contract::Error;
use redis::Value;
use tokio_util::sync::CancellationToken;

use crate::link::{COMMAND, Link};
use crate::scripts::Name;
use crate::topics::Topics;

/// Removed by one run of the script; as many again follow at once.
const AT_ONCE: i64 = 10_000;

pub(crate) struct Trimmer {
    link: Arc<Link>,
    topics: Arc<Topics>,
    retention: Duration,
    /// Inboxes: nothing is kept in them.
    inboxes: Mutex<Vec<String>>,
}

impl Trimmer {
    pub(crate) fn new(link: Arc<Link>, topics: Arc<Topics>, retention: Duration) -> Self {
        Self {
            link,
            topics,
            retention,
            inboxes: Mutex::default(),
        }
    }

    /// This one too, and without retention: what was acknowledged and, in a crash, not deleted.
    pub(crate) fn empty(&self, inbox: String) {
        self.inboxes
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .push(inbox);
    }

    pub(crate) async fn run(&self, until: CancellationToken) {
        let pause = self
            .retention
            .clamp(Duration::from_secs(1), Duration::from_secs(5));
        loop {
            tokio::select! {
                () = tokio::time::sleep(pause) => {}
                () = until.cancelled() => return,
            }
            let inboxes = self
                .inboxes
                .lock()
                .unwrap_or_else(PoisonError::into_inner)
                .clone();
            let inboxes = inboxes
                .into_iter()
                .map(|inbox| (inbox.clone(), inbox + ".kept", "inbox", Duration::ZERO));
            let topics = self.topics.trimmed().into_iter();
            for (key, mark, kind, retention) in topics
                .map(|(key, mark)| (key, mark, "topic", self.retention))
                .chain(inboxes)
            {
                tokio::select! {
                    outcome = self.trim(&key, &mark, kind, retention) => {
                        if let Err(error) = outcome {
                            tracing::debug!(key, %error, "a stream could not be trimmed");
                        }
                    }
                    () = until.cancelled() => return,
                }
            }
        }
    }

    async fn trim(&self, key: &str, mark: &str, kind: &str, retention: Duration) -> Result<(), Error> {
        let mut trim = self.link.script(Name::Trim, &[key, mark]);
        trim.arg(retention.as_millis() as u64).arg(kind);
        loop {
            match self
                .link
                .run(&trim, COMMAND)
                .await
                .map_err(|failure| failure.error)?
            {
                Value::Int(removed) if removed >= AT_ONCE / 2 => {}
                _ => return Ok(()),
            }
        }
    }
}
