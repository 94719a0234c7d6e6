use std::ops::Deref;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use crate::contract::{self, Bytes, Message, Value, names};
use crate::listener::{Context, Extract, HandlerError, Reason};

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
