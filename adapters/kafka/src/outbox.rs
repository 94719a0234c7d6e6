//! From the contract's addresses to Kafka's topics and partitions.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::{Duration, SystemTime};

use postrider_contract::{Address, Error, ErrorKind, Outgoing, names};
use tokio::time::{Instant, sleep, timeout_at};

use crate::inspector::{CUT_OFF, Inspector};
use crate::naming::{DELAY_CLASSES, Purpose, retry_topic};
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
    /// Held by whoever looks for a broker: when one last refused us, and how.
    probing: tokio::sync::Mutex<Option<(Instant, Error)>>,
    /// Spreads retries over the partitions of their class.
    turn: AtomicU32,
}

/// Where one message goes.
#[derive(Clone)]
struct Destination {
    topic: Arc<str>,
    purpose: Purpose,
}

/// One message of a batch on its way.
struct Going<'a> {
    /// Its place in the batch.
    index: usize,
    outgoing: &'a Outgoing,
    destination: Destination,
}

type Answers = Vec<Option<Result<(), Error>>>;

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
        let mut answers: Answers = Vec::with_capacity(batch.len());
        let mut going = Vec::with_capacity(batch.len());
        // Most batches go to one address.
        let mut last: Option<(&Address, Result<Destination, Error>)> = None;
        for (index, outgoing) in batch.into_iter().enumerate() {
            let destination = match &last {
                Some((address, destination)) if **address == outgoing.to => destination.clone(),
                _ => {
                    let destination = self.destination(&outgoing.to);
                    last = Some((&outgoing.to, destination.clone()));
                    destination
                }
            };
            match destination.and_then(|destination| self.check(outgoing, destination)) {
                Ok(destination) => {
                    answers.push(None);
                    going.push(Going {
                        index,
                        outgoing,
                        destination,
                    });
                }
                Err(error) => answers.push(Some(Err(error))),
            }
        }
        let gone = self.attempt(going, &mut answers).await;
        if !gone.is_empty() {
            self.make_again(&gone).await;
            self.attempt(gone, &mut answers).await;
        }
        let lost = || Error::new(ErrorKind::Internal, "publishing: a message was not answered for");
        answers
            .into_iter()
            .map(|answer| answer.unwrap_or_else(|| Err(lost())))
            .collect()
    }

    fn destination(&self, address: &Address) -> Result<Destination, Error> {
        match address {
            Address::Topic(topic) => self.public(topic),
            Address::Reply(topic) => match std::str::from_utf8(topic) {
                Ok(topic) => self.public(&topic.into()),
                Err(_) => Err(Error::new(
                    ErrorKind::Rejected,
                    "the reply-to address is no name of a Kafka topic",
                )),
            },
            Address::Inbox { topic, group } => Ok(Destination {
                topic: retry_topic(topic, group).into(),
                purpose: Purpose::Retry,
            }),
            _ => Err(Error::new(
                ErrorKind::Unsupported,
                "Kafka has no such address: send to a topic",
            )),
        }
    }

    /// A topic that applications may send to.
    fn public(&self, topic: &Arc<str>) -> Result<Destination, Error> {
        let purpose = self.topics.purpose(topic);
        if matches!(purpose, Purpose::Retry | Purpose::Resolved) {
            return Err(Error::new(
                ErrorKind::Rejected,
                format!("topic `{topic}` is internal: only a group's own retries go there"),
            ));
        }
        names::check_topic(topic)?;
        Ok(Destination {
            topic: topic.clone(),
            purpose,
        })
    }

    /// Whether this message can go there.
    fn check(&self, outgoing: &Outgoing, destination: Destination) -> Result<Destination, Error> {
        // Whatever was received can be put back: only what is new is limited.
        let (size, limit) = (outgoing.message.payload_size(), self.settings.max_payload);
        if destination.purpose == Purpose::Ordinary && size > limit {
            let text =
                format!("the payload has {size} bytes, at most {limit} are allowed (option `max_payload`)");
            return Err(Error::new(ErrorKind::TooLarge, text));
        }
        if destination.purpose == Purpose::Ordinary {
            outgoing.message.headers.check()?;
        }
        if destination.purpose != Purpose::Retry && delay(outgoing).is_some() {
            return Err(Error::new(
                ErrorKind::Unsupported,
                "Kafka delivers to a topic at once: a delay is for a group's own retries",
            ));
        }
        Ok(destination)
    }

    /// Topics were deleted since they were last seen: they are made again, once.
    async fn make_again(&self, gone: &[Going<'_>]) {
        let topics: BTreeMap<&Arc<str>, Purpose> = gone
            .iter()
            .map(|going| (&going.destination.topic, going.destination.purpose))
            .collect();
        for (topic, purpose) in topics {
            self.make_topic_again(topic, purpose).await;
        }
    }

    /// A topic was deleted since it was last seen. What fails here is told by the second attempt to send to it.
    pub(crate) async fn make_topic_again(&self, topic: &str, purpose: Purpose) {
        self.topics.forget(topic);
        if self.topics.ensure(topic, purpose).await.is_ok() {
            self.publisher.learn(topic).await;
        }
    }

    /// Sends once. Answers what failed because its topic is gone.
    async fn attempt<'a>(&self, going: Vec<Going<'a>>, answers: &mut Answers) -> Vec<Going<'a>> {
        if going.is_empty() {
            return going;
        }
        let mut ready = Vec::with_capacity(going.len());
        let deadline = Instant::now() + self.settings.publish_timeout;
        let reachable = self.reachable(deadline).await;
        let mut last: Option<(Arc<str>, Result<i32, Error>)> = None;
        for going in going {
            let topic = &going.destination.topic;
            let partitions = match &last {
                Some((last, partitions)) if last == topic => partitions.clone(),
                _ => {
                    let purpose = going.destination.purpose;
                    let partitions = match &reachable {
                        Ok(()) => self.topics.ensure_until(deadline, topic, purpose).await,
                        Err(error) => Err(error.clone()),
                    };
                    last = Some((topic.clone(), partitions.clone()));
                    partitions
                }
            };
            match partitions {
                Ok(partitions) => ready.push((self.partition(&going, partitions), going)),
                Err(error) => set(answers, going.index, Err(error)),
            }
        }
        let parcels: Vec<_> = ready
            .iter()
            .map(|(partition, going)| Parcel {
                topic: &going.destination.topic,
                partition: *partition,
                // Told also where it is due: the last header counts, and the message may have brought one of that name.
                not_before: (going.destination.purpose == Purpose::Retry)
                    .then(|| going.outgoing.not_before.unwrap_or(SystemTime::UNIX_EPOCH)),
                message: &going.outgoing.message,
            })
            .collect();
        let sent = self.publisher.send(&parcels).await;
        drop(parcels);
        let mut gone = Vec::new();
        for ((_, going), answer) in ready.into_iter().zip(sent) {
            let missing = matches!(&answer, Err(error) if error.kind() == ErrorKind::Topology);
            set(answers, going.index, answer);
            if missing {
                gone.push(going);
            }
        }
        gone
    }

    /// Waits while no broker is to be reached, so that what fails then is known never to have been sent. One looks for a
    /// broker, and the others wait for it.
    async fn reachable(&self, deadline: Instant) -> Result<(), Error> {
        if !self.publisher.down() {
            return Ok(());
        }
        let begun = Instant::now();
        let Ok(mut refusal) = timeout_at(deadline, self.probing.lock()).await else {
            return Err(self.unreachable());
        };
        if let Some((_, error)) = refusal.as_ref().filter(|(told, _)| *told >= begun) {
            return Err(error.clone());
        }
        // Since when a broker answers others, and not the producer.
        let mut cut_off: Option<Instant> = None;
        while self.publisher.down() {
            let probe = self
                .inspector
                .ask(|inspector| inspector.probe(Duration::from_secs(1)));
            match probe.await {
                Ok(()) if self.publisher.reaches().await => self.publisher.up(),
                Ok(()) => {
                    if cut_off.get_or_insert_with(Instant::now).elapsed() >= CUT_OFF {
                        self.publisher.renew()?;
                    }
                }
                Err(error) if !error.is_retryable() => {
                    *refusal = Some((Instant::now(), error.clone()));
                    return Err(error);
                }
                Err(error) if Instant::now() >= deadline => {
                    return Err(self.unreachable().with_source(error));
                }
                Err(_) => {
                    cut_off = None;
                    sleep(PROBE).await;
                }
            }
        }
        Ok(())
    }

    fn unreachable(&self) -> Error {
        let shown = &self.settings.shown;
        let text = format!("no Kafka broker is to be reached at {shown}: nothing was sent");
        Error::new(ErrorKind::Unavailable, text)
    }

    /// The partition for a retry, by its delay; others go by their key.
    fn partition(&self, going: &Going<'_>, partitions: i32) -> Option<i32> {
        if going.destination.purpose != Purpose::Retry {
            return None;
        }
        let delay = delay(going.outgoing).unwrap_or_default();
        let class = CLASSES.iter().filter(|&&longest| delay > longest).count() as u32;
        let turn = self.turn.fetch_add(1, Ordering::Relaxed);
        Some(retry_partition(class, turn, partitions.max(1).unsigned_abs()) as i32)
    }
}

/// How long a message is to wait; `None`: it is due.
fn delay(outgoing: &Outgoing) -> Option<Duration> {
    let due = outgoing.not_before?;
    let delay = due.duration_since(SystemTime::now()).ok()?;
    (!delay.is_zero()).then_some(delay)
}

/// A partition of one class, in turn.
fn retry_partition(class: u32, turn: u32, partitions: u32) -> u32 {
    let each = partitions / DELAY_CLASSES.unsigned_abs();
    if each == 0 {
        return turn % partitions;
    }
    class * each + turn % each
}

fn set(answers: &mut Answers, index: usize, answer: Result<(), Error>) {
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
