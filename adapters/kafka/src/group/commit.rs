//! Commits what is settled, on a thread of its own: a commit waits for the broker, and fetching must not.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

use postrider_contract::ErrorKind;
use rdkafka::TopicPartitionList;
use rdkafka::consumer::{BaseConsumer, CommitMode, Consumer};
use rdkafka::error::{KafkaResult, RDKafkaErrorCode as Code};
use rdkafka::topic_partition_list::Offset;

use super::cut_off::Watch;
use super::health::Obstacle;
use super::lane::Word;
use super::member::Member;
use super::state::{Shared, State};
use crate::failure::{code, coded, failure, kind};
use crate::inspector::metadata;
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

/// Commits and waits for the answer; an error where something could not be committed.
pub(crate) fn commit(shared: &Shared, consumer: &BaseConsumer<Member>, which: Which<'_>) -> KafkaResult<()> {
    let _one_at_a_time = lock(&shared.committing);
    let collected = collect(&mut shared.lock(), which)?;
    let mut result = Ok(());
    // Each topic by itself: of several an error does not tell which, and one may be gone for good.
    for (list, taken) in collected.values() {
        let mut committed = consumer.commit(list, CommitMode::Sync);
        if committed.as_ref().err().and_then(code) == Some(Code::OffsetMetadataTooLarge) {
            committed = commit_short(shared, consumer, list);
        }
        let mut state = shared.lock();
        for lane in taken {
            lane.note(&mut state, committed.is_ok());
        }
        shared.wake(&mut state);
        result = result.and(committed);
    }
    result
}

/// How long a note may be, in bytes, where the broker does not take all of it.
const SHORTER: [usize; 3] = [1000, 200, 0];

/// The positions with the beginning of what is noted beside them, or alone, where the broker does not take all of it. It
/// does not tell of which partition.
fn commit_short(
    shared: &Shared,
    consumer: &BaseConsumer<Member>,
    list: &TopicPartitionList,
) -> KafkaResult<()> {
    if !std::mem::replace(&mut shared.lock().bare, true) {
        tracing::warn!(
            "the broker refuses some of what is noted beside positions, and they are committed with less: after a restart more \
             comes again than needed. Is its `offset.metadata.max.bytes` below 4096?"
        );
    }
    let mut committed = Ok(());
    for longest in SHORTER {
        let mut short = TopicPartitionList::new();
        for element in list.elements() {
            let mut to = short.add_partition(element.topic(), element.partition());
            to.set_offset(element.offset())?;
            to.set_metadata(beginning(&metadata(&element), longest));
        }
        committed = consumer.commit(&short, CommitMode::Sync);
        if committed.as_ref().err().and_then(code) != Some(Code::OffsetMetadataTooLarge) {
            break;
        }
    }
    committed
}

/// As many words of a note as fit: each beginning of one says less, and nothing that is wrong.
fn beginning(note: &str, longest: usize) -> &str {
    match note.get(..longest) {
        Some(some) => &some[..some.rfind(' ').unwrap_or(0)],
        None => note,
    }
}

/// What is committed of a lane.
struct Taken {
    id: usize,
    epoch: u32,
    position: i64,
    /// Everything below is told to be delivered.
    marked: Option<i64>,
}

impl Taken {
    fn note(&self, state: &mut State, is_committed: bool) {
        let lane = state.lanes.get_mut(self.id);
        let Some(lane) = lane.filter(|lane| lane.epoch == self.epoch) else {
            return;
        };
        if is_committed {
            state.note_committed(self.id, self.position, self.marked);
        } else {
            lane.dirty = true;
            state.dirty = true;
        }
    }
}

/// By topic.
type Collected = BTreeMap<String, (TopicPartitionList, Vec<Taken>)>;

fn collect(state: &mut State, which: Which<'_>) -> KafkaResult<Collected> {
    let mut collected = Collected::new();
    for (id, lane) in state.lanes.iter_mut().enumerate() {
        let (wanted, word) = match which {
            Which::Dirty => (lane.dirty, Word::Interim),
            Which::Leaving(lanes) => (lanes.contains(&id), Word::Handover),
            Which::AllLeaving => (true, Word::Farewell),
        };
        if !wanted || !lane.is_assigned() {
            continue;
        }
        let marked = lane.marked();
        if let Some((position, progress)) = lane.progress(word) {
            let (list, taken) = collected
                .entry(lane.route.name.clone())
                .or_insert_with(|| (TopicPartitionList::new(), Vec::new()));
            let mut element = list.add_partition(&lane.route.name, lane.partition);
            element.set_offset(Offset::Offset(position))?;
            element.set_metadata(progress.encode(position));
            taken.push(Taken {
                id,
                epoch: lane.epoch,
                position,
                marked,
            });
        }
        lane.dirty = false;
    }
    if matches!(which, Which::Dirty) {
        (state.dirty, state.hurry) = (false, false);
    }
    Ok(collected)
}

/// The committing thread: until the consumer leaves, or is cut off. Commits may fail for so long before that is told.
pub(crate) fn run(
    shared: &Shared,
    consumer: &Arc<BaseConsumer<Member>>,
    interval: Duration,
    patience: Duration,
    mut watch: Watch,
) {
    let mut failing: Option<Instant> = None;
    loop {
        if !shared.lock().dirty {
            // Nothing is left of what failed, as where it was revoked.
            failing = None;
        }
        if !wait_for_work(shared) {
            return;
        }
        // What is settled within the interval goes into one commit.
        if !pause_until(shared, interval, |state| state.hurry) {
            return;
        }
        let degraded = shared.lock().degraded;
        if degraded && !watch.recovered(shared, consumer) {
            failing = None;
            continue;
        }
        let begun = Instant::now();
        let Err(error) = commit(shared, consumer, Which::Dirty) else {
            failing = None;
            shared.note(Obstacle::Uncommitted, None);
            continue;
        };
        tracing::debug!(%error, "a commit failed and is tried again");
        match code(&error) {
            Some(code) if is_refusal(code) => shared.fail(coded("committing", code)),
            // What is gone is told by itself.
            Some(code) if kind(code) == ErrorKind::Topology => failing = None,
            // For a while the group may be changing hands: what is still ours is committed under its new generation.
            _ if failing.get_or_insert(begun).elapsed() >= patience => {
                let what = "what is settled cannot be committed, and would come again after a restart";
                shared.note(Obstacle::Uncommitted, Some(&failure(what, &error)));
            }
            _ => {}
        }
        if !pause(shared, PAUSE) {
            return;
        }
    }
}

/// Whether the broker refuses the commit itself. That it refuses the connection is told to the consumer's context, with the
/// reason: the code alone is that of one that broke, too.
fn is_refusal(code: Code) -> bool {
    kind(code) == ErrorKind::Denied && !matches!(code, Code::Authentication | Code::SSL)
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
    pause_until(shared, length, |_| false)
}

/// The same, or until there is cause to go on.
fn pause_until(shared: &Shared, length: Duration, cause: impl Fn(&State) -> bool) -> bool {
    let deadline = Instant::now() + length;
    let mut state = shared.lock();
    while state.is_working() {
        if cause(&state) {
            return true;
        }
        let left = deadline.saturating_duration_since(Instant::now());
        if left.is_zero() {
            return true;
        }
        let waited = shared.work.wait_timeout(state, left);
        state = waited.unwrap_or_else(std::sync::PoisonError::into_inner).0;
    }
    false
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_connection_that_breaks_refuses_no_commit() {
        assert!(is_refusal(Code::GroupAuthorizationFailed));
        for code in [Code::Authentication, Code::SSL, Code::BrokerTransportFailure] {
            assert!(!is_refusal(code), "{code}");
        }
    }
}
