//! From the contract's addresses to Kafka's topics and partitions.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::{Duration, SystemTime};

use postrider_contract::{Address, Error, ErrorKind, Outgoing};
use tokio::time::{Instant, sleep};

use crate::inspector::Inspector;
use crate::naming::{DELAY_CLASSES, Purpose, check_topic, retry_topic};
use crate::options::Settings;
use crate::publisher::{Parcel, Publisher};
use crate::topics::Topics;

/// Delays up to these share partitions of the retry topic; longer ones have the last third to themselves. A partition is
/// read ahead only so far: what is due in hours must not stand before what is due in seconds.
const CLASSES: [Duration; DELAY_CLASSES as usize - 1] = [Duration::from_secs(10), Duration::from_secs(600)];
/// How often a broker is looked for while none is to be reached.
const PROBE: Duration = Duration::from_millis(200);

/// Sends whatever this connection sends.
pub(crate) struct Outbox {
    settings: Settings,
    inspector: Inspector,
    pub(crate) publisher: Publisher,
    pub(crate) topics: Topics,
    probing: tokio::sync::Mutex<()>,
    /// Spreads retries over the partitions of their class.
    turn: AtomicU32,
}

/// Where one message goes.
struct Destination {
    topic: Arc<str>,
    purpose: Purpose,
    /// Not before this time, on the return path.
    not_before: Option<SystemTime>,
}

impl Outbox {
    pub(crate) fn new(settings: Settings, inspector: Inspector) -> Result<Self, Error> {
        Ok(Self {
            publisher: Publisher::new(settings.clone())?,
            topics: Topics::new(settings.clone(), inspector.clone()),
            probing: tokio::sync::Mutex::default(),
            turn: AtomicU32::new(fastrand::u32(..)),
            settings,
            inspector,
        })
    }

    /// Sends a batch; an answer for each.
    pub(crate) async fn send(&self, batch: Vec<&Outgoing>) -> Vec<Result<(), Error>> {
        let destinations = batch.iter().map(|outgoing| self.destination(outgoing)).collect();
        self.deliver(batch, destinations).await
    }

    fn destination(&self, outgoing: &Outgoing) -> Result<Destination, Error> {
        let not_before = outgoing.not_before.filter(|&time| time > SystemTime::now());
        let destination = match &outgoing.to {
            Address::Topic(topic) => self.public(topic, not_before)?,
            Address::Reply(topic) => {
                let no_name = "the reply-to address is no name of a Kafka topic";
                let topic =
                    std::str::from_utf8(topic).map_err(|_| Error::new(ErrorKind::Rejected, no_name))?;
                self.public(&topic.into(), not_before)?
            }
            Address::Inbox { topic, group } => Destination {
                topic: retry_topic(topic, group).into(),
                purpose: Purpose::Retry,
                not_before,
            },
            _ => {
                let text = "Kafka has no such address: send to a topic";
                return Err(Error::new(ErrorKind::Unsupported, text));
            }
        };
        // Whatever was received can be put back: only what is new is limited.
        let (size, limit) = (outgoing.message.payload_size(), self.settings.max_payload);
        if destination.purpose == Purpose::Ordinary && size > limit {
            let text =
                format!("the payload has {size} bytes, at most {limit} are allowed (option `max_payload`)");
            return Err(Error::new(ErrorKind::TooLarge, text));
        }
        Ok(destination)
    }

    /// A topic that applications may send to.
    fn public(&self, topic: &Arc<str>, not_before: Option<SystemTime>) -> Result<Destination, Error> {
        let purpose = self.topics.purpose(topic);
        if matches!(purpose, Purpose::Retry | Purpose::Resolved) {
            return Err(Error::new(
                ErrorKind::Rejected,
                format!("topic `{topic}` is internal: only a group's own retries go there"),
            ));
        }
        check_topic(topic)?;
        if not_before.is_some() {
            return Err(Error::new(
                ErrorKind::Unsupported,
                "Kafka delivers to a topic at once: a delay is for a group's own retries",
            ));
        }
        Ok(Destination {
            topic: topic.clone(),
            purpose,
            not_before: None,
        })
    }

    async fn deliver(
        &self,
        batch: Vec<&Outgoing>,
        destinations: Vec<Result<Destination, Error>>,
    ) -> Vec<Result<(), Error>> {
        let mut answers: Vec<Option<Result<(), Error>>> = Vec::with_capacity(batch.len());
        let mut going = Vec::with_capacity(batch.len());
        for (index, (outgoing, destination)) in batch.into_iter().zip(destinations).enumerate() {
            match destination {
                Ok(destination) => {
                    answers.push(None);
                    going.push((index, outgoing, destination));
                }
                Err(error) => answers.push(Some(Err(error))),
            }
        }
        let again = self.attempt(going, &mut answers).await;
        if !again.is_empty() {
            // Their topics were deleted since they were last seen: they are made again, once.
            let topics: BTreeMap<Arc<str>, Purpose> = again
                .iter()
                .map(|(_, _, destination)| (destination.topic.clone(), destination.purpose))
                .collect();
            for (topic, purpose) in topics {
                self.topics.forget(&topic);
                // What fails here is told for each message by the second attempt.
                if self.topics.ensure(&topic, purpose).await.is_ok() {
                    self.publisher.learn(&topic).await;
                }
            }
            for (index, _, _) in &again {
                if let Some(answer) = answers.get_mut(*index) {
                    *answer = None;
                }
            }
            self.attempt(again, &mut answers).await;
        }
        let lost = || Error::new(ErrorKind::Internal, "publishing: a message was not answered for");
        answers
            .into_iter()
            .map(|answer| answer.unwrap_or_else(|| Err(lost())))
            .collect()
    }

    /// Sends once. Answers what failed because its topic is gone.
    async fn attempt<'a>(
        &self,
        going: Vec<(usize, &'a Outgoing, Destination)>,
        answers: &mut [Option<Result<(), Error>>],
    ) -> Vec<(usize, &'a Outgoing, Destination)> {
        let mut ready = Vec::with_capacity(going.len());
        for (index, outgoing, destination) in going {
            match self.partitions(&destination).await {
                Ok(partitions) => ready.push((index, outgoing, destination, partitions)),
                Err(error) => set(answers, index, Err(error)),
            }
        }
        let parcels: Vec<_> = ready
            .iter()
            .map(|(_, outgoing, destination, partitions)| Parcel {
                topic: &destination.topic,
                partition: self.partition(destination, *partitions),
                not_before: destination.not_before,
                message: &outgoing.message,
            })
            .collect();
        let sent = self.publisher.send(&parcels).await;
        drop(parcels);
        let mut gone = Vec::new();
        for ((index, outgoing, destination, _), answer) in ready.into_iter().zip(sent) {
            let missing = matches!(&answer, Err(error) if error.kind() == ErrorKind::Topology);
            set(answers, index, answer);
            if missing {
                gone.push((index, outgoing, destination));
            }
        }
        gone
    }

    /// How many partitions a destination has, which is made if it does not exist.
    async fn partitions(&self, destination: &Destination) -> Result<i32, Error> {
        self.reachable().await?;
        match self.topics.known(&destination.topic) {
            Some(partitions) => Ok(partitions),
            None => self.topics.ensure(&destination.topic, destination.purpose).await,
        }
    }

    /// Waits while no broker is to be reached, so that what fails then is known never to have been sent.
    async fn reachable(&self) -> Result<(), Error> {
        let deadline = Instant::now() + self.settings.publish_timeout;
        while self.publisher.down() {
            let _one = self.probing.lock().await;
            if !self.publisher.down() {
                break;
            }
            let answered = self
                .inspector
                .ask(|inspector| Ok(inspector.answers(Duration::from_secs(1))))
                .await?;
            if answered {
                self.publisher.up();
            } else if Instant::now() >= deadline {
                return Err(Error::new(
                    ErrorKind::Unavailable,
                    format!(
                        "no Kafka broker is to be reached at {}: nothing was sent",
                        self.settings.shown
                    ),
                ));
            } else {
                sleep(PROBE).await;
            }
        }
        Ok(())
    }

    /// The partition for a retry, by its delay; others go by their key.
    fn partition(&self, destination: &Destination, partitions: i32) -> Option<i32> {
        if destination.purpose != Purpose::Retry {
            return None;
        }
        let delay = destination
            .not_before
            .and_then(|time| time.duration_since(SystemTime::now()).ok())
            .unwrap_or_default();
        let class = CLASSES.iter().filter(|&&longest| delay > longest).count() as u32;
        let turn = self.turn.fetch_add(1, Ordering::Relaxed);
        Some(retry_partition(class, turn, partitions.max(1).unsigned_abs()) as i32)
    }
}

/// A partition of one class, in turn.
fn retry_partition(class: u32, turn: u32, partitions: u32) -> u32 {
    let each = partitions / DELAY_CLASSES.unsigned_abs();
    if each == 0 {
        return turn % partitions;
    }
    class * each + turn % each
}

fn set(answers: &mut [Option<Result<(), Error>>], index: usize, answer: Result<(), Error>) {
    if let Some(place) = answers.get_mut(index) {
        *place = Some(answer);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn classes_have_partitions_of_their_own() {
        for partitions in [3, 6, 7, 12] {
            let of = |class| {
                (0..50)
                    .map(|turn| retry_partition(class, turn, partitions))
                    .collect::<std::collections::BTreeSet<_>>()
            };
            let (short, middle, long) = (of(0), of(1), of(2));
            assert!(short.is_disjoint(&middle) && middle.is_disjoint(&long) && short.is_disjoint(&long));
            assert!(long.iter().all(|&partition| partition < partitions));
        }
        assert!((0..9).all(|turn| retry_partition(2, turn, 2) < 2));
    }
}
