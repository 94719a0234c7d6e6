//! The connection: everything else hangs on it.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use postrider_contract::{
    Broker, BrokerUrl, Capabilities, Client, DeadLetters, Error, ErrorKind, Guarantee, Outgoing, Problem,
    Receipt, Sharing, Spec, Status, Subscription, Topology, async_trait,
};
use rdkafka::TopicPartitionList;
use rdkafka::topic_partition_list::Offset;
use tokio::sync::Notify;
use tokio::task::JoinHandle;
use tokio::time::{Instant, timeout, timeout_at};

use crate::dead_letters::{Letters, Resolving};
use crate::failure::failure;
use crate::group::Group;
use crate::inspector::{Inspector, blocking};
use crate::lock::lock;
use crate::naming::{Purpose, consumer_group, retry_topic};
use crate::options::Settings;
use crate::outbox::Outbox;
use crate::plan::{LONGEST_DELAY, Planner};
use crate::publisher::closed;
use crate::side_by_side::side_by_side;
use crate::status::status;
use crate::topics::{delete_group, delete_records};

/// How often finished retries are deleted, and idle clients are served.
const HOUSEKEEPING: Duration = Duration::from_secs(15);

/// Connects.
///
/// # Errors
/// [`ErrorKind::Config`] before any socket is opened, [`ErrorKind::Denied`] as soon as the broker refuses the credentials,
/// [`ErrorKind::Unavailable`] when `connect_timeout` is over.
pub async fn connect(url: &BrokerUrl, client: Client) -> Result<Arc<dyn Broker>, Error> {
    let settings = Settings::read(url, client)?;
    let inspector = Inspector::new(&settings)?;
    let within = settings.connect_timeout;
    inspector.ask(move |inspector| inspector.connect(within)).await?;
    let outbox = Arc::new(Outbox::new(settings.clone(), inspector.clone())?);
    let groups = Arc::new(Mutex::new(Groups::default()));
    let repair = Arc::new(Notify::new());
    let resolving = Arc::<Resolving>::default();
    let chores = Chores {
        settings: settings.clone(),
        inspector: inspector.clone(),
        outbox: outbox.clone(),
        groups: groups.clone(),
        repair: repair.clone(),
        resolving: resolving.clone(),
    };
    Ok(Arc::new(Kafka {
        capabilities: capabilities(&settings),
        housekeeping: tokio::spawn(chores.run()),
        resolving,
        settings,
        inspector,
        outbox,
        groups,
        repair,
    }))
}

fn capabilities(settings: &Settings) -> Capabilities {
    Capabilities {
        system: "kafka",
        guarantee: Guarantee::AtLeastOnce,
        ordered: true,
        broadcast: true,
        earliest: true,
        knows_receivers: false,
        counts_redeliveries: true,
        max_delay: LONGEST_DELAY,
        max_hold: None,
        lease: None,
        max_payload: settings.max_payload,
    }
}

#[derive(Default)]
struct Groups {
    running: Vec<Arc<Group>>,
    closed: bool,
}

struct Kafka {
    settings: Settings,
    capabilities: Capabilities,
    inspector: Inspector,
    outbox: Arc<Outbox>,
    groups: Arc<Mutex<Groups>>,
    repair: Arc<Notify>,
    resolving: Arc<Resolving>,
    housekeeping: JoinHandle<()>,
}

#[async_trait]
impl Broker for Kafka {
    fn capabilities(&self) -> &Capabilities {
        &self.capabilities
    }

    async fn plan(&self, all: &[Spec], mode: Topology) -> Result<(), Vec<Problem>> {
        self.outbox.topics.allow_making(mode == Topology::Declare);
        let planner = Planner {
            settings: self.settings.clone(),
            inspector: self.inspector.clone(),
            outbox: self.outbox.clone(),
            mode,
        };
        let problems = planner.plan(all).await;
        if problems.is_empty() {
            Ok(())
        } else {
            Err(problems)
        }
    }

    async fn open(&self, all: Vec<Spec>) -> Result<Vec<Subscription>, Error> {
        let mut by_group: BTreeMap<String, Vec<usize>> = BTreeMap::new();
        for (index, spec) in all.iter().enumerate() {
            let group = consumer_group(spec, &self.settings.client.instance);
            by_group.entry(group).or_default().push(index);
        }
        for spec in all.iter().filter(|spec| spec.sharing == Sharing::Group) {
            // Known after planning; then this asks nothing.
            let retry = retry_topic(spec.topic(), &spec.group);
            self.outbox.topics.ensure(&retry, Purpose::Retry).await?;
        }
        let mut held = lock(&self.groups);
        if held.closed {
            return Err(closed());
        }
        let mut opened: Vec<Option<Subscription>> = all.iter().map(|_| None).collect();
        for (name, members) in by_group {
            let specs: Vec<&Spec> = members.iter().filter_map(|&index| all.get(index)).collect();
            let (group, subscriptions) = Group::join(
                name,
                &specs,
                &self.settings,
                &self.outbox,
                &self.repair,
                &self.inspector,
            )?;
            held.running.push(Arc::new(group));
            for (index, subscription) in members.into_iter().zip(subscriptions) {
                if let Some(place) = opened.get_mut(index) {
                    *place = Some(subscription);
                }
            }
        }
        let missing = || {
            Error::new(
                ErrorKind::Internal,
                "a listener was left without its subscription",
            )
        };
        opened
            .into_iter()
            .map(|opened| opened.ok_or_else(missing))
            .collect()
    }

    async fn publish(&self, batch: Vec<Outgoing>) -> Vec<Result<Receipt, Error>> {
        let answers = self.outbox.send(batch.iter().collect()).await;
        answers
            .into_iter()
            .map(|answer| answer.map(|()| Receipt { received: true }))
            .collect()
    }

    fn dead_letters(&self, dead_letter_topic: &str, source: &str, group: &str) -> Box<dyn DeadLetters> {
        let names = (dead_letter_topic, source, group);
        let (settings, resolving) = (&self.settings, &self.resolving);
        Box::new(Letters::new(
            settings,
            &self.inspector,
            &self.outbox,
            resolving,
            names,
        ))
    }

    async fn status(&self, all: &[Spec]) -> Result<Vec<Status>, Error> {
        let each = all.iter().map(|spec| {
            let (settings, inspector, spec) = (self.settings.clone(), self.inspector.clone(), spec.clone());
            blocking(move || status(&settings, &inspector, &spec))
        });
        side_by_side(each).await.into_iter().collect()
    }

    async fn close(&self, deadline: Duration) -> Result<(), Error> {
        let until = Instant::now() + deadline;
        let groups = {
            let mut held = lock(&self.groups);
            held.closed = true;
            std::mem::take(&mut held.running)
        };
        self.housekeeping.abort();
        for group in &groups {
            group.begin_leaving();
        }
        let trimming = trim_due(&self.settings, &self.inspector, &self.outbox, &self.resolving);
        // What is not deleted now is the next replay's; what is being published has only this.
        let _ = timeout(deadline / 2, trimming).await;
        let left = until.saturating_duration_since(Instant::now());
        self.outbox.publisher.close(left).await;
        let mut late = Vec::new();
        for group in groups {
            if timeout_at(until, group.left()).await.is_err() {
                // Kafka answers one request of a connection after the other, and one to join waits until the group has all
                // its members, or has given up those that died: to leave has to wait with it.
                if group.has_committed() {
                    tracing::debug!(group = group.name(), "it leaves in the background");
                } else {
                    late.push(group.name().to_owned());
                }
            } else if group.is_ephemeral() {
                let _ = timeout_at(until, delete_group(&self.settings, group.name())).await;
            }
        }
        if late.is_empty() {
            return Ok(());
        }
        Err(Error::new(
            ErrorKind::Unavailable,
            format!(
                "the last positions of groups could not be committed before the deadline, so that messages may come twice: {}",
                late.join(", ")
            ),
        ))
    }
}

impl Drop for Kafka {
    fn drop(&mut self) {
        self.housekeeping.abort();
        for group in &lock(&self.groups).running {
            group.begin_leaving();
        }
    }
}

/// Deletes the beginnings of dead-letter topics that were resolved a while ago.
async fn trim_due(
    settings: &Settings,
    inspector: &Inspector,
    outbox: &Arc<Outbox>,
    resolving: &Arc<Resolving>,
) {
    let due = resolving.lock().await.take_due();
    for [topic, source, group] in due {
        let names = (&*topic, &*source, &*group);
        Letters::new(settings, inspector, outbox, resolving, names)
            .trim()
            .await;
    }
}

/// How often the positions on the return path are committed anew. A broker forgets those of topics that the group is not
/// subscribed to a week after the last commit (`offsets.retention.minutes`), also while the group runs.
const REFRESH: Duration = Duration::from_secs(3600);

/// What is done beside.
struct Chores {
    settings: Settings,
    inspector: Inspector,
    outbox: Arc<Outbox>,
    groups: Arc<Mutex<Groups>>,
    repair: Arc<Notify>,
    resolving: Arc<Resolving>,
}

impl Chores {
    async fn run(self) {
        let mut deleted = BTreeMap::new();
        let (mut refreshed, mut told) = (Instant::now(), false);
        let mut ticks = tokio::time::interval(HOUSEKEEPING);
        loop {
            tokio::select! {
                _ = ticks.tick() => {
                    let serving = self.inspector.ask(|inspector| {
                        inspector.serve();
                        inspector.reader.rest(HOUSEKEEPING);
                        Ok(())
                    });
                    let _ = serving.await;
                    trim_due(&self.settings, &self.inspector, &self.outbox, &self.resolving).await;
                    for group in self.running() {
                        group.move_stragglers(&self.outbox).await;
                    }
                    if refreshed.elapsed() >= REFRESH {
                        refreshed = Instant::now();
                        self.running().iter().for_each(|group| group.refresh());
                    }
                    match self.delete_finished(&mut deleted).await {
                        Ok(()) => {}
                        Err(error) if error.kind() == ErrorKind::Denied && !told => {
                            told = true;
                            tracing::warn!(%error, "finished retries cannot be deleted and stay: allow Delete on the retry topics");
                        }
                        Err(error) => tracing::debug!(%error, "finished retries could not be deleted"),
                    }
                }
                () = self.repair.notified() => self.make_again().await,
            }
        }
    }

    fn running(&self) -> Vec<Arc<Group>> {
        lock(&self.groups).running.clone()
    }

    /// Deletes retries that are done: their topics keep everything for ever otherwise.
    async fn delete_finished(&self, deleted: &mut BTreeMap<(String, i32), i64>) -> Result<(), Error> {
        let mut list = TopicPartitionList::new();
        let mut finished = BTreeMap::new();
        for group in self.running() {
            for (topic, partition, offset) in group.finished_retries() {
                let place = (topic, partition);
                // Less than before: the topic was made anew.
                if deleted.get(&place).is_some_and(|&before| before == offset) {
                    continue;
                }
                list.add_partition_offset(&place.0, partition, Offset::Offset(offset))
                    .map_err(|error| failure("deleting finished retries", &error))?;
                finished.insert(place, offset);
            }
        }
        if finished.is_empty() {
            return Ok(());
        }
        let done = |topic: &str, partition, _| {
            deleted.extend(finished.remove_entry(&(topic.to_owned(), partition)));
        };
        delete_records(&self.settings, "deleting finished retries", &list, done).await
    }

    /// Makes the topics again that somebody deleted under a running group.
    async fn make_again(&self) {
        for group in self.running() {
            for topic in group.topics() {
                let topics = &self.outbox.topics;
                topics.forget(topic);
                match topics.ensure(topic, topics.purpose(topic)).await {
                    Ok(_) => {}
                    Err(error) => tracing::warn!(%error, "a topic of a running listener is missing"),
                }
            }
        }
    }
}
