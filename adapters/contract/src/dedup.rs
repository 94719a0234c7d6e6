use std::time::Duration;

use async_trait::async_trait;

use crate::Error;

/// Whose marks they are: what one group has handled says nothing of another.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct DedupScope<'a> {
    /// The topic.
    pub topic: &'a str,
    /// The consumer group.
    pub group: &'a str,
}

/// Remembers which messages a group has handled, so that another delivery of one is acknowledged without calling the
/// handler. Object-safe; one store serves all listeners of an app, and their lanes call it at the same time.
///
/// The runtime asks [`seen`](Self::seen) right before a handler is called, and calls [`mark`](Self::mark) after it has
/// succeeded and before the message is acknowledged. It marks nothing that failed. So a store need not be transactional:
/// a mark that is lost, in a crash or because the store is not durable, lets a duplicate through. It never loses a message,
/// **as long as `seen` answers true only for what was marked**: ids are compared as a whole, never by a hash that two of
/// them may share.
///
/// An id has 1 to 512 bytes of any value. A call may be dropped at any point where it waits; one that has not answered after
/// 10 seconds is, and counts as failed. Failed calls are repeated with backoff until they succeed, the message kept
/// unsettled and the listener degraded meanwhile: answer an error rather than a guess.
#[async_trait]
pub trait DedupStore: Send + Sync + 'static {
    /// Whether this id was marked in this scope, and the window of its last mark has not passed.
    ///
    /// # Errors
    /// The store cannot tell.
    async fn seen(&self, scope: DedupScope<'_>, id: &[u8]) -> Result<bool, Error>;

    /// Marks this id in this scope for `window` from now. Idempotent: one that is marked already is marked for longer.
    ///
    /// # Errors
    /// It may not be marked.
    async fn mark(&self, scope: DedupScope<'_>, id: &[u8], window: Duration) -> Result<(), Error>;

    /// Where the marks are and what they outlive, for the table at start-up, such as `in Redis at host:6379, shared by all
    /// instances`. Without a secret.
    fn describe(&self) -> String;
}
