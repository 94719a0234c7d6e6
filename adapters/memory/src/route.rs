//! From an address to the queues it names.

use std::str;
use std::sync::Arc;

use postrider_contract::{Address, Error, ErrorKind, Origin, Outgoing, Receipt, names, return_path};

use crate::clock;
use crate::settings::config;
use crate::state::State;

/// Where an admitted message goes.
#[derive(Clone, Copy)]
pub(crate) enum Route {
    Topic(usize),
    Inbox {
        topic: usize,
        group: usize,
    },
    /// Nobody receives the topic and nothing keeps it.
    Nowhere,
}

/// Why a message is not admitted.
pub(crate) enum Refusal {
    /// A queue is full: try again when there is room.
    Full,
    Error(Error),
}

impl State {
    /// Finds the way of a message and whether it can go now. Changes nothing that anybody can see.
    pub(crate) fn admit(&mut self, outgoing: &Outgoing, max_payload: usize) -> Result<Route, Refusal> {
        let size = outgoing.message.payload_size();
        let route = match &outgoing.to {
            Address::Topic(topic) => self.route(topic)?,
            Address::Inbox { topic, group } => match (self.look(topic), self.group(topic, group)) {
                (Some(topic), Some(group)) => Route::Inbox { topic, group },
                _ => return Err(Refusal::Error(no_inbox(topic, group))),
            },
            Address::Reply(name) => {
                let name =
                    str::from_utf8(name).map_err(|_| config("the reply-to is no topic: it is not UTF-8"))?;
                self.route(&Arc::from(name))?
            }
            _ => return Err(Refusal::Error(unknown_address())),
        };
        if self.is_public(route) {
            if size > max_payload {
                return Err(Refusal::Error(too_large(size, max_payload)));
            }
            outgoing.message.headers.check()?;
        }
        if let Route::Topic(topic) = route {
            let capacity = self.limits.capacity;
            let full =
                |&index: &usize| matches!(self.queues.get(index), Some(group) if group.queued() >= capacity);
            if self.topics[topic].groups.iter().any(full) {
                return Err(Refusal::Full);
            }
        }
        if outgoing.require_receiver && !self.is_received(route) {
            return Err(Refusal::Error(no_receiver()));
        }
        Ok(route)
    }

    /// Puts an admitted message into every queue of its route.
    pub(crate) fn place(&mut self, outgoing: Outgoing, route: Route) -> Receipt {
        let due = outgoing.not_before.and_then(clock::due);
        let received = self.is_received(route);
        let message = outgoing.message;
        match route {
            Route::Nowhere => (),
            Route::Inbox { topic, group } => {
                let entry = self.topics[topic].entry(return_path(&message), message);
                self.queues.enqueue(group, entry, due);
            }
            Route::Topic(topic) => {
                let topic = &mut self.topics[topic];
                let entry = topic.entry(Origin::Topic, message);
                topic.keep(&entry, due, self.limits.retain);
                if let Some((&last, others)) = topic.groups.split_last() {
                    for &group in others {
                        self.queues.enqueue(group, entry.clone(), due);
                    }
                    self.queues.enqueue(last, entry, due);
                }
            }
        }
        Receipt { received }
    }

    #[inline]
    fn route(&mut self, name: &Arc<str>) -> Result<Route, Error> {
        match &self.recent {
            Some((recent, route)) if Arc::ptr_eq(recent, name) => Ok(*route),
            _ => {
                let route = self.find_route(name)?;
                self.recent = Some((name.clone(), route));
                Ok(route)
            }
        }
    }

    fn find_route(&mut self, name: &Arc<str>) -> Result<Route, Error> {
        if let Some(topic) = self.look(name) {
            return Ok(Route::Topic(topic));
        }
        names::check_topic(name)?;
        let dead_letters = names::is_dead_letter_topic(name);
        if names::is_reserved(name) && !dead_letters {
            return Err(config(format!(
                "topic {name:?} ends in a reserved suffix: publish to a topic of another name"
            )));
        }
        // A topic that nobody receives leaves no trace, or names made up by a stranger would fill the memory.
        if dead_letters || self.limits.retain > 0 {
            return Ok(Route::Topic(self.topic(name)));
        }
        Ok(Route::Nowhere)
    }

    /// Whether new messages go there. Inboxes and dead-letter topics take any size: whatever was received can be put back.
    fn is_public(&self, route: Route) -> bool {
        match route {
            Route::Topic(topic) => self.topics[topic].dead.is_none(),
            Route::Inbox { .. } => false,
            Route::Nowhere => true,
        }
    }

    fn is_received(&self, route: Route) -> bool {
        match route {
            Route::Topic(topic) => {
                let topic = &self.topics[topic];
                !topic.groups.is_empty() || topic.dead.is_some()
            }
            Route::Inbox { .. } => true,
            Route::Nowhere => false,
        }
    }
}

impl From<Error> for Refusal {
    fn from(error: Error) -> Self {
        Self::Error(error)
    }
}

fn too_large(size: usize, limit: usize) -> Error {
    let text =
        format!("the payload has {size} bytes, at most {limit} are allowed: raise max_payload in the URL");
    Error::new(ErrorKind::TooLarge, text)
}

pub(crate) fn no_inbox(topic: &str, group: &str) -> Error {
    let text = format!("group {group:?} has no inbox on topic {topic:?}: it was never declared");
    Error::new(ErrorKind::Topology, text)
}

fn no_receiver() -> Error {
    Error::new(
        ErrorKind::NoReceiver,
        "nobody receives this topic: declare a group on it first",
    )
}

fn unknown_address() -> Error {
    Error::new(
        ErrorKind::Unsupported,
        "the embedded broker does not know this kind of address",
    )
}
