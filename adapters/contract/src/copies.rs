//! The return path's bookkeeping, the same in every adapter.

use crate::{Bytes, Headers, Message, Origin, Value, names};

/// The origin of a message that the adapter knows came through the inbox: reads `postrider-attempt` and
/// `postrider-replays`. Only for such messages: from anywhere else these headers are not trusted.
pub fn return_path(message: &Message) -> Origin {
    let number = |name| message.headers.get(name).and_then(Value::as_i64);
    let attempt = number(names::ATTEMPT)
        .and_then(|n| u32::try_from(n).ok())
        .filter(|&n| n > 0)
        .unwrap_or(1);
    let replays = number(names::REPLAYS)
        .and_then(|n| u16::try_from(n).ok())
        .unwrap_or(0);
    Origin::ReturnPath { attempt, replays }
}

/// The copy that a replay sends to the group's inbox: attempt 1, one replay more, nothing of what the dead letter added.
pub fn replay_copy(dead: &Message) -> Message {
    let replays = dead
        .headers
        .get(names::DEAD_REPLAYS)
        .and_then(Value::as_i64)
        .unwrap_or(0);
    let mut copy = undo_dead_letter(dead);
    copy.headers.set(names::REPLAYS, replays.saturating_add(1));
    copy
}

/// The message as it was before it was given up. One that was a dead letter then is one again.
pub fn undo_dead_letter(dead: &Message) -> Message {
    let ours = [
        names::ATTEMPT,
        names::REPLAYS,
        names::FIRST_FAILURE,
        names::POSITION,
    ];
    let mut headers = Headers::new();
    for (name, value) in dead.headers.entries() {
        if name.starts_with(names::DEAD_PREFIX) || ours.contains(&&**name) {
            continue;
        }
        match names::after(name) {
            Some(before) => headers.append(before, value.clone()),
            None => headers.append(name.clone(), value.clone()),
        }
    }
    Message {
        headers,
        ..dead.clone()
    }
}

/// A stable identity for a dead letter: its message id with its source position, or the position alone.
pub fn dead_letter_id(dead: &Message) -> Bytes {
    let text = |name| dead.headers.get(name).and_then(Value::as_str).unwrap_or_default();
    Bytes::from(format!(
        "{}@{}",
        text(names::MESSAGE_ID),
        text(names::DEAD_POSITION)
    ))
}
