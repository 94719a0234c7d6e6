//! Which Redis keys a topic and a group use.
//!
//! The topic's stream has the topic's own name, so that a program in another language finds it. Everything beside it is
//! `{topic}.<group>.<what>`: the braces put it into the same hash slot as the topic, so that one script may touch both.
//! A default dead-letter topic `a.g.dlq` is `{a}.g.dlq` for the same reason.

/// The pseudo-consumer that holds what an instance gave back until another takes it.
pub(crate) const RELEASED: &str = ":released";

/// Who holds the lease of a group's readers where they share.
pub(crate) const SHARED: &str = ":shared";

/// The key of a topic's stream.
pub(crate) fn topic(topic: &str) -> String {
    let (root, rest) = split(topic);
    if rest.is_empty() {
        root.to_owned()
    } else {
        format!("{{{root}}}{rest}")
    }
}

/// What decides the hash slot of a topic's keys: two topics with the same root may be touched by one script.
pub(crate) fn root(topic: &str) -> &str {
    split(topic).0
}

/// The stream of a group's private inbox.
pub(crate) fn inbox(topic: &str, group: &str) -> String {
    of_group(topic, group, "inbox")
}

/// The sorted set of what goes to a group's inbox later.
pub(crate) fn delayed(topic: &str, group: &str) -> String {
    of_group(topic, group, "delayed")
}

/// Names the one instance that reads for an ordered group, or says that instances share, and their longest lease.
pub(crate) fn leader(topic: &str, group: &str) -> String {
    of_group(topic, group, "leader")
}

/// What the keys begin with that note which Pub/Sub messages a group has claimed.
pub(crate) fn seen(topic: &str, group: &str) -> String {
    of_group(topic, group, "seen.")
}

/// Marks a message, by its id, as handled by a group.
pub(crate) fn handled(topic: &str, group: &str, id: &[u8]) -> Vec<u8> {
    let mut key = of_group(topic, group, "handled.").into_bytes();
    key.extend_from_slice(id);
    key
}

/// The sorted set of what goes to a topic later.
pub(crate) fn scheduled(topic: &str) -> String {
    beside(topic, "scheduled")
}

/// Marks a topic that holds dead letters without being called `.dlq`.
pub(crate) fn dead_letters(topic: &str) -> String {
    beside(topic, "dead-letters")
}

fn of_group(topic: &str, group: &str, what: &str) -> String {
    let (root, rest) = split(topic);
    format!("{{{root}}}{rest}.{group}.{what}")
}

fn beside(topic: &str, what: &str) -> String {
    let (root, rest) = split(topic);
    format!("{{{root}}}{rest}.{what}")
}

/// Splits `a.b.g.dlq` into `a.b` and `.g.dlq`: a group has no dots, so this is unambiguous.
fn split(topic: &str) -> (&str, &str) {
    let mut root = topic;
    while let Some((source, _group)) = root.strip_suffix(".dlq").and_then(|rest| rest.rsplit_once('.')) {
        root = source;
    }
    (root, &topic[root.len()..])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn everything_of_a_topic_shares_its_slot() {
        assert_eq!(topic("order.created"), "order.created");
        assert_eq!(inbox("order.created", "g"), "{order.created}.g.inbox");
        assert_eq!(
            handled("order.created", "g", b"7"),
            b"{order.created}.g.handled.7"
        );
        assert_eq!(scheduled("order.created"), "{order.created}.scheduled");
        assert_eq!(topic("order.created.g.dlq"), "{order.created}.g.dlq");
        assert_eq!(topic("a.g.dlq.h.dlq"), "{a}.g.dlq.h.dlq");
        assert_eq!(inbox("a.g.dlq", "h"), "{a}.g.dlq.h.inbox");
        assert_eq!(root("a.g.dlq"), root("a"));
    }

    #[test]
    fn a_dead_letter_topic_without_a_group_stands_alone() {
        assert_eq!(topic("failed.dlq"), "failed.dlq");
        assert_eq!(root("failed.dlq"), "failed.dlq");
    }
}
