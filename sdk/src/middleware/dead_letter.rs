//! Given-up messages: what is added to them, and how a listener on a dead-letter topic reads it.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use super::retry::{Policy, history, replays};
use crate::contract::{Delivery, Message, Value, names};
use crate::listener::{Context, Extract, HandlerError, Reason};
use crate::publisher::{millis, stamp};

/// The longest error text that a dead letter carries, in bytes.
const LONGEST_ERROR: usize = 4096;

/// The copy for the dead-letter topic: payload and headers as they were, and why.
pub(super) fn copy(
    policy: &Policy,
    delivery: &Delivery,
    attempts: u32,
    reason: &str,
    error: &str,
) -> Message {
    let now = SystemTime::now();
    let (first_failure, position) = history(delivery, now);
    let mut copy = delivery.message.clone();
    let hops = copy
        .headers
        .get(names::DEAD_HOPS)
        .and_then(Value::as_i64)
        .unwrap_or(0);
    let ours = [
        names::ATTEMPT,
        names::REPLAYS,
        names::FIRST_FAILURE,
        names::POSITION,
    ];
    copy.headers
        .retain(|name, _| !name.starts_with(names::DEAD_PREFIX) && !ours.contains(&name));
    let mut add = |name: &'static str, value: Value| copy.headers.append(name, value);
    add(names::DEAD_REASON, reason.into());
    add(names::DEAD_ERROR, shortened(error).into());
    add(names::DEAD_ATTEMPTS, attempts.into());
    add(names::DEAD_REPLAYS, u32::from(replays(delivery)).into());
    add(names::DEAD_FIRST_FAILURE, first_failure.into());
    add(names::DEAD_LAST_FAILURE, millis(now).into());
    add(names::DEAD_TOPIC, (&*policy.topic).into());
    add(names::DEAD_GROUP, (&*policy.group).into());
    add(names::DEAD_POSITION, position);
    add(names::DEAD_APPLICATION, (&*policy.application).into());
    add(names::DEAD_HOPS, hops.saturating_add(1).into());
    stamp(&mut copy);
    copy
}

fn shortened(text: &str) -> &str {
    let mut end = text.len().min(LONGEST_ERROR);
    while !text.is_char_boundary(end) {
        end -= 1;
    }
    &text[..end]
}

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
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct DeadLetter {
    /// Why: `retries_exhausted`, `permanent`, `decode`, `too_large`, `crash_loop`…
    pub reason: String,
    /// The error's text, at most 4 KiB.
    pub error: String,
    /// How many attempts were made.
    pub attempts: u32,
    /// How often it had been replayed.
    pub replays: u32,
    /// When the first attempt failed.
    pub first_failure: SystemTime,
    /// When the last attempt failed.
    pub last_failure: SystemTime,
    /// The topic it was published to.
    pub topic: String,
    /// The group that gave up.
    pub group: String,
    /// Where the original lay, as its broker writes it.
    pub position: String,
    /// The application that gave up.
    pub application: String,
}

impl DeadLetter {
    /// Reads it from a dead letter's headers; `None` where they are missing.
    pub fn from_message(message: &Message) -> Option<Self> {
        let text = |name| message.headers.get(name).map(ToString::to_string);
        let number = |name| message.headers.get(name).and_then(Value::as_i64).unwrap_or(0);
        let time = |name| UNIX_EPOCH + Duration::from_millis(u64::try_from(number(name)).unwrap_or(0));
        Some(Self {
            reason: text(names::DEAD_REASON)?,
            error: text(names::DEAD_ERROR).unwrap_or_default(),
            attempts: u32::try_from(number(names::DEAD_ATTEMPTS)).unwrap_or(0),
            replays: u32::try_from(number(names::DEAD_REPLAYS)).unwrap_or(0),
            first_failure: time(names::DEAD_FIRST_FAILURE),
            last_failure: time(names::DEAD_LAST_FAILURE),
            topic: text(names::DEAD_TOPIC)?,
            group: text(names::DEAD_GROUP)?,
            position: text(names::DEAD_POSITION).unwrap_or_default(),
            application: text(names::DEAD_APPLICATION).unwrap_or_default(),
        })
    }
}

impl Extract for DeadLetter {
    fn extract(cx: &Context) -> Result<Self, HandlerError> {
        let missing = || HandlerError::with_reason(Reason::Rejected, "the message is no dead letter of ours");
        Self::from_message(cx.message()).ok_or_else(missing)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn long_errors_are_cut_between_characters() {
        let text = "ä".repeat(3000);
        assert_eq!(shortened(&text).len(), 4096);
        let odd = format!("x{text}");
        assert_eq!(shortened(&odd).len(), 4095);
        assert_eq!(shortened("short"), "short");
    }
}
