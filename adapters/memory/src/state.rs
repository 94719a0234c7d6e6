//! The broker itself: one lock, taken once for a batch.

use std::collections::{BTreeMap, HashMap, VecDeque};
use std::mem;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use postrider_contract::{Message, Order, Sharing, Spec};
use tokio::sync::Notify;
use tokio::time::Instant;

use crate::consumer::Consumer;
use crate::group::{Entry, Group};
use crate::route::is_dead_letter_topic;
use crate::settings::Limits;

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
    pub(crate) groups: Vec<Option<Group>>,
    pub(crate) consumers: Vec<Option<Consumer>>,
    /// Publishers wait for room.
    pub(crate) starved: bool,
    names: HashMap<Arc<str>, usize>,
    /// The topic that was looked up last: publishers mostly name the same one again.
    recent: Option<(Arc<str>, usize)>,
    /// Groups to wake at the end of this call.
    touched: Vec<usize>,
    /// Rises with every connection and subscription.
    count: u32,
}

/// A topic and who receives it.
#[derive(Default)]
pub(crate) struct Topic {
    pub(crate) groups: Vec<usize>,
    pub(crate) next: u64,
    /// The newest messages, for groups to come.
    pub(crate) history: VecDeque<(Entry, Option<Instant>)>,
    /// All messages of a dead-letter topic by position, beside what its groups get.
    pub(crate) dead: Option<BTreeMap<u64, Message>>,
}

impl Hub {
    pub(crate) fn new(limits: Limits) -> Self {
        let state = State {
            limits,
            topics: Vec::new(),
            groups: Vec::new(),
            consumers: Vec::new(),
            starved: false,
            names: HashMap::new(),
            recent: None,
            touched: Vec::new(),
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
    pub(crate) fn find(&mut self, name: &Arc<str>) -> Option<usize> {
        if let Some((recent, index)) = &self.recent
            && Arc::ptr_eq(recent, name)
        {
            return Some(*index);
        }
        let index = *self.names.get(&**name)?;
        self.recent = Some((name.clone(), index));
        Some(index)
    }

    /// The same without remembering the lookup.
    pub(crate) fn look(&self, name: &str) -> Option<usize> {
        self.names.get(name).copied()
    }

    /// The topic of this name, made if it is new.
    pub(crate) fn topic(&mut self, name: &Arc<str>) -> usize {
        if let Some(index) = self.find(name) {
            return index;
        }
        let topic = Topic {
            dead: is_dead_letter_topic(name).then(BTreeMap::new),
            ..Topic::default()
        };
        self.topics.push(topic);
        let index = self.topics.len() - 1;
        self.names.insert(name.clone(), index);
        index
    }

    /// The shared group of this name on a topic.
    pub(crate) fn group(&self, topic: &str, name: &str) -> Option<usize> {
        let topic = &self.topics[self.look(topic)?];
        let shared = |&&index: &&usize| matches!(&self.groups[index], Some(group) if !group.private && *group.name == *name);
        topic.groups.iter().find(shared).copied()
    }

    /// Makes a group that receives what is published from now on.
    pub(crate) fn add_group(&mut self, topic: usize, spec: &Spec) -> usize {
        let private = spec.sharing == Sharing::Broadcast;
        let group = Group::new(spec.topic().clone(), spec.group.clone(), spec.order, private);
        let index = insert(&mut self.groups, group);
        self.topics[topic].groups.push(index);
        index
    }

    /// Starts a subscription; the first of an ordered group is the active one.
    pub(crate) fn add_consumer(&mut self, group: usize, owner: u64, limit: u32) -> usize {
        let epoch = self.number();
        let index = insert(&mut self.consumers, Consumer::new(epoch, owner, group, limit));
        if let Some(group) = &mut self.groups[group] {
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
        let Some(queues) = &mut self.groups[group] else {
            return;
        };
        queues.members.retain(|&member| member != index);
        if queues.private {
            for topic in &mut self.topics {
                topic.groups.retain(|&other| other != group);
            }
            self.groups[group] = None;
            return;
        }
        for mut entry in consumer.into_held() {
            entry.redeliveries += 1;
            queues.give_back(entry);
        }
        if queues.order == Order::ByKey
            && let Some(next) = queues.members.first().copied()
            && let Some(next) = &self.consumers[next]
        {
            next.wake.notify_one();
        }
        self.touch(group);
    }

    /// Notes that a group may have something to take.
    #[inline]
    pub(crate) fn touch(&mut self, index: usize) {
        if let Some(group) = &mut self.groups[index]
            && !mem::replace(&mut group.touched, true)
        {
            self.touched.push(index);
        }
    }

    /// Wakes one subscription of every group that was touched.
    pub(crate) fn wake(&mut self) {
        while let Some(index) = self.touched.pop() {
            if let Some(group) = &mut self.groups[index] {
                group.touched = false;
                group.wake.notify_one();
            }
        }
    }
}

fn insert<T>(places: &mut Vec<Option<T>>, value: T) -> usize {
    match places.iter().position(Option::is_none) {
        Some(free) => {
            places[free] = Some(value);
            free
        }
        None => {
            places.push(Some(value));
            places.len() - 1
        }
    }
}
