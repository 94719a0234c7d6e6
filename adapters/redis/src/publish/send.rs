//! Sends commands in pipelines that follow one another without waiting, and reads the answers.

use std::collections::VecDeque;
use std::iter::Peekable;
use std::time::Duration;

use futures_util::poll;
use postrider_contract::{Backoff, Error, ErrorKind, Outgoing, Receipt};
use redis::{Pipeline, Value};
use tokio::task::unconstrained;
use tokio::time::Instant;

use crate::failure::{Failure, from_server, not_yet, unavailable};
use crate::link::Shared;
use crate::link::primary::demoted;
use crate::publish::prepare::{Job, Known, Later, Prepared};
use crate::publish::{Answer, Publisher, copies_missing, unconfirmed};

/// What one pipeline carries at most: little, so that the server works while the next one is put together.
const COMMANDS: usize = 256;
const BYTES: usize = 1_000_000;
/// Pipelines on their way at once.
const UNDER_WAY: usize = 16;
/// How long replicas may take, where they are waited for.
pub(super) const REPLICAS: Duration = Duration::from_secs(5);

/// A pipeline that has been answered, or not.
struct Sent {
    jobs: Vec<Job>,
    commands: Pipeline,
    outcome: Result<Vec<Value>, Failure>,
    /// It was a replica that answered, which keeps to itself what goes to channels.
    by_replica: bool,
}

/// A batch on its way.
pub(super) struct Batch<'a, I: Iterator<Item = (usize, Outgoing)>> {
    publisher: &'a Publisher,
    rest: Peekable<I>,
    last: Option<Known>,
    deadline: Instant,
    /// By place in the batch.
    pub(super) answers: Vec<Option<Answer>>,
    /// What is put off instead.
    pub(super) later: Vec<Later>,
    /// The server was not ready for these.
    again: Vec<Job>,
    why: Option<Error>,
    failed: Option<Error>,
}

impl<'a, I: Iterator<Item = (usize, Outgoing)>> Batch<'a, I> {
    pub(super) fn new(publisher: &'a Publisher, batch: I, deadline: Instant) -> Self {
        let mut answers = Vec::new();
        answers.resize_with(batch.size_hint().1.unwrap_or(0), || None);
        Self {
            publisher,
            rest: batch.peekable(),
            last: None,
            deadline,
            answers,
            later: Vec::new(),
            again: Vec::new(),
            why: None,
            failed: None,
        }
    }

    /// Sends all that is not put off. One connection for all of it: what comes after a broken one would overtake.
    pub(super) async fn send(&mut self) {
        let mut under_way = VecDeque::new();
        let mut shared = None;
        loop {
            let jobs = self.next_jobs();
            if jobs.is_empty() {
                break;
            }
            if let Some(error) = &self.failed {
                for job in jobs {
                    self.answers[job.index] = Some(Err(error.clone()));
                }
                continue;
            }
            let on = match &shared {
                Some(on) => on,
                None => match self.publisher.link.shared(self.deadline).await {
                    Ok(made) => shared.insert(made),
                    Err(error) => {
                        self.unsent(jobs, error);
                        continue;
                    }
                },
            };
            // Each poll puts it on its way where there is room: without a budget, which could end in the middle of a batch, and
            // the earlier ones first, which may have found none.
            let sending = unconstrained(self.publisher.send(on.clone(), jobs, self.deadline));
            under_way.push_back(Box::pin(sending));
            for mut sending in std::mem::take(&mut under_way) {
                match poll!(&mut sending) {
                    std::task::Poll::Ready(sent) => self.answered(sent),
                    std::task::Poll::Pending => under_way.push_back(sending),
                }
            }
            if under_way.len() >= UNDER_WAY
                && let Some(oldest) = under_way.pop_front()
            {
                self.answered(oldest.await);
            }
        }
        for sending in under_way {
            self.answered(sending.await);
        }
        self.send_again().await;
    }

    /// What the server was not ready for, until it is, or time is up.
    async fn send_again(&mut self) {
        let mut tries = 0;
        while let Some(why) = self.why.take() {
            let jobs = std::mem::take(&mut self.again);
            tries += 1;
            let wait = Backoff::RECONNECT.wait(tries).min(Duration::from_secs(1));
            if Instant::now() + wait >= self.deadline {
                return self.unsent(jobs, why);
            }
            tokio::time::sleep(wait).await;
            match self.publisher.link.shared(self.deadline).await {
                Err(error) => self.unsent(jobs, error),
                Ok(on) => {
                    let sent = self.publisher.send(on, jobs, self.deadline).await;
                    self.answered(sent);
                }
            }
        }
    }

    /// The next messages as commands. What is refused is answered here, what is for later put aside.
    fn next_jobs(&mut self) -> Vec<Job> {
        let (mut jobs, mut bytes) = (Vec::with_capacity(COMMANDS.min(self.rest.size_hint().0)), 0);
        while jobs.len() < COMMANDS && bytes < BYTES {
            let Some((index, outgoing)) = self.rest.next() else {
                break;
            };
            match self.publisher.prepare(index, outgoing, &mut self.last) {
                Ok(Prepared::Now(job)) => {
                    bytes += job.bytes;
                    jobs.push(job);
                }
                Ok(Prepared::Later(later)) => self.later.push(later),
                Err(error) => self.answers[index] = Some(Err(error)),
            }
        }
        jobs
    }

    fn unsent(&mut self, jobs: Vec<Job>, error: Error) {
        for job in jobs {
            self.answers[job.index] = Some(Err(error.clone()));
        }
        self.failed.get_or_insert(error);
    }

    fn answered(&mut self, sent: Sent) {
        let Sent {
            jobs,
            commands,
            outcome,
            by_replica,
        } = sent;
        let replies = match outcome {
            Ok(replies) => replies,
            Err(failure) => {
                let error = unconfirmed(failure);
                let after = unavailable("not sent, because what goes before it was not confirmed");
                self.failed
                    .get_or_insert_with(|| after.with_source(error.clone()));
                for job in jobs {
                    self.answers[job.index] = Some(Err(error.clone()));
                }
                return;
            }
        };
        let copies = copies_missing(self.publisher.settings.wait_replicas, replies.get(jobs.len()));
        for ((mut job, command), reply) in jobs.into_iter().zip(commands.cmd_iter()).zip(replies) {
            match reply {
                Value::ServerError(error) if not_yet(&error) => {
                    self.why = Some(from_server(&error));
                    job.command = command.clone();
                    self.again.push(job);
                }
                _ if by_replica && job.to_channel => {
                    self.why = Some(demoted());
                    job.command = command.clone();
                    self.again.push(job);
                }
                reply => self.answers[job.index] = Some(answer(&job, reply, copies.as_ref())),
            }
        }
    }
}

impl Publisher {
    async fn send(&self, on: Shared, mut jobs: Vec<Job>, deadline: Instant) -> Sent {
        let mut commands = Pipeline::with_capacity(jobs.len() + 1);
        for job in &mut jobs {
            commands.add_command(self.command(job));
        }
        if self.settings.wait_replicas > 0 {
            let wait = commands.cmd("WAIT").arg(self.settings.wait_replicas);
            wait.arg(REPLICAS.as_millis() as u64);
        }
        // A primary that has become a replica refuses nothing for its channels. So it is asked, behind all the others.
        let asked = self.link.has_choice() && jobs.iter().any(|job| job.to_channel);
        if asked {
            commands.cmd("ROLE");
        }
        let generation = on.generation;
        let outcome = self.link.pipeline_on(on, &commands, deadline).await;
        let role = outcome.as_ref().ok().and_then(|replies| replies.last());
        let by_replica = asked && role.is_some_and(|role| self.link.has_left(generation, role));
        Sent {
            jobs,
            commands,
            outcome,
            by_replica,
        }
    }
}

fn answer(job: &Job, reply: Value, copies: Option<&Error>) -> Answer {
    let received = match reply {
        Value::ServerError(error) => return Err(from_server(&error)),
        Value::Int(receivers) if job.to_channel => receivers > 0,
        // A reply to a stream that is not there.
        Value::Nil => false,
        _ => true,
    };
    match copies {
        _ if !received && job.require_receiver => Err(Error::new(
            ErrorKind::NoReceiver,
            "nobody is subscribed to this topic",
        )),
        Some(error) if !job.to_channel => Err(error.clone()),
        _ => Ok(Receipt { received }),
    }
}
