//! Where a group begins: recorded when it is first declared, so that nothing published afterwards is missed.

use postrider_contract::{Error, Start};
use rdkafka::TopicPartitionList;
use rdkafka::consumer::{CommitMode, Consumer};
use rdkafka::error::RDKafkaErrorCode as Code;
use rdkafka::topic_partition_list::Offset;

use crate::failure::{code, failure};
use crate::inspector::{Extent, Inspector, committed, outsider};
use crate::options::Settings;
use crate::progress::Progress;

/// What is asked of a group's position on a topic.
pub(crate) struct Beginning<'a> {
    /// Kafka's name of the group.
    pub(crate) group: &'a str,
    /// Kafka's topic, which exists.
    pub(crate) topic: &'a str,
    /// How many partitions it has.
    pub(crate) partitions: i32,
    /// Where a new group begins.
    pub(crate) start: Start,
    /// The group had been declared before: then missing positions have expired.
    pub(crate) declared_before: bool,
    /// It begins anew each time.
    pub(crate) every_time: bool,
}

/// Commits a new group's position. Blocks.
pub(crate) fn begin(settings: &Settings, inspector: &Inspector, what: &Beginning<'_>) -> Result<(), Error> {
    // One that goes on needs to know no more, which a partition without a leader cannot tell.
    if what.declared_before && has_position(settings, what)? {
        return Ok(());
    }
    // In this order: two instances that begin at once agree that the one of them that commits last commits offsets from
    // before the first one's answer.
    let extents = inspector.extents(what.topic, what.partitions)?;
    if !what.every_time && has_position(settings, what)? {
        return Ok(());
    }
    let from_oldest = what.start == Start::Earliest || what.declared_before;
    if what.start == Start::New && what.declared_before {
        tracing::warn!(
            group = what.group,
            topic = what.topic,
            "the group's positions have expired (the broker's offsets.retention.minutes): it goes on with the oldest \
             message, so that none is lost; some come a second time"
        );
    }
    let pick = |extent: &Extent| if from_oldest { extent.low } else { extent.high };
    let offsets: Vec<i64> = extents.iter().map(pick).collect();
    commit(settings, what, &offsets)
}

/// Whether the group has a position, or one is kept for it.
pub(crate) fn has_position(settings: &Settings, what: &Beginning<'_>) -> Result<bool, Error> {
    let positions = committed(settings, what.group, what.topic, what.partitions)?;
    Ok(positions.iter().any(Option::is_some))
}

fn commit(settings: &Settings, what: &Beginning<'_>, offsets: &[i64]) -> Result<(), Error> {
    let problem = |error| {
        let (group, topic) = (what.group, what.topic);
        failure(
            &format!("committing where group `{group}` begins on topic `{topic}`"),
            &error,
        )
    };
    let mut list = TopicPartitionList::with_capacity(offsets.len());
    for (partition, &offset) in offsets.iter().enumerate() {
        let mut element = list.add_partition(what.topic, partition as i32);
        element.set_offset(Offset::Offset(offset)).map_err(problem)?;
        element.set_metadata(Progress::default().encode(offset));
    }
    let committed = outsider(settings, what.group)?.commit(&list, CommitMode::Sync);
    match committed {
        // Only members may commit for a running group: whoever started it has declared it.
        Err(error)
            if matches!(
                code(&error),
                Some(Code::UnknownMemberId | Code::IllegalGeneration | Code::RebalanceInProgress)
            ) =>
        {
            Ok(())
        }
        other => other.map_err(problem),
    }
}
