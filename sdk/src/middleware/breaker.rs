//! A circuit breaker: while what the handler depends on is down, the listener rests instead of using attempts up.

use std::future::Future;
use std::sync::atomic::{AtomicBool, AtomicU32, AtomicU64, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::sync::Notify;
use tokio::time::{Instant, sleep_until};

use crate::contract::Token;
use crate::listener::{self, Outcome};

/// Of one listener, shared by its lanes.
pub(crate) struct Breaker {
    /// So many failures in a row open it.
    failures: u32,
    /// So long nothing is started then; after that one at a time, until one succeeds.
    pause: Duration,
    in_a_row: AtomicU32,
    is_open: AtomicBool,
    open: Mutex<Option<Open>>,
    /// How often it opened or closed.
    changes: AtomicU64,
    changed: Notify,
}

struct Open {
    until: Instant,
    /// The one that has been let through, to see how it goes.
    tried: Option<Token>,
}

/// What a lane may do.
enum Gate {
    Go,
    Probe,
    /// `None`: until the one that was let through has ended.
    Wait(Option<Instant>),
}

/// What an outcome has changed.
#[derive(Debug, Default)]
pub(crate) struct Change {
    /// Each has a greater number than the one before.
    pub(crate) number: u64,
    /// Why it is open now; `None` where it is closed.
    pub(crate) open: Option<String>,
}

impl Breaker {
    pub(crate) fn new(settings: listener::Breaker) -> Self {
        Self {
            failures: settings.failures,
            pause: settings.pause,
            in_a_row: AtomicU32::new(0),
            is_open: AtomicBool::new(false),
            open: Mutex::default(),
            changes: AtomicU64::new(0),
            changed: Notify::new(),
        }
    }

    /// Waits until a handler may be started, or `closed` resolves.
    pub(crate) async fn ready(&self, closed: impl Future<Output = ()>) {
        if !self.is_open.load(Ordering::Acquire) {
            return;
        }
        tokio::pin!(closed);
        loop {
            // Made before the look, so that a change after it is not missed.
            let changed = self.changed.notified();
            let until = match gate(self.lock().as_ref()) {
                Gate::Go | Gate::Probe => return,
                Gate::Wait(until) => until,
            };
            tokio::select! {
                () = changed => {}
                () = sleep_until(until.unwrap_or_else(Instant::now)), if until.is_some() => {}
                () = &mut closed => return,
            }
        }
    }

    /// Whether a handler may be started now for this delivery. If so, its outcome must be [noted](Self::note).
    pub(crate) fn pass(&self, token: Token) -> bool {
        if !self.is_open.load(Ordering::Acquire) {
            return true;
        }
        let mut open = self.lock();
        match (gate(open.as_ref()), &mut *open) {
            (Gate::Go, _) => true,
            (Gate::Probe, Some(open)) => {
                open.tried = Some(token);
                true
            }
            _ => false,
        }
    }

    /// How many of `count` messages, this one first, a handler may be given now: all of them, one that is tried, or none.
    pub(crate) fn pass_of(&self, first: Token, count: usize) -> usize {
        if !self.pass(first) {
            0
        } else if self.is_open.load(Ordering::Acquire) {
            count.min(1)
        } else {
            count
        }
    }

    /// How a handler ended for this delivery. A retryable failure tells of the dependency, and so does a success; everything
    /// else tells of the message alone. While it is open, only what was let through tells anything: the others were started
    /// before.
    #[inline]
    pub(crate) fn note(&self, token: Token, outcome: &Outcome) -> Option<Change> {
        match outcome {
            Outcome::Ack { .. } => {
                if self.is_open.load(Ordering::Acquire) {
                    return self.close(token);
                }
                if self.in_a_row.load(Ordering::Relaxed) != 0 {
                    self.in_a_row.store(0, Ordering::Relaxed);
                }
                None
            }
            Outcome::Failed(error) if error.is_retryable() => self.failed(token, error),
            _ => {
                self.learned_nothing(token);
                None
            }
        }
    }

    fn close(&self, token: Token) -> Option<Change> {
        let mut open = self.lock();
        open.take_if(|open| open.tried == Some(token))?;
        self.in_a_row.store(0, Ordering::Relaxed);
        self.is_open.store(false, Ordering::Release);
        let number = self.count_change();
        drop(open);
        self.changed.notify_waiters();
        Some(Change { number, open: None })
    }

    fn failed(&self, token: Token, error: &listener::HandlerError) -> Option<Change> {
        let in_a_row = self.in_a_row.fetch_add(1, Ordering::Relaxed).saturating_add(1);
        let mut open = self.lock();
        match &*open {
            Some(open) if open.tried != Some(token) => return None,
            None if in_a_row < self.failures => return None,
            _ => {}
        }
        *open = Some(Open {
            until: Instant::now() + self.pause,
            tried: None,
        });
        self.is_open.store(true, Ordering::Release);
        let number = self.count_change();
        drop(open);
        self.changed.notify_waiters();
        let pause = humantime::format_duration(self.pause);
        let reason = format!(
            "the circuit breaker is open: {in_a_row} failures in a row; one message is tried every {pause}; the last \
             failure: {error}"
        );
        Some(Change {
            number,
            open: Some(reason),
        })
    }

    /// While it is locked, so that numbers are in the order of changes.
    fn count_change(&self) -> u64 {
        self.changes.fetch_add(1, Ordering::Relaxed) + 1
    }

    /// The next one is let through instead.
    fn learned_nothing(&self, token: Token) {
        if self.is_open.load(Ordering::Acquire)
            && let Some(open) = &mut *self.lock()
            && open.tried == Some(token)
        {
            open.tried = None;
            self.changed.notify_waiters();
        }
    }

    fn lock(&self) -> MutexGuard<'_, Option<Open>> {
        self.open.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn gate(open: Option<&Open>) -> Gate {
    match open {
        None => Gate::Go,
        Some(open) if open.tried.is_some() => Gate::Wait(None),
        Some(open) if open.until <= Instant::now() => Gate::Probe,
        Some(open) => Gate::Wait(Some(open.until)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::listener::HandlerError;

    fn token(seq: u64) -> Token {
        Token {
            lane: 0,
            epoch: 0,
            seq,
        }
    }

    fn failed() -> Outcome {
        Outcome::Failed("down".into())
    }

    fn breaker() -> Breaker {
        Breaker::new(listener::Breaker {
            failures: 3,
            pause: Duration::from_secs(30),
        })
    }

    fn opened(breaker: &Breaker) {
        for _ in 0..2 {
            assert!(breaker.note(token(1), &failed()).is_none());
        }
        assert!(
            breaker
                .note(token(1), &failed())
                .is_some_and(|change| change.open.is_some())
        );
    }

    #[tokio::test(start_paused = true)]
    async fn opens_lets_one_through_and_closes() {
        let breaker = breaker();
        assert!(breaker.note(token(1), &failed()).is_none());
        assert!(breaker.note(token(1), &Outcome::ACK).is_none());
        assert!(breaker.pass(token(1)));
        opened(&breaker);
        assert!(!breaker.pass(token(1)));
        assert!(breaker.note(token(1), &failed()).is_none(), "a straggler");
        assert!(breaker.note(token(1), &Outcome::ACK).is_none(), "another");
        assert!(!breaker.pass(token(1)));
        let begin = Instant::now();
        breaker.ready(std::future::pending()).await;
        assert_eq!(begin.elapsed(), Duration::from_secs(30));
        assert!(breaker.pass(token(1)));
        assert!(!breaker.pass(token(2)), "one at a time");
        for outcome in [Outcome::ACK, failed(), Outcome::Release] {
            assert!(breaker.note(token(9), &outcome).is_none(), "a straggler");
            assert!(!breaker.pass(token(2)), "it is not the one that is tried");
        }
        assert!(
            breaker
                .note(token(1), &failed())
                .is_some_and(|change| change.open.is_some())
        );
        breaker.ready(std::future::pending()).await;
        assert_eq!(begin.elapsed(), Duration::from_secs(60));
        assert!(breaker.pass(token(1)));
        assert!(
            breaker
                .note(token(1), &Outcome::ACK)
                .is_some_and(|change| change.open.is_none())
        );
        assert!(breaker.pass(token(1)) && breaker.pass(token(1)));
    }

    #[tokio::test(start_paused = true)]
    async fn what_tells_of_the_message_alone_neither_opens_nor_closes() {
        let breaker = breaker();
        let permanent = || Outcome::Failed(HandlerError::permanent("wrong"));
        for _ in 0..10 {
            assert!(breaker.note(token(1), &permanent()).is_none());
            assert!(breaker.note(token(1), &Outcome::Release).is_none());
        }
        assert!(breaker.pass(token(1)));
        opened(&breaker);
        breaker.ready(std::future::pending()).await;
        assert!(breaker.pass(token(1)));
        assert!(breaker.note(token(1), &permanent()).is_none());
        assert!(breaker.pass(token(1)), "the next one is let through");
        assert!(!breaker.pass(token(1)));
    }

    #[tokio::test(start_paused = true)]
    async fn changes_are_numbered_as_they_happen() {
        let breaker = breaker();
        assert!(breaker.note(token(1), &failed()).is_none() && breaker.note(token(1), &failed()).is_none());
        let opened = breaker.note(token(1), &failed()).unwrap();
        breaker.ready(std::future::pending()).await;
        assert!(breaker.pass(token(1)));
        let closed = breaker.note(token(1), &Outcome::ACK).unwrap();
        assert!(opened.number < closed.number);
    }

    #[tokio::test(start_paused = true)]
    async fn waiting_ends_with_the_queue() {
        let breaker = breaker();
        opened(&breaker);
        let begin = Instant::now();
        breaker.ready(tokio::time::sleep(Duration::from_secs(1))).await;
        assert_eq!(begin.elapsed(), Duration::from_secs(1));
        assert!(!breaker.pass(token(1)));
    }
}
