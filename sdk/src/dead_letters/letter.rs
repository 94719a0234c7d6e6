use std::ops::Deref;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use crate::contract::{self, Bytes, Message, Value, names};
use crate::listener::{Context, Extract, HandlerError, Reason};
use crate::middleware::MOST_HOPS;

/// So many times at most is a message given up: a longer history is not ours, and is not read.
const DEEPEST: usize = MOST_HOPS as usize;

/// Why a message became a dead letter: a parameter of a listener on a dead-letter topic, which is a topic like others.
///
/// ```
/// use postrider::prelude::*;
///
/// #[listener(topic = "order.created.inventory.dlq", group = "alarm")]
/// async fn alarm(order: Bytes, dead: DeadLetter) {
///     println!("{} gave up after {} attempts: {}", dead.group, dead.attempts, dead.error);
/// }
/// ```
#[derive(Debug, Clone, PartialEq)]
#[non_exhaustive]
pub struct DeadLetter {
    /// Why: `retries_exhausted`, `too_old`, `permanent`, `decode`, `too_large`, `crash_loop`… In a list also `unknown`: it was put there
    /// by other hands, the broker's own for instance.
    pub reason: String,
    /// The error's text, at most 4 KiB.
    pub error: String,
    /// How many attempts were made.
    pub attempts: u32,
    /// How often it had been replayed.
    pub replays: u32,
    /// When the first attempt failed. 1970 where it is not known.
    pub first_failure: SystemTime,
    /// When the last attempt failed. 1970 where it is not known.
    pub last_failure: SystemTime,
    /// The topic it was published to.
    pub topic: String,
    /// The group that gave up.
    pub group: String,
    /// Where the original lay, as its broker writes it.
    pub position: String,
    /// The application that gave up.
    pub application: String,
    /// How often it has become a dead letter: more than once where a listener on a dead-letter topic gave up too.
    pub hops: u32,
    /// The message as it was before it was given up.
    pub original: Message,
    /// What it was given up for before, where `topic` is a dead-letter topic itself.
    pub before: Option<Box<DeadLetter>>,
}

impl DeadLetter {
    /// Reads it from a dead letter's headers; `None` where they are missing.
    pub fn from_message(message: &Message) -> Option<Self> {
        Self::of_level(message, 0)
    }

    /// What it was given up for the last time, the time before that…
    fn of_level(message: &Message, level: usize) -> Option<Self> {
        if level == DEEPEST {
            return None;
        }
        let get = |name: &str| message.headers.get(&at_level(name, level));
        get(names::DEAD_REASON)?;
        get(names::DEAD_TOPIC)?;
        get(names::DEAD_GROUP)?;
        Some(Self::told(message, level))
    }

    /// What is told, however little.
    fn told(message: &Message, level: usize) -> Self {
        let get = |name: &str| message.headers.get(&at_level(name, level));
        let text = |name| get(name).map(ToString::to_string).unwrap_or_default();
        let number = |name| get(name).and_then(Value::as_i64).unwrap_or(0);
        let count = |name| u32::try_from(number(name)).unwrap_or(0);
        let time = |name| UNIX_EPOCH + Duration::from_millis(u64::try_from(number(name)).unwrap_or(0));
        Self {
            reason: text(names::DEAD_REASON),
            error: text(names::DEAD_ERROR),
            attempts: count(names::DEAD_ATTEMPTS),
            replays: count(names::DEAD_REPLAYS),
            first_failure: time(names::DEAD_FIRST_FAILURE),
            last_failure: time(names::DEAD_LAST_FAILURE),
            topic: text(names::DEAD_TOPIC),
            group: text(names::DEAD_GROUP),
            position: text(names::DEAD_POSITION),
            application: text(names::DEAD_APPLICATION),
            hops: count(names::DEAD_HOPS),
            original: original(message, level),
            before: Self::of_level(message, level + 1).map(Box::new),
        }
    }
}

/// The header's name after so many more times of being given up.
fn at_level(name: &str, level: usize) -> String {
    let mut name = name.to_owned();
    for _ in 0..level {
        name = names::before(&name);
    }
    name
}

/// Without what giving it up has added, that time and later.
fn original(message: &Message, level: usize) -> Message {
    let mut original = message.clone();
    for _ in 0..=level {
        original = contract::undo_dead_letter(&original);
    }
    original
}

impl Extract for DeadLetter {
    fn extract(cx: &Context) -> Result<Self, HandlerError> {
        let missing = || HandlerError::with_reason(Reason::Rejected, "the message is no dead letter of ours");
        Self::from_message(cx.message()).ok_or_else(missing)
    }
}

/// A dead letter as it lies in its topic. What is told of it is read directly: `letter.reason`.
#[derive(Debug, Clone)]
#[non_exhaustive]
pub struct Listed {
    /// Names it in its topic: for [`Filter::ids`](super::Filter::ids), and as the cursor of
    /// [`DeadLetters::browse`](super::DeadLetters::browse).
    pub id: Bytes,
    /// Everything that lies there, with the headers that say why.
    pub message: Message,
    /// What these headers say.
    pub dead: DeadLetter,
}

impl Listed {
    pub(super) fn new(letter: contract::DeadLetter, source: &str, group: &str) -> Self {
        let contract::DeadLetter { id, message } = letter;
        let dead = DeadLetter::from_message(&message).unwrap_or_else(|| DeadLetter {
            reason: "unknown".to_owned(),
            topic: source.to_owned(),
            group: group.to_owned(),
            ..DeadLetter::told(&message, 0)
        });
        Self { id, message, dead }
    }
}

impl Deref for Listed {
    type Target = DeadLetter;

    fn deref(&self) -> &DeadLetter {
        &self.dead
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn depth(letter: &DeadLetter) -> usize {
        std::iter::successors(Some(letter), |letter| letter.before.as_deref()).count()
    }

    #[test]
    fn a_history_is_as_long_as_it_can_be() {
        let mut message = Message::new("x");
        for level in 0..400 {
            for name in [names::DEAD_REASON, names::DEAD_TOPIC, names::DEAD_GROUP] {
                message.headers.append(at_level(name, level), "forged");
            }
        }
        let letter = DeadLetter::from_message(&message).unwrap();
        assert_eq!(depth(&letter), DEEPEST);
    }

    /// Whatever headers say, a history is read or there is none, and the original keeps payload, key and all that is not
    /// ours.
    #[test]
    fn any_headers_are_a_history_or_none() {
        const NAMES: [&str; 14] = [
            names::DEAD_REASON,
            names::DEAD_TOPIC,
            names::DEAD_GROUP,
            names::DEAD_ERROR,
            names::DEAD_ATTEMPTS,
            names::DEAD_REPLAYS,
            names::DEAD_FIRST_FAILURE,
            names::DEAD_LAST_FAILURE,
            names::DEAD_POSITION,
            names::DEAD_HOPS,
            names::BEFORE_PREFIX,
            names::DEAD_PREFIX,
            names::MESSAGE_ID,
            "x",
        ];
        bolero::check!()
            .with_type::<Vec<(u8, u8, i64, Vec<u8>)>>()
            .for_each(|headers| {
                let mut message = Message::new("p").with_key("k");
                for (which, level, number, said) in headers {
                    let name = at_level(NAMES[usize::from(*which) % NAMES.len()], usize::from(level % 4));
                    let value = match std::str::from_utf8(said) {
                        _ if number % 2 == 0 => Value::Int(*number),
                        Ok(text) => Value::from(text),
                        Err(_) => Value::from(said.clone()),
                    };
                    message.headers.append(name, value);
                }
                let ours = |name: &str| {
                    name.starts_with(names::DEAD_PREFIX) || name.starts_with(names::BEFORE_PREFIX)
                };
                let kept = |message: &Message| {
                    let kept = message.headers.entries().iter().filter(|(name, _)| !ours(name));
                    kept.cloned().collect::<Vec<_>>()
                };
                let is_one = [names::DEAD_REASON, names::DEAD_TOPIC, names::DEAD_GROUP]
                    .iter()
                    .all(|name| message.headers.get(name).is_some());
                let letter = DeadLetter::from_message(&message);
                assert_eq!(letter.is_some(), is_one);
                let mut next = letter.as_ref();
                while let Some(letter) = next {
                    assert_eq!(letter.original.payload, message.payload);
                    assert_eq!(letter.original.key, message.key);
                    assert_eq!(kept(&letter.original), kept(&message));
                    next = letter.before.as_deref();
                }
            });
    }
}
