//! Membership of a consumer group: what is assigned, taken away and lost.

use std::sync::Arc;
use std::time::{Duration, Instant};

use postrider_contract::{Error, ErrorKind};
use rdkafka::TopicPartitionList;
use rdkafka::client::ClientContext;
use rdkafka::config::RDKafkaLogLevel;
use rdkafka::consumer::{BaseConsumer, Consumer, ConsumerContext, RebalanceProtocol};
use rdkafka::error::{KafkaError, RDKafkaErrorCode as Code};
use rdkafka::metadata::MetadataTopic;
use rdkafka::topic_partition_list::Offset;
use rdkafka::types::RDKafkaRespErr;
use tokio::sync::Notify;

use super::commit::{Which, commit};
use super::gap;
use super::health::Obstacle;
use super::lane::Lane;
use super::leader;
use super::routes::{Route, Routes};
use super::state::{Awaited, Shared};
use super::stranded;
use crate::failure::code;
use crate::incarnation;
use crate::inspector::{metadata, names_brokers};
use crate::observer;
use crate::options::Settings;
use crate::progress::Progress;

/// One question to the broker while partitions change hands.
const QUESTION: Duration = Duration::from_secs(10);
/// What librdkafka logs (context `cgrp`) where the broker has nothing for a member, and tells no event of it: also
/// as long as others have yet to release what is for it.
const NOTHING_ASSIGNED: &str = "ConsumerGroupHeartbeat received target assignment \"\"";
/// How librdkafka begins to tell that the broker could not read a partition.
const FAILED_FETCH: &str = "Fetch from broker ";
/// Looking for a broker.
const LOOK: Duration = Duration::from_secs(1);

/// The consumer's context: librdkafka calls it on the thread that polls.
pub(crate) struct Member {
    pub(crate) shared: Arc<Shared>,
    pub(crate) settings: Settings,
    /// Kafka's name of the group.
    pub(crate) group: String,
    pub(crate) routes: Arc<Routes>,
    /// Asks for topics to be made again.
    pub(crate) repair: Arc<Notify>,
    /// Which of the group's consumers it belongs to.
    pub(crate) generation: u32,
}

/// What a consumer gets to see of the cluster.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Reach {
    /// A broker answers, and names brokers and all topics of the group, with leaders.
    All,
    /// A broker answers, and names brokers; not all topics are there, or not all partitions that are ours have a leader.
    Brokers,
    /// A broker answers, and names none.
    Broker,
    /// No broker answers.
    Nothing,
}

impl ClientContext for Member {
    fn log(&self, level: RDKafkaLogLevel, facility: &str, text: &str) {
        if !matches!(level, RDKafkaLogLevel::Debug) {
            if let Some((topic, partition, offset)) = gap::told(text).filter(|_| self.is_current()) {
                self.shared.lock().note_reset(topic, partition, offset);
            }
            return observer::log(level, facility, text);
        }
        // Asked for to learn this, see `Settings::member`.
        if let Some((topic, id)) = incarnation::told(text).filter(|_| self.is_current()) {
            tracing::debug!(target: "postrider::kafka", group = self.group, topic, id, "a topic's id");
            self.shared.lock().note_id(topic, id);
        }
        if let Some((topic, partitions)) = stranded::told(text).filter(|_| self.is_current())
            && topic == self.routes.topic.name
            && partitions > 0
        {
            let stranded = self.routes.strands(partitions);
            self.shared.note(Obstacle::Stranded, stranded.as_ref());
        }
        if text.ends_with(NOTHING_ASSIGNED) && self.is_current() {
            self.shared.lock().joined = true;
        }
        if let Some((topic, partition)) = leader::missed(text).filter(|_| self.is_current())
            && self.shared.lock().is_assigned(topic, partition)
        {
            self.shared.degrade(&leader::error(topic, partition));
        }
    }

    fn error(&self, error: KafkaError, reason: &str) {
        self.trouble(&error, reason);
    }
}

impl ConsumerContext for Member {
    fn rebalance(&self, consumer: &BaseConsumer<Self>, event: RDKafkaRespErr, list: &mut TopicPartitionList) {
        match event {
            // One that was given up leaves, and has nothing left to say.
            _ if !self.is_current() => self.give_back(consumer, &self.routes.with_retries(list)),
            RDKafkaRespErr::RD_KAFKA_RESP_ERR__ASSIGN_PARTITIONS if !self.shared.lock().is_open() => {
                self.assigned_while_leaving(consumer, list);
            }
            RDKafkaRespErr::RD_KAFKA_RESP_ERR__ASSIGN_PARTITIONS => self.assigned(consumer, list),
            _ => self.revoked(consumer, list),
        }
    }
}

impl Member {
    /// Whether its consumer has not been replaced.
    fn is_current(&self) -> bool {
        self.shared.lock().generation == self.generation
    }

    /// Asks for the group's topics.
    pub(crate) fn reach(&self, consumer: &BaseConsumer<Self>) -> Reach {
        let mut reach = Reach::All;
        for topic in self.routes.names() {
            match consumer.fetch_metadata(Some(topic), LOOK) {
                Err(_) => return Reach::Nothing,
                Ok(answer) if !names_brokers(&answer) => return Reach::Broker,
                Ok(answer) if answer.topics().iter().all(|topic| self.flows(topic)) => {}
                Ok(_) => reach = Reach::Brokers,
            }
        }
        reach
    }

    /// Whether a topic is there, with all of it that is ours.
    fn flows(&self, topic: &MetadataTopic) -> bool {
        topic.error().is_none() && self.shared.lock().is_led(topic)
    }

    /// Something went wrong that librdkafka tells and goes on from.
    fn trouble(&self, error: &KafkaError, reason: &str) {
        let Some(code) = code(error).filter(|_| self.is_current()) else {
            return;
        };
        let told = observer::reported(error, reason);
        tracing::debug!(target: "postrider::kafka", group = self.group, %code, error = %told, "consumer");
        if told.kind() == ErrorKind::Denied {
            return self.shared.fail(told);
        }
        match code {
            Code::AllBrokersDown => self.shared.degrade(&told),
            // librdkafka tries these for ever.
            Code::Fatal | Code::InvalidSessionTimeout | Code::InconsistentGroupProtocol => {
                self.shared.fail(told);
            }
            Code::UnknownTopic | Code::UnknownTopicOrPartition | Code::UnknownPartition => {
                self.shared.degrade(&told);
                self.repair.notify_one();
            }
            // A record that is damaged, or packed as librdkafka does not know.
            Code::InvalidMessage
            | Code::BadMessage
            | Code::BadCompression
            | Code::NotImplemented
            | Code::MessageSizeTooLarge => self.stand_still(&told),
            // The broker fails to read it, whatever it calls that.
            _ if reason.starts_with(FAILED_FETCH) => self.stand_still(&told),
            Code::PollExceeded => tracing::warn!(
                group = self.group,
                "the Kafka consumer was not polled for too long and left its group: is the machine overloaded?"
            ),
            _ if self.shared.lock().starting => self.shared.degrade(&told),
            _ => {}
        }
    }

    /// A partition goes no further, and librdkafka tries it again for ever.
    fn stand_still(&self, told: &Error) {
        let text = format!("a partition cannot be read, and what lies behind waits: {told}");
        self.shared.stand_still(&Error::new(told.kind(), text));
    }

    fn assigned(&self, consumer: &BaseConsumer<Self>, list: &TopicPartitionList) {
        let list = &self.routes.with_retries(list);
        let begun = self.beginnings(consumer, list);
        let mut assignment = TopicPartitionList::with_capacity(begun.len());
        for (route, partition, start, _) in &begun {
            let offset = start.map_or(Offset::Invalid, Offset::Offset);
            if let Err(error) = assignment.add_partition_offset(&route.name, *partition, offset) {
                tracing::error!(%error, "an assigned partition has an impossible offset");
            }
        }
        {
            let mut state = self.shared.lock();
            for (route, partition, start, before) in begun {
                state.assign(&route, partition, start, before);
            }
            state.joined = true;
            state.recover();
        }
        self.assign(consumer, &assignment);
        // A partition that comes back was perhaps paused when it went.
        if assignment.count() > 0 {
            let _ = consumer.resume(&assignment);
        }
        tracing::debug!(group = self.group, partitions = ?list, "assigned");
    }

    /// Others left just before, and their partitions came here: librdkafka gives them back by itself. Nothing may be asked for:
    /// while it closes it waits for an answer until time is up, and says goodbye only then.
    fn assigned_while_leaving(&self, consumer: &BaseConsumer<Self>, list: &TopicPartitionList) {
        tracing::debug!(group = self.group, partitions = ?list, "assigned while it leaves");
        self.assign(consumer, list);
    }

    fn assign(&self, consumer: &BaseConsumer<Self>, list: &TopicPartitionList) {
        let done = if cooperative(consumer) {
            consumer.incremental_assign(list)
        } else {
            consumer.assign(list)
        };
        if let Err(error) = done {
            tracing::warn!(group = self.group, %error, "taking over partitions failed; the group rebalances");
        }
    }

    /// Where each partition begins, with what the last assignment left.
    fn beginnings(
        &self,
        consumer: &BaseConsumer<Self>,
        list: &TopicPartitionList,
    ) -> Vec<(Arc<Route>, i32, Option<i64>, Progress)> {
        if list.count() == 0 {
            return Vec::new();
        }
        let answer = consumer.committed_offsets(list.clone(), QUESTION);
        if let Err(error) = &answer {
            // librdkafka asks again for those without an offset; what was done ahead of it comes twice.
            tracing::warn!(group = self.group, %error, "the group's positions could not be read with their metadata");
        }
        let known = answer.is_ok();
        let list = answer.unwrap_or_else(|_| list.clone());
        let elements = list.elements();
        let routed = elements.iter().filter_map(|element| {
            let route = self.routes.of(element.topic())?;
            let (start, before) = match element.offset() {
                Offset::Offset(offset) if known && element.error().is_ok() => {
                    (Some(offset), Progress::decode(&metadata(element), offset))
                }
                _ if known => (
                    Self::first_start(consumer, route, element.partition()),
                    Progress::default(),
                ),
                _ => (None, Progress::default()),
            };
            Some((route.clone(), element.partition(), start, before))
        });
        routed.collect()
    }

    /// Where a partition begins that the group has never committed.
    fn first_start(consumer: &BaseConsumer<Self>, route: &Route, partition: i32) -> Option<i64> {
        // New since the group was declared: everything in it is for the group.
        let low = consumer.fetch_watermarks(&route.name, partition, QUESTION);
        low.ok().map(|(low, _)| low).filter(|&low| low >= 0)
    }

    fn revoked(&self, consumer: &BaseConsumer<Self>, list: &TopicPartitionList) {
        let list = &self.routes.with_retries(list);
        let lost = consumer.assignment_lost();
        tracing::debug!(group = self.group, lost, partitions = ?list, "revoked");
        let lanes = self.take_away(list, lost);
        if !lost && let Err(error) = commit(&self.shared, consumer, Which::Leaving(&lanes)) {
            tracing::warn!(group = self.group, %error, "a last commit failed: some messages come twice");
        }
        {
            let mut state = self.shared.lock();
            if lost {
                state.lose(
                    &lanes,
                    "the group's session was lost, its partitions are assigned again",
                );
            } else {
                for id in lanes {
                    state.unassign(id);
                }
            }
        }
        self.give_back(consumer, list);
    }

    fn give_back(&self, consumer: &BaseConsumer<Self>, list: &TopicPartitionList) {
        let done = if cooperative(consumer) {
            consumer.incremental_unassign(list)
        } else {
            consumer.unassign()
        };
        if let Err(error) = done {
            tracing::warn!(group = self.group, %error, "giving partitions back failed; the group rebalances");
        }
    }

    /// Stops delivering these partitions and waits, for a while, until the runtime holds nothing of them.
    fn take_away(&self, list: &TopicPartitionList, lost: bool) -> Vec<usize> {
        let mut state = self.shared.lock();
        let found = list.elements();
        let found = found
            .iter()
            .filter_map(|element| state.lane_of(element.topic(), element.partition()));
        let lanes: Vec<usize> = found.collect();
        let wait = if lost || !state.is_open() {
            Duration::ZERO
        } else {
            self.settings.revoke_timeout
        };
        state.take_away(&lanes, wait);
        let deadline = Instant::now() + wait;
        loop {
            let held = lanes
                .iter()
                .any(|&id| state.lanes.get(id).is_some_and(Lane::is_held));
            let left = deadline.saturating_duration_since(Instant::now());
            if !held || left.is_zero() || !state.is_open() {
                state.awaited = None;
                return lanes;
            }
            state.awaited = Some(Awaited::Settled);
            let waited = self.shared.flow.wait_timeout(state, left);
            state = waited.unwrap_or_else(std::sync::PoisonError::into_inner).0;
        }
    }
}

fn cooperative(consumer: &BaseConsumer<Member>) -> bool {
    matches!(consumer.rebalance_protocol(), RebalanceProtocol::Cooperative)
}
