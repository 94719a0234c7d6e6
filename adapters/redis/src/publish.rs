//! Publishing: batches become pipelines, and are confirmed by the server's answers.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::time::{Duration, SystemTime};

use postrider_contract::{Address, Backoff, Error, ErrorKind, Message, Outgoing, Receipt, names};
use redis::{Cmd, Value};
use tokio::time::Instant;

use crate::failure::{Failure, from_server, not_yet, unavailable, unexpected};
use crate::fields;
use crate::frame::{Frame, Publisher as Id, new_publisher};
use crate::keys;
use crate::link::Link;
use crate::mover::{Kind, Mover, Route};
use crate::scripts::Name;
use crate::settings::Settings;
use crate::topics::Topics;

/// What one pipeline carries at most.
const CHUNK_COMMANDS: usize = 1_000;
const CHUNK_BYTES: usize = 4_000_000;
/// How long replicas may take, where they are waited for.
const REPLICAS: Duration = Duration::from_secs(5);

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

/// A command, and whose answer it brings.
struct Job {
    index: usize,
    command: Cmd,
    bytes: usize,
    require_receiver: bool,
    /// It is a `PUBLISH`: the answer counts receivers.
    to_channel: bool,
}

/// A frame for later.
struct Later {
    index: usize,
    route: Route,
    milliseconds: u64,
    frame: Vec<u8>,
}

enum Prepared {
    Now(Job),
    Later(Later),
}

type Answer = Result<Receipt, Error>;

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

    /// How many calls are under way.
    pub(crate) fn under_way(&self) -> usize {
        self.under_way.load(Ordering::Acquire)
    }

    /// Sends a batch; an answer for each.
    pub(crate) async fn publish(&self, batch: Vec<Outgoing>) -> Vec<Answer> {
        self.under_way.fetch_add(1, Ordering::AcqRel);
        let _counted = Counted(&self.under_way);
        let deadline = Instant::now() + self.settings.publish_timeout;
        let mut answers: Vec<Option<Answer>> = Vec::new();
        answers.resize_with(batch.len(), || None);
        let (mut jobs, mut later) = (Vec::with_capacity(batch.len()), Vec::new());
        for (index, outgoing) in batch.into_iter().enumerate() {
            match self.prepare(index, outgoing) {
                Ok(Prepared::Now(job)) => jobs.push(job),
                Ok(Prepared::Later(one)) => later.push(one),
                Err(error) => answers[index] = Some(Err(error)),
            }
        }
        self.send_all(jobs, deadline, &mut answers).await;
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

    fn prepare(&self, index: usize, outgoing: Outgoing) -> Result<Prepared, Error> {
        let Outgoing {
            to,
            not_before,
            require_receiver,
            message,
        } = outgoing;
        let delay = not_before.and_then(milliseconds_until);
        let command = match &to {
            Address::Topic(topic) => {
                self.check(topic, &message)?;
                let stream = self.topics.is_stream(topic);
                if let Some(milliseconds) = delay {
                    let (kind, to) = if stream {
                        (Kind::Stream, keys::topic(topic))
                    } else {
                        (Kind::Channel, topic.to_string())
                    };
                    let from = keys::scheduled(topic);
                    return Ok(self.later(index, Route { from, to, kind }, milliseconds, &message));
                }
                return Ok(Prepared::Now(self.to_topic(
                    index,
                    topic,
                    stream,
                    &message,
                    require_receiver,
                )));
            }
            Address::Inbox { topic, group } => {
                let to = keys::inbox(topic, group);
                if let Some(milliseconds) = delay {
                    let (from, kind) = (keys::delayed(topic, group), Kind::Inbox);
                    return Ok(self.later(index, Route { from, to, kind }, milliseconds, &message));
                }
                let mut add = redis::cmd("XADD");
                add.arg(to)
                    .arg("*")
                    .arg(fields::FRAME)
                    .arg(self.frame_aside(&message));
                add
            }
            Address::Reply(name) => {
                // It came from outside: a topic's name, and none that is ours.
                let topic = std::str::from_utf8(name)
                    .ok()
                    .filter(|name| names::check_topic(name).is_ok() && !names::is_reserved(name))
                    .ok_or_else(|| {
                        Error::new(ErrorKind::Rejected, "the reply-to is not the name of a topic")
                    })?;
                let topic: Arc<str> = topic.into();
                self.check(&topic, &message)?;
                let stream = self.topics.is_stream(&topic);
                return Ok(Prepared::Now(self.to_topic(
                    index,
                    &topic,
                    stream,
                    &message,
                    require_receiver,
                )));
            }
            _ => {
                return Err(Error::new(
                    ErrorKind::Unsupported,
                    "Redis does not know this kind of address",
                ));
            }
        };
        Ok(Prepared::Now(Job {
            index,
            command,
            bytes: message.size(),
            require_receiver: false,
            to_channel: false,
        }))
    }

    fn to_topic(
        &self,
        index: usize,
        topic: &Arc<str>,
        stream: bool,
        message: &Message,
        require_receiver: bool,
    ) -> Job {
        let known = self.topics.get(topic);
        let mut command;
        if stream {
            command = Cmd::with_capacity(3 + 2 * fields::count(message), 64 + message.size());
            command.arg("XADD").arg(&known.key).arg("*");
            fields::add_to(&mut command, message);
        } else {
            command = redis::cmd("PUBLISH");
            command
                .arg(&**topic)
                .arg(Frame::encode(message, &self.id, known.next_sequence()));
        }
        Job {
            index,
            command,
            bytes: message.size(),
            require_receiver,
            to_channel: !stream,
        }
    }

    fn later(&self, index: usize, route: Route, milliseconds: u64, message: &Message) -> Prepared {
        let frame = self.frame_aside(message);
        Prepared::Later(Later {
            index,
            route,
            milliseconds,
            frame,
        })
    }

    /// Internal topics take headers beyond the limit, so that the largest message can still be dead-lettered.
    pub(crate) fn check(&self, topic: &Arc<str>, message: &Message) -> Result<(), Error> {
        let known = self.topics.get(topic);
        known.check()?;
        let (size, most) = (message.payload_size(), self.settings.max_payload);
        if size <= most || known.holds_dead_letters() {
            return Ok(());
        }
        Err(Error::new(
            ErrorKind::TooLarge,
            format!("the payload has {size} bytes, at most {most} are allowed (max_payload in the URL)"),
        ))
    }

    /// In order, chunk by chunk: where one fails, what comes after it is not sent.
    async fn send_all(&self, jobs: Vec<Job>, deadline: Instant, answers: &mut [Option<Answer>]) {
        let mut jobs = jobs.into_iter().peekable();
        let mut failed: Option<Error> = None;
        while jobs.peek().is_some() {
            let (mut chunk, mut bytes) = (Vec::new(), 0);
            while let Some(job) = jobs.next_if(|job| {
                chunk.is_empty() || (chunk.len() < CHUNK_COMMANDS && bytes + job.bytes <= CHUNK_BYTES)
            }) {
                bytes += job.bytes;
                chunk.push(job);
            }
            match &failed {
                None => failed = self.send(chunk, deadline, answers).await.err(),
                Some(error) => {
                    for job in chunk {
                        answers[job.index] = Some(Err(error.clone()));
                    }
                }
            }
        }
    }

    /// `Err` is for the chunks that follow.
    async fn send(
        &self,
        mut chunk: Vec<Job>,
        deadline: Instant,
        answers: &mut [Option<Answer>],
    ) -> Result<(), Error> {
        let mut tries = 0;
        loop {
            let mut commands = redis::Pipeline::with_capacity(chunk.len() + 1);
            for job in &mut chunk {
                commands.add_command(std::mem::take(&mut job.command));
            }
            if self.settings.wait_replicas > 0 {
                commands
                    .cmd("WAIT")
                    .arg(self.settings.wait_replicas)
                    .arg(REPLICAS.as_millis() as u64);
            }
            let within = deadline.saturating_duration_since(Instant::now());
            let replies = match self.link.pipeline(&commands, within).await {
                Ok(replies) => replies,
                Err(failure) => {
                    let error = unconfirmed(failure);
                    for job in chunk {
                        answers[job.index] = Some(Err(error.clone()));
                    }
                    return Err(
                        unavailable("not sent, because what goes before it was not confirmed")
                            .with_source(error),
                    );
                }
            };
            let copies = copies_missing(self.settings.wait_replicas, replies.get(chunk.len()));
            let (mut again, mut why) = (Vec::new(), None);
            for ((mut job, command), reply) in chunk.into_iter().zip(commands.cmd_iter()).zip(replies) {
                match reply {
                    Value::ServerError(error) if not_yet(&error) => {
                        why = Some(from_server(&error));
                        job.command = command.clone();
                        again.push(job);
                    }
                    reply => answers[job.index] = Some(answer(&job, reply, copies.as_ref())),
                }
            }
            let Some(why) = why else { return Ok(()) };
            tries += 1;
            let wait = Backoff::RECONNECT.wait(tries).min(Duration::from_secs(1));
            if Instant::now() + wait >= deadline {
                for job in again {
                    answers[job.index] = Some(Err(why.clone()));
                }
                return Err(why);
            }
            tokio::time::sleep(wait).await;
            chunk = again;
        }
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
                next.route == route
                    && indices.len() < CHUNK_COMMANDS
                    && bytes + next.frame.len() <= CHUNK_BYTES
            }) {
                call.arg(next.milliseconds).arg(&next.frame);
                bytes += next.frame.len();
                soonest = soonest.min(next.milliseconds);
                indices.push(next.index);
            }
            let within = deadline.saturating_duration_since(Instant::now());
            let answer = match self.link.run(&call, within).await {
                Ok(_) => self.replicated(deadline).await,
                Err(failure) => Err(unconfirmed(failure)),
            };
            if answer.is_ok() {
                self.mover.watch(route);
                self.mover.due_in(soonest);
            }
            for index in indices {
                answers[index] = Some(answer.clone().map(|()| Receipt { received: true }));
            }
        }
    }

    /// Waits for the replicas, where the URL says so.
    async fn replicated(&self, deadline: Instant) -> Result<(), Error> {
        let wanted = self.settings.wait_replicas;
        if wanted == 0 {
            return Ok(());
        }
        let mut wait = redis::cmd("WAIT");
        wait.arg(wanted).arg(REPLICAS.as_millis() as u64);
        let within = deadline.saturating_duration_since(Instant::now());
        let reply = self.link.run(&wait, within).await.map_err(unconfirmed)?;
        copies_missing(wanted, Some(&reply)).map_or(Ok(()), Err)
    }
}

struct Counted<'a>(&'a AtomicUsize);

impl Drop for Counted<'_> {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::AcqRel);
    }
}

fn answer(job: &Job, reply: Value, copies: Option<&Error>) -> Answer {
    match reply {
        Value::ServerError(error) => Err(from_server(&error)),
        Value::Int(0) if job.to_channel && job.require_receiver => Err(Error::new(
            ErrorKind::NoReceiver,
            "nobody is subscribed to this topic",
        )),
        Value::Int(receivers) if job.to_channel => Ok(Receipt {
            received: receivers > 0,
        }),
        _ => match copies {
            Some(error) => Err(error.clone()),
            None => Ok(Receipt { received: true }),
        },
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

/// How long until then, rounded up; `None` if it is past.
pub(crate) fn milliseconds_until(time: SystemTime) -> Option<u64> {
    let left = time.duration_since(SystemTime::now()).ok()?;
    Some(left.as_nanos().div_ceil(1_000_000) as u64).filter(|&left| left > 0)
}
