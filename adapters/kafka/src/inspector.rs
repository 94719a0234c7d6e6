//! Asks the cluster: whether it is there, which topics it has, how far they reach.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use postrider_contract::{Error, ErrorKind};
use rdkafka::TopicPartitionList;
use rdkafka::config::FromClientConfigAndContext;
use rdkafka::consumer::{BaseConsumer, Consumer};
use rdkafka::error::RDKafkaErrorCode as Code;
use rdkafka::metadata::Metadata;
use rdkafka::topic_partition_list::{Offset, TopicPartitionListElem};

use crate::failure::{code, coded, failure};
use crate::lock::lock;
use crate::observer::Observer;
use crate::options::Settings;
use crate::reader::Reader;

/// One question.
const QUESTION: Duration = Duration::from_secs(10);
/// How much longer a new topic may take for each of its partitions.
const EACH_PARTITION: Duration = Duration::from_millis(100);
/// How long events are served at a time.
const SERVICE: Duration = Duration::from_millis(5);
/// A client that reaches no broker for so long is made anew: librdkafka forgets brokers that a cluster does not name for a
/// moment, and one that has forgotten all of them reaches none again (its issue 5301). A new one begins with the URL.
pub(crate) const CUT_OFF: Duration = Duration::from_secs(4);
/// Asked for only to see an answer; it need not exist.
pub(crate) const PROBE: &str = "postrider-probe";

/// The offsets that a partition holds: from the first, to before the last.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Extent {
    /// The oldest offset that is retained.
    pub(crate) low: i64,
    /// One past the newest.
    pub(crate) high: i64,
}

/// A client without a group. Every method blocks its thread: async callers go through [`Inspector::ask`].
#[derive(Clone)]
pub(crate) struct Inspector {
    settings: Arc<Settings>,
    asking: Arc<Mutex<Asking>>,
    /// Reads what lies in topics.
    pub(crate) reader: Reader,
}

/// The client at the time.
struct Asking {
    client: Arc<BaseConsumer<Observer>>,
    /// Since when it reaches no broker.
    silent: Option<Instant>,
    /// Why, which librdkafka tells once.
    why: Option<Error>,
}

impl Inspector {
    pub(crate) fn new(settings: &Settings) -> Result<Self, Error> {
        let asking = Asking {
            client: make(settings)?,
            silent: None,
            why: None,
        };
        let settings = Arc::new(settings.clone());
        Ok(Self {
            reader: Reader::new(&settings),
            settings,
            asking: Arc::new(Mutex::new(asking)),
        })
    }

    fn client(&self) -> Arc<BaseConsumer<Observer>> {
        lock(&self.asking).client.clone()
    }

    /// Notes whether a broker was reached.
    fn reached(&self, reached: bool) {
        let mut asking = lock(&self.asking);
        if reached {
            (asking.silent, asking.why) = (None, None);
            return;
        }
        let since = *asking.silent.get_or_insert_with(Instant::now);
        if since.elapsed() < CUT_OFF {
            return;
        }
        match make(&self.settings) {
            Ok(client) => {
                asking.client = client;
                asking.silent = None;
                tracing::debug!(target: "postrider::kafka", "a client that reached no broker was made anew");
            }
            Err(error) => tracing::warn!(%error, "a Kafka client that reaches no broker cannot be made anew"),
        }
    }

    /// Asks on a thread that may block.
    pub(crate) async fn ask<T: Send + 'static>(
        &self,
        question: impl FnOnce(&Self) -> Result<T, Error> + Send + 'static,
    ) -> Result<T, Error> {
        let inspector = self.clone();
        blocking(move || question(&inspector)).await
    }

    /// Serves log lines and errors: nobody else polls this client.
    pub(crate) fn serve(&self) {
        // A poll that does not wait ends after one log line.
        let (client, until) = (self.client(), Instant::now() + SERVICE);
        while Instant::now() < until {
            client.poll(Duration::from_millis(1));
        }
    }

    /// Waits until a broker answers.
    ///
    /// # Errors
    /// `Denied` at once where it refuses us; `Unavailable` when the time is over.
    pub(crate) fn connect(&self, within: Duration) -> Result<(), Error> {
        let deadline = Instant::now() + within;
        loop {
            match self.probe(Duration::from_millis(250)) {
                Err(error) if error.is_retryable() && Instant::now() < deadline => {}
                Err(error) if error.is_retryable() => {
                    let text = format!(
                        "no Kafka broker answered at {} within {within:?}",
                        self.settings.shown
                    );
                    return Err(Error::new(ErrorKind::Unavailable, text).with_source(error));
                }
                other => return other,
            }
        }
    }

    /// Whether a broker answers within this time.
    ///
    /// # Errors
    /// Why not: what is not retryable is a refusal.
    pub(crate) fn probe(&self, within: Duration) -> Result<(), Error> {
        let client = self.client();
        let answer = client.fetch_metadata(Some(PROBE), within);
        self.serve();
        let told = client.context().take();
        self.reached(answer.is_ok());
        match answer {
            Ok(answer) if names_brokers(&answer) => Ok(()),
            Ok(_) => Err(coded("asking for a broker", Code::BrokerNotAvailable)),
            Err(error) => Err(self
                .why(told)
                .unwrap_or_else(|| failure("asking for a broker", &error))),
        }
    }

    /// Why no broker is reached, told now or before.
    fn why(&self, told: Option<Error>) -> Option<Error> {
        let mut asking = lock(&self.asking);
        match told {
            Some(refusal) if !refusal.is_retryable() => Some(refusal),
            Some(told) => asking.why.insert(told).clone().into(),
            None => asking.why.clone(),
        }
    }

    /// How many partitions a topic has, also where some have no leader; `None`: it does not exist.
    pub(crate) fn partitions(&self, topic: &str) -> Result<Option<i32>, Error> {
        settled(QUESTION, || self.ask_partitions(topic, false))
    }

    /// The same of a topic that was just made: its partitions come up one by one.
    pub(crate) fn led_partitions(&self, topic: &str) -> Result<Option<i32>, Error> {
        settled(QUESTION, || self.ask_partitions(topic, true))
    }

    fn ask_partitions(&self, topic: &str, all_led: bool) -> Result<Option<i32>, Error> {
        let what = || format!("asking for topic `{topic}`");
        let answer = self.client().fetch_metadata(Some(topic), QUESTION);
        self.reached(answer.is_ok());
        let metadata = answer.map_err(|error| failure(&what(), &error))?;
        let Some(found) = metadata.topics().first() else {
            return Ok(None);
        };
        match found.error().map(Code::from) {
            None => {
                let partitions = found.partitions();
                let led = partitions.iter().all(|partition| partition.leader() >= 0);
                if partitions.is_empty() || (all_led && !led) {
                    return Err(coded(&what(), Code::LeaderNotAvailable));
                }
                Ok(Some(partitions.len() as i32))
            }
            Some(Code::UnknownTopicOrPartition | Code::UnknownTopic) => Ok(None),
            Some(code) => Err(coded(&what(), code)),
        }
    }

    /// The names of all topics.
    pub(crate) fn topics(&self) -> Result<Vec<String>, Error> {
        let answer = self.client().fetch_metadata(None, QUESTION);
        let metadata = answer.map_err(|error| failure("listing topics", &error))?;
        Ok(metadata
            .topics()
            .iter()
            .map(|topic| topic.name().to_owned())
            .collect())
    }

    /// What each of a topic's partitions holds.
    pub(crate) fn extents(&self, topic: &str, partitions: i32) -> Result<Vec<Extent>, Error> {
        // A busy broker takes long to set up many new ones, which are there one by one.
        let patience = QUESTION + EACH_PARTITION * partitions.unsigned_abs();
        // In this order: the end never lies before the beginning.
        let ends = |which| settled(patience, || self.ends(topic, partitions, which));
        let (lows, highs) = (ends(Offset::Beginning)?, ends(Offset::End)?);
        let extents = lows.into_iter().zip(highs);
        Ok(extents.map(|(low, high)| Extent { low, high }).collect())
    }

    /// Where each of a topic's partitions begins or ends. One request to each broker: librdkafka hands what it is to look
    /// for on as the time, for which these two stand there, too.
    fn ends(&self, topic: &str, partitions: i32, which: Offset) -> Result<Vec<i64>, Error> {
        let what = || format!("asking how far topic `{topic}` reaches");
        let problem = |error| failure(&what(), &error);
        let mut asked = TopicPartitionList::with_capacity(partitions as usize);
        for partition in 0..partitions {
            asked
                .add_partition_offset(topic, partition, which)
                .map_err(problem)?;
        }
        let answer = self
            .client()
            .offsets_for_times(asked, QUESTION)
            .map_err(problem)?;
        answer
            .elements()
            .iter()
            .map(|element| {
                element.error().map_err(|error| match code(&error) {
                    // It is there, and its broker has yet to hear of it.
                    Some(Code::UnknownTopicOrPartition | Code::UnknownPartition) => {
                        coded(&what(), Code::LeaderNotAvailable)
                    }
                    _ => problem(error),
                })?;
                match element.offset() {
                    Offset::Offset(offset) => Ok(offset),
                    _ => Err(coded(&what(), Code::OffsetNotAvailable)),
                }
            })
            .collect()
    }
}

/// A cluster that has fenced all of its brokers answers too, and does nothing else.
pub(crate) fn names_brokers(answer: &Metadata) -> bool {
    !answer.brokers().is_empty()
}

fn make(settings: &Settings) -> Result<Arc<BaseConsumer<Observer>>, Error> {
    BaseConsumer::from_config_and_context(&settings.asking(), Observer::default())
        .map(Arc::new)
        .map_err(|error| failure("making a Kafka client", &error))
}

/// What a group has committed on a topic, by partition, with the metadata; `None` where it has committed nothing. Blocks.
pub(crate) fn committed(
    settings: &Settings,
    group: &str,
    topic: &str,
    partitions: i32,
) -> Result<Vec<Option<(i64, String)>>, Error> {
    let client = outsider(settings, group)?;
    let mut asked = TopicPartitionList::with_capacity(partitions as usize);
    for partition in 0..partitions {
        asked.add_partition(topic, partition);
    }
    let what = || format!("asking for the position of group `{group}` on topic `{topic}`");
    let answer = settled(QUESTION, || {
        let answer = client.committed_offsets(asked.clone(), QUESTION);
        answer.map_err(|error| failure(&what(), &error))
    })?;
    let mut positions = vec![None; partitions as usize];
    for element in answer.elements() {
        element.error().map_err(|error| failure(&what(), &error))?;
        if let (Offset::Offset(offset), Some(place)) =
            (element.offset(), positions.get_mut(element.partition() as usize))
        {
            *place = Some((offset, metadata(&element)));
        }
    }
    Ok(positions)
}

/// What rides beside a position. Somebody else's need not be text, and rdkafka panics then.
pub(crate) fn metadata(element: &TopicPartitionListElem<'_>) -> String {
    catch_unwind(AssertUnwindSafe(|| element.metadata().to_owned())).unwrap_or_default()
}

/// Asks again while a topic's partitions are between leaders, as new ones are for a moment. Blocks.
fn settled<T>(patience: Duration, mut ask: impl FnMut() -> Result<T, Error>) -> Result<T, Error> {
    let deadline = Instant::now() + patience;
    loop {
        match ask() {
            Err(error) if error.kind() == ErrorKind::Unavailable && Instant::now() < deadline => {
                std::thread::sleep(Duration::from_millis(20));
            }
            answer => return answer,
        }
    }
}

/// A client that reads and writes a group's positions without being a member.
pub(crate) fn outsider(settings: &Settings, group: &str) -> Result<BaseConsumer<Observer>, Error> {
    BaseConsumer::from_config_and_context(&settings.consumer(group), Observer::default())
        .map_err(|error| failure("making a Kafka client", &error))
}

/// Runs what blocks its thread.
pub(crate) async fn blocking<T: Send + 'static>(
    work: impl FnOnce() -> Result<T, Error> + Send + 'static,
) -> Result<T, Error> {
    match tokio::task::spawn_blocking(work).await {
        Ok(done) => done,
        Err(error) => Err(Error::new(ErrorKind::Internal, "a blocking call ended early").with_source(error)),
    }
}
