//! Passes on what is due: retries to inboxes, scheduled messages to topics. Every instance does, by a script that passes
//! each on once, so that nothing waits for one that is gone.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use postrider_contract::{Backoff, Error, ErrorKind};
use redis::Value;
use tokio::sync::Notify;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use crate::failure::{Failure, checked};
use crate::link::{COMMAND, Link};
use crate::scripts::Name;

/// How long it looks away at most. What another instance puts off for less, and then dies, is late by this.
const GLANCE: Duration = Duration::from_millis(150);
/// Passed on by one run of the script, which blocks the server meanwhile, and reaches replicas as one.
const AT_ONCE: u32 = 100;
/// About so many bytes, too.
const BYTES: u32 = 1_000_000;

/// From a sorted set to where it goes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Route {
    pub(crate) from: String,
    pub(crate) to: String,
    pub(crate) kind: Kind,
}

/// What a [`Route`] leads to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Kind {
    Inbox,
    Stream,
    Channel,
}

impl Kind {
    fn word(self) -> &'static str {
        match self {
            Self::Inbox => "inbox",
            Self::Stream => "stream",
            Self::Channel => "channel",
        }
    }
}

pub(crate) struct Mover {
    link: Arc<Link>,
    routes: Mutex<Vec<Route>>,
    begun: Instant,
    /// When it will look again, in milliseconds since `begun`.
    planned: AtomicU64,
    sooner: Notify,
}

impl Mover {
    pub(crate) fn new(link: Arc<Link>) -> Self {
        Self {
            link,
            routes: Mutex::default(),
            begun: Instant::now(),
            planned: AtomicU64::new(0),
            sooner: Notify::new(),
        }
    }

    /// Looks after this one too, from now on.
    pub(crate) fn watch(&self, route: Route) {
        let mut routes = self.routes.lock().unwrap_or_else(PoisonError::into_inner);
        if !routes.contains(&route) {
            routes.push(route);
            self.sooner.notify_one();
        }
    }

    /// Something is due in so many milliseconds.
    pub(crate) fn due_in(&self, milliseconds: u64) {
        let due = self.begun.elapsed().as_millis() as u64 + milliseconds;
        if due < self.planned.load(Ordering::Relaxed) {
            self.planned.store(due, Ordering::Relaxed);
            self.sooner.notify_one();
        }
    }

    pub(crate) async fn run(&self, stop: CancellationToken) {
        let (mut failures, mut stuck) = (0, Vec::new());
        loop {
            let looked = tokio::select! {
                looked = self.look(&mut stuck) => looked,
                () = stop.cancelled() => return,
            };
            let wait = match looked {
                Ok(wait) => {
                    failures = 0;
                    wait
                }
                Err(error) => {
                    tracing::debug!(%error, "what is due cannot be looked at");
                    failures += 1;
                    Backoff::RECONNECT.wait(failures).min(Duration::from_secs(2))
                }
            };
            let mut until = Instant::now() + wait;
            self.planned.store(
                until.duration_since(self.begun).as_millis() as u64,
                Ordering::Relaxed,
            );
            loop {
                tokio::select! {
                    () = tokio::time::sleep_until(until) => break,
                    () = self.sooner.notified() => {
                        let planned = self.begun + Duration::from_millis(self.planned.load(Ordering::Relaxed));
                        until = until.min(planned);
                        // Not at once: what came by then is passed on together.
                        until = until.max(Instant::now() + Duration::from_millis(1));
                    }
                    () = stop.cancelled() => return,
                }
            }
        }
    }

    /// Passes on what is due, and says when to look again. One route that fails holds up none of the others.
    async fn look(&self, stuck: &mut Vec<Route>) -> Result<Duration, Error> {
        let routes = self.routes.lock().unwrap_or_else(PoisonError::into_inner).clone();
        if routes.is_empty() {
            return Ok(GLANCE);
        }
        let mut ask = redis::pipe();
        ask.cmd("TIME");
        for route in &routes {
            ask.cmd("ZRANGE").arg(&route.from).arg(0).arg(0).arg("WITHSCORES");
        }
        let answers = self
            .link
            .pipeline(&ask, COMMAND)
            .await
            .map_err(|failure| failure.error)?;
        let mut answers = answers.into_iter();
        let now = milliseconds(&checked(answers.next().unwrap_or_default())?);
        let mut next = GLANCE;
        for (route, first) in routes.iter().zip(answers) {
            match self.serve(route, first, now).await {
                Ok(wait) => {
                    next = next.min(wait);
                    stuck.retain(|known| known != route);
                }
                Err(failure) if failure.broken => return Err(failure.error),
                Err(Failure { error, .. }) => {
                    // What does not mend by itself is told, once.
                    if error.kind() != ErrorKind::Unavailable && !stuck.contains(route) {
                        tracing::warn!(from = route.from, to = route.to, %error, "what is due cannot be passed on");
                        stuck.push(route.clone());
                    }
                }
            }
        }
        Ok(next)
    }

    /// Passes on what is due on one route, of which this came first, and says when to look again.
    async fn serve(&self, route: &Route, first: Value, now: u64) -> Result<Duration, Failure> {
        let Some(due) = score(&checked(first).map_err(Failure::before)?) else {
            return Ok(GLANCE);
        };
        match due.saturating_sub(now) {
            0 => self.pass_on(route).await,
            wait => Ok(Duration::from_millis(wait)),
        }
    }

    /// Passes on all that is due on one route, and says when the next is.
    async fn pass_on(&self, route: &Route) -> Result<Duration, Failure> {
        let mut call = self.link.script(Name::Due, &[&route.from, &route.to]);
        call.arg(route.kind.word()).arg(AT_ONCE).arg(BYTES);
        loop {
            let answer = self.link.run(&call, COMMAND).await?;
            let remains: i64 = redis::from_redis_value(answer).unwrap_or(-1);
            if remains != 0 {
                return Ok(u64::try_from(remains)
                    .map_or(GLANCE, Duration::from_millis)
                    .min(GLANCE));
            }
        }
    }
}

/// `TIME`, in milliseconds.
fn milliseconds(time: &Value) -> u64 {
    let (seconds, micros): (u64, u64) = redis::from_redis_value_ref(time).unwrap_or_default();
    seconds * 1000 + micros / 1000
}

/// The score of the one member that `ZRANGE … WITHSCORES` gave.
fn score(answer: &Value) -> Option<u64> {
    let Value::Array(parts) = answer else { return None };
    let score: f64 = redis::from_redis_value_ref(parts.get(1)?).ok()?;
    Some(score as u64)
}
