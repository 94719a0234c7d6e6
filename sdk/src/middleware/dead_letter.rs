//! Given-up messages: what is added to them.

use super::retry::{Policy, replays};
use crate::contract::{Delivery, Headers, Message, Value, names};
use crate::publisher::{millis, stamp};

/// The longest text, in bytes, of an error that it was given up for before: there may be several.
const LONGEST_EARLIER_ERROR: usize = 1024;

/// The copy for the dead-letter topic: payload and headers as they were, and why.
pub(super) fn copy(
    policy: &Policy,
    delivery: &Delivery,
    attempts: u32,
    reason: &str,
    error: &str,
) -> Message {
    let now = policy.clock.now();
    let (first_failure, position) = policy.history(delivery, attempts, now);
    let mut copy = delivery.message.clone();
    copy.headers = earlier(&delivery.message.headers);
    let mut add = |name: &'static str, value: Value| copy.headers.append(name, value);
    add(names::DEAD_REASON, reason.into());
    add(names::DEAD_ERROR, error.into());
    add(names::DEAD_ATTEMPTS, attempts.into());
    add(names::DEAD_REPLAYS, u32::from(replays(delivery)).into());
    add(names::DEAD_FIRST_FAILURE, first_failure.into());
    add(names::DEAD_LAST_FAILURE, millis(now).into());
    add(names::DEAD_TOPIC, (&*policy.topic).into());
    add(names::DEAD_GROUP, (&*policy.group).into());
    add(names::DEAD_POSITION, position);
    add(names::DEAD_APPLICATION, (&*policy.application).into());
    add(names::DEAD_HOPS, hops(&delivery.message).saturating_add(1).into());
    stamp(&mut copy);
    copy
}

/// How often a message has become a dead letter.
pub(super) fn hops(message: &Message) -> i64 {
    let hops = message.headers.get(names::DEAD_HOPS);
    hops.and_then(Value::as_i64).unwrap_or(0).max(0)
}

/// Whether its history names this topic and group: the last level is called as written, each one before it by `before` more.
pub(super) fn was_given_up_by(message: &Message, topic: &str, group: &str) -> bool {
    let mut level = (names::DEAD_TOPIC.to_owned(), names::DEAD_GROUP.to_owned());
    while let Some(given_up) = message.headers.get_str(&level.0) {
        if given_up == topic && message.headers.get_str(&level.1) == Some(group) {
            return true;
        }
        level = (names::before(&level.0), names::before(&level.1));
    }
    false
}

/// The message's headers, with what it was given up for before out of the way of what is to be added.
fn earlier(headers: &Headers) -> Headers {
    let ours = [
        names::ATTEMPT,
        names::REPLAYS,
        names::FIRST_FAILURE,
        names::POSITION,
    ];
    let mut earlier = Headers::new();
    for (name, value) in headers.entries() {
        if name.starts_with(names::DEAD_PREFIX) || name.starts_with(names::BEFORE_PREFIX) {
            let value = match value.as_str() {
                Some(text) => shortened(text).into(),
                None => value.clone(),
            };
            earlier.append(names::before(name), value);
        } else if !ours.contains(&&**name) {
            earlier.append(name.clone(), value.clone());
        }
    }
    earlier
}

fn shortened(text: &str) -> &str {
    let mut end = text.len().min(LONGEST_EARLIER_ERROR);
    while !text.is_char_boundary(end) {
        end -= 1;
    }
    &text[..end]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn long_errors_are_cut_between_characters() {
        let text = "ä".repeat(600);
        assert_eq!(shortened(&text).len(), 1024);
        let odd = format!("x{text}");
        assert_eq!(shortened(&odd).len(), 1023);
        assert_eq!(shortened("short"), "short");
    }
}
