//! Which topic of a name it is: one that is deleted and made anew is another, and positions on the former say nothing of it.
//!
//! librdkafka goes on in the new topic where it was in the old one, if that has so many messages already ("FIXME: an offset
//! reset must be triggered", `rd_kafka_topic_metadata_update` of 2.12.1). It knows the topic's id (KIP-516), and tells it
//! nowhere but in a log line.

use std::sync::Arc;

/// More is no word of ours.
const LONGEST: usize = 200;
/// What librdkafka makes of the id where the broker tells none: brokers before Kafka 2.8, and services beside Kafka.
const NONE: &str = ":AAAAAAAAAAAAAAAAAAAAAA";

/// The ids of a cluster and of a topic in it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Incarnation {
    word: Arc<str>,
}

/// What a position of one incarnation says in another.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Relation {
    /// They are one.
    Same,
    /// The topic was made anew: nothing.
    Successor,
    /// They are topics of different clusters, one a copy of the other: about where to go on.
    Copy,
}

impl Incarnation {
    /// `None` where they are not known, or cannot be written down.
    pub(crate) fn new(cluster: &str, topic: &str) -> Option<Self> {
        Self::read(&format!("{cluster}:{topic}")).filter(|_| !topic.contains(':'))
    }

    /// From the word that stands for it, if it is one.
    pub(crate) fn read(word: &str) -> Option<Self> {
        let is_word = word.contains(':') && word.len() <= LONGEST && !word.contains(' ');
        let is_known = is_word && !word.ends_with(NONE);
        is_known.then(|| Self { word: word.into() })
    }

    /// One word, to be written down.
    pub(crate) fn word(&self) -> &str {
        &self.word
    }

    /// What `other` is to this one.
    pub(crate) fn relation(&self, other: &Self) -> Relation {
        let cluster = |one: &Self| one.word.rsplit_once(':').map(|(cluster, _)| cluster.to_owned());
        if self == other {
            Relation::Same
        } else if cluster(self) == cluster(other) {
            Relation::Successor
        } else {
            Relation::Copy
        }
    }
}

/// The topic and its new id, if that is what a log line of librdkafka tells (context `metadata`): also of one that it sees
/// for the first time.
pub(crate) fn told(line: &str) -> Option<(&str, &str)> {
    let (_, rest) = line.split_once("Topic ")?;
    let (topic, ids) = rest.split_once(" changed id from ")?;
    let (_, id) = ids.split_once(" to ")?;
    Some((topic, id))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn log_lines_are_read() {
        let line = "[thrd:main]: Topic a.b changed id from AAAAAAAAAAAAAAAAAAAAAA to zP4m/x+Q";
        assert_eq!(told(line), Some(("a.b", "zP4m/x+Q")));
        for other in [
            "",
            "[thrd:main]: Topic a.b [0] Leader 1 Epoch 0",
            "Topic a changed id from",
        ] {
            assert_eq!(told(other), None);
        }
    }

    #[test]
    fn clusters_and_topics_are_told_apart() {
        let one = Incarnation::new("c:1", "t").unwrap();
        assert_eq!(Incarnation::read(one.word()), Some(one.clone()));
        for (cluster, topic, relation) in [
            ("c:1", "t", Relation::Same),
            ("c:1", "u", Relation::Successor),
            ("c:2", "t", Relation::Copy),
            ("c", "1:t", Relation::Copy),
        ] {
            let other = Incarnation::new(cluster, topic);
            assert_eq!(
                other.map_or(Relation::Copy, |other| one.relation(&other)),
                relation
            );
        }
        assert_eq!(Incarnation::new("a b", "t"), None);
        assert_eq!(Incarnation::new("c:1", "AAAAAAAAAAAAAAAAAAAAAA"), None);
        assert_eq!(Incarnation::read("12+3"), None);
    }
}
