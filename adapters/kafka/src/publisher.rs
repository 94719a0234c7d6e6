//! Sends records, many at once, and waits until each is confirmed.

use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, SystemTime};

use postrider_contract::{Error, ErrorKind, Message};
use rdkafka::client::ClientContext;
use rdkafka::config::{FromClientConfigAndContext, RDKafkaLogLevel};
use rdkafka::error::{KafkaError, RDKafkaErrorCode as Code};
use rdkafka::producer::{
    BaseRecord, DeliveryResult, Producer, ProducerContext, PurgeConfig, ThreadedProducer,
};
use tokio::sync::Notify;
use tokio::time::{Instant, sleep_until, timeout, timeout_at};

use crate::failure::{code, coded, failure, kind};
use crate::inspector::{PROBE, blocking, names_brokers};
use crate::lock::lock;
use crate::observer;
use crate::options::Settings;
use crate::record::outbound;

/// How often it is tried again to hand a record to a full queue.
const FULL_QUEUE_PAUSE: Duration = Duration::from_millis(5);
/// librdkafka gives up first, and tells what it knows; this is for a confirm that never comes at all.
const CONFIRM_SLACK: Duration = Duration::from_secs(5);
/// Looking for a broker.
const LOOK: Duration = Duration::from_secs(1);
/// Asking for a topic.
const LEARNING: Duration = Duration::from_secs(5);
/// How long a refusal of our credentials or permissions is believed without asking again.
const REFUSAL_HOLDS: Duration = Duration::from_secs(3);

/// One record on its way to one topic.
pub(crate) struct Parcel<'a> {
    /// Kafka's topic.
    pub(crate) topic: &'a str,
    /// `None`: by the key.
    pub(crate) partition: Option<i32>,
    /// For the return path: when it is due.
    pub(crate) not_before: Option<SystemTime>,
    /// What is sent.
    pub(crate) message: &'a Message,
}

/// The producer of a connection, made anew if it breaks.
pub(crate) struct Publisher {
    settings: Settings,
    producer: Mutex<Option<Arc<ThreadedProducer<Confirms>>>>,
}

impl Publisher {
    pub(crate) fn new(settings: Settings) -> Result<Self, Error> {
        let producer = Mutex::new(Some(make(&settings)?));
        Ok(Self { settings, producer })
    }

    /// Whether no broker was to be reached when last something was heard.
    pub(crate) fn down(&self) -> bool {
        let producer = lock(&self.producer).clone();
        producer.is_some_and(|producer| producer.context().down.load(Ordering::Relaxed))
    }

    /// Whether it reaches a broker. Takes its time where not.
    pub(crate) async fn reaches(&self) -> bool {
        let Ok(producer) = self.working() else {
            // Closed, or refused: what is sent is told so.
            return true;
        };
        let asked = blocking(move || {
            let answer = producer.client().fetch_metadata(Some(PROBE), LOOK);
            Ok(answer.is_ok_and(|answer| names_brokers(&answer)))
        });
        asked.await.unwrap_or_default()
    }

    /// A broker was reached.
    pub(crate) fn up(&self) {
        if let Some(producer) = &*lock(&self.producer) {
            producer.context().down.store(false, Ordering::Relaxed);
        }
    }

    /// A producer in place of the one that reaches no broker, although others do. What that one has is answered for by it.
    pub(crate) fn renew(&self) -> Result<(), Error> {
        let mut held = lock(&self.producer);
        if held.is_some() {
            tracing::debug!(target: "postrider::kafka", "the producer reached no broker and was made anew");
            let old = held.replace(make(&self.settings)?);
            old.into_iter().for_each(retire);
        }
        Ok(())
    }

    /// Sends all of them, in order, and answers for each when its fate is known.
    pub(crate) async fn send(&self, parcels: &[Parcel<'_>]) -> Vec<Result<(), Error>> {
        let producer = match self.working() {
            Ok(producer) => producer,
            Err(error) => return parcels.iter().map(|_| Err(error.clone())).collect(),
        };
        let deadline = Instant::now() + self.settings.publish_timeout;
        let batch = Arc::new(Batch::new(parcels.len()));
        let now = SystemTime::now();
        for (index, parcel) in parcels.iter().enumerate() {
            if let Err(fate) = enqueue(&producer, parcel, now, &batch, index, deadline).await {
                batch.answer(index, fate);
            }
        }
        let refused = producer.context().refused.notified();
        tokio::select! {
            // Overdue answers stay `Unconfirmed`.
            _ = timeout_at(deadline + CONFIRM_SLACK, batch.wait()) => {}
            () = refused => {
                // librdkafka would go on trying until the timeout.
                producer.purge(PurgeConfig::default().queue().inflight());
                let _ = timeout(CONFIRM_SLACK, batch.wait()).await;
            }
        }
        let answers = batch.take(|| given_up(&producer));
        retire(producer);
        answers
    }

    /// The producer, or a new one where it had a fatal error.
    fn working(&self) -> Result<Arc<ThreadedProducer<Confirms>>, Error> {
        let mut held = lock(&self.producer);
        let Some(producer) = &*held else {
            return Err(closed());
        };
        let Some((code, reason)) = producer.client().fatal_error() else {
            return producer.context().allowed().map(|()| producer.clone());
        };
        if kind(code) == ErrorKind::Denied {
            // Permissions may be mended, and this one will never know.
            producer.context().refuse(coded("publishing", code))?;
        }
        tracing::warn!(%code, reason, "the Kafka producer broke, making a new one");
        let new = make(&self.settings)?;
        held.replace(new.clone()).into_iter().for_each(retire);
        Ok(new)
    }

    /// Learns that a topic which it found missing was made again.
    pub(crate) async fn learn(&self, topic: &str) {
        let (Ok(producer), topic) = (self.working(), topic.to_owned()) else {
            return;
        };
        let learned = tokio::task::spawn_blocking(move || {
            let answer = producer.client().fetch_metadata(Some(&topic), LEARNING);
            answer.map(drop)
        });
        if let Ok(Err(error)) = learned.await {
            tracing::debug!(%error, "the producer could not ask for a topic");
        }
    }

    /// Waits for what is under way, at most until the deadline, and takes nothing more.
    pub(crate) async fn close(&self, deadline: Duration) {
        let Some(producer) = lock(&self.producer).take() else {
            return;
        };
        // Both waiting and dropping block their thread.
        let flushed = tokio::task::spawn_blocking(move || {
            if let Err(error) = producer.flush(deadline) {
                tracing::warn!(%error, "not everything was published before the deadline");
            }
        });
        let _ = timeout(deadline + Duration::from_secs(1), flushed).await;
    }
}

fn make(settings: &Settings) -> Result<Arc<ThreadedProducer<Confirms>>, Error> {
    let made = ThreadedProducer::from_config_and_context(&settings.producer(), Confirms::default());
    made.map(Arc::new)
        .map_err(|error| failure("making the Kafka producer", &error))
}

/// Lets go of a producer. The last to do so waits until its threads have ended: not on a thread that others need.
fn retire(producer: Arc<ThreadedProducer<Confirms>>) {
    let Some(last) = Arc::into_inner(producer) else {
        return;
    };
    let ending = std::thread::Builder::new().name("kafka farewell".to_owned());
    if let Err(error) = ending.spawn(move || drop(last)) {
        tracing::warn!(%error, "no thread could be started to end a Kafka producer");
    }
}

/// Why a producer gave up what it had not sent.
fn given_up(producer: &ThreadedProducer<Confirms>) -> Error {
    let refused = producer.client().fatal_error().map(|(code, _)| code);
    match refused.filter(|&code| kind(code) == ErrorKind::Denied) {
        Some(code) => coded("publishing", code),
        None => match producer.context().allowed() {
            Ok(()) => coded("publishing", Code::PurgeQueue),
            Err(error) => error,
        },
    }
}

/// Hands a record to librdkafka; waits while its queue is full.
async fn enqueue(
    producer: &ThreadedProducer<Confirms>,
    parcel: &Parcel<'_>,
    now: SystemTime,
    batch: &Arc<Batch>,
    index: usize,
    deadline: Instant,
) -> Result<(), Fate> {
    let sent =
        outbound(&parcel.message.headers, parcel.not_before, now).map_err(|error| Fate::Known(Err(error)))?;
    let confirm = Box::new(Confirm {
        batch: batch.clone(),
        index,
    });
    let mut record = BaseRecord {
        topic: parcel.topic,
        partition: parcel.partition,
        payload: parcel.message.payload.as_deref(),
        key: parcel.message.key.as_deref(),
        timestamp: sent.timestamp,
        headers: sent.headers,
        delivery_opaque: confirm,
    };
    loop {
        let refused = match producer.send(record) {
            Ok(()) => return Ok(()),
            Err((error, back)) => {
                record = back;
                error
            }
        };
        if code(&refused) != Some(Code::QueueFull) || Instant::now() >= deadline {
            return Err(match code(&refused) {
                Some(Code::Fatal) => Fate::GivenUp,
                _ => Fate::Known(Err(failure("publishing", &refused))),
            });
        }
        sleep_until(Instant::now() + FULL_QUEUE_PAUSE).await;
    }
}

/// What became of a record.
#[derive(Debug, Clone)]
enum Fate {
    Known(Result<(), Error>),
    /// The producer gave up before it was sent, and knows why.
    GivenUp,
}

/// Answers for a batch, as they come in.
struct Batch {
    answers: Mutex<Vec<Option<Fate>>>,
    left: AtomicUsize,
    done: Notify,
}

impl Batch {
    fn new(count: usize) -> Self {
        Self {
            answers: Mutex::new(vec![None; count]),
            left: AtomicUsize::new(count),
            done: Notify::new(),
        }
    }

    fn answer(&self, index: usize, fate: Fate) {
        if let Some(place) = lock(&self.answers).get_mut(index) {
            *place = Some(fate);
        }
        if self.left.fetch_sub(1, Ordering::AcqRel) == 1 {
            self.done.notify_one();
        }
    }

    async fn wait(&self) {
        if self.left.load(Ordering::Acquire) > 0 {
            self.done.notified().await;
        }
    }

    fn take(&self, given_up: impl Fn() -> Error) -> Vec<Result<(), Error>> {
        let answers = std::mem::take(&mut *lock(&self.answers));
        let overdue = || Error::new(ErrorKind::Unconfirmed, "publishing: no confirmation came in time");
        let answer = |fate| match fate {
            Some(Fate::Known(answer)) => answer,
            Some(Fate::GivenUp) => Err(given_up()),
            None => Err(overdue()),
        };
        answers.into_iter().map(answer).collect()
    }
}

/// Rides with a record through librdkafka.
pub(crate) struct Confirm {
    batch: Arc<Batch>,
    index: usize,
}

/// Receives confirmations, on the producer's own thread.
#[derive(Default)]
pub(crate) struct Confirms {
    down: AtomicBool,
    denied: Mutex<Option<(Instant, Error)>>,
    refused: Notify,
}

impl Confirms {
    /// The refusal, while it is fresh: credentials may be mended.
    fn allowed(&self) -> Result<(), Error> {
        match &*lock(&self.denied) {
            Some((when, error)) if when.elapsed() < REFUSAL_HOLDS => Err(error.clone()),
            _ => Ok(()),
        }
    }

    /// Notes a refusal that is found again and again, the first time.
    fn refuse(&self, error: Error) -> Result<(), Error> {
        lock(&self.denied).get_or_insert_with(|| (Instant::now(), error));
        self.allowed()
    }
}

impl ClientContext for Confirms {
    fn log(&self, level: RDKafkaLogLevel, facility: &str, text: &str) {
        observer::log(level, facility, text);
    }

    fn error(&self, error: KafkaError, reason: &str) {
        tracing::debug!(target: "postrider::kafka", %error, reason, "producer");
        if code(&error) == Some(Code::AllBrokersDown) {
            self.down.store(true, Ordering::Relaxed);
        }
        let error = observer::reported(&error, reason);
        if error.kind() == ErrorKind::Denied {
            *lock(&self.denied) = Some((Instant::now(), error));
            self.refused.notify_waiters();
        }
    }
}

impl ProducerContext for Confirms {
    type DeliveryOpaque = Box<Confirm>;

    fn delivery(&self, result: &DeliveryResult<'_>, confirm: Box<Confirm>) {
        let fate = match result {
            Ok(_) => {
                self.down.store(false, Ordering::Relaxed);
                Fate::Known(Ok(()))
            }
            Err((error, _)) if code(error) == Some(Code::PurgeQueue) => Fate::GivenUp,
            // Its topic was deleted while it waited in line: librdkafka lets go of the partition, with all that it has.
            Err((error, _)) if code(error) == Some(Code::BrokerDestroy) => {
                Fate::Known(Err(coded("publishing", Code::UnknownPartition)))
            }
            Err((error, _)) => {
                // Not another one is sent before it is clear that a broker is to be reached.
                if code(error) == Some(Code::MessageTimedOut) {
                    self.down.store(true, Ordering::Relaxed);
                }
                Fate::Known(Err(failure("publishing", error)))
            }
        };
        confirm.batch.answer(confirm.index, fate);
    }
}

pub(crate) fn closed() -> Error {
    Error::new(ErrorKind::Closed, "this connection to Kafka was closed")
}

#[cfg(test)]
mod tests {
    use postrider_contract::Client;

    use super::*;

    /// Ending one takes its thread a twentieth of a second and more.
    #[tokio::test]
    async fn another_producer_holds_nobody_up() {
        let client = Client {
            application: "a".into(),
            instance: "i".into(),
        };
        let url = "kafka://127.0.0.1:1".parse().unwrap();
        let publisher = Publisher::new(Settings::read(&url, client).unwrap()).unwrap();
        // The best of three: how busy the machine is is not what is asked.
        let rounds = (0..3).map(|_| {
            let begun = Instant::now();
            for _ in 0..20 {
                publisher.renew().unwrap();
            }
            begun.elapsed()
        });
        let took = rounds.min().unwrap();
        println!("{took:?}");
        assert!(took < Duration::from_millis(800), "{took:?}");
    }
}
