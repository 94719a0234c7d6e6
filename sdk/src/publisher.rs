//! Sending messages, each confirmed by the broker.

use std::cell::RefCell;
use std::fmt;
use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use serde::Serialize;
use tokio_util::task::TaskTracker;
use tracing::Instrument;

use crate::contract::{
    Address, Broker, ByteString, Bytes, Error, ErrorKind, Headers, Message as RawMessage, Outgoing, Receipt,
    Value, names,
};
use crate::listener::{HandlerError, Outcome};
use crate::meter::{Sent, TopicMeter};
use crate::trace::{self, Carried};
use crate::{Message, scratch};

/// Sends messages; cheap to clone.
///
/// A send resolves when the broker has the message durably, so an `Ok` is a promise. Many may be under way at once: they
/// are pipelined on one connection.
///
/// ```
/// use postrider::prelude::*;
///
/// #[derive(Message, Serialize)]
/// #[message(topic = "order.created", key = order_id)]
/// struct OrderCreated { order_id: u64 }
///
/// # #[tokio::main(flavor = "current_thread")]
/// # async fn main() -> Result<(), postrider::Error> {
/// let publisher = Publisher::connect("memory://publisher-doc").await?;
/// publisher.send(&OrderCreated { order_id: 7 }).await?;
/// publisher.topic("audit").key("7").header("actor", "web").send_json(&"created").await?;
/// # publisher.close(std::time::Duration::from_secs(1)).await
/// # }
/// ```
#[derive(Clone)]
pub struct Publisher {
    broker: Arc<dyn Broker>,
    /// Sends under way, so that a drain can wait for them.
    pending: TaskTracker,
    sent: Arc<Sent>,
    /// The trace of the delivery that it was taken from.
    carried: Option<Carried>,
    #[cfg(feature = "testing")]
    tap: Option<Arc<crate::testing::Tap>>,
}

impl Publisher {
    /// With `exports`, what it sends is counted through the `metrics` facade.
    pub(crate) fn new(broker: Arc<dyn Broker>, exports: bool) -> Self {
        let sent = Arc::new(Sent::new(broker.capabilities().system, exports));
        Self {
            broker,
            pending: TaskTracker::new(),
            sent,
            carried: None,
            #[cfg(feature = "testing")]
            tap: None,
        }
    }

    #[cfg(feature = "testing")]
    pub(crate) fn set_tap(&mut self, tap: Option<Arc<crate::testing::Tap>>) {
        self.tap = tap;
    }

    #[cfg(feature = "testing")]
    pub(crate) fn tap(&self) -> Option<&crate::testing::Tap> {
        self.tap.as_deref()
    }

    /// The same within the trace of a message.
    pub(crate) fn carrying(mut self, carried: Option<Carried>) -> Self {
        self.carried = carried;
        self
    }

    /// The broker's name, such as `kafka`.
    pub(crate) fn system(&self) -> &'static str {
        self.broker.capabilities().system
    }

    pub(crate) fn sent(&self) -> &Sent {
        &self.sent
    }

    /// Sends a message to its type's topic.
    ///
    /// Where the future is dropped, as by a timeout, a message that still waits for a connection is not sent, and one that is on
    /// its way may or may not arrive.
    ///
    /// # Errors
    /// By [kind](Error::kind): `TooLarge`, `Rejected` (nothing was sent or kept), `Unavailable` (try again),
    /// `Unconfirmed` (it may or may not be there: send it again with [`Draft::id`] set to [`Error::message_id`]).
    pub async fn send<M: Message + Serialize>(&self, message: &M) -> Result<(), Error> {
        self.publish(vec![typed(known_topic(M::TOPIC)?, message, now())?])
            .await
            .pop()
            .unwrap_or_else(no_answer)
            .map(drop)
    }

    /// Sends many messages in one batch; an answer for each, in the same order.
    pub async fn send_all<'a, M: Message + Serialize + 'a>(
        &self,
        messages: impl IntoIterator<Item = &'a M>,
    ) -> Vec<Result<(), Error>> {
        let messages = messages.into_iter();
        let (least, _) = messages.size_hint();
        let (mut batch, mut answers) = (Vec::with_capacity(least), Vec::with_capacity(least));
        let (topic, now) = (known_topic(M::TOPIC), now());
        for message in messages {
            let outgoing = topic.clone().and_then(|topic| typed(topic, message, now));
            match outgoing {
                Ok(outgoing) => {
                    batch.push(outgoing);
                    answers.push(Ok(()));
                }
                Err(error) => answers.push(Err(error)),
            }
        }
        let mut sent = self.publish(batch).await.into_iter();
        for answer in answers.iter_mut().filter(|answer| answer.is_ok()) {
            *answer = sent.next().unwrap_or_else(no_answer).map(drop);
        }
        answers
    }

    /// Begins an untyped message to a topic, or a typed one with headers of its own.
    pub fn topic(&self, topic: impl Into<Arc<str>>) -> Draft<'_> {
        Draft {
            publisher: self,
            to: Outgoing::to_topic(topic, RawMessage::default()),
        }
    }

    /// Sends a batch as it is. Messages without an id are given one.
    pub(crate) async fn publish(&self, mut batch: Vec<Outgoing>) -> Vec<Result<Receipt, Error>> {
        if batch.is_empty() {
            return Vec::new();
        }
        let _pending = self.pending.token();
        for outgoing in &mut batch {
            stamp(&mut outgoing.message);
        }
        let span = trace::send(self.system(), &mut batch, self.carried.as_ref());
        #[cfg(feature = "testing")]
        let copies = self.tap.as_ref().map(|tap| (tap, batch.clone()));
        let mut about = self.about(&batch);
        // A single message costs no vector.
        let first = about.next();
        let others: Vec<_> = about.collect();
        let begin = Instant::now();
        let mut answers = self.broker.publish(batch).instrument(span).await;
        self.sent.batch(answers.len(), begin.elapsed());
        #[cfg(feature = "testing")]
        if let Some((tap, copies)) = copies {
            let taken = copies.iter().zip(&answers).filter(|(_, answer)| answer.is_ok());
            taken.for_each(|(copy, _)| tap.published(copy));
        }
        for (answer, (id, meter)) in answers.iter_mut().zip(first.into_iter().chain(others)) {
            meter.count(answer);
            if let Err(error) = answer {
                *error = error.clone().with_message_id(id);
            }
        }
        answers
    }

    /// What is to be known of each message when it is gone.
    fn about<'a>(&'a self, batch: &'a [Outgoing]) -> impl Iterator<Item = (ByteString, Arc<TopicMeter>)> {
        // Most batches go to one address.
        let mut last: Option<(&Address, Arc<TopicMeter>)> = None;
        batch.iter().map(move |outgoing| {
            let meter = match &last {
                Some((address, meter)) if **address == outgoing.to => meter.clone(),
                _ => self.sent.to(&outgoing.to),
            };
            last = Some((&outgoing.to, meter.clone()));
            (id_of(&outgoing.message), meter)
        })
    }

    /// Waits until nothing is under way.
    pub(crate) async fn flush(&self) {
        self.pending.close();
        self.pending.wait().await;
        self.pending.reopen();
    }

    /// Flushes what is under way and disconnects. Only for a publisher of its own, from [`Publisher::connect`] or
    /// [`Publisher::from_env`]: the one that a handler is given belongs to its app.
    ///
    /// # Errors
    /// Not everything was flushed before the deadline.
    pub async fn close(&self, deadline: Duration) -> Result<(), Error> {
        if tokio::time::timeout(deadline, self.flush()).await.is_err() {
            let _ = self.broker.close(Duration::ZERO).await;
            return Err(Error::new(
                ErrorKind::Unconfirmed,
                "the deadline passed with messages still unconfirmed",
            ));
        }
        self.broker.close(deadline).await
    }
}

impl fmt::Debug for Publisher {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Publisher")
            .field("system", &self.broker.capabilities().system)
            .finish_non_exhaustive()
    }
}

/// A message being written: [`Publisher::topic`].
#[must_use = "a draft does nothing until it is sent"]
#[derive(Debug)]
pub struct Draft<'a> {
    publisher: &'a Publisher,
    to: Outgoing,
}

impl Draft<'_> {
    /// Its partition key: messages of one key keep their order.
    pub fn key(mut self, key: impl Into<Bytes>) -> Self {
        self.to.message.key = Some(key.into());
        self
    }

    /// A header; replaces others of its name.
    pub fn header(mut self, name: impl Into<ByteString>, value: impl Into<Value>) -> Self {
        self.to.message.headers.set(name, value);
        self
    }

    /// Its message id, instead of a new one: to send again what was `Unconfirmed`.
    pub fn id(self, id: impl Into<ByteString>) -> Self {
        self.header(names::MESSAGE_ID, Value::Text(id.into()))
    }

    /// An error of kind `NoReceiver` where the broker can tell that nobody receives the topic.
    pub fn require_receiver(mut self) -> Self {
        self.to.require_receiver = true;
        self
    }

    /// Sends a typed message to the draft's topic, under the type's key unless the draft has one.
    ///
    /// # Errors
    /// As [`Publisher::send`].
    pub async fn send<M: Message + Serialize>(mut self, message: &M) -> Result<(), Error> {
        let RawMessage {
            key,
            headers,
            payload,
        } = encode(message, now())?;
        self.to.message.key = self.to.message.key.or(key);
        self.to.message.payload = payload;
        for (name, value) in headers.entries() {
            if self.to.message.headers.get(name).is_none() {
                self.to.message.headers.append(name.clone(), value.clone());
            }
        }
        self.dispatch().await
    }

    /// Sends a value as JSON.
    ///
    /// # Errors
    /// As [`Publisher::send`].
    pub async fn send_json<T: Serialize + ?Sized>(mut self, value: &T) -> Result<(), Error> {
        self.to.message.payload = Some(to_json(value)?);
        if self.to.message.headers.get(names::CONTENT_TYPE).is_none() {
            self.to.message.headers.append(CONTENT_TYPE, JSON);
        }
        self.dispatch().await
    }

    /// Sends bytes as they are; say what they are with `.header("content-type", …)`.
    ///
    /// # Errors
    /// As [`Publisher::send`].
    pub async fn send_bytes(mut self, payload: impl Into<Bytes>) -> Result<(), Error> {
        self.to.message.payload = Some(payload.into());
        self.dispatch().await
    }

    async fn dispatch(self) -> Result<(), Error> {
        let Self { publisher, to } = self;
        if let Address::Topic(topic) = &to.to {
            check_topic(topic)?;
        }
        publisher
            .publish(vec![to])
            .await
            .pop()
            .unwrap_or_else(no_answer)
            .map(drop)
    }
}

/// Names and values that own nothing.
const CONTENT_TYPE: ByteString = ByteString::from_static(names::CONTENT_TYPE);
const JSON: Value = Value::Text(ByteString::from_static("application/json"));
const SCHEMA_VERSION: ByteString = ByteString::from_static(names::SCHEMA_VERSION);
const MESSAGE_ID: ByteString = ByteString::from_static(names::MESSAGE_ID);
const TIMESTAMP: ByteString = ByteString::from_static(names::TIMESTAMP);

/// A typed message as it travels, of this time in milliseconds since 1970.
pub(crate) fn encode<M: Message + Serialize>(message: &M, now: i64) -> Result<RawMessage, Error> {
    let payload = to_json(message)?;
    let id = (MESSAGE_ID, Value::Text(scratch::id(now)));
    let time = (TIMESTAMP, Value::Int(now));
    let headers = match M::VERSION {
        Some(version) => Headers::from([(CONTENT_TYPE, JSON), (SCHEMA_VERSION, version.into()), id, time]),
        None => Headers::from([(CONTENT_TYPE, JSON), id, time]),
    };
    Ok(RawMessage {
        key: message.key(),
        headers,
        payload: Some(payload),
    })
}

/// Whether what a handler publishes will be refused again: a message is at fault, or goes to the address that a request asked
/// for, which is nobody's.
pub(crate) fn is_hopeless(error: &Error, emit: &[Outgoing]) -> bool {
    let answers = |outgoing: &Outgoing| matches!(outgoing.to, Address::Reply(_));
    error.kind().is_of_message() || (error.kind() == ErrorKind::Topology && emit.iter().any(answers))
}

/// What [`is_hopeless`] is as an outcome: a failure of the handler, or the message would stay unsettled for ever.
pub(crate) fn refused(error: &Error) -> Outcome {
    Outcome::Failed(HandlerError::permanent(format!(
        "what it publishes is refused: {error}"
    )))
}

/// Gives a message its id and time, where it has none.
pub(crate) fn stamp(message: &mut RawMessage) {
    let headers = &mut message.headers;
    if headers.get(names::MESSAGE_ID).is_none() {
        headers.append(MESSAGE_ID, Value::Text(scratch::id(now())));
    }
    if headers.get(names::TIMESTAMP).is_none() {
        headers.append(TIMESTAMP, now());
    }
}

/// The time, in milliseconds since 1970.
pub(crate) fn now() -> i64 {
    millis(SystemTime::now())
}

/// Milliseconds since 1970.
pub(crate) fn millis(time: SystemTime) -> i64 {
    time.duration_since(UNIX_EPOCH)
        .map_or(0, |since| since.as_millis() as i64)
}

fn typed<M: Message + Serialize>(topic: Arc<str>, message: &M, now: i64) -> Result<Outgoing, Error> {
    Ok(Outgoing::to_topic(topic, encode(message, now)?))
}

/// A topic that the program states. The one asked for last was checked then: most threads send to few.
pub(crate) fn known_topic(topic: &'static str) -> Result<Arc<str>, Error> {
    thread_local! {
        static LAST: RefCell<Option<Arc<str>>> = const { RefCell::new(None) };
    }
    LAST.with_borrow_mut(|last| match last {
        Some(last) if **last == *topic => Ok(last.clone()),
        _ => {
            check_topic(topic)?;
            Ok(last.insert(topic.into()).clone())
        }
    })
}

fn to_json<T: Serialize + ?Sized>(value: &T) -> Result<Bytes, Error> {
    let failed =
        |error| Error::new(ErrorKind::Rejected, "the message does not serialize to JSON").with_source(error);
    scratch::json(value).map_err(failed)
}

fn check_topic(topic: &str) -> Result<(), Error> {
    names::check_topic(topic)?;
    if names::is_reserved(topic) {
        let text = format!("topic {topic:?} ends like an internal topic: only the runtime publishes there");
        return Err(Error::new(ErrorKind::Rejected, text));
    }
    Ok(())
}

fn id_of(message: &RawMessage) -> ByteString {
    match message.headers.get(names::MESSAGE_ID) {
        Some(Value::Text(id)) => id.clone(),
        Some(other) => other.to_string().into(),
        None => ByteString::new(),
    }
}

fn no_answer() -> Result<Receipt, Error> {
    Err(Error::new(
        ErrorKind::Internal,
        "the adapter gave no answer for a message",
    ))
}
