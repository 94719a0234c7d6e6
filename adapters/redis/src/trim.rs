//! Removes from topics what every group has acknowledged, after the retention.

use std::collections::HashSet;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use postrider_contract::Error;
use tokio_util::sync::CancellationToken;

use crate::failure::unexpected;
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
        let mut told = HashSet::new();
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
                        match outcome {
                            Ok(true) if told.insert(key.clone()) => tracing::warn!(
                                key,
                                "the ids of this stream are far ahead of the server's clock: what every group has acknowledged \
                                 is removed at once, and where there is no group, nothing"
                            ),
                            Ok(_) => {}
                            Err(error) => tracing::debug!(key, %error, "a stream could not be trimmed"),
                        }
                    }
                    () = until.cancelled() => return,
                }
            }
        }
    }

    /// Says whether its ids tell nothing about age.
    async fn trim(&self, key: &str, mark: &str, kind: &str, retention: Duration) -> Result<bool, Error> {
        let mut trim = self.link.script(Name::Trim, &[key, mark]);
        trim.arg(retention.as_millis() as u64).arg(kind);
        loop {
            let answer = self.link.run(&trim, COMMAND).await;
            let answer = answer.map_err(|failure| failure.error)?;
            let (removed, ahead): (i64, bool) = redis::from_redis_value(answer)
                .map_err(|_| unexpected("the trim script's answer is not understood"))?;
            if removed < AT_ONCE / 2 {
                return Ok(ahead);
            }
        }
    }
}
