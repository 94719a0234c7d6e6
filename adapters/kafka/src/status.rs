//! Depths, as the broker knows them.

use std::ops::Range;

use postrider_contract::{Error, Sharing, Spec, Status};

use crate::dead_letters::Resolved;
use crate::inspector::{Inspector, committed};
use crate::naming::{consumer_group, resolved_topic, retry_topic};
use crate::options::Settings;
use crate::progress::Progress;

/// The depths of one subscription. Blocks.
pub(crate) fn status(settings: &Settings, inspector: &Inspector, spec: &Spec) -> Result<Status, Error> {
    let group = consumer_group(spec, &settings.client.instance);
    let topic = depth(settings, inspector, &group, spec.topic())?;
    let retry = match spec.sharing {
        Sharing::Group => depth(
            settings,
            inspector,
            &group,
            &retry_topic(spec.topic(), &spec.group),
        )?,
        Sharing::Broadcast => Some(Depth::default()),
    };
    let held = |depth: Option<Depth>| depth.map_or(0, |depth| depth.held);
    Ok(Status {
        waiting: topic.map(|depth| depth.lag.saturating_sub(depth.held)),
        unsettled: topic.map(|_| held(topic) + held(retry)),
        retrying: retry.map(|depth| depth.lag.saturating_sub(depth.held)),
        dead: match &spec.dead_letter {
            Some(topic) => dead(inspector, topic)?,
            None => None,
        },
    })
}

/// How far a group is behind on a topic.
#[derive(Debug, Clone, Copy, Default)]
struct Depth {
    /// What is not settled.
    lag: u64,
    /// How much of that is being handled, as its consumers last committed.
    held: u64,
}

/// `None`: the topic does not exist.
fn depth(
    settings: &Settings,
    inspector: &Inspector,
    group: &str,
    topic: &str,
) -> Result<Option<Depth>, Error> {
    let Some(partitions) = inspector.partitions(topic)? else {
        return Ok(None);
    };
    let positions = committed(settings, group, topic, partitions)?;
    let extents = inspector.extents(topic, partitions)?;
    let mut all = Depth::default();
    for (extent, position) in extents.iter().zip(positions) {
        let (position, progress) = match position {
            Some((offset, metadata)) => (offset.max(extent.low), Progress::decode(&metadata, offset)),
            None => (extent.low, Progress::default()),
        };
        let within = |range: &Range<i64>| (range.end.min(extent.high) - range.start.max(position)).max(0);
        let done: i64 = progress.ahead.iter().map(within).sum();
        let lag = (extent.high - position - done).max(0).unsigned_abs();
        all.lag += lag;
        all.held += u64::from(progress.held).min(lag);
    }
    Ok(Some(all))
}

/// How many dead letters are neither replayed nor purged.
fn dead(inspector: &Inspector, topic: &str) -> Result<Option<u64>, Error> {
    let Some(partitions) = inspector.partitions(topic)? else {
        return Ok(None);
    };
    let extents = inspector.extents(topic, partitions)?;
    let held: i64 = extents.iter().map(|extent| extent.high - extent.low).sum();
    let mut resolved = Resolved::new(resolved_topic(topic));
    resolved.refresh(inspector)?;
    let gone = (0..)
        .zip(&extents)
        .map(|(partition, extent)| resolved.count(partition, *extent));
    Ok(Some(held.unsigned_abs().saturating_sub(gone.sum())))
}
