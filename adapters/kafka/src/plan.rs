//! Checks subscriptions against the cluster and makes what they need.

use std::sync::Arc;
use std::time::Duration;

use postrider_contract::{Error, Problem, Sharing, Spec, Start, Topology, names};

use crate::inspector::Inspector;
use crate::naming::{DELAY_CLASSES, Purpose, consumer_group, retry_topic};
use crate::options::Settings;
use crate::outbox::Outbox;
use crate::side_by_side::side_by_side;
use crate::start::{Beginning, begin, has_position};
use crate::topics::{LARGEST_COPY, with_settings};

/// The longest delay of a retry: any works, this is for mistakes.
pub(crate) const LONGEST_DELAY: Duration = Duration::from_secs(30 * 24 * 3600);

/// Plans for one connection.
#[derive(Clone)]
pub(crate) struct Planner {
    pub(crate) settings: Settings,
    pub(crate) inspector: Inspector,
    pub(crate) outbox: Arc<Outbox>,
    pub(crate) mode: Topology,
}

impl Planner {
    /// Everything that keeps these from starting.
    pub(crate) async fn plan(&self, all: &[Spec]) -> Vec<Problem> {
        // First of all, since one of them may be what another listener listens to, and is made as the first makes it.
        for topic in all.iter().filter_map(|spec| spec.dead_letter.as_ref()) {
            self.outbox.topics.note_dead_letters(topic);
        }
        let each = all.iter().map(|spec| {
            let (planner, spec) = (self.clone(), spec.clone());
            async move {
                let mut problems = Vec::new();
                check(&spec, &mut problems);
                if problems.is_empty() {
                    planner.prepare(&spec, &mut problems).await;
                }
                Ok(problems)
            }
        });
        let mut problems = Vec::new();
        for (found, spec) in side_by_side(each).await.into_iter().zip(all) {
            match found {
                Ok(found) => problems.extend(found),
                Err(error) => problems.push(Problem {
                    listener: spec.listener.clone(),
                    what: error.to_string(),
                    help: TRY_AGAIN.to_owned(),
                }),
            }
        }
        problems
    }

    async fn prepare(&self, spec: &Spec, problems: &mut Vec<Problem>) {
        let mut note = |what: String, help: String| {
            problems.push(Problem {
                listener: spec.listener.clone(),
                what,
                help,
            });
        };
        // The retry topic is made last: it shows that the group has been declared.
        let retry = (spec.sharing == Sharing::Group).then(|| retry_topic(spec.topic(), &spec.group));
        let declared_before = match &retry {
            Some(retry) => match self.outbox.topics.find(retry).await {
                Ok(found) => found.is_some(),
                Err(error) => return note(error.to_string(), help_for(&error)),
            },
            None => false,
        };
        let (mut partitions, mut positioned) = (None, false);
        let purpose = self.outbox.topics.purpose(spec.topic());
        match self.ensure(spec.topic(), purpose, 0).await {
            Ok(found) => partitions = found,
            Err(error) => note(error.to_string(), help_for(&error)),
        }
        if partitions.is_none() && self.mode == Topology::Verify {
            note(missing(spec.topic()), self.create(spec.topic(), purpose));
        }
        let record = self.copies_of(spec.topic(), partitions.is_some()).await;
        if let Some(partitions) = partitions {
            match self.position(spec, partitions, declared_before).await {
                Ok(true) => positioned = true,
                Ok(false) => {
                    let (group, topic) = (consumer_group(spec, &self.settings.client.instance), spec.topic());
                    note(
                        format!("group `{group}` has no position on topic `{topic}`"),
                        format!(
                            "give it one with kafka-consumer-groups --group {group} --topic {topic} --reset-offsets \
                             --execute and --to-latest for a new group, --to-earliest for one whose positions expired"
                        ),
                    );
                }
                Err(error) => note(error.to_string(), help_for(&error)),
            }
        }
        let dead = spec
            .dead_letter
            .as_ref()
            .map(|topic| (topic.to_string(), Purpose::DeadLetters));
        let published = spec
            .publishes
            .iter()
            .map(|topic| (topic.to_string(), Purpose::of(topic)));
        // Made without a position, it would show that the group had one, which has expired.
        let retry = retry.filter(|_| positioned || self.mode == Topology::Verify);
        let retry_name = retry.clone();
        let retry = retry.map(|topic| (topic, Purpose::Retry));
        let mut internal = Vec::new();
        for (topic, purpose) in dead.into_iter().chain(published).chain(retry) {
            match self.ensure(&topic, purpose, record).await {
                Ok(Some(_)) if purpose == Purpose::Ordinary => {}
                Ok(Some(_)) => internal.push((topic, purpose)),
                Ok(None) => note(missing(&topic), self.create(&topic, purpose)),
                Err(error) => note(error.to_string(), help_for(&error)),
            }
        }
        if let (Some(retry), Some(partitions)) = (&retry_name, partitions) {
            let found = self.outbox.topics.known(retry).unwrap_or(DELAY_CLASSES);
            if found < DELAY_CLASSES || found / DELAY_CLASSES > partitions {
                note(
                    format!(
                        "topic `{retry}` has {found} partitions, and topic `{}` has {partitions}",
                        spec.topic()
                    ),
                    format!(
                        "give it at least {DELAY_CLASSES}, and at most {DELAY_CLASSES} for each of the topic's: delete \
                         and create it while nothing waits in it"
                    ),
                );
            }
        }
        match self.differing(&internal, record).await {
            Ok(found) => found.into_iter().for_each(|(what, help)| note(what, help)),
            // Who may not read settings may still use what is there.
            Err(error) => tracing::debug!(%error, "the settings of internal topics could not be checked"),
        }
    }

    /// The number of partitions; `None`: it does not exist and is not to be made.
    async fn ensure(&self, topic: &str, purpose: Purpose, record: usize) -> Result<Option<i32>, Error> {
        match self.mode {
            Topology::Declare => self
                .outbox
                .topics
                .ensure_for(topic, purpose, record)
                .await
                .map(Some),
            Topology::Verify => self.outbox.topics.find(topic).await,
        }
    }

    /// How many bytes a copy of a topic's largest record may take.
    async fn copies_of(&self, topic: &str, exists: bool) -> usize {
        let least = self.settings.internal_record();
        if !exists {
            return least;
        }
        let settings = self.outbox.topics.configuration(&[topic]).await;
        let largest = settings.ok().and_then(|found| found.first()?.max_message_bytes);
        largest.map_or(least, |largest| {
            least.max((largest.unsigned_abs() as usize + names::HEADROOM).min(LARGEST_COPY))
        })
    }

    /// Gives the group its position where that is ours to do; whether it has one.
    async fn position(&self, spec: &Spec, partitions: i32, declared_before: bool) -> Result<bool, Error> {
        let inspector = self.inspector.clone();
        let group = consumer_group(spec, &self.settings.client.instance);
        let topic = spec.topic().clone();
        let (start, broadcast) = (spec.start, spec.sharing == Sharing::Broadcast);
        // A broadcast's group belongs to this process alone: its position is nobody's topology.
        let declare = self.mode == Topology::Declare || broadcast;
        with_settings(&self.settings, move |settings| {
            let beginning = Beginning {
                group: &group,
                topic: &topic,
                partitions,
                start,
                declared_before,
                every_time: broadcast,
            };
            if declare {
                begin(settings, &inspector, &beginning).map(|()| true)
            } else {
                Ok(start == Start::Earliest || has_position(settings, &beginning)?)
            }
        })
        .await
    }

    /// What differs of internal topics from what keeps messages safe in them.
    async fn differing(
        &self,
        internal: &[(String, Purpose)],
        record: usize,
    ) -> Result<Vec<(String, String)>, Error> {
        let names: Vec<&str> = internal.iter().map(|(topic, _)| topic.as_str()).collect();
        let found = self.outbox.topics.configuration(&names).await?;
        let mut differing = Vec::new();
        for ((topic, _), settings) in internal.iter().zip(found) {
            let mut differs = |what: String, wanted: String| {
                differing.push((
                    format!("topic `{topic}` has {what}"),
                    format!(
                        "set {wanted} with kafka-configs --alter --entity-type topics --entity-name {topic}"
                    ),
                ));
            };
            let limited = |setting: Option<i64>| setting.filter(|&limit| limit != -1);
            if let Some(limit) = limited(settings.retention_ms) {
                differs(
                    format!("retention.ms={limit}, which deletes messages that still wait"),
                    "retention.ms=-1".into(),
                );
            }
            if let Some(limit) = limited(settings.retention_bytes) {
                differs(
                    format!("retention.bytes={limit}, which deletes messages that still wait"),
                    "retention.bytes=-1".into(),
                );
            }
            if settings.compacted {
                differs(
                    "cleanup.policy=compact, which keeps one message of a key".into(),
                    "cleanup.policy=delete".into(),
                );
            }
            match settings.max_message_bytes.map(|limit| limit.max(0) as usize) {
                Some(limit) if limit < record => differs(
                    format!(
                        "max.message.bytes={limit}, which is too small for copies of the largest messages"
                    ),
                    format!("max.message.bytes={LARGEST_COPY}"),
                ),
                Some(limit) if limit < LARGEST_COPY => tracing::warn!(
                    topic,
                    "it has max.message.bytes={limit}: a larger message, which another program can have sent compressed, \
                     can be neither retried nor given up. Set kafka-configs --alter --entity-type topics --entity-name \
                     {topic} --add-config max.message.bytes={LARGEST_COPY}"
                ),
                _ => {}
            }
        }
        Ok(differing)
    }

    fn create(&self, topic: &str, purpose: Purpose) -> String {
        let (partitions, extra) = match purpose {
            Purpose::Ordinary => (self.settings.partitions, String::new()),
            Purpose::Retry => (self.settings.retry_partitions * DELAY_CLASSES, kept()),
            Purpose::DeadLetters | Purpose::Resolved => (1, kept()),
        };
        format!(
            "create it with kafka-topics --create --topic {topic} --partitions {partitions}{extra}, or start with \
             topology = declare"
        )
    }
}

const TRY_AGAIN: &str = "see whether the Kafka cluster is well, and start again";

fn kept() -> String {
    format!(" --config retention.ms=-1 --config max.message.bytes={LARGEST_COPY}")
}

fn missing(topic: &str) -> String {
    format!("topic `{topic}` does not exist")
}

fn help_for(error: &Error) -> String {
    use postrider_contract::ErrorKind;
    match error.kind() {
        ErrorKind::Denied => {
            "grant the permission, or create it by hand and start with topology = verify".to_owned()
        }
        ErrorKind::Topology | ErrorKind::Config => "change the name or the setting".to_owned(),
        _ => TRY_AGAIN.to_owned(),
    }
}

/// What can be told without asking the broker.
fn check(spec: &Spec, problems: &mut Vec<Problem>) {
    problems.extend(spec.misnamed());
    if let Some(delay) = spec.max_delay.filter(|&delay| delay > LONGEST_DELAY) {
        problems.push(Problem {
            listener: spec.listener.clone(),
            what: format!("it retries after up to {delay:?}, and at most {LONGEST_DELAY:?} is possible"),
            help: "shorten the backoff".to_owned(),
        });
    }
}
