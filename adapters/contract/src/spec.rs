use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use crate::names;

/// What a listener asks of a broker.
#[derive(Debug, Clone)]
pub struct Spec {
    /// The listener's name, for messages.
    pub listener: Arc<str>,
    /// What it receives.
    pub source: Source,
    /// The consumer group.
    pub group: Arc<str>,
    /// How instances of the group share.
    pub sharing: Sharing,
    /// Which order is kept.
    pub order: Order,
    /// Where a new group begins.
    pub start: Start,
    /// How many deliveries may be unsettled at once, at least 1.
    pub in_flight: u32,
    /// Where it gives messages up to; declared with the rest.
    pub dead_letter: Option<Arc<str>>,
    /// The longest delay it may ask of the return path; `None`: it never retries.
    pub max_delay: Option<Duration>,
    /// Topics that its handler publishes to by its attribute; declared with the rest.
    pub publishes: Vec<Arc<str>>,
}

impl Spec {
    /// The topic, where it receives one.
    pub fn topic(&self) -> &Arc<str> {
        match &self.source {
            Source::Topic(topic) => topic,
        }
    }

    /// What is wrong with its names. What one broker cannot take, none does: a service may go to another.
    pub fn misnamed(&self) -> Vec<Problem> {
        let mut problems = Vec::new();
        let mut add = |what: String, help: &str| {
            let (listener, help) = (self.listener.clone(), help.to_owned());
            problems.push(Problem { listener, what, help });
        };
        let (topic, group) = (self.topic(), &self.group);
        let dead_letter = self
            .dead_letter
            .iter()
            .map(|name| ("its dead-letter topic: ", name));
        let publishes = self.publishes.iter().map(|name| ("it publishes to ", name));
        for (which, name) in std::iter::once(("", topic)).chain(dead_letter).chain(publishes) {
            if let Err(error) = names::check_topic(name) {
                add(format!("{which}{error}"), "call it otherwise");
            } else if names::is_reserved(name) && !names::is_dead_letter_topic(name) {
                add(
                    format!("{which}topic {name:?} ends like an internal topic"),
                    "call it otherwise",
                );
            }
        }
        if let Err(error) = names::check_group(group) {
            add(error.to_string(), "call it otherwise");
        }
        let together = topic.len() + 1 + group.len();
        if together > names::LONGEST_TOGETHER {
            let most = names::LONGEST_TOGETHER;
            add(
                format!("its topic and group have {together} bytes together, at most {most} are allowed"),
                "shorten the topic or the group",
            );
        }
        if self.dead_letter.as_ref() == Some(topic) {
            add(
                "its dead-letter topic is its own topic: a dead letter would come back for ever".to_owned(),
                "name another dead-letter topic",
            );
        }
        problems
    }
}

/// What a subscription receives. Its group's inbox is always part of it.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub enum Source {
    /// One topic.
    Topic(Arc<str>),
}

/// How instances of one group share messages.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Sharing {
    /// Each message goes to one instance.
    Group,
    /// Each message goes to every instance that is running. Nothing is kept for one that is not, and there is no inbox.
    Broadcast,
}

/// Which order is kept.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Order {
    /// None: instances work side by side.
    None,
    /// Messages of one partition key in the order they were published, also across instances.
    ByKey,
}

/// Where a group begins that was never declared before.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Start {
    /// With what is published from now on.
    New,
    /// With the oldest message that is retained.
    Earliest,
}

/// Who makes topics, queues and groups.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Topology {
    /// The application: what is missing is made; what differs is a problem.
    Declare,
    /// Somebody else: nothing is made; what is missing or differs is a problem.
    Verify,
}

/// Something that keeps a listener from starting.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Problem {
    /// The listener's name.
    pub listener: Arc<str>,
    /// What is wrong and, where it is a mismatch, both sides of it.
    pub what: String,
    /// What to do about it.
    pub help: String,
}

impl fmt::Display for Problem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "listener `{}`: {}; {}", self.listener, self.what, self.help)
    }
}
