//! Which topics a consumer reads, and which of their partitions go together.

use std::sync::Arc;

use postrider_contract::{Sharing, Spec};
use rdkafka::TopicPartitionList;

use crate::naming::{DELAY_CLASSES, retry_topic};
use crate::outbox::Outbox;

/// One topic that a consumer reads.
#[derive(Debug)]
pub(crate) struct Route {
    /// Kafka's name of it.
    pub(crate) name: String,
    /// The topic that the listener knows.
    pub(crate) topic: Arc<str>,
    /// It is the group's retry topic.
    pub(crate) return_path: bool,
    /// How many listeners share it.
    pub(crate) boxes: usize,
}

/// A group's topic and its retry topic.
///
/// Only the topic is subscribed to. Who is assigned one of its partitions takes the retry partitions that belong to it
/// too: subscribed to both, the assignor would balance their sum, and could give all of the topic to one instance and all
/// retries to another (cooperative-sticky moves partitions in the order of their names).
#[derive(Debug)]
pub(crate) struct Routes {
    pub(crate) topic: Arc<Route>,
    pub(crate) retry: Option<Arc<Route>>,
    /// How many of the topic's partitions have retry partitions, [`DELAY_CLASSES`] each.
    pub(super) retry_lanes: i32,
}

impl Routes {
    /// For a listener whose topics have been planned.
    pub(crate) fn new(spec: &Spec, boxes: usize, outbox: &Outbox) -> Self {
        let route = |name: String, return_path| {
            Arc::new(Route {
                name,
                topic: spec.topic().clone(),
                return_path,
                boxes,
            })
        };
        let retry = (spec.sharing == Sharing::Group).then(|| retry_topic(spec.topic(), &spec.group));
        let partitions = retry.as_deref().and_then(|retry| outbox.topics.known(retry));
        Self {
            topic: route(spec.topic().to_string(), false),
            retry: retry.map(|retry| route(retry, true)),
            retry_lanes: partitions.unwrap_or(0) / DELAY_CLASSES,
        }
    }

    /// The route of one of Kafka's topics.
    pub(crate) fn of(&self, topic: &str) -> Option<&Arc<Route>> {
        self.all().find(|route| route.name == topic)
    }

    /// Both.
    pub(crate) fn all(&self) -> impl Iterator<Item = &Arc<Route>> {
        std::iter::once(&self.topic).chain(&self.retry)
    }

    /// The names of both.
    pub(crate) fn names(&self) -> impl Iterator<Item = &str> {
        self.all().map(|route| route.name.as_str())
    }

    /// The topic's partitions with the retry partitions that belong to them.
    pub(crate) fn with_retries(&self, list: &TopicPartitionList) -> TopicPartitionList {
        let mut all = TopicPartitionList::with_capacity(list.count());
        for element in list.elements() {
            let partition = element.partition();
            all.add_partition(element.topic(), partition);
            if let Some(retry) = self.retry.as_ref().filter(|_| partition < self.retry_lanes) {
                for class in 0..DELAY_CLASSES {
                    all.add_partition(&retry.name, class * self.retry_lanes + partition);
                }
            }
        }
        all
    }
}
