//! How a publish ended, and what its publisher is told.

use postrider_contract::{Error, ErrorKind, Receipt};

use crate::confirms::Slot;
use crate::fault;
use crate::outgoing::Unroutable;
use crate::publisher::Answer;

/// What the broker says of a topic that may not be written to, before its name.
const TOPIC_REFUSED: &str = "access to topic '";

/// What a confirm said, returns aside.
pub(crate) enum Fate {
    Taken,
    Refused,
    Lost(lapin::Error),
}

/// What a publish's end means.
pub(crate) fn verdict(slot: &Slot, fate: Fate) -> Answer {
    let error = match fate {
        Fate::Taken if !slot.returned => return Ok(Receipt { received: true }),
        Fate::Taken => match slot.unroutable {
            Unroutable::Told => return Ok(Receipt { received: false }),
            Unroutable::NoReceiver => Error::new(
                ErrorKind::NoReceiver,
                format!("nobody receives `{}`: no queue is bound to it", slot.routing_key),
            ),
            Unroutable::Missing => Error::new(
                ErrorKind::NoReceiver,
                format!(
                    "`{}` leads nowhere from exchange `{}`: its queue is missing; declare the listener's topology again",
                    slot.routing_key, slot.exchange
                ),
            ),
        },
        // Where one of several queues refuses it, the others keep it.
        Fate::Refused => Error::new(
            ErrorKind::Unconfirmed,
            "the broker refused the message: a queue is full or has lost its majority; send it again under the same id",
        ),
        Fate::Lost(error) => lost(slot, &error),
    };
    Err(match &slot.message_id {
        Some(id) => error.with_message_id(id.clone()),
        None => error,
    })
}

/// The channel ended before the confirm came.
fn lost(slot: &Slot, error: &lapin::Error) -> Error {
    let text = fault::text(error);
    if fault::largest(error).is_some_and(|largest| slot.payload > largest) {
        return Error::new(
            ErrorKind::TooLarge,
            format!("the broker does not take it, whatever `max_payload` allows: {text}"),
        );
    }
    let exchange = &*slot.exchange;
    let kind = match fault::reply_code(error) {
        Some(code) if !exchange.is_empty() && text.contains(&format!("'{exchange}'")) => match code {
            // A refusal of one topic names the exchange as well: of all that was under way it concerns what was sent there.
            fault::ACCESS_REFUSED if text.contains(TOPIC_REFUSED) => {
                let own = format!("{TOPIC_REFUSED}{}' in exchange", slot.routing_key);
                if text.contains(&own) {
                    ErrorKind::Denied
                } else {
                    ErrorKind::Unconfirmed
                }
            }
            // One of the exchange concerns every publish to it: none was taken.
            fault::ACCESS_REFUSED => ErrorKind::Denied,
            fault::NOT_FOUND => ErrorKind::Unavailable,
            _ => ErrorKind::Unconfirmed,
        },
        _ => ErrorKind::Unconfirmed,
    };
    match kind {
        ErrorKind::Unconfirmed => Error::new(
            kind,
            format!("the connection was lost before the confirm came: {text}"),
        ),
        _ => Error::new(kind, format!("publishing to exchange `{exchange}`: {text}")),
    }
}
