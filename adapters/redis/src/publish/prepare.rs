//! From a message to the command that sends it.

use std::sync::Arc;
use std::time::SystemTime;

use postrider_contract::{Address, Error, ErrorKind, Message, Outgoing, names};
use redis::Cmd;

use crate::fields;
use crate::frame::Frame;
use crate::keys;
use crate::mover::{Kind, Route};
use crate::publish::Publisher;
use crate::settings::Transport;
use crate::topics::Topic;

/// A command, and whose answer it brings.
pub(super) struct Job {
    pub(super) index: usize,
    pub(super) command: Cmd,
    /// For a channel: it becomes a command when it is sent, with a number that nothing unsent takes away.
    unnumbered: Option<(Known, Message)>,
    pub(super) bytes: usize,
    pub(super) require_receiver: bool,
    /// It is a `PUBLISH`: the answer counts receivers.
    pub(super) to_channel: bool,
}

/// A frame for later.
pub(super) struct Later {
    pub(super) index: usize,
    pub(super) route: Route,
    pub(super) milliseconds: u64,
    pub(super) frame: Vec<u8>,
}

impl Job {
    fn new(index: usize, command: Cmd, bytes: usize) -> Self {
        Self {
            index,
            command,
            unnumbered: None,
            bytes,
            require_receiver: false,
            to_channel: false,
        }
    }
}

/// A topic and its name.
pub(super) type Known = (Arc<str>, Arc<Topic>);

pub(super) enum Prepared {
    Now(Job),
    Later(Later),
}

impl Publisher {
    pub(super) fn prepare(
        &self,
        index: usize,
        outgoing: Outgoing,
        last: &mut Option<Known>,
    ) -> Result<Prepared, Error> {
        let Outgoing {
            to,
            not_before,
            require_receiver,
            message,
        } = outgoing;
        let delay = not_before.and_then(milliseconds_until);
        match to {
            Address::Topic(name) => {
                let topic = self.known(name, last);
                self.fits(&topic.1, &message)?;
                if let Some(milliseconds) = delay {
                    let route = self.scheduled(&topic.0);
                    return Ok(self.later(index, route, milliseconds, &message));
                }
                let job = self.to_topic(index, topic, message);
                Ok(Prepared::Now(Job {
                    require_receiver,
                    ..job
                }))
            }
            Address::Inbox { topic, group } => {
                let to = keys::inbox(&topic, &group);
                if let Some(milliseconds) = delay {
                    let (from, kind) = (keys::delayed(&topic, &group), Kind::Inbox);
                    return Ok(self.later(index, Route { from, to, kind }, milliseconds, &message));
                }
                let mut command = redis::cmd("XADD");
                command
                    .arg(to)
                    .arg("*")
                    .arg(fields::FRAME)
                    .arg(self.frame_aside(&message));
                Ok(Prepared::Now(Job::new(index, command, message.size())))
            }
            Address::Reply(name) => {
                let topic = self.known(reply_topic(&name)?, last);
                self.fits(&topic.1, &message)?;
                let mut job = self.to_topic(index, topic, message.clone());
                if !job.to_channel {
                    // A name from outside makes no stream: whoever waits for the reply has made it.
                    job.command = redis::cmd("XADD");
                    job.command.arg(&topic.1.key).arg("NOMKSTREAM").arg("*");
                    fields::add_to(&mut job.command, &message);
                }
                Ok(Prepared::Now(Job {
                    require_receiver,
                    ..job
                }))
            }
            _ => Err(Error::new(
                ErrorKind::Unsupported,
                "Redis does not know this kind of address",
            )),
        }
    }

    /// The topic of this name, looked up once for a run of messages to it.
    fn known<'a>(&self, name: Arc<str>, last: &'a mut Option<Known>) -> &'a Known {
        let known = match last.take() {
            Some(known) if Arc::ptr_eq(&known.0, &name) || known.0 == name => known,
            _ => {
                let topic = self.topics.get(&name);
                (name, topic)
            }
        };
        last.insert(known)
    }

    fn scheduled(&self, topic: &Arc<str>) -> Route {
        let from = keys::scheduled(topic);
        if self.topics.is_stream(topic) {
            let (to, kind) = (keys::topic(topic), Kind::Stream);
            Route { from, to, kind }
        } else {
            let (to, kind) = (topic.to_string(), Kind::Channel);
            Route { from, to, kind }
        }
    }

    fn to_topic(&self, index: usize, known: &Known, message: Message) -> Job {
        let (size, topic) = (message.size(), &known.1);
        if self.settings.transport == Transport::Streams || topic.holds_dead_letters() {
            let mut command = Cmd::with_capacity(3 + 2 * fields::count(&message), 64 + size);
            command.arg("XADD").arg(&topic.key).arg("*");
            fields::add_to(&mut command, &message);
            return Job::new(index, command, size);
        }
        Job {
            to_channel: true,
            unnumbered: Some((known.clone(), message)),
            ..Job::new(index, Cmd::new(), size)
        }
    }

    /// What is sent for it.
    pub(super) fn command(&self, job: &mut Job) -> Cmd {
        let Some(((name, topic), message)) = job.unnumbered.take() else {
            return std::mem::take(&mut job.command);
        };
        let mut command = Cmd::with_capacity(3, 128 + name.len() + job.bytes);
        let frame = match topic.next_sequence() {
            Some(number) => Frame::encode(&message, &self.id, number),
            // A number that came again would be taken for a message that was received already.
            None => self.frame_aside(&message),
        };
        command.arg("PUBLISH").arg(&*name).arg(frame);
        command
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

    /// Whether this topic takes this message.
    pub(crate) fn check(&self, topic: &Arc<str>, message: &Message) -> Result<(), Error> {
        self.fits(&self.topics.get(topic), message)
    }

    /// Internal topics take more than the limit, so that the largest message can still be dead-lettered.
    fn fits(&self, topic: &Topic, message: &Message) -> Result<(), Error> {
        topic.check()?;
        if topic.holds_dead_letters() {
            return Ok(());
        }
        message.headers.check()?;
        let (size, most) = (message.payload_size(), self.settings.max_payload);
        if size <= most {
            return Ok(());
        }
        Err(Error::new(
            ErrorKind::TooLarge,
            format!("the payload has {size} bytes, at most {most} are allowed (max_payload in the URL)"),
        ))
    }
}

/// Where a reply goes: the name came from outside, so it must be a topic's, and none of ours.
fn reply_topic(name: &[u8]) -> Result<Arc<str>, Error> {
    let legal = |name: &&str| names::check_topic(name).is_ok() && !names::is_reserved(name);
    let name = std::str::from_utf8(name).ok().filter(legal);
    name.map(Into::into)
        .ok_or_else(|| Error::new(ErrorKind::Rejected, "the reply-to is not the name of a topic"))
}

/// How long until then, rounded up; `None` if it is past.
pub(crate) fn milliseconds_until(time: SystemTime) -> Option<u64> {
    let left = time.duration_since(SystemTime::now()).ok()?;
    Some(left.as_nanos().div_ceil(1_000_000) as u64).filter(|&left| left > 0)
}
