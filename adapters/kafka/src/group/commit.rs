//! Commits what is settled, on a thread of its own: a commit waits for the broker, and fetching must not.

use std::sync::Arc;
use std::time::{Duration, Instant};

use postrider_contract::ErrorKind;
use rdkafka::TopicPartitionList;
use rdkafka::consumer::{BaseConsumer, CommitMode, Consumer};
use rdkafka::error::KafkaResult;
use rdkafka::topic_partition_list::Offset;

use super::cut_off::Watch;
use super::member::Member;
use super::state::{Shared, State};
use crate::failure::{code, coded, kind};
use crate::lock::lock;

/// After a commit that failed.
const PAUSE: Duration = Duration::from_millis(500);

/// Which lanes are committed.
#[derive(Clone, Copy)]
pub(crate) enum Which<'a> {
    /// All that have something to say.
    Dirty,
    /// These, which are being given back: the last word on them.
    Leaving(&'a [usize]),
    /// All of them, likewise.
    AllLeaving,
}

/// Commits and waits for the answer.
pub(crate) fn commit(shared: &Shared, consumer: &BaseConsumer<Member>, which: Which<'_>) -> KafkaResult<()> {
    let _one_at_a_time = lock(&shared.committing);
    let (list, taken) = collect(&mut shared.lock(), which)?;
    if taken.is_empty() {
        return Ok(());
    }
    let committed = consumer.commit(&list, CommitMode::Sync);
    let mut state = shared.lock();
    for (id, epoch, position) in taken {
        let Some(lane) = state.lanes.get_mut(id).filter(|lane| lane.epoch == epoch) else {
            continue;
        };
        if committed.is_ok() {
            lane.committed = Some(position);
        } else {
            lane.dirty = true;
            state.dirty = true;
        }
    }
    committed
}

type Taken = Vec<(usize, u32, i64)>;

fn collect(state: &mut State, which: Which<'_>) -> KafkaResult<(TopicPartitionList, Taken)> {
    let mut list = TopicPartitionList::new();
    let mut taken = Taken::new();
    for (id, lane) in state.lanes.iter_mut().enumerate() {
        let (wanted, leaving) = match which {
            Which::Dirty => (lane.dirty, false),
            Which::Leaving(lanes) => (lanes.contains(&id), true),
            Which::AllLeaving => (true, true),
        };
        if !wanted || !lane.is_assigned() {
            continue;
        }
        if let Some((position, progress)) = lane.progress(leaving) {
            let mut element = list.add_partition(&lane.route.name, lane.partition);
            element.set_offset(Offset::Offset(position))?;
            element.set_metadata(progress.encode(position));
            taken.push((id, lane.epoch, position));
        }
        lane.dirty = false;
    }
    if matches!(which, Which::Dirty) {
        state.dirty = false;
    }
    Ok((list, taken))
}

/// The committing thread: until the consumer leaves, or is cut off.
pub(crate) fn run(
    shared: &Shared,
    consumer: &Arc<BaseConsumer<Member>>,
    interval: Duration,
    mut watch: Watch,
) {
    while wait_for_work(shared) {
        // What is settled within the interval goes into one commit.
        if !pause(shared, interval) {
            return;
        }
        let degraded = shared.lock().degraded;
        if degraded && !watch.recovered(shared, consumer) {
            continue;
        }
        let Err(error) = commit(shared, consumer, Which::Dirty) else {
            continue;
        };
        match code(&error) {
            Some(code) if kind(code) == ErrorKind::Denied => shared.fail(coded("committing", code)),
            // The group is changing hands: what is still ours is committed under its new generation.
            _ => tracing::debug!(%error, "a commit failed and is tried again"),
        }
        if !pause(shared, PAUSE) {
            return;
        }
    }
}

/// Waits until something is to be committed or looked for; false: it is over.
fn wait_for_work(shared: &Shared) -> bool {
    let mut state = shared.lock();
    while state.is_working() && !state.dirty && !state.degraded {
        state.work_waits = true;
        state = shared
            .work
            .wait(state)
            .unwrap_or_else(std::sync::PoisonError::into_inner);
    }
    state.work_waits = false;
    state.is_working()
}

/// Sleeps; false: it is over.
pub(super) fn pause(shared: &Shared, length: Duration) -> bool {
    let deadline = Instant::now() + length;
    let mut state = shared.lock();
    while state.is_working() {
        let left = deadline.saturating_duration_since(Instant::now());
        if left.is_zero() {
            return true;
        }
        let waited = shared.work.wait_timeout(state, left);
        state = waited.unwrap_or_else(std::sync::PoisonError::into_inner).0;
    }
    false
}
