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
        // Nothing else was renamed when it was given up: a forged name must not become one that counts in an inbox.
        let renamed = |name: &String| {
            [names::DEAD_PREFIX, names::BEFORE_PREFIX]
                .iter()
                .any(|ours| name.starts_with(ours))
        };
        match names::after(name).filter(renamed) {
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

#[cfg(test)]
mod tests {
    use super::*;

    /// Whoever wrote a dead letter: its replay is the first attempt, and keeps payload, key and what is not ours.
    #[test]
    fn any_dead_letter_is_replayed_as_the_first_attempt() {
        const NAMES: [&str; 10] = [
            names::ATTEMPT,
            names::REPLAYS,
            names::FIRST_FAILURE,
            names::POSITION,
            names::DEAD_REPLAYS,
            names::DEAD_REASON,
            names::MESSAGE_ID,
            "postrider-x",
            "x",
            "",
        ];
        bolero::check!()
            .with_type::<Vec<(u8, u8, i8)>>()
            .for_each(|headers| {
                let mut dead = Message::new("p").with_key("k");
                for (which, level, number) in headers {
                    let mut name = NAMES[usize::from(*which) % NAMES.len()].to_owned();
                    for _ in 0..level % 4 {
                        name = names::before(&name);
                    }
                    dead.headers.append(name, i64::from(*number));
                }
                let copy = replay_copy(&dead);
                assert_eq!((&copy.payload, &copy.key), (&dead.payload, &dead.key));
                let Origin::ReturnPath { attempt, replays } = return_path(&copy) else {
                    panic!("{copy:?}")
                };
                assert_eq!(attempt, 1, "{dead:?}");
                let before = dead
                    .headers
                    .get(names::DEAD_REPLAYS)
                    .and_then(Value::as_i64)
                    .unwrap_or(0);
                let before = u16::try_from(before).unwrap_or(0);
                assert!(replays == before.saturating_add(1) || replays == 0, "{dead:?}");
                let foreign = |message: &Message| {
                    let entries = message.headers.entries().iter();
                    entries
                        .filter(|(name, _)| !name.starts_with(names::OURS))
                        .cloned()
                        .collect::<Vec<_>>()
                };
                assert_eq!(foreign(&copy), foreign(&dead));
            });
    }
}
