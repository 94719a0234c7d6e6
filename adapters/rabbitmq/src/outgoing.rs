//! From an address to an exchange and a routing key.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, SystemTime};

use lapin::BasicProperties;
use postrider_contract::{Address, ByteString, Bytes, Error, ErrorKind, Message, Outgoing, Value, names};
use tokio::sync::oneshot;

use crate::ladder::{self, Destination};
use crate::layout::{INBOX, MARKS};
use crate::options::Settings;
use crate::properties;
use crate::publisher::Answer;
use crate::topology::Topology;

/// RabbitMQ's `frame_max` unless it is configured otherwise.
const USUAL_FRAME: usize = 128 * 1024;

/// A message that is ready to be sent.
pub(crate) struct Parcel {
    pub(crate) exchange: Arc<str>,
    pub(crate) routing_key: Arc<str>,
    pub(crate) properties: BasicProperties,
    pub(crate) payload: Bytes,
    /// Finds it among what is in flight when the broker returns it.
    pub(crate) mark: Mark,
    pub(crate) unroutable: Unroutable,
    /// For the error of a publish whose fate is unknown.
    pub(crate) message_id: Option<ByteString>,
    /// Told what became of it where that is known only after its batch was answered; dropped where it never will be.
    pub(crate) late: Option<oneshot::Sender<Answer>>,
}

/// How a returned message is recognised.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Mark {
    /// By its message id, and where it was sent.
    MessageId(ByteString),
    /// It has none, so it carries a number of ours.
    Number(i64),
}

/// What it means that nobody receives it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Unroutable {
    /// A fact for the receipt.
    Told,
    /// The topic has no receiver, and one was required.
    NoReceiver,
    /// Something that the adapter declares is missing.
    Missing,
}

static NUMBER: AtomicU64 = AtomicU64::new(0);

/// Prepares one. `copy`: it is a copy that takes the place of an original, and must not be lost.
pub(crate) fn parcel(
    settings: &Settings,
    topology: &Topology,
    outgoing: Outgoing,
    copy: bool,
) -> Result<Parcel, Error> {
    let now = SystemTime::now();
    let delay = outgoing
        .not_before
        .and_then(|due| due.duration_since(now).ok())
        .filter(|delay| !delay.is_zero());
    let layout = topology.layout();
    let (exchange, routing_key, internal, unroutable) = match &outgoing.to {
        Address::Topic(topic) => {
            let dead_letters = topology.is_dead_letter_topic(topic);
            let unroutable = match (outgoing.require_receiver, dead_letters && copy) {
                (_, true) => Unroutable::Missing,
                (true, false) => Unroutable::NoReceiver,
                (false, false) => Unroutable::Told,
            };
            match delay {
                None => (layout.exchange.clone(), topic.clone(), dead_letters, unroutable),
                Some(delay) => {
                    let (exchange, key) = delayed(delay, Destination::Topic(topic))?;
                    (exchange, key, dead_letters, Unroutable::Missing)
                }
            }
        }
        Address::Inbox { topic, group } => {
            let inbox = layout.inbox(topic, group);
            let (exchange, key) = match delay {
                None => (INBOX.into(), inbox.into()),
                Some(delay) => delayed(delay, Destination::Inbox(&inbox))?,
            };
            (exchange, key, true, Unroutable::Missing)
        }
        Address::Reply(queue) => {
            if delay.is_some() {
                return Err(Error::new(
                    ErrorKind::Unsupported,
                    "a reply cannot be delayed on RabbitMQ: send it at once",
                ));
            }
            let queue = std::str::from_utf8(queue)
                .map_err(|_| Error::new(ErrorKind::Rejected, "the reply-to address is no queue name"))?;
            let unroutable = if outgoing.require_receiver {
                Unroutable::NoReceiver
            } else {
                Unroutable::Told
            };
            ("".into(), queue.into(), false, unroutable)
        }
        other => {
            return Err(Error::new(
                ErrorKind::Unsupported,
                format!("the RabbitMQ adapter has no address such as {other:?}"),
            ));
        }
    };
    // Whatever was received can be put back: only what is new is limited.
    let (size, allowed) = (outgoing.message.payload_size(), settings.max_payload);
    if size > allowed && !internal {
        return Err(Error::new(
            ErrorKind::TooLarge,
            format!("the payload has {size} bytes, and `max_payload` allows {allowed}"),
        ));
    }
    if !internal {
        outgoing.message.headers.check()?;
    }
    let for_stream = matches!(&outgoing.to, Address::Topic(topic) if topology.is_dead_letter_topic(topic));
    let mut parcel = built(exchange, routing_key, outgoing.message, for_stream)?;
    parcel.unroutable = unroutable;
    // Copies grow: what an application sends leaves room for that.
    let room = if internal {
        USUAL_FRAME
    } else {
        USUAL_FRAME - names::HEADROOM
    };
    let headers = properties::header_frame_size(&parcel.properties);
    if headers > room {
        return Err(Error::new(
            ErrorKind::TooLarge,
            format!(
                "the headers have about {headers} bytes, and RabbitMQ takes {room}: send fewer or shorter ones"
            ),
        ));
    }
    Ok(parcel)
}

/// A mark for a dead-letter stream.
pub(crate) fn mark(stream: &str, message: Message) -> Result<Parcel, Error> {
    built(MARKS.into(), stream.into(), message, true)
}

/// The message of an inbox that was unrouted for a while, on its way again.
pub(crate) fn rerouted(inbox: &str, properties: BasicProperties, payload: Vec<u8>) -> Parcel {
    let properties = properties::without_traces(properties);
    let mark = match properties.message_id() {
        Some(id) => Mark::MessageId(id.as_str().into()),
        None => Mark::Number(number()),
    };
    Parcel {
        exchange: INBOX.into(),
        routing_key: inbox.into(),
        properties: marked(properties, &mark),
        payload: payload.into(),
        mark,
        unroutable: Unroutable::Missing,
        message_id: None,
        late: None,
    }
}

fn built(
    exchange: Arc<str>,
    routing_key: Arc<str>,
    message: Message,
    for_stream: bool,
) -> Result<Parcel, Error> {
    let message_id = match message.headers.get(names::MESSAGE_ID) {
        Some(Value::Text(id)) if id.len() <= 255 => Some(id.clone()),
        _ => None,
    };
    let mark = match &message_id {
        Some(id) => Mark::MessageId(id.clone()),
        None => Mark::Number(number()),
    };
    if routing_key.len() > 255 {
        return Err(Error::new(
            ErrorKind::Rejected,
            format!(
                "the address has {} bytes, AMQP allows 255: shorten the names",
                routing_key.len()
            ),
        ));
    }
    Ok(Parcel {
        exchange,
        routing_key,
        properties: marked(properties::outbound(&message, for_stream)?, &mark),
        payload: message.payload.unwrap_or_default(),
        mark,
        unroutable: Unroutable::Missing,
        message_id,
        late: None,
    })
}

/// With what tells it when it is returned.
fn marked(properties: BasicProperties, mark: &Mark) -> BasicProperties {
    match mark {
        Mark::Number(number) => properties::with_return_tag(properties, *number),
        Mark::MessageId(_) => properties,
    }
}

fn delayed(delay: Duration, to: Destination<'_>) -> Result<(Arc<str>, Arc<str>), Error> {
    let route = ladder::route(delay, to).map(|(exchange, key)| (exchange.into(), key.into()));
    route.ok_or_else(|| {
        Error::new(
            ErrorKind::Unsupported,
            format!(
                "a delay of {delay:?} is longer than the delay ladder carries ({:?})",
                ladder::LONGEST
            ),
        )
    })
}

fn number() -> i64 {
    NUMBER.fetch_add(1, Ordering::Relaxed) as i64
}
