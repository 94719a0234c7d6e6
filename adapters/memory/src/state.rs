//! The broker itself: one lock, taken once for a batch.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use postrider_contract::{Order, Sharing, Spec, names};
use tokio::sync::Notify;

use crate::consumer::Consumer;
use crate::group::{Entry, Group};
use crate::queues::{Queues, insert};
use crate::route::Route;
use crate::settings::Limits;
use crate::topic::Topic;

/// What all instances share.
pub(crate) struct Hub {
    pub(crate) limits: Limits,
    /// Wakes publishers that wait for room.
    pub(crate) room: Notify,
    state: Mutex<State>,
}

/// Everything under the lock. Topics and groups are named by their index, which never changes while they live.
pub(crate) struct State {
    pub(crate) limits: Limits,
    pub(crate) topics: Vec<Topic>,
    pub(crate) queues: Queues,
    pub(crate) consumers: Vec<Option<Consumer>>,
    /// Publishers wait for room.
    pub(crate) starved: bool,
    names: HashMap<Arc<str>, usize>,
    /// The way that was found last, until there is a new topic: publishers mostly name the same one again.
    pub(crate) recent: Option<(Arc<str>, Route)>,
    /// Empty between calls: the ways of what a verdict emits.
    pub(crate) routes: Vec<Route>,
    /// Rises with every connection and subscription.
    count: u32,
}

impl Hub {
    pub(crate) fn new(limits: Limits) -> Self {
        let state = State {
            limits,
            topics: Vec::new(),
            queues: Queues::default(),
            consumers: Vec::new(),
            starved: false,
            names: HashMap::new(),
            recent: None,
            routes: Vec::new(),
            count: 0,
        };
        Self {
            limits,
            room: Notify::new(),
            state: Mutex::new(state),
        }
    }

    pub(crate) fn lock(&self) -> MutexGuard<'_, State> {
        // Nothing in here panics half-way through a change.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl State {
    /// A number that no connection or subscription had before.
    pub(crate) fn number(&mut self) -> u32 {
        self.count = self.count.wrapping_add(1);
        self.count
    }

    /// The topic of this name, if anything is known of it.
    pub(crate) fn look(&self, name: &str) -> Option<usize> {
        self.names.get(name).copied()
    }

    /// The topic of this name, made if it is new.
    pub(crate) fn topic(&mut self, name: &Arc<str>) -> usize {
        if let Some(index) = self.look(name) {
            return index;
        }
        let mut topic = Topic::default();
        if names::is_dead_letter_topic(name) {
            topic.keep_dead();
        }
        self.topics.push(topic);
        let index = self.topics.len() - 1;
        self.names.insert(name.clone(), index);
        self.recent = None;
        index
    }

    /// The shared group of this name on a topic.
    pub(crate) fn group(&self, topic: &str, name: &str) -> Option<usize> {
        let topic = &self.topics[self.look(topic)?];
        let shared = |&index: &usize| {
            let group = self.queues.get(index);
            group.is_some_and(|group| !group.private && *group.name == *name)
        };
        topic.groups.iter().copied().find(shared)
    }

    /// Makes a group that receives what is published from now on.
    pub(crate) fn add_group(&mut self, topic: usize, spec: &Spec) -> usize {
        let private = spec.sharing == Sharing::Broadcast;
        let group = Group::new(spec.topic().clone(), spec.group.clone(), spec.order, private);
        let index = self.queues.add(group);
        self.topics[topic].groups.push(index);
        index
    }

    /// Starts a subscription; the first of an ordered group is the active one.
    pub(crate) fn add_consumer(&mut self, group: usize, owner: u64, limit: u32) -> usize {
        let epoch = self.number();
        let index = insert(&mut self.consumers, Consumer::new(epoch, owner, group, limit));
        if let Some(group) = self.queues.get_mut(group) {
            group.members.push(index);
        }
        index
    }

    /// The subscription, unless it has ended.
    #[inline]
    pub(crate) fn consumer(&mut self, index: usize, epoch: u32) -> Option<&mut Consumer> {
        self.consumers
            .get_mut(index)?
            .as_mut()
            .filter(|consumer| consumer.epoch == epoch)
    }

    /// Ends a subscription: what it held goes to its peers, counted as delivered without a verdict.
    pub(crate) fn end(&mut self, index: usize) {
        let Some(consumer) = self.consumers.get_mut(index).and_then(Option::take) else {
            return;
        };
        let group = consumer.group;
        consumer.wake.notify_one();
        let Some(queues) = self.queues.get_mut(group) else {
            return;
        };
        queues.members.retain(|&member| member != index);
        if queues.private {
            for topic in &mut self.topics {
                topic.groups.retain(|&other| other != group);
            }
            self.queues.remove(group);
            return;
        }
        if queues.order == Order::ByKey
            && let Some(next) = queues.members.first().copied()
            && let Some(next) = &self.consumers[next]
        {
            next.wake.notify_one();
        }
        let again = consumer.into_held().map(|entry| Entry {
            redeliveries: entry.redeliveries + 1,
            ..entry
        });
        self.queues.give_back(group, again);
    }
}
