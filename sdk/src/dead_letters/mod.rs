#![doc = include_str!("../docs/dead_letters.md")]

mod filter;
mod letter;
mod resolve;

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::Mutex;

pub use filter::Filter;
pub use letter::{DeadLetter, Listed};
use resolve::How;
pub use resolve::{Progress, Resolve, Summary};

use crate::contract::{self, Broker, Bytes, Error};

/// How many are asked of the broker at once.
const PAGE: usize = 200;

/// The dead letters of one listener, asked of its broker: [`Running::dead_letters`](crate::Running::dead_letters),
/// [`App::dead_letters`](crate::App::dead_letters). See the [module](crate::dead_letters).
pub struct DeadLetters {
    /// Shared with the step of a replay that is under way, which goes on when the replay is dropped.
    letters: Arc<Mutex<Box<dyn contract::DeadLetters>>>,
    /// Held by each step.
    resolving: Arc<Mutex<()>>,
    topic: Arc<str>,
    source: Arc<str>,
    group: Arc<str>,
    /// Given up by instances that each had a copy: there is no group to send them back to.
    broadcast: bool,
    /// A connection that was made for this alone.
    own: Option<Arc<dyn Broker>>,
}

impl DeadLetters {
    /// Those in `topic` that were published to `source` and given up by `group`.
    pub(crate) fn new(
        letters: Box<dyn contract::DeadLetters>,
        [topic, source, group]: [Arc<str>; 3],
    ) -> Self {
        Self {
            letters: Arc::new(Mutex::new(letters)),
            resolving: Arc::default(),
            topic,
            source,
            group,
            broadcast: false,
            own: None,
        }
    }

    /// The same, given up by a listener that is a `broadcast` or not.
    pub(crate) fn of_broadcast(mut self, broadcast: bool) -> Self {
        self.broadcast = broadcast;
        self
    }

    /// The same with steps that wait for those of others.
    pub(crate) fn one_at_a_time(mut self, resolving: &Arc<Mutex<()>>) -> Self {
        self.resolving = resolving.clone();
        self
    }

    /// The same on a connection of its own.
    pub(crate) fn owning(mut self, broker: Option<Arc<dyn Broker>>) -> Self {
        self.own = broker;
        self
    }

    /// The dead-letter topic.
    pub fn topic(&self) -> &str {
        &self.topic
    }

    /// The topic that they were published to.
    pub fn source(&self) -> &str {
        &self.source
    }

    /// The group that gave up.
    pub fn group(&self) -> &str {
        &self.group
    }

    /// Up to `max` of them, oldest first, after the one with the id `after`. Empty: there are no more.
    ///
    /// # Errors
    /// The broker does not answer, or `after` is no id of a dead letter.
    pub async fn browse(&mut self, after: Option<&Bytes>, max: usize) -> Result<Vec<Listed>, Error> {
        let page = self.letters.lock().await.browse(after, max).await?;
        let listed = |letter| Listed::new(letter, &self.source, &self.group);
        Ok(page.into_iter().map(listed).collect())
    }

    /// All that match, oldest first. Where there may be many, give the filter a [limit](Filter::limit) or
    /// [browse](Self::browse) page by page.
    ///
    /// # Errors
    /// The broker does not answer.
    pub async fn list(&mut self, filter: &Filter) -> Result<Vec<Listed>, Error> {
        let mut found = Vec::new();
        self.each(filter, |letter| found.push(letter)).await?;
        Ok(found)
    }

    /// Sends all that match back to the group that gave up, and to no other, at attempt 1. Those of a broadcast listener cannot
    /// go back: [`ErrorKind::Unsupported`](crate::ErrorKind::Unsupported).
    pub fn replay(&mut self, filter: Filter) -> Resolve<'_> {
        Resolve::new(self, How::Replay, filter)
    }

    /// Takes all that match out of the dead letters for good.
    pub fn purge(&mut self, filter: Filter) -> Resolve<'_> {
        Resolve::new(self, How::Purge, filter)
    }

    /// Disconnects, where it came from [`App::dead_letters`](crate::App::dead_letters). That of a running app leaves the
    /// app's connection as it is.
    ///
    /// # Errors
    /// The broker does not answer in this time.
    pub async fn close(self, deadline: Duration) -> Result<(), Error> {
        match self.own {
            Some(broker) => broker.close(deadline).await,
            None => Ok(()),
        }
    }

    /// Looks at all, up to the filter's limit; answers how many were looked at.
    async fn each(&mut self, filter: &Filter, mut matching: impl FnMut(Listed)) -> Result<u64, Error> {
        let mut left = filter.most();
        let (mut after, mut looked_at) = (None, 0);
        while left > 0 {
            let page = self.browse(after.as_ref(), PAGE).await?;
            let Some(last) = page.last() else { break };
            after = Some(last.id.clone());
            for letter in page {
                looked_at += 1;
                if filter.matches(&letter) {
                    matching(letter);
                    left -= 1;
                    if left == 0 {
                        break;
                    }
                }
            }
        }
        Ok(looked_at)
    }
}

impl fmt::Debug for DeadLetters {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("DeadLetters")
            .field("topic", &self.topic)
            .field("source", &self.source)
            .field("group", &self.group)
            .finish_non_exhaustive()
    }
}
