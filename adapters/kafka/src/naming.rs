//! What things are called in Kafka.

use postrider_contract::{Sharing, Spec, names};

/// On the return path: not before this time, in milliseconds since 1970.
pub(crate) const NOT_BEFORE: &str = "postrider-not-before";

/// A retry topic's partitions are divided among short, middle and long delays.
pub(crate) const DELAY_CLASSES: i32 = 3;

/// Where retries and replays for one group wait.
pub(crate) fn retry_topic(topic: &str, group: &str) -> String {
    format!("{topic}.{group}.retry")
}

/// The topic and the consumer group that a retry topic is for.
pub(crate) fn of_retry_topic(name: &str) -> Option<(&str, &str)> {
    let consumer_group = name.strip_suffix(".retry")?;
    let (topic, group) = consumer_group.rsplit_once('.')?;
    (!topic.is_empty() && !group.is_empty()).then_some((topic, consumer_group))
}

/// Which dead letters of a topic have been replayed or purged. Its suffix keeps applications from it.
pub(crate) fn resolved_topic(dead_letter_topic: &str) -> String {
    format!("{dead_letter_topic}.resolved.inbox")
}

/// The consumer group that a listener's group on its topic is in Kafka: one for each topic, so that the partitions of each
/// are shared out evenly, and no listener waits for the rebalance of another. Groups contain no dots and no `@`, so that no
/// other has its name.
pub(crate) fn consumer_group(spec: &Spec, instance: &str) -> String {
    let (topic, group) = (spec.topic(), &spec.group);
    match spec.sharing {
        Sharing::Group => format!("{topic}.{group}"),
        // Every instance is a group of its own.
        Sharing::Broadcast => format!("{topic}.{group}@{instance}"),
    }
}

/// What a topic is for, which decides how it is made.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Purpose {
    /// An application's own.
    Ordinary,
    /// Retries and replays of a group.
    Retry,
    /// Dead letters.
    DeadLetters,
    /// What has become of dead letters.
    Resolved,
}

impl Purpose {
    /// By the name, for topics that are published to without having been declared.
    pub(crate) fn of(topic: &str) -> Self {
        match topic.rsplit_once('.') {
            Some((_, "retry")) => Self::Retry,
            Some((_, "inbox")) => Self::Resolved,
            _ if names::is_reserved(topic) => Self::DeadLetters,
            _ => Self::Ordinary,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn retry_topics_tell_their_group() {
        assert_eq!(
            of_retry_topic(&retry_topic("a.dlq", "g")),
            Some(("a.dlq", "a.dlq.g"))
        );
        for other in ["a.dlq.g", "g.retry", ".g.retry", "a..retry", ".retry"] {
            assert_eq!(of_retry_topic(other), None, "{other}");
        }
    }

    #[test]
    fn purposes_by_name() {
        assert_eq!(Purpose::of("a.b"), Purpose::Ordinary);
        assert_eq!(Purpose::of(&retry_topic("a", "g")), Purpose::Retry);
        let dead = names::dead_letter_topic("a", "g");
        assert_eq!(Purpose::of(&dead), Purpose::DeadLetters);
        assert_eq!(Purpose::of(&resolved_topic(&dead)), Purpose::Resolved);
    }

    /// A retry topic belongs to one topic and group, whatever they are called; no legal topic of an application is one.
    #[test]
    fn any_legal_name_has_one_purpose() {
        const WORDS: [&str; 10] = [
            ".", ".", "a", "-", "_", "dlq", "retry", "inbox", "resolved", "\u{e4}",
        ];
        bolero::check!()
            .with_type::<(Vec<u8>, Vec<u8>)>()
            .for_each(|(topic, group)| {
                let name = |words: &[u8]| -> String {
                    words
                        .iter()
                        .map(|&word| WORDS[usize::from(word) % WORDS.len()])
                        .collect()
                };
                let (topic, group) = (name(topic), name(group));
                let _ = of_retry_topic(&topic);
                if names::check_topic(&topic).is_err() || names::check_group(&group).is_err() {
                    return;
                }
                let retry = retry_topic(&topic, &group);
                assert_eq!(
                    of_retry_topic(&retry),
                    Some((&*topic, &*format!("{topic}.{group}")))
                );
                assert_eq!(Purpose::of(&retry), Purpose::Retry);
                let dead = names::dead_letter_topic(&topic, &group);
                assert_eq!(Purpose::of(&dead), Purpose::DeadLetters);
                assert_eq!(Purpose::of(&resolved_topic(&dead)), Purpose::Resolved);
                if !names::is_reserved(&topic) {
                    assert_eq!(Purpose::of(&topic), Purpose::Ordinary);
                }
            });
    }
}
