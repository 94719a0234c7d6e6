use std::sync::Arc;
use std::time::{Duration, SystemTime};

use postrider_contract::{Delivery, Error, ErrorKind, Event, Message, Token};

use super::fetch::flow;
use super::lane::{MARKED, MARKED_AT_ONCE, Word};
use super::routes::Route;
use super::state::{Awaited, LONGEST_SPAN, Shared, State};
use crate::incarnation::Incarnation;
use crate::progress::{Counts, Progress};
use crate::record::Inbound;

const NOW: SystemTime = SystemTime::UNIX_EPOCH;

fn route(return_path: bool) -> Arc<Route> {
    Arc::new(Route {
        name: if return_path { "t.g.retry" } else { "t" }.to_owned(),
        topic: "t".into(),
        return_path,
        boxes: 1,
    })
}

fn assigned(return_path: bool, start: i64, before: Progress) -> Shared {
    let shared = Shared::new(1, 1 << 20);
    shared.lock().assign(&route(return_path), 0, Some(start), before);
    shared
}

fn accept(state: &mut State, offset: i64, delay: Option<u64>) {
    let inbound = Inbound {
        message: Message::new(offset.to_string()),
        not_before: delay.map(|seconds| NOW + Duration::from_secs(seconds)),
    };
    state.accept(0, offset, inbound, NOW);
}

fn give(state: &mut State, max: usize) -> Vec<Delivery> {
    let mut into = Vec::new();
    state.give(0, max, &mut into);
    into
}

fn offsets(deliveries: &[Delivery]) -> Vec<u64> {
    deliveries
        .iter()
        .map(|delivery| delivery.position.offset)
        .collect()
}

fn committed(state: &State) -> (i64, Progress) {
    state.lanes[0].progress(Word::Interim).unwrap()
}

#[test]
fn tokens_of_an_old_assignment_are_stale() {
    let shared = assigned(false, 0, Progress::default());
    let mut state = shared.lock();
    (0..3).for_each(|offset| accept(&mut state, offset, None));
    let old = give(&mut state, 2);
    state.unassign(0);
    assert!(!state.acknowledge(old[0].token));
    assert!(give(&mut state, 9).is_empty(), "what waited is gone");
    state.assign(&route(false), 0, Some(0), Progress::default());
    (0..3).for_each(|offset| accept(&mut state, offset, None));
    let new = give(&mut state, 9);
    assert!(
        !state.acknowledge(old[0].token),
        "although the same message is out again"
    );
    assert_eq!(committed(&state).0, 0);
    assert!(state.acknowledge(new[0].token));
    assert!(!state.acknowledge(new[0].token), "settled once");
    assert_eq!(committed(&state).0, 1);
    let nowhere = Token {
        lane: 7,
        ..new[1].token
    };
    assert!(!state.acknowledge(nowhere));
}

#[test]
fn what_comes_back_keeps_its_place() {
    let shared = assigned(false, 0, Progress::default());
    let mut state = shared.lock();
    (0..5).for_each(|offset| accept(&mut state, offset, None));
    let given = give(&mut state, 3);
    // One by one and out of order.
    for which in [1, 0, 2] {
        assert_eq!(state.put_back(&[given[which].token]), [true]);
    }
    assert_eq!(state.put_back(&[given[0].token]), [false]);
    let again = give(&mut state, 9);
    assert_eq!(offsets(&again), [0, 1, 2, 3, 4]);
    assert!(
        !state.acknowledge(given[0].token),
        "its old token is no longer good"
    );
    assert_eq!(again[0].redeliveries, Some(0));
    assert_eq!(state.boxes[0].size, 0);
}

#[test]
fn delayed_ones_come_when_they_are_due() {
    let shared = assigned(true, 0, Progress::default());
    let mut state = shared.lock();
    for (offset, delay) in [(0, Some(30)), (1, Some(10)), (2, None), (3, Some(20))] {
        accept(&mut state, offset, delay);
    }
    assert_eq!(offsets(&give(&mut state, 9)), [2]);
    assert_eq!(
        state.release_due(NOW + Duration::from_millis(9_999)),
        Some(Duration::from_millis(1))
    );
    assert!(give(&mut state, 9).is_empty());
    state.release_due(NOW + Duration::from_secs(20));
    assert_eq!(offsets(&give(&mut state, 9)), [1, 3]);
    assert_eq!(state.lanes[0].delayed.0, 1);
    assert_eq!(state.release_due(NOW + Duration::from_secs(30)), None);
    assert_eq!(offsets(&give(&mut state, 9)), [0]);
    assert_eq!(state.lanes[0].delayed, (0, 0));
}

#[test]
fn a_straggler_is_overtaken() {
    let shared = assigned(true, 0, Progress::default());
    let mut state = shared.lock();
    accept(&mut state, 0, Some(86_400));
    for offset in 1..=LONGEST_SPAN as i64 / 2 {
        accept(&mut state, offset, None);
        let given = give(&mut state, 9);
        assert!(state.acknowledge(given[0].token));
    }
    assert_eq!(committed(&state).0, 0);
    let stragglers = state.stragglers();
    assert_eq!(stragglers.len(), 1);
    assert_eq!(stragglers[0].due, NOW + Duration::from_secs(86_400));
    state.overtake(&stragglers[0]);
    state.overtake(&stragglers[0]);
    assert_eq!(committed(&state).0, LONGEST_SPAN as i64 / 2 + 1);
    assert!(state.stragglers().is_empty());
    assert_eq!(state.release_due(NOW + Duration::from_secs(90_000)), None);
    assert!(give(&mut state, 9).is_empty());
}

/// The assignment before ended without a goodbye.
fn cut_short(counts: Counts) -> Progress {
    Progress {
        open: true,
        counts,
        ..Progress::default()
    }
}

/// The broker confirms what is to be committed now; answers what the next assignment finds.
fn confirm(state: &mut State) -> (i64, Progress) {
    let marked = state.lanes[0].marked();
    let (position, progress) = committed(state);
    state.note_committed(0, position, marked);
    state.hurry = false;
    (position, Progress::decode(&progress.encode(position), position))
}

fn redeliveries(deliveries: &[Delivery]) -> Vec<u32> {
    deliveries
        .iter()
        .filter_map(|delivery| delivery.redeliveries)
        .collect()
}

/// The process ends as soon as something is delivered, again and again.
#[test]
fn starts_without_a_verdict_are_counted() {
    let mut left = Progress::default();
    for life in 0..5 {
        let shared = assigned(false, 0, left.clone());
        let mut state = shared.lock();
        (0..3).for_each(|offset| accept(&mut state, offset, None));
        if life > 0 {
            assert!(give(&mut state, 9).is_empty(), "nothing would tell that it was");
            assert!(state.hurry);
            left = confirm(&mut state).1;
        }
        let given = give(&mut state, 9);
        assert_eq!(offsets(&given), [0, 1, 2]);
        assert_eq!(redeliveries(&given), [life; 3]);
        if life == 0 {
            left = confirm(&mut state).1;
        }
    }
    // What is settled is committed at once: nothing is held against what comes next.
    let shared = assigned(false, 0, left);
    let mut state = shared.lock();
    (0..5).for_each(|offset| accept(&mut state, offset, None));
    confirm(&mut state);
    let given = give(&mut state, 9);
    assert_eq!(redeliveries(&given), [5, 5, 5, 0, 0]);
    assert!(!state.hurry);
    assert!(state.acknowledge(given[1].token));
    assert!(state.hurry);
    // What is given back has not ended this process; what a handler still has, when it closes, may.
    state.put_back(&[given[0].token, given[3].token]);
    for (word, expected) in [
        (Word::Handover, [5, 5, 0, 0, 0]),
        (Word::Farewell, [5, 6, 0, 1, 0]),
    ] {
        let (position, goodbye) = state.lanes[0].progress(word).unwrap();
        assert!(!goodbye.open);
        let shared = assigned(false, position, goodbye);
        let mut next = shared.lock();
        (0..6).for_each(|offset| accept(&mut next, offset, None));
        let given = give(&mut next, 9);
        assert_eq!(offsets(&given), [0, 2, 3, 4, 5]);
        assert_eq!(redeliveries(&given), expected);
    }
}

/// What waits here was not delivered: nothing is held against it.
#[test]
fn marks_go_no_further_than_they_must() {
    let shared = assigned(true, 0, cut_short(Counts::default()));
    let mut state = shared.lock();
    let count = MARKED_AT_ONCE * 3;
    (0..count).for_each(|offset| accept(&mut state, offset, (offset == 1).then_some(1)));
    confirm(&mut state);
    assert_eq!(give(&mut state, 9).len(), 9);
    assert!(!state.hurry, "some that are marked wait");
    let (position, left) = confirm(&mut state);
    {
        let shared = assigned(true, position, left);
        let mut state = shared.lock();
        (0..count).for_each(|offset| accept(&mut state, offset, None));
        while state.hurry {
            confirm(&mut state);
            give(&mut state, usize::MAX);
        }
        let starts = |offset| state.lanes[0].tracker.get(offset).unwrap().starts;
        let counted: Vec<i64> = (0..count).filter(|&offset| starts(offset) > 0).collect();
        let expected: Vec<i64> = (0..MARKED_AT_ONCE).filter(|&offset| offset != 1).collect();
        assert_eq!(counted, expected);
    }
    let given = give(&mut state, usize::MAX);
    assert_eq!(given.len() as i64 + 9, MARKED_AT_ONCE - 1);
    assert!(state.hurry);
    confirm(&mut state);
    assert_eq!(give(&mut state, usize::MAX).len() as i64, MARKED_AT_ONCE);
}

/// What comes while a commit is under way is not in it.
#[test]
fn what_is_received_after_a_commit_was_made_is_not_marked_by_it() {
    let shared = assigned(false, 0, cut_short(Counts::default()));
    let mut state = shared.lock();
    (0..3).for_each(|offset| accept(&mut state, offset, None));
    let (marked, (position, _)) = (state.lanes[0].marked(), committed(&state));
    (3..5).for_each(|offset| accept(&mut state, offset, None));
    state.hurry = false;
    state.note_committed(0, position, marked);
    assert_eq!(offsets(&give(&mut state, 9)), [0, 1, 2]);
    assert!(state.hurry, "the next are asked for");
    confirm(&mut state);
    assert_eq!(offsets(&give(&mut state, 9)), [3, 4]);
}

/// A range of counts may begin with what is settled by now.
#[test]
fn counts_of_what_is_partly_settled_are_read_again() {
    let mut before = cut_short(Counts::new(
        (10..20).map(|offset| (offset, 1)),
        &Counts::default(),
    ));
    before.ahead = vec![11..18, 30..31];
    let shared = assigned(false, 10, before);
    let mut state = shared.lock();
    (10..15).for_each(|offset| accept(&mut state, offset, None));
    confirm(&mut state);
    let given = give(&mut state, 9);
    assert_eq!(offsets(&given), [10]);
    assert!(state.acknowledge(given[0].token));
    let (position, left) = confirm(&mut state);
    assert!(left.open);
    assert_eq!(left.ahead, [15..18, 30..31]);
    let mut counts = left.counts;
    assert_eq!((position, counts.take(18)), (15, 1));
}

/// What was fetched before the broker deleted what follows is no gap.
#[test]
fn a_gap_is_told_where_it_is() {
    let shared = assigned(false, 60, Progress::default());
    let mut state = shared.lock();
    state.note_reset("t", 0, 65);
    (60..65).for_each(|offset| accept(&mut state, offset, None));
    assert!(state.boxes[0].events.is_empty());
    accept(&mut state, 100, None);
    let gap = state.boxes[0].events.pop_front();
    assert!(matches!(gap, Some(Event::Gap { lost: Some(35) })), "{gap:?}");
}

#[test]
fn marks_end_with_what_the_last_process_may_have_had() {
    let shared = assigned(false, 0, cut_short(Counts::default()));
    let mut state = shared.lock();
    (0..MARKED + 500).for_each(|offset| accept(&mut state, offset, None));
    let mut given = Vec::new();
    while given.len() as i64 <= MARKED {
        assert!(state.hurry);
        confirm(&mut state);
        given.extend(give(&mut state, usize::MAX));
    }
    assert!(given.iter().all(|delivery| state.acknowledge(delivery.token)));
    confirm(&mut state);
    assert!(state.lanes[0].marks.is_none());
    assert_eq!(
        give(&mut state, usize::MAX).len() + given.len(),
        MARKED as usize + 500
    );
    assert_eq!(state.lanes[0].backlog_size, 0);
}

/// An idle partition whose consumer is killed now and then has nothing to count.
#[test]
fn idle_lives_are_not_starts() {
    let mut left = Progress::default();
    for _ in 0..30 {
        let shared = assigned(false, 0, left.clone());
        left = confirm(&mut shared.lock()).1;
    }
    assert_eq!(left, cut_short(Counts::default()));
}

#[test]
fn a_partition_that_goes_back_begins_again() {
    let shared = assigned(false, 100, Progress::default());
    let mut state = shared.lock();
    accept(&mut state, 100, None);
    let old = give(&mut state, 1);
    // Deleted and made again: offsets start over.
    accept(&mut state, 0, None);
    assert!(!state.acknowledge(old[0].token));
    assert_eq!(offsets(&give(&mut state, 9)), [0]);
    assert_eq!(committed(&state).0, 0);
}

/// A log that was cut off still has what lies before, and librdkafka goes to its end.
#[test]
fn what_lies_before_a_truncation_is_not_skipped() {
    let shared = assigned(false, 100, Progress::default());
    let mut state = shared.lock();
    (100..106).for_each(|offset| accept(&mut state, offset, None));
    let old = give(&mut state, 2);
    accept(&mut state, 104, None);
    assert_eq!(committed(&state).0, 100);
    assert_eq!(offsets(&give(&mut state, 9)), [102, 103, 104]);
    assert!(state.acknowledge(old[0].token));
    assert_eq!(committed(&state).0, 101);
}

#[test]
fn what_was_truncated_is_stale() {
    let shared = assigned(false, 100, Progress::default());
    let mut state = shared.lock();
    (100..106).for_each(|offset| accept(&mut state, offset, None));
    let old = give(&mut state, 9);
    accept(&mut state, 104, None);
    let new = give(&mut state, 9);
    assert_eq!(offsets(&new), [104]);
    assert!(!state.acknowledge(old[4].token), "another message is there now");
    assert!(!state.acknowledge(old[5].token));
    for delivery in old[..4].iter().chain(&new) {
        assert!(state.acknowledge(delivery.token));
    }
    assert_eq!(committed(&state).0, 105);
    assert_eq!(state.lanes[0].given, 0);
}

fn incarnation(cluster: &str, topic: &str) -> Option<Incarnation> {
    Incarnation::new(cluster, topic)
}

/// What a former topic of the name left says nothing of the new one.
#[test]
fn a_topic_that_was_made_anew_begins_anew() {
    let before = Progress {
        incarnation: incarnation("c", "old"),
        ahead: vec![101..103, 104..105],
        counts: Counts::new([(100, 2), (200, 3)].into_iter(), &Counts::default()),
        ..Progress::default()
    };
    let shared = assigned(false, 100, before.clone());
    let mut state = shared.lock();
    state.note_id("t", "old");
    state.check_incarnations("c");
    accept(&mut state, 100, None);
    let old = give(&mut state, 9);
    assert_eq!(offsets(&old), [100]);
    assert_eq!(committed(&state).1.ahead, before.ahead);

    state.lanes[0].paused = true;
    state.note_id("t", "new");
    assert!(state.unchecked);
    state.check_incarnations("c");
    assert!(!state.acknowledge(old[0].token));
    accept(&mut state, 104, None);
    assert!(
        give(&mut state, 9).is_empty(),
        "librdkafka has not turned back yet"
    );
    state.lanes[0].rewinding = false;
    accept(&mut state, 0, None);
    assert_eq!(offsets(&give(&mut state, 9)), [0]);
    let (position, progress) = committed(&state);
    assert_eq!((position, progress.incarnation), (0, incarnation("c", "new")));
    assert!(progress.ahead.is_empty());
    assert_eq!(
        progress.counts,
        Counts::new([(0, 1)].into_iter(), &Counts::default())
    );
    assert!(state.lanes[0].paused, "as librdkafka was told");
}

/// Brokers before Kafka 2.8 tell no id: that is nothing, also where it was written down.
#[test]
fn a_topic_that_is_told_without_an_id_is_the_same() {
    let without = "AAAAAAAAAAAAAAAAAAAAAA";
    let before = Progress {
        incarnation: incarnation("c", "known"),
        ahead: vec![1..3, 4..5],
        ..Progress::default()
    };
    let before = before.encode(0).replace("known", without);
    let shared = assigned(false, 0, Progress::decode(&before, 0));
    let mut state = shared.lock();
    for id in ["known", without, "known"] {
        state.note_id("t", id);
        state.check_incarnations("c");
    }
    (0..5).for_each(|offset| accept(&mut state, offset, None));
    assert_eq!(offsets(&give(&mut state, 9)), [0, 3]);
    assert!(!state.rewinding);
    assert_eq!(committed(&state).1.incarnation, incarnation("c", "known"));
}

/// A group's position was carried over to another cluster: it holds about, and what is ahead of it not at all.
#[test]
fn a_position_in_a_copy_of_the_topic_is_kept() {
    let before = Progress {
        incarnation: incarnation("c", "old"),
        ahead: vec![101..103, 104..105],
        ..Progress::default()
    };
    let shared = assigned(false, 100, before);
    let mut state = shared.lock();
    state.note_id("t", "new");
    state.check_incarnations("d");
    (100..105).for_each(|offset| accept(&mut state, offset, None));
    assert_eq!(offsets(&give(&mut state, 9)), [100, 101, 102, 103, 104]);
    let (position, progress) = committed(&state);
    assert_eq!((position, progress.incarnation), (100, incarnation("d", "new")));
}

/// Of all partitions together: there may be many.
#[test]
fn what_waits_for_marks_is_bounded() {
    let shared = assigned(false, 0, cut_short(Counts::default()));
    let mut state = shared.lock();
    state.assign(&route(false), 1, Some(0), cut_short(Counts::default()));
    (0..100).for_each(|offset| accept(&mut state, offset, None));
    let pauses = |state: &mut State| {
        state.weigh_backlogs();
        [0, 1].map(|lane| state.should_pause(&state.lanes[lane]))
    };
    assert_eq!(pauses(&mut state), [false; 2]);
    state.prefetch = 4096;
    assert_eq!(pauses(&mut state), [true; 2]);
    while state.hurry {
        confirm(&mut state);
        give(&mut state, usize::MAX);
    }
    assert_eq!(pauses(&mut state), [false; 2]);
}

/// A position that is not committed for long is forgotten by the broker.
#[test]
fn positions_on_the_return_path_are_committed_again() {
    for return_path in [true, false] {
        let shared = assigned(return_path, 7, Progress::default());
        let mut state = shared.lock();
        (state.dirty, state.lanes[0].dirty) = (false, false);
        state.refresh_return_path();
        assert_eq!((state.dirty, state.lanes[0].dirty), (return_path, return_path));
        assert_eq!(committed(&state).0, 7);
    }
}

/// Whoever waits for much room is not woken for each message that makes some.
#[test]
fn much_room_is_told_once() {
    let shared = assigned(false, 0, Progress::default());
    let mut state = shared.lock();
    (0..10).for_each(|offset| accept(&mut state, offset, None));
    state.prefetch = state.boxes[0].size;
    assert!(!state.has_come(Awaited::Room));
    state.awaited = Some(Awaited::MuchRoom);
    give(&mut state, 4);
    shared.wake(&mut state);
    assert!(state.has_come(Awaited::Room));
    assert_eq!(state.awaited, Some(Awaited::MuchRoom));
    give(&mut state, 1);
    shared.wake(&mut state);
    assert_eq!(state.awaited, None);
    // Whoever waits for settlements is woken by whatever happens.
    state.awaited = Some(Awaited::Settled);
    shared.wake(&mut state);
    assert_eq!(state.awaited, None);
    // A mailbox that is left to itself is in nobody's way.
    (10..30).for_each(|offset| accept(&mut state, offset, None));
    assert!(!state.has_come(Awaited::Room));
    state.boxes[0].choked = true;
    assert!(state.has_come(Awaited::MuchRoom));
}

/// It is not known which partition cannot be read: one of those that were. The rest says nothing, for however long it is paused.
#[test]
fn what_was_paused_all_along_is_not_unreadable() {
    let shared = assigned(false, 0, Progress::default());
    {
        let mut state = shared.lock();
        state.assign(&route(true), 0, Some(0), Progress::default());
        state.assign(&route(false), 1, Some(0), Progress::default());
        state.joined = true;
        state.recover();
        assert!(state.degraded, "it is not marked as in use");
        state.fresh = false;
        state.recover();
        state.lanes[1].delayed.0 = 3000;
    }
    let error = Error::new(ErrorKind::Unavailable, "it cannot be read");
    let after = |passed: u64| {
        let mut state = shared.lock();
        flow(&mut state, Duration::from_secs(passed));
        state.recover();
        !state.degraded
    };
    assert!(after(1));
    shared.stand_still(&error);
    assert_eq!([2, 2, 1].map(after), [false, false, true]);

    // One that was read, and is paused since, may be it.
    shared.stand_still(&error);
    assert!(!after(1));
    shared.lock().lanes[2].delayed.0 = 3000;
    assert_eq!([1, 9, 9].map(after), [false; 3]);
    shared.lock().lanes[2].delayed.0 = 0;
    assert_eq!([9, 2, 1].map(after), [false, false, true]);

    // Nothing that came before it was told shows that it can be read again.
    shared.stand_still(&error);
    for expected in [Some(4), None] {
        accept(&mut shared.lock(), 0, None);
        after(1);
        let left = shared.lock().lanes[0].unreadable;
        assert_eq!(left, expected.map(Duration::from_secs));
    }
}
