//! Tells whether a message was handled before, and remembers that it was.

use std::collections::{HashMap, HashSet};
use std::future::Future;
use std::panic::AssertUnwindSafe;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use futures_util::FutureExt;
use serde_json::value::RawValue;
use tokio::sync::Notify;
use tokio::time::{sleep, timeout};
use tokio_util::sync::CancellationToken;

use crate::Publisher;
use crate::contract::{Backoff, Bytes, DedupScope, DedupStore, Error, ErrorKind, Outgoing};
use crate::listener::{self, Context, HandlerError, Outcome, Reason, decode};
use crate::publisher::{self, is_hopeless, stamp};

/// How long a store may take for an answer.
pub(crate) const PATIENCE: Duration = Duration::from_secs(10);
/// What has failed is tried again after a wait between these.
const AGAIN: Backoff = Backoff::new(Duration::from_millis(100), Duration::from_secs(10));
/// The longest id, in bytes.
const LONGEST_ID: usize = 512;

/// Of one listener, shared by its lanes.
pub(crate) struct Dedup {
    store: Arc<dyn DedupStore>,
    topic: Arc<str>,
    group: Arc<str>,
    settings: listener::Dedup,
    /// What lanes are handling now.
    busy: Mutex<HashSet<Bytes>>,
    freed: Notify,
    /// The last call has failed.
    is_down: AtomicBool,
}

/// What a look at the marks gave.
pub(crate) enum Look<'a> {
    /// Not handled yet, and nobody else in this process handles it until this is dropped.
    New(Claim<'a>),
    Duplicate,
    /// The wait for an answer was ended.
    Stopped,
}

/// The right to handle what has this id.
pub(crate) struct Claim<'a> {
    dedup: &'a Dedup,
    id: Bytes,
}

impl Drop for Claim<'_> {
    fn drop(&mut self) {
        self.dedup.busy().remove(&self.id);
        self.dedup.freed.notify_waiters();
    }
}

impl Dedup {
    pub(crate) fn new(
        store: Arc<dyn DedupStore>,
        topic: Arc<str>,
        group: Arc<str>,
        settings: listener::Dedup,
    ) -> Self {
        Self {
            store,
            topic,
            group,
            settings,
            busy: Mutex::default(),
            freed: Notify::new(),
            is_down: AtomicBool::new(false),
        }
    }

    /// What tells the message from others.
    pub(crate) fn id(&self, cx: &Context) -> Result<Bytes, HandlerError> {
        let (id, what) = match self.settings.key {
            Some(key) => (field(cx, key)?, format!("the field `{key}`")),
            None => {
                let id = cx.message_id().map(|id| Bytes::copy_from_slice(id.as_bytes()));
                let lacks = || {
                    refused(
                        "the message has no message id, and `dedup` has nothing else to tell it by: write \
                         `dedup(window = \"…\", key = \"…\")`, or have its sender set `message-id`",
                    )
                };
                (id.ok_or_else(lacks)?, "the message id".to_owned())
            }
        };
        match id.len() {
            0 => Err(refused(format!(
                "{what} is empty, and `dedup` tells messages by it"
            ))),
            1..=LONGEST_ID => Ok(id),
            length => Err(refused(format!(
                "{what} has {length} bytes; `dedup` tells messages by at most {LONGEST_ID}"
            ))),
        }
    }

    /// Whether it was handled before. Waits while another lane is at the same, and until the store answers, unless `stop`
    /// resolves. `told` is told why the store does not answer, and when it does again.
    pub(crate) async fn look(
        &self,
        id: Bytes,
        stop: impl Future<Output = ()>,
        told: impl Fn(Option<String>),
    ) -> Look<'_> {
        let answered = async {
            let claim = self.claim(id).await;
            let ask = || self.store.seen(self.scope(), &claim.id);
            if self.until_done(ask, &told).await {
                Look::Duplicate
            } else {
                Look::New(claim)
            }
        };
        tokio::select! {
            biased;
            look = answered => look,
            () = stop => Look::Stopped,
        }
    }

    /// The handler has succeeded: what it `emit`s is published, then it is marked. After that it may be acknowledged.
    pub(crate) async fn done(
        &self,
        claim: Claim<'_>,
        emit: Vec<Outgoing>,
        publisher: &Publisher,
        cut_off: &CancellationToken,
        told: impl Fn(Option<String>),
        unconfirmed: impl Fn(Option<String>),
    ) -> Outcome {
        // Confirmed before the mark: otherwise a crash between the two would lose it, as nobody would publish it again.
        let publish = async {
            for mut outgoing in emit {
                stamp(&mut outgoing.message);
                until_confirmed(publisher, &outgoing, &unconfirmed).await?;
            }
            Ok::<_, Error>(())
        };
        match before(cut_off, publish).await {
            None => return Outcome::Release,
            Some(Err(error)) => return publisher::refused(&error),
            Some(Ok(())) => {}
        }
        let mark = || self.store.mark(self.scope(), &claim.id, self.settings.window);
        let marked = self.until_done(mark, &told);
        if before(cut_off, marked).await.is_none() {
            tracing::warn!(
                topic = %self.topic, group = %self.group, id = %String::from_utf8_lossy(&claim.id),
                "handled and not marked before the drain's deadline: a duplicate of it would be handled",
            );
        }
        Outcome::ACK
    }

    async fn claim(&self, id: Bytes) -> Claim<'_> {
        loop {
            // Made before the look, so that one that is freed after it is not missed.
            let freed = self.freed.notified();
            if self.busy().insert(id.clone()) {
                return Claim { dedup: self, id };
            }
            freed.await;
        }
    }

    /// Calls until it succeeds.
    async fn until_done<T, F>(&self, call: impl Fn() -> F, told: &impl Fn(Option<String>)) -> T
    where
        F: Future<Output = Result<T, Error>>,
    {
        let mut failures = 0;
        loop {
            // A store of the user's own may panic, and is no handler.
            let called = AssertUnwindSafe(async { call().await }).catch_unwind();
            let answer = timeout(PATIENCE, called).await;
            let error = match answer.map(|answer| answer.unwrap_or_else(|_| Err(panicked()))) {
                Ok(Ok(value)) => {
                    if self.is_down.load(Ordering::Relaxed) && self.is_down.swap(false, Ordering::Relaxed) {
                        told(None);
                    }
                    return value;
                }
                Ok(Err(error)) => error,
                Err(_) => silent(),
            };
            failures += 1;
            // Told before it is stored: another that succeeds meanwhile would take it back before it is said, and nobody after.
            told(Some(format!(
                "duplicates cannot be told, nothing is handled until they can: {error}"
            )));
            self.is_down.store(true, Ordering::Relaxed);
            sleep(AGAIN.wait(failures)).await;
        }
    }

    fn scope(&self) -> DedupScope<'_> {
        DedupScope {
            topic: &self.topic,
            group: &self.group,
        }
    }

    fn busy(&self) -> MutexGuard<'_, HashSet<Bytes>> {
        self.busy.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn panicked() -> Error {
    Error::new(ErrorKind::Internal, "the store of marks panicked")
}

/// No answer in time.
pub(crate) fn silent() -> Error {
    let text = format!("the store of marks did not answer within {PATIENCE:?}");
    Error::new(ErrorKind::Unavailable, text)
}

/// `None` where it was not done before the deadline.
async fn before<T>(deadline: &CancellationToken, work: impl Future<Output = T>) -> Option<T> {
    tokio::select! {
        biased;
        done = work => Some(done),
        () = deadline.cancelled() => None,
    }
}

/// Publishes it, as often as it takes.
///
/// # Errors
/// It never will be.
async fn until_confirmed(
    publisher: &Publisher,
    outgoing: &Outgoing,
    unconfirmed: &impl Fn(Option<String>),
) -> Result<(), Error> {
    let mut failures = 0;
    loop {
        let error = match publisher.publish(vec![outgoing.clone()]).await.pop() {
            Some(Err(error)) if !is_hopeless(&error, std::slice::from_ref(outgoing)) => error,
            ended => {
                // Refused for good too: nobody waits for its confirmation any more.
                if failures > 0 {
                    unconfirmed(None);
                }
                return ended.transpose().map(drop);
            }
        };
        failures += 1;
        unconfirmed(Some(format!(
            "what a handler publishes is not confirmed: {error}"
        )));
        sleep(AGAIN.wait(failures)).await;
    }
}

/// A text or a number in a JSON object, as text. Numbers are as they were written: read, two of them could become one.
fn field(cx: &Context, key: &str) -> Result<Bytes, HandlerError> {
    if cx.message().payload.is_none() {
        let text =
            format!("the message has no payload, and so no field `{key}`, by which `dedup` tells messages");
        return Err(refused(text));
    }
    let fields: HashMap<String, &RawValue> = decode(cx)?;
    let Some(raw) = fields.get(key).map(|value| value.get()) else {
        return Err(refused(format!(
            "the payload has no field `{key}`, by which `dedup` tells messages"
        )));
    };
    match raw.as_bytes().first() {
        Some(b'"') => {
            let text: String = serde_json::from_str(raw)
                .map_err(|error| HandlerError::with_reason(Reason::Decode, error))?;
            Ok(text.into())
        }
        Some(b'-' | b'0'..=b'9') => Ok(Bytes::copy_from_slice(raw.as_bytes())),
        _ => Err(refused(format!(
            "the field `{key}` of the payload is neither a text nor a number, and `dedup` tells messages by it"
        ))),
    }
}

fn refused(text: impl Into<String>) -> HandlerError {
    HandlerError::with_reason(Reason::Rejected, text.into())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::contract::async_trait;

    /// Fails at its first call.
    #[derive(Default)]
    struct FailsOnce(AtomicBool);

    #[async_trait]
    impl DedupStore for FailsOnce {
        async fn seen(&self, _: DedupScope<'_>, _: &[u8]) -> Result<bool, Error> {
            let first = !self.0.swap(true, Ordering::Relaxed);
            if first {
                return Err(Error::new(ErrorKind::Unavailable, "not yet"));
            }
            Ok(false)
        }

        async fn mark(&self, _: DedupScope<'_>, _: &[u8], _: Duration) -> Result<(), Error> {
            Ok(())
        }

        fn describe(&self) -> String {
            String::new()
        }
    }

    #[tokio::test(start_paused = true)]
    async fn what_is_told_last_is_that_the_store_answers() {
        let settings = listener::Dedup {
            window: Duration::from_secs(60),
            key: None,
        };
        let dedup = Dedup::new(Arc::<FailsOnce>::default(), "t".into(), "g".into(), settings);
        let last = Mutex::new(None);
        let never = std::future::pending;
        // Another lane finds the store up again right before this one says that it is down.
        let told = |reason: Option<String>| {
            if reason.is_some() {
                let other = dedup.look("other".into(), never(), |reason| *last.lock().unwrap() = reason);
                assert!(other.now_or_never().is_some());
            }
            *last.lock().unwrap() = reason;
        };
        assert!(matches!(
            dedup.look("one".into(), never(), told).await,
            Look::New(_)
        ));
        assert_eq!(*last.lock().unwrap(), None);
    }
}
