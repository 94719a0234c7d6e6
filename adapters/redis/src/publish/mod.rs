//! Publishing: batches become pipelines, and are confirmed by the server's answers.

mod prepare;
mod send;

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::time::Duration;

use postrider_contract::{Error, ErrorKind, Message, Outgoing, Receipt};
use redis::Value;
use tokio::time::{Instant, sleep};
use tokio_util::sync::CancellationToken;

use crate::failure::{Failure, unexpected};
use crate::frame::{Frame, Publisher as Id, new_publisher};
use crate::link::{COMMAND, Link};
use crate::mover::Mover;
use crate::publish::prepare::Later;
pub(crate) use crate::publish::prepare::milliseconds_until;
use crate::publish::send::{Batch, REPLICAS};
use crate::scripts::Name;
use crate::settings::Settings;
use crate::topics::Topics;

/// What is put off by one call of the script at most: it blocks the server meanwhile.
const LATER_COUNT: usize = 500;
const LATER_BYTES: usize = 4_000_000;
/// How long a connection may be idle, or dead and not looked at.
const IDLE: Duration = Duration::from_secs(5);

type Answer = Result<Receipt, Error>;

/// Sends messages to topics and inboxes.
pub(crate) struct Publisher {
    link: Arc<Link>,
    settings: Arc<Settings>,
    topics: Arc<Topics>,
    mover: Arc<Mover>,
    /// Numbers what goes to channels, so that receivers can count what they miss.
    id: Id,
    /// Tells apart what goes through sorted sets and inboxes.
    aside: Id,
    numbered: AtomicU64,
    under_way: AtomicUsize,
}

impl Publisher {
    pub(crate) fn new(
        link: Arc<Link>,
        settings: Arc<Settings>,
        topics: Arc<Topics>,
        mover: Arc<Mover>,
    ) -> Self {
        Self {
            link,
            settings,
            topics,
            mover,
            id: new_publisher(true),
            aside: new_publisher(false),
            numbered: AtomicU64::new(0),
            under_way: AtomicUsize::new(0),
        }
    }

    /// Drops its connection for good.
    pub(crate) fn disconnect(&self) {
        self.link.disconnect();
    }

    /// How many calls are under way.
    pub(crate) fn under_way(&self) -> usize {
        self.under_way.load(Ordering::Acquire)
    }

    /// Keeps its connection in use: one that is idle may be dropped by whatever lies between, and the next message with it.
    /// And leaves one that is dead, which callers who give up early never notice.
    pub(crate) async fn keep(&self, until: CancellationToken) {
        let within = match self.settings.wait_replicas {
            0 => COMMAND,
            _ => COMMAND + REPLICAS,
        };
        loop {
            tokio::select! {
                () = sleep(IDLE) => {}
                () = until.cancelled() => return,
            }
            self.link.check(within).await;
        }
    }

    /// Sends a batch; an answer for each.
    pub(crate) async fn publish(&self, batch: Vec<Outgoing>) -> Vec<Answer> {
        self.under_way.fetch_add(1, Ordering::AcqRel);
        let _counted = Counted(&self.under_way);
        let deadline = Instant::now() + self.settings.publish_timeout;
        let mut batch = Batch::new(self, batch.into_iter().enumerate(), deadline);
        batch.send().await;
        let (later, mut answers) = (batch.later, batch.answers);
        self.put_off(later, deadline, &mut answers).await;
        answers
            .into_iter()
            .map(|answer| answer.unwrap_or_else(|| Err(unexpected("a publish was left without an answer"))))
            .collect()
    }

    /// A frame for an inbox or a sorted set.
    pub(crate) fn frame_aside(&self, message: &Message) -> Vec<u8> {
        Frame::encode(
            message,
            &self.aside,
            self.numbered.fetch_add(1, Ordering::Relaxed) + 1,
        )
    }

    async fn put_off(&self, later: Vec<Later>, deadline: Instant, answers: &mut [Option<Answer>]) {
        let mut later = later.into_iter().peekable();
        while let Some(first) = later.next() {
            let mut call = self.link.script(Name::Delay, &[&first.route.from]);
            call.arg(first.milliseconds).arg(&first.frame);
            let (route, mut bytes) = (first.route, first.frame.len());
            let mut soonest = first.milliseconds;
            let mut indices = vec![first.index];
            while let Some(next) = later.next_if(|next| {
                next.route == route && indices.len() < LATER_COUNT && bytes + next.frame.len() <= LATER_BYTES
            }) {
                call.arg(next.milliseconds).arg(&next.frame);
                bytes += next.frame.len();
                soonest = soonest.min(next.milliseconds);
                indices.push(next.index);
            }
            let answer = self.schedule(&call, deadline).await;
            if answer.is_ok() {
                self.mover.watch(route);
                self.mover.due_in(soonest);
            }
            for index in indices {
                answers[index] = Some(answer.clone().map(|()| Receipt { received: true }));
            }
        }
    }

    /// Runs the script, and waits for the replicas where the URL says so.
    async fn schedule(&self, call: &redis::Cmd, deadline: Instant) -> Result<(), Error> {
        let left = || deadline.saturating_duration_since(Instant::now());
        let wanted = self.settings.wait_replicas;
        if wanted == 0 {
            return self.link.run(call, left()).await.map(drop).map_err(unconfirmed);
        }
        let before = self.link.shared(deadline).await?.generation;
        self.link.run(call, left()).await.map_err(unconfirmed)?;
        let mut wait = redis::cmd("WAIT");
        wait.arg(wanted).arg(REPLICAS.as_millis() as u64);
        let reply = self.link.run(&wait, left()).await.map_err(unconfirmed)?;
        // Another connection has written nothing, and waits for nothing.
        let is_same = self
            .link
            .shared(deadline)
            .await
            .is_ok_and(|now| now.generation == before);
        copies_missing(wanted, Some(&reply).filter(|_| is_same)).map_or(Ok(()), Err)
    }
}

struct Counted<'a>(&'a AtomicUsize);

impl Drop for Counted<'_> {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::AcqRel);
    }
}

fn copies_missing(wanted: u64, reply: Option<&Value>) -> Option<Error> {
    if wanted == 0 {
        return None;
    }
    let have = match reply {
        Some(Value::Int(have)) => u64::try_from(*have).unwrap_or(0),
        _ => 0,
    };
    (have < wanted).then(|| {
        Error::new(
            ErrorKind::Unconfirmed,
            format!(
                "{have} of {wanted} replicas confirmed it within {REPLICAS:?} (wait_replicas in the URL)"
            ),
        )
    })
}

/// What was sent and not answered may be there; what was not sent is not.
fn unconfirmed(failure: Failure) -> Error {
    if failure.sent {
        Error::new(ErrorKind::Unconfirmed, "sent to Redis and not confirmed").with_source(failure.error)
    } else {
        failure.error
    }
}
