//! The delay ladder: durable delays of any length out of queues with a fixed time to live each.
//!
//! Level `n` is a quorum queue whose messages expire after 2^n units of 100 ms, and an exchange before it. A routing key
//! begins with the delay in binary, one word a bit, the highest first; the exchange of level `n` sends a message whose bit
//! `n` is 1 into the queue, and one whose bit is 0 on to level `n - 1`. An expired message goes on to level `n - 1` as well,
//! and behind level 0 to its destination. A message so waits in the queues of the bits that are 1, which add up to its
//! delay, and no queue ever holds one that expires after a later one.
//!
//! The levels belong to the virtual host, not to a listener. Dead-lettering between them is at-least-once, and a full
//! queue rejects what is published: a message is confirmed, or refused, never dropped.

use std::fmt::Write as _;
use std::time::Duration;

use crate::layout::LADDER;

/// What one step of a delay is.
pub(crate) const UNIT: Duration = Duration::from_millis(100);
/// How many levels there are.
pub(crate) const LEVELS: u32 = 20;
/// The longest delay: 29 h 7 min. One unit is kept back, because a delay is rounded up.
pub(crate) const LONGEST: Duration = Duration::from_millis(100 * ((1 << LEVELS) - 2));
/// How many bytes a routing key has before the destination.
pub(crate) const KEY_OVERHEAD: usize = 2 * LEVELS as usize + 2;

/// What a message in the ladder is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Destination<'a> {
    /// A group's inbox, by its name.
    Inbox(&'a str),
    /// A topic.
    Topic(&'a str),
}

impl Destination<'_> {
    fn words(self) -> (char, impl AsRef<str>) {
        match self {
            Self::Inbox(name) => ('i', name),
            Self::Topic(name) => ('t', name),
        }
    }
}

/// The exchange of a level, and its queue, which has the same name.
pub(crate) fn level(n: u32) -> String {
    format!("{LADDER}{n:02}")
}

/// How long a message waits in a level, in milliseconds.
pub(crate) fn wait_ms(n: u32) -> u64 {
    100 << n
}

/// Binds a level's queue to its exchange: the bit is 1.
pub(crate) fn stays(n: u32) -> String {
    bit_pattern(n, '1')
}

/// Binds the next exchange to a level's: the bit is 0.
pub(crate) fn passes(n: u32) -> String {
    bit_pattern(n, '0')
}

/// Binds a queue to the ladder's exit.
pub(crate) fn arrives(to: Destination<'_>) -> String {
    let (kind, name) = to.words();
    format!("{}{kind}.{}", "*.".repeat(LEVELS as usize), name.as_ref())
}

/// Matches everything of one kind at the ladder's exit.
pub(crate) fn arrives_any(kind: char) -> String {
    format!("{}{kind}.#", "*.".repeat(LEVELS as usize))
}

/// The exchange and routing key for a delay, which is rounded up to whole units. `None`: it is longer than the ladder.
pub(crate) fn route(delay: Duration, to: Destination<'_>) -> Option<(String, String)> {
    let units = delay.as_millis().div_ceil(UNIT.as_millis()).max(1);
    let units = u64::try_from(units).ok().filter(|units| units >> LEVELS == 0)?;
    let (kind, name) = to.words();
    let name = name.as_ref();
    let mut key = String::with_capacity(KEY_OVERHEAD + name.len());
    for n in (0..LEVELS).rev() {
        key.push(if units >> n & 1 == 1 { '1' } else { '0' });
        key.push('.');
    }
    let _ = write!(key, "{kind}.{name}");
    // The levels above the highest bit would only pass it on.
    Some((level(units.ilog2()), key))
}

/// What the routing key of a message that left the ladder says; `None`: it is none of ours.
pub(crate) fn destination(key: &str) -> Option<Destination<'_>> {
    let bits = 2 * LEVELS as usize;
    let (path, rest) = key.split_at_checked(bits)?;
    let well_formed = path
        .as_bytes()
        .chunks(2)
        .all(|word| matches!(word, [b'0' | b'1', b'.']));
    if !well_formed {
        return None;
    }
    match rest.split_once('.')? {
        ("i", name) => Some(Destination::Inbox(name)),
        ("t", name) => Some(Destination::Topic(name)),
        _ => None,
    }
}

fn bit_pattern(n: u32, bit: char) -> String {
    format!("{}{bit}.#", "*.".repeat((LEVELS - 1 - n) as usize))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What a topic exchange does with a pattern of `*` and a last `#`.
    fn matches(pattern: &str, key: &str) -> bool {
        let mut words = key.split('.');
        for part in pattern.split('.') {
            match part {
                "#" => return true,
                "*" if words.next().is_some() => {}
                literal if words.next() == Some(literal) => {}
                _ => return false,
            }
        }
        words.next().is_none()
    }

    /// Walks a message through the bindings and adds up what it waits.
    fn walk(delay: Duration, to: Destination<'_>) -> (Duration, u32) {
        let (entry, key) = route(delay, to).unwrap();
        let mut waited = Duration::ZERO;
        let mut hops = 0;
        let mut n: u32 = entry.strip_prefix(LADDER).unwrap().parse().unwrap();
        loop {
            assert_ne!(matches(&stays(n), &key), matches(&passes(n), &key));
            if matches(&stays(n), &key) {
                waited += Duration::from_millis(wait_ms(n));
                hops += 1;
            }
            if n == 0 {
                break;
            }
            n -= 1;
        }
        assert!(matches(&arrives(to), &key));
        assert_eq!(destination(&key), Some(to));
        (waited, hops)
    }

    #[test]
    fn waits_add_up_and_are_never_early() {
        let to = Destination::Inbox("order.created.inventory");
        for ms in [0, 1, 99, 100, 101, 250, 1_000, 12_345, 3_600_000, 86_400_000] {
            let delay = Duration::from_millis(ms);
            let (waited, hops) = walk(delay, to);
            assert!(
                waited >= delay && waited <= delay + UNIT,
                "{ms} ms waits {waited:?}"
            );
            assert!(hops <= LEVELS);
        }
        walk(LONGEST, Destination::Topic("a"));
        assert!(LONGEST > Duration::from_secs(24 * 3600));
        assert_eq!(route(LONGEST + 3 * UNIT, to), None);
    }

    #[test]
    fn short_delays_enter_low() {
        let (entry, _) = route(Duration::from_millis(200), Destination::Inbox("q")).unwrap();
        assert_eq!(entry, "postrider.delay.01");
    }

    #[test]
    fn kinds_are_told_apart_and_foreign_keys_are_none() {
        let (_, key) = route(UNIT, Destination::Topic("a.b")).unwrap();
        assert_eq!(destination(&key), Some(Destination::Topic("a.b")));
        assert!(matches(&arrives_any('t'), &key) && !matches(&arrives_any('i'), &key));
        assert!(!matches(&arrives(Destination::Topic("b")), &key));
        for foreign in [
            "",
            "order.created",
            "0.1.0.i.x",
            "ä.ä.ä.ä.ä.ä.ä.ä.ä.ä.ä.ä.ä.ä.ä.i.x",
        ] {
            assert_eq!(destination(foreign), None);
        }
        let (_, key) = route(UNIT, Destination::Inbox(&"x".repeat(255 - KEY_OVERHEAD))).unwrap();
        assert_eq!(key.len(), 255);
    }

    #[test]
    fn any_delay_is_waited_and_no_more() {
        bolero::check!()
            .with_type::<(u32, String)>()
            .for_each(|(ms, name)| {
                let delay = Duration::from_millis((*ms).into());
                for to in [Destination::Inbox(name), Destination::Topic(name)] {
                    if delay > LONGEST + UNIT {
                        assert_eq!(route(delay, to), None);
                    } else {
                        let (waited, hops) = walk(delay, to);
                        assert!(waited >= delay && waited < delay + 2 * UNIT && hops <= LEVELS);
                    }
                }
            });
    }

    #[test]
    fn any_routing_key_is_ours_or_none() {
        bolero::check!().with_type::<String>().for_each(|key| {
            let begun = route(UNIT, Destination::Topic("")).map(|(_, begun)| begun);
            let begun = begun.unwrap_or_default();
            for key in [key.clone(), begun + key] {
                // What is taken for ours is bound as ours would be.
                assert!(
                    destination(&key).is_none_or(|to| matches(&arrives(to), &key)),
                    "{key:?}"
                );
            }
        });
    }
}
