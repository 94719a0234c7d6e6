//! Depths, as the broker knows them.

use postrider_contract::{Error, Sharing, Spec, Status};

use crate::dead_letters::Resolved;
use crate::inspector::{Inspector, committed};
use crate::naming::{consumer_group, resolved_topic, retry_topic};
use crate::options::Settings;
use crate::progress::Progress;

/// The depths of one subscription. Blocks.
pub(crate) fn status(settings: &Settings, inspector: &Inspector, spec: &Spec) -> Result<Status, Error> {
    let group = consumer_group(spec, &settings.client.instance);
    let retrying = match spec.sharing {
        Sharing::Group => lag(
            settings,
            inspector,
            &group,
            &retry_topic(spec.topic(), &spec.group),
        )?,
        Sharing::Broadcast => Some(0),
    };
    Ok(Status {
        waiting: lag(settings, inspector, &group, spec.topic())?,
        // The broker knows what is committed, not what is being handled: that is part of what waits.
        unsettled: None,
        retrying,
        dead: match &spec.dead_letter {
            Some(topic) => dead(settings, inspector, topic)?,
            None => None,
        },
    })
}

/// What a group has not settled of a topic; `None`: the topic does not exist.
fn lag(settings: &Settings, inspector: &Inspector, group: &str, topic: &str) -> Result<Option<u64>, Error> {
    let Some(partitions) = inspector.partitions(topic)? else {
        return Ok(None);
    };
    let positions = committed(settings, group, topic, partitions)?;
    let extents = inspector.extents(topic, partitions)?;
    let mut waiting = 0;
    for (extent, position) in extents.iter().zip(positions) {
        let (position, ahead) = match position {
            Some((offset, metadata)) => (offset.max(extent.low), Progress::decode(&metadata, offset).ahead),
            None => (extent.low, Vec::new()),
        };
        let done: i64 = ahead
            .iter()
            .map(|range| (range.end.min(extent.high) - range.start.max(position)).max(0))
            .sum();
        waiting += (extent.high - position - done).max(0).unsigned_abs();
    }
    Ok(Some(waiting))
}

/// How many dead letters are neither replayed nor purged.
fn dead(settings: &Settings, inspector: &Inspector, topic: &str) -> Result<Option<u64>, Error> {
    let Some(partitions) = inspector.partitions(topic)? else {
        return Ok(None);
    };
    let extents = inspector.extents(topic, partitions)?;
    let held: i64 = extents.iter().map(|extent| extent.high - extent.low).sum();
    let mut resolved = Resolved::new(resolved_topic(topic));
    resolved.refresh(settings, inspector)?;
    let gone = (0..)
        .zip(&extents)
        .map(|(partition, extent)| resolved.count(partition, *extent));
    Ok(Some(held.unsigned_abs().saturating_sub(gone.sum())))
}
