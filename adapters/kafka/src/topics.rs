//! Makes topics and knows which there are.

use std::collections::{HashMap, HashSet};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, PoisonError, RwLock};
use std::time::{Duration, Instant};

use postrider_contract::{Error, ErrorKind};
use rdkafka::TopicPartitionList;
use rdkafka::admin::{AdminClient, AdminOptions, NewTopic, ResourceSpecifier, TopicReplication};
use rdkafka::config::FromClientConfigAndContext;
use rdkafka::error::RDKafkaErrorCode as Code;
use rdkafka::topic_partition_list::Offset;
use tokio::time::timeout_at;

use crate::failure::{coded, failure};
use crate::inspector::{Inspector, blocking};
use crate::naming::{DELAY_CLASSES, Purpose, of_retry_topic};
use crate::observer::Observer;
use crate::options::Settings;

const ADMIN_TIMEOUT: Duration = Duration::from_secs(15);
/// How long a new topic may take to be led everywhere.
const SETTLE_TIME: Duration = Duration::from_secs(10);
/// How long a topic that stands in the way may take to show up.
const ALIKE_TIME: Duration = Duration::from_secs(1);
/// How large a copy may be: what another program compressed is not so in a copy. librdkafka receives 100 MB at a time.
pub(crate) const LARGEST_COPY: usize = 99_000_000;

/// The topics of the cluster, as far as this connection needs them.
pub(crate) struct Topics {
    settings: Settings,
    inspector: Inspector,
    seen: RwLock<HashMap<Arc<str>, Seen>>,
    making: tokio::sync::Mutex<()>,
    may_make: AtomicBool,
    /// Those of listeners that named one themselves.
    dead_letters: RwLock<HashSet<Arc<str>>>,
}

/// What a topic was like when it was last seen, and is again if it is made again: consumers go by its number of partitions.
#[derive(Clone, Copy, Default)]
struct Seen {
    /// `None`: it was never there.
    partitions: Option<i32>,
    /// How many bytes a record was to have room for.
    record: usize,
    /// It turned out to be gone.
    gone: bool,
}

impl Topics {
    pub(crate) fn new(settings: Settings, inspector: Inspector) -> Self {
        Self {
            settings,
            inspector,
            seen: RwLock::default(),
            making: tokio::sync::Mutex::default(),
            may_make: AtomicBool::new(true),
            dead_letters: RwLock::default(),
        }
    }

    /// Whether topics may be made: not where somebody else makes them.
    pub(crate) fn allow_making(&self, allowed: bool) {
        self.may_make.store(allowed, Ordering::Relaxed);
    }

    /// A topic takes dead letters, whatever its name.
    pub(crate) fn note_dead_letters(&self, topic: &Arc<str>) {
        let mut noted = self.dead_letters.write().unwrap_or_else(PoisonError::into_inner);
        noted.insert(topic.clone());
    }

    /// What a topic is for.
    pub(crate) fn purpose(&self, topic: &str) -> Purpose {
        let noted = self.dead_letters.read().unwrap_or_else(PoisonError::into_inner);
        if noted.contains(topic) {
            Purpose::DeadLetters
        } else {
            Purpose::of(topic)
        }
    }

    /// How many partitions a topic has that was seen before.
    pub(crate) fn known(&self, topic: &str) -> Option<i32> {
        let seen = self.seen(topic);
        seen.partitions.filter(|_| !seen.gone)
    }

    /// A topic turned out to be gone: it is looked for again.
    pub(crate) fn forget(&self, topic: &str) {
        self.note(topic, |seen| seen.gone = true);
    }

    fn seen(&self, topic: &str) -> Seen {
        let seen = self.seen.read().unwrap_or_else(PoisonError::into_inner);
        seen.get(topic).copied().unwrap_or_default()
    }

    fn note(&self, topic: &str, change: impl FnOnce(&mut Seen)) {
        let mut seen = self.seen.write().unwrap_or_else(PoisonError::into_inner);
        change(seen.entry(topic.into()).or_default());
    }

    /// The number of partitions of a topic; `None`: it does not exist.
    pub(crate) async fn find(&self, topic: &str) -> Result<Option<i32>, Error> {
        self.look(topic, Inspector::partitions).await
    }

    async fn look(
        &self,
        topic: &str,
        ask: impl FnOnce(&Inspector, &str) -> Result<Option<i32>, Error> + Send + 'static,
    ) -> Result<Option<i32>, Error> {
        let name: Arc<str> = topic.into();
        let partitions = self.inspector.ask(move |inspector| ask(inspector, &name)).await?;
        if let Some(partitions) = partitions {
            self.note(topic, |seen| {
                (seen.partitions, seen.gone) = (Some(partitions), false);
            });
        }
        Ok(partitions)
    }

    /// The number of partitions of a topic, which is made if it does not exist: as it was, if it was ever there.
    pub(crate) async fn ensure(&self, topic: &str, purpose: Purpose) -> Result<i32, Error> {
        self.ensure_for(topic, purpose, self.seen(topic).record).await
    }

    /// The same; one that is made for copies takes records of this many bytes.
    pub(crate) async fn ensure_for(
        &self,
        topic: &str,
        purpose: Purpose,
        record: usize,
    ) -> Result<i32, Error> {
        if record > self.seen(topic).record {
            self.note(topic, |seen| seen.record = record);
        }
        if let Some(partitions) = self.known(topic) {
            return Ok(partitions);
        }
        let _making = self.making.lock().await;
        self.make_missing(topic, purpose, record).await
    }

    /// The same for a publish, which waits only so long for others that look for topics and make them.
    pub(crate) async fn ensure_until(
        &self,
        deadline: tokio::time::Instant,
        topic: &str,
        purpose: Purpose,
    ) -> Result<i32, Error> {
        if let Some(partitions) = self.known(topic) {
            return Ok(partitions);
        }
        let Ok(_making) = timeout_at(deadline, self.making.lock()).await else {
            let text = format!("topic `{topic}` could not be looked for in time: nothing was sent");
            return Err(Error::new(ErrorKind::Unavailable, text));
        };
        self.make_missing(topic, purpose, self.seen(topic).record).await
    }

    /// One at a time: a burst to a new topic makes it once.
    async fn make_missing(&self, topic: &str, purpose: Purpose, record: usize) -> Result<i32, Error> {
        if let Some(partitions) = self.known(topic) {
            return Ok(partitions);
        }
        if let Some(partitions) = self.find(topic).await? {
            return Ok(partitions);
        }
        if !self.may_make.load(Ordering::Relaxed) {
            return Err(Error::new(
                ErrorKind::Topology,
                format!("topic `{topic}` does not exist: create it, or start with topology = declare"),
            ));
        }
        self.make(topic, purpose, record).await?;
        let deadline = Instant::now() + SETTLE_TIME;
        loop {
            if let Some(partitions) = self.look(topic, Inspector::led_partitions).await? {
                return Ok(partitions);
            }
            if Instant::now() > deadline {
                let text = format!("topic `{topic}` was created and does not show up");
                return Err(Error::new(ErrorKind::Unavailable, text));
            }
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    }

    async fn make(&self, topic: &str, purpose: Purpose, record: usize) -> Result<(), Error> {
        let partitions = match (self.seen(topic).partitions, purpose) {
            (Some(before), _) => before,
            (None, Purpose::Ordinary) => self.settings.partitions,
            (None, Purpose::Retry) => self.retry_partitions(topic).await?,
            (None, Purpose::DeadLetters | Purpose::Resolved) => 1,
        };
        if matches!(purpose, Purpose::Ordinary | Purpose::Resolved) {
            let record = self.settings.ordinary_record();
            return self.create(topic, purpose, partitions, record).await;
        }
        match self.create(topic, purpose, partitions, LARGEST_COPY).await {
            // A cluster may allow less.
            Err(error) if error.kind() == ErrorKind::Topology => {
                let record = record.max(self.settings.internal_record());
                self.create(topic, purpose, partitions, record).await
            }
            made => made,
        }
    }

    async fn create(
        &self,
        topic: &str,
        purpose: Purpose,
        partitions: i32,
        record: usize,
    ) -> Result<(), Error> {
        let what = format!("creating topic `{topic}`");
        let record = record.to_string();
        let mut new = NewTopic::new(
            topic,
            partitions,
            TopicReplication::Fixed(self.settings.replication),
        )
        .set("max.message.bytes", &record);
        match purpose {
            Purpose::Ordinary => {}
            Purpose::Retry | Purpose::DeadLetters => {
                // Kafka's default would delete what a stopped group has not fetched for a week.
                new = new
                    .set("retention.ms", "-1")
                    .set("retention.bytes", "-1")
                    .set("cleanup.policy", "delete");
            }
            Purpose::Resolved => new = new.set("cleanup.policy", "compact"),
        }
        tracing::info!(topic, partitions, "creating a Kafka topic");
        let admin = Admin::new(&self.settings)?;
        let answers = admin.client()?.create_topics([&new], &doing()).await;
        admin.close();
        match answers.map_err(|error| failure(&what, &error))?.pop() {
            None | Some(Ok(_) | Err((_, Code::TopicAlreadyExists))) => Ok(()),
            Some(Err((_, code))) => {
                let alike = match code {
                    Code::InvalidTopic => self.alike(topic).await,
                    _ => None,
                };
                Err(alike.unwrap_or_else(|| coded(&what, code)))
            }
        }
    }

    /// What the broker says of a name that it refuses, and rdkafka leaves out: another topic's differs only in `.` and `_`.
    async fn alike(&self, topic: &str) -> Option<Error> {
        let wanted = topic.replace('.', "_");
        let deadline = Instant::now() + ALIKE_TIME;
        loop {
            let topics = self.inspector.ask(Inspector::topics).await.ok()?;
            let is_alike = |other: &String| other != topic && other.replace('.', "_") == wanted;
            if let Some(other) = topics.into_iter().find(is_alike) {
                let text = format!(
                    "topic `{topic}` cannot be beside topic `{other}`: in Kafka `.` and `_` in names are the same"
                );
                return Some(Error::new(ErrorKind::Topology, text));
            }
            if Instant::now() > deadline {
                return None;
            }
            // Made just now, by another listener: not every broker knows of it yet.
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    }

    /// The same number for every class of delays, and no more of each than the topic itself has: a retry partition is read
    /// by whoever reads the topic's partition of that number.
    async fn retry_partitions(&self, retry_topic: &str) -> Result<i32, Error> {
        let source = of_retry_topic(retry_topic).map(|(source, _)| source);
        let partitions = match source {
            Some(source) => self.find(source).await?,
            None => None,
        };
        let each = partitions.unwrap_or(1).min(self.settings.retry_partitions);
        Ok(each * DELAY_CLASSES)
    }

    /// The settings of existing topics that decide whether messages survive in them, by topic.
    pub(crate) async fn configuration(&self, topics: &[&str]) -> Result<Vec<TopicSettings>, Error> {
        if topics.is_empty() {
            return Ok(Vec::new());
        }
        let asked: Vec<_> = topics
            .iter()
            .map(|topic| ResourceSpecifier::Topic(topic))
            .collect();
        let admin = Admin::new(&self.settings)?;
        let answers = admin.client()?.describe_configs(&asked, &asking()).await;
        admin.close();
        let what = "asking for the settings of topics";
        let answers = answers.map_err(|error| failure(what, &error))?;
        answers
            .into_iter()
            .map(|answer| {
                let resource = answer.map_err(|code| coded(what, code))?;
                let value = |name| resource.get(name).and_then(|entry| entry.value.as_deref());
                let number = |name| value(name).and_then(|text| text.parse().ok());
                Ok(TopicSettings {
                    retention_ms: number("retention.ms"),
                    retention_bytes: number("retention.bytes"),
                    max_message_bytes: number("max.message.bytes"),
                    compacted: value("cleanup.policy").is_some_and(|policy| policy.contains("compact")),
                })
            })
            .collect()
    }
}

/// Of one topic; `None` where the broker does not tell.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct TopicSettings {
    pub(crate) retention_ms: Option<i64>,
    pub(crate) retention_bytes: Option<i64>,
    pub(crate) max_message_bytes: Option<i64>,
    pub(crate) compacted: bool,
}

/// A client for administration. Short-lived: rdkafka never serves the log of one, which would pile up.
pub(crate) struct Admin(Option<AdminClient<Observer>>);

impl Admin {
    pub(crate) fn new(settings: &Settings) -> Result<Self, Error> {
        AdminClient::from_config_and_context(&settings.administration(), Observer::default())
            .map(|client| Self(Some(client)))
            .map_err(|error| failure("making a Kafka administration client", &error))
    }

    pub(crate) fn client(&self) -> Result<&AdminClient<Observer>, Error> {
        self.0
            .as_ref()
            .ok_or_else(|| Error::new(ErrorKind::Closed, "this administration client is closed"))
    }

    /// Dropping one waits for its thread, so another thread does it.
    pub(crate) fn close(mut self) {
        if let Some(client) = self.0.take() {
            tokio::task::spawn_blocking(move || drop(client));
        }
    }
}

/// Answers come when the operation is done, not when it has begun.
fn doing() -> AdminOptions {
    asking().operation_timeout(Some(ADMIN_TIMEOUT))
}

fn asking() -> AdminOptions {
    AdminOptions::new().request_timeout(Some(ADMIN_TIMEOUT))
}

/// Deletes what lies before these offsets, and tells each partition where that was done, with the offset that it begins with
/// now. An error: it was not done everywhere.
pub(crate) async fn delete_records(
    settings: &Settings,
    what: &str,
    list: &TopicPartitionList,
    mut done: impl FnMut(&str, i32, i64),
) -> Result<(), Error> {
    let admin = Admin::new(settings)?;
    let answer = admin.client()?.delete_records(list, &doing()).await;
    admin.close();
    let answer = answer.map_err(|error| failure(what, &error))?;
    let mut result = Ok(());
    // What is refused is told for each partition alone.
    for element in answer.elements() {
        match (element.error(), element.offset()) {
            (Ok(()), Offset::Offset(low)) => done(element.topic(), element.partition(), low),
            (Ok(()), _) => {}
            (Err(error), _) => result = result.and(Err(failure(what, &error))),
        }
    }
    result
}

/// Deletes a group that is needed no more; nothing depends on it.
pub(crate) async fn delete_group(settings: &Settings, group: &str) {
    let Ok(admin) = Admin::new(settings) else {
        return;
    };
    if let Ok(client) = admin.client() {
        let deleted = client.delete_groups(&[group], &asking()).await;
        tracing::debug!(group, ?deleted, "deleted an instance's own consumer group");
    }
    admin.close();
}

/// Asks something that blocks, of the cluster's groups.
pub(crate) async fn with_settings<T: Send + 'static>(
    settings: &Settings,
    work: impl FnOnce(&Settings) -> Result<T, Error> + Send + 'static,
) -> Result<T, Error> {
    let settings = settings.clone();
    blocking(move || work(&settings)).await
}
