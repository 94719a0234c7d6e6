//! Partitions that no broker leads, while others are led: nothing else tells that they stand still.

use postrider_contract::{Error, ErrorKind};
use rdkafka::metadata::MetadataTopic;

use super::lane::Lane;
use super::state::State;

/// The partition of which librdkafka logs (context `metadata`) that it has no leader.
pub(super) fn missed(line: &str) -> Option<(&str, i32)> {
    let (place, _) = line.split_once("] Leader -1 ")?;
    let (topic, partition) = place.rsplit_once(" [")?;
    Some((topic.rsplit(' ').next()?, partition.parse().ok()?))
}

/// What a listener is told that waits for one.
pub(super) fn error(topic: &str, partition: i32) -> Error {
    let text = format!("no Kafka broker that is up leads partition {partition} of topic `{topic}`");
    Error::new(ErrorKind::Unavailable, text)
}

impl State {
    /// Whether this partition is ours.
    pub(super) fn is_assigned(&self, topic: &str, partition: i32) -> bool {
        let lane = self.lane_of(topic, partition);
        lane.and_then(|id| self.lanes.get(id))
            .is_some_and(Lane::is_assigned)
    }

    /// Whether all that is ours of a topic has a leader.
    pub(super) fn is_led(&self, topic: &MetadataTopic) -> bool {
        let mut partitions = topic.partitions().iter();
        partitions.all(|partition| partition.leader() >= 0 || !self.is_assigned(topic.name(), partition.id()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn log_lines_are_read() {
        let line = "[thrd:main]: Topic a.b [12] Leader -1 Epoch 3";
        assert_eq!(missed(line), Some(("a.b", 12)));
        for other in ["", "[thrd:main]: Topic a.b [12] Leader 1 Epoch 3", "] Leader -1 "] {
            assert_eq!(missed(other), None);
        }
    }
}
