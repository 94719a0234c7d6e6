//! Retries that nobody reads: somebody made the topic again with fewer partitions than some of them go with.

use postrider_contract::{Error, ErrorKind};

use super::routes::Routes;

/// The topic and how many partitions it has, if that is what librdkafka logs (context `metadata`).
pub(super) fn told(line: &str) -> Option<(&str, i32)> {
    let (topic, rest) = line.split_once(" with ")?;
    let (partitions, _) = rest.split_once(" partitions")?;
    Some((topic.rsplit(' ').next()?, partitions.parse().ok()?))
}

impl Routes {
    /// What a listener is told whose topic has so many partitions, if retries go with more.
    pub(super) fn strands(&self, partitions: i32) -> Option<Error> {
        let retry = self.retry.as_ref().filter(|_| partitions < self.retry_lanes)?;
        let text = format!(
            "topic `{}` was made again with {partitions} partitions, and retries in topic `{}` go with {}: some are read by \
             nobody until it has as many",
            self.topic.name, retry.name, self.retry_lanes
        );
        Some(Error::new(ErrorKind::Topology, text))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn log_lines_are_read() {
        let line = "[thrd:main]: 127.0.0.1:9092/1:   Topic a.b with 12 partitions";
        assert_eq!(told(line), Some(("a.b", 12)));
        let gone = "[thrd:main]: x:   Topic a.b with 0 partitions: Broker: Unknown topic or partition";
        assert_eq!(told(gone), Some(("a.b", 0)));
        for other in [
            "",
            "Topic a.b [12] Leader 1 Epoch 3",
            "a with b partitions",
            "with 1",
        ] {
            assert_eq!(told(other), None);
        }
    }
}
