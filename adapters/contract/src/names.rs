//! Names that every broker and every language agrees on: headers, internal topics, and what a topic may be called.

use crate::{Error, ErrorKind};

/// The message's id; ours are UUID v7. AMQP: the `message-id` property.
pub const MESSAGE_ID: &str = "message-id";
/// The payload's media type. AMQP: the `content-type` property.
pub const CONTENT_TYPE: &str = "content-type";
/// Ties a reply to its request. AMQP: the `correlation-id` property.
pub const CORRELATION_ID: &str = "correlation-id";
/// Where a reply goes. AMQP: the `reply-to` property.
pub const REPLY_TO: &str = "reply-to";
/// When it was published, in milliseconds since 1970. AMQP: the `timestamp` property, in seconds; Kafka: the record's
/// timestamp.
pub const TIMESTAMP: &str = "timestamp";
/// The W3C trace context.
pub const TRACEPARENT: &str = "traceparent";
/// The version of the payload's schema, a whole number.
pub const SCHEMA_VERSION: &str = "schema-version";

/// Every header of ours begins so; inbound copies are not trusted.
pub const OURS: &str = "postrider-";
/// On the return path: the attempt that this delivery is.
pub const ATTEMPT: &str = "postrider-attempt";
/// On the return path: how often it was replayed from the dead letters.
pub const REPLAYS: &str = "postrider-replays";
/// On the return path: when the first attempt failed, in milliseconds since 1970.
pub const FIRST_FAILURE: &str = "postrider-first-failure";
/// On the return path: where the original lay.
pub const POSITION: &str = "postrider-position";
/// Broker-control headers of the original (`x-death`, `expiration`…) are kept under this prefix and never sent live.
pub const ORIGINAL_PREFIX: &str = "postrider-original-";

/// Every header that a dead letter adds begins so.
pub const DEAD_PREFIX: &str = "postrider-dead-";
/// Why: `permanent`, `retries_exhausted`, `too_old`, `decode`, `too_large`, `crash_loop`…
pub const DEAD_REASON: &str = "postrider-dead-reason";
/// The error's text, at most 4 KiB.
pub const DEAD_ERROR: &str = "postrider-dead-error";
/// How many attempts were made.
pub const DEAD_ATTEMPTS: &str = "postrider-dead-attempts";
/// How often it had been replayed.
pub const DEAD_REPLAYS: &str = "postrider-dead-replays";
/// When the first attempt failed, in milliseconds since 1970.
pub const DEAD_FIRST_FAILURE: &str = "postrider-dead-first-failure";
/// When the last attempt failed, in milliseconds since 1970.
pub const DEAD_LAST_FAILURE: &str = "postrider-dead-last-failure";
/// The topic it was published to.
pub const DEAD_TOPIC: &str = "postrider-dead-topic";
/// The group that gave up.
pub const DEAD_GROUP: &str = "postrider-dead-group";
/// Where the original lay.
pub const DEAD_POSITION: &str = "postrider-dead-position";
/// The application that gave up.
pub const DEAD_APPLICATION: &str = "postrider-dead-application";
/// How often this message has become a dead letter of a dead-letter topic.
pub const DEAD_HOPS: &str = "postrider-dead-hops";
/// What a dead letter said that has become one again begins so: `postrider-before-dead-reason`.
pub const BEFORE_PREFIX: &str = "postrider-before-";

/// How many bytes of headers an internal topic must take beyond the size limit of payloads.
pub const HEADROOM: usize = 64 * 1024;

/// Suffixes of internal topics: no topic of an application ends so, but a listener may read a `.dlq`.
pub const RESERVED_SUFFIXES: [&str; 3] = [".dlq", ".retry", ".inbox"];

/// A header of ours as it is called after its message was given up once more.
pub fn before(name: &str) -> String {
    format!("{BEFORE_PREFIX}{}", name.strip_prefix(OURS).unwrap_or(name))
}

/// What a header was called before its message was given up the last time; `None`: it was not there then.
pub fn after(name: &str) -> Option<String> {
    name.strip_prefix(BEFORE_PREFIX)
        .map(|rest| format!("{OURS}{rest}"))
}

/// The dead-letter topic of a group on a topic, unless it is told another.
pub fn dead_letter_topic(topic: &str, group: &str) -> String {
    format!("{topic}.{group}.dlq")
}

/// Whether this is a dead-letter topic by its name.
pub fn is_dead_letter_topic(topic: &str) -> bool {
    let [dead_letters, ..] = RESERVED_SUFFIXES;
    topic.ends_with(dead_letters)
}

/// Whether this is an internal topic by its name.
pub fn is_reserved(topic: &str) -> bool {
    RESERVED_SUFFIXES.iter().any(|suffix| topic.ends_with(suffix))
}

/// How many bytes a topic and a group have together at most, with the dot that joins them: what RabbitMQ's delays leave of an
/// AMQP routing key. Kafka takes more.
pub const LONGEST_TOGETHER: usize = 213;

/// How many bytes a header's name has at most, as in AMQP.
pub const LONGEST_HEADER: usize = 255;

/// Checks a topic's name: 1 to 200 of `A-Z a-z 0-9 . _ -`, not only dots; `amq.` is RabbitMQ's own. Every broker takes such a
/// name; Kafka not beside another one that differs only in `.` and `_`.
pub fn check_topic(topic: &str) -> Result<(), Error> {
    check(
        "topic",
        topic,
        |c| c.is_ascii_alphanumeric() || matches!(c, '.' | '_' | '-'),
        "A-Z a-z 0-9 . _ -",
        200,
    )?;
    if topic.bytes().all(|b| b == b'.')
        || topic.starts_with('.')
        || topic.ends_with('.')
        || topic.contains("..")
    {
        return Err(config(format!(
            "topic {topic:?} has an empty part: write words joined by single dots"
        )));
    }
    if topic.starts_with("amq.") {
        return Err(config(format!(
            "topic {topic:?} begins with `amq.`, as RabbitMQ's own names do"
        )));
    }
    Ok(())
}

/// Checks a group's name: 1 to 100 of `A-Z a-z 0-9 _ -`. Without dots, so that names of internal topics are unambiguous, and
/// none of their last words.
pub fn check_group(group: &str) -> Result<(), Error> {
    let mut reserved = RESERVED_SUFFIXES.iter().map(|suffix| &suffix[1..]);
    if reserved.any(|word| word == group) {
        return Err(config(format!(
            "group {group:?} is the last word of internal topics"
        )));
    }
    check(
        "group",
        group,
        |c| c.is_ascii_alphanumeric() || matches!(c, '_' | '-'),
        "A-Z a-z 0-9 _ -",
        100,
    )
}

/// Whether every broker can carry a header of this name: at most [`LONGEST_HEADER`] bytes, and none of them zero, which ends it
/// for Kafka's clients.
#[inline]
pub(crate) fn is_header(name: &str) -> bool {
    name.len() <= LONGEST_HEADER && !has_nul(name.as_bytes())
}

/// Whatever is published is looked at, and most names have between 8 and 16 bytes.
#[inline]
fn has_nul(bytes: &[u8]) -> bool {
    const LOW: u64 = u64::from_ne_bytes([0x01; 8]);
    const HIGH: u64 = u64::from_ne_bytes([0x80; 8]);
    let nul = |word: &[u8; 8]| {
        let word = u64::from_ne_bytes(*word);
        word.wrapping_sub(LOW) & !word & HIGH
    };
    match (bytes.first_chunk(), bytes.last_chunk()) {
        (Some(first), Some(last)) if bytes.len() <= 16 => nul(first) | nul(last) != 0,
        _ => bytes.contains(&0),
    }
}

/// Why it is none.
#[cold]
pub(crate) fn wrong_header(name: &str) -> Error {
    let begin: String = name.chars().take(24).collect();
    let what = if name.len() > LONGEST_HEADER {
        format!("has {} bytes, at most {LONGEST_HEADER} are allowed", name.len())
    } else {
        "contains a NUL character, which ends it for Kafka's clients".to_owned()
    };
    Error::new(
        ErrorKind::Rejected,
        format!("the header name that begins with {begin:?} {what}: call it otherwise"),
    )
}

fn check(
    what: &str,
    name: &str,
    legal: impl Fn(char) -> bool,
    allowed: &str,
    longest: usize,
) -> Result<(), Error> {
    if name.is_empty() {
        return Err(config(format!("the {what} is empty")));
    }
    if name.len() > longest {
        let begin: String = name.chars().take(24).collect();
        return Err(config(format!(
            "{what} \"{begin}…\" has {} bytes, at most {longest} are allowed",
            name.len()
        )));
    }
    match name.chars().find(|&c| !legal(c)) {
        Some(c) => Err(config(format!(
            "{what} {name:?} contains {c:?}; allowed are {allowed}"
        ))),
        None => Ok(()),
    }
}

fn config(text: String) -> Error {
    Error::new(ErrorKind::Config, text)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn topics() {
        for good in ["a", "order.created", "A_b-9.c", &"x".repeat(200)] {
            assert!(check_topic(good).is_ok(), "{good}");
        }
        for bad in [
            "",
            ".",
            "a..b",
            ".a",
            "a.",
            "a b",
            "a/b",
            "a*",
            "#",
            "ä",
            "a\n",
            "amq.topic",
            &"x".repeat(201),
        ] {
            assert!(check_topic(bad).is_err(), "{bad}");
        }
        for bad in ["a.b", "dlq", "retry", "inbox"] {
            assert!(check_group(bad).is_err(), "{bad}");
        }
        assert!(is_reserved(&dead_letter_topic("a", "g")));
    }

    #[test]
    fn headers() {
        for length in 0..=LONGEST_HEADER {
            let good = "x".repeat(length);
            assert!(is_header(&good), "{good}");
            for at in 0..length {
                let bad = format!("{}\0{}", &good[..at], &good[at + 1..]);
                assert!(!is_header(&bad), "{bad:?}");
            }
        }
        assert!(is_header("\u{1}\u{80}\u{ff}\u{100}"));
        assert!(!is_header(&"x".repeat(LONGEST_HEADER + 1)));
    }
}
