//! What of a partition is done, and how far it may be committed.

use std::collections::VecDeque;
use std::ops::Range;

/// Offsets received from one partition in one assignment, and which of them are settled.
///
/// Kafka keeps one number for a group and partition: everything below it is done. Deliveries are settled in any order, so
/// what is done above the lowest unsettled offset waits here, and [`position`](Tracker::position) never passes an offset
/// that was received and is not settled. Offsets that never come (transaction markers, compaction) are no obstacle.
#[derive(Debug)]
pub(crate) struct Tracker<T> {
    /// In the order of their offsets; the first is unsettled.
    entries: VecDeque<Entry<T>>,
    /// One past the last offset that was received or passed; before the first, where the assignment began, if that is known.
    next: Option<i64>,
    /// Settled in an earlier assignment, above its position: received again, they are not delivered again.
    already: VecDeque<Range<i64>>,
}

#[derive(Debug)]
struct Entry<T> {
    offset: i64,
    /// `None`: settled.
    kept: Option<T>,
}

/// What [`Tracker::receive`] says of an offset.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Received {
    /// It is to be delivered.
    New,
    /// It was settled before; there is nothing to do.
    Already,
}

impl<T> Tracker<T> {
    /// Begins at the committed offset, above which `already` was settled. `None` where nothing was committed yet.
    pub(crate) fn new(start: Option<i64>, already: impl IntoIterator<Item = Range<i64>>) -> Self {
        Self {
            entries: VecDeque::new(),
            next: start,
            already: already.into_iter().collect(),
        }
    }

    /// Whether an offset lies before what was received: the partition was truncated or made anew.
    pub(crate) fn is_behind(&self, offset: i64) -> bool {
        self.next.is_some_and(|next| offset < next)
    }

    /// How many offsets lie between what was received and this one, but for those that are settled.
    pub(crate) fn missing_before(&self, offset: i64) -> u64 {
        let next = self.next.unwrap_or(offset);
        let settled = |range: &Range<i64>| (range.end.min(offset) - range.start.max(next)).max(0);
        let missing = offset - next - self.already.iter().map(settled).sum::<i64>();
        u64::try_from(missing).unwrap_or(0)
    }

    /// One past the last received offset, or where the assignment began.
    pub(crate) fn next(&self) -> Option<i64> {
        self.next
    }

    /// What was received from this offset on is gone: it was truncated.
    pub(crate) fn truncate(&mut self, offset: i64) {
        let stays = self.entries.partition_point(|entry| entry.offset < offset);
        self.entries.truncate(stays);
        self.next = Some(offset);
        self.already.clear();
    }

    /// What was settled above the position in an earlier assignment is not known after all.
    pub(crate) fn forget_already(&mut self) {
        self.already.clear();
    }

    /// Takes in an offset that is not behind, with what is to be kept until it is settled.
    pub(crate) fn receive(&mut self, offset: i64, kept: T) -> Received {
        self.next = Some(offset + 1);
        while self.already.front().is_some_and(|range| range.end <= offset) {
            self.already.pop_front();
        }
        if self.already.front().is_some_and(|range| range.contains(&offset)) {
            if !self.entries.is_empty() {
                self.entries.push_back(Entry { offset, kept: None });
            }
            return Received::Already;
        }
        let kept = Some(kept);
        self.entries.push_back(Entry { offset, kept });
        Received::New
    }

    /// Nothing that was not received comes from below this offset any more; whether that is news.
    pub(crate) fn pass(&mut self, offset: i64) -> bool {
        let is_news = self.next < Some(offset);
        if is_news {
            self.next = Some(offset);
        }
        is_news
    }

    /// What is kept for an unsettled offset.
    pub(crate) fn get(&self, offset: i64) -> Option<&T> {
        self.entries.get(self.find(offset)?)?.kept.as_ref()
    }

    /// The same, to be changed.
    pub(crate) fn get_mut(&mut self, offset: i64) -> Option<&mut T> {
        let at = self.find(offset)?;
        self.entries.get_mut(at)?.kept.as_mut()
    }

    /// Settles an offset and hands back what was kept; `None` if it was not unsettled.
    pub(crate) fn settle(&mut self, offset: i64) -> Option<T> {
        let at = self.find(offset)?;
        let kept = self.entries.get_mut(at)?.kept.take()?;
        while self.entries.front().is_some_and(|entry| entry.kept.is_none()) {
            self.entries.pop_front();
        }
        Some(kept)
    }

    /// The offset to commit: everything received below it is settled. `None` until that is known.
    pub(crate) fn position(&self) -> Option<i64> {
        self.entries.front().map(|entry| entry.offset).or(self.next)
    }

    /// What is settled above [`position`](Tracker::position), in order and apart from each other.
    pub(crate) fn ahead(&self) -> Vec<Range<i64>> {
        let mut ranges: Vec<Range<i64>> = Vec::new();
        let mut open = false;
        for entry in &self.entries {
            match (entry.kept.is_none(), open) {
                (true, false) => ranges.push(entry.offset..entry.offset + 1),
                (true, true) => {
                    if let Some(last) = ranges.last_mut() {
                        last.end = entry.offset + 1;
                    }
                }
                (false, _) => {}
            }
            open = entry.kept.is_none();
        }
        let position = self.position().unwrap_or(0);
        let next = self.next.unwrap_or(0).max(position);
        ranges.extend(
            self.already
                .iter()
                .map(|range| range.start.max(next)..range.end)
                .filter(|range| range.start < range.end),
        );
        ranges
    }

    /// How many entries are held, settled ones above the position among them.
    pub(crate) fn span(&self) -> usize {
        self.entries.len()
    }

    /// Everything unsettled, in order.
    pub(crate) fn iter(&self) -> impl Iterator<Item = (i64, &T)> {
        self.entries
            .iter()
            .filter_map(|entry| Some((entry.offset, entry.kept.as_ref()?)))
    }

    fn find(&self, offset: i64) -> Option<usize> {
        let first = self.entries.front()?.offset;
        // Most partitions have no gaps: then the place is known.
        let guess = usize::try_from(offset.checked_sub(first)?).ok()?;
        if self
            .entries
            .get(guess)
            .is_some_and(|entry| entry.offset == offset)
        {
            return Some(guess);
        }
        self.entries
            .binary_search_by_key(&offset, |entry| entry.offset)
            .ok()
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    fn tracker(start: i64) -> Tracker<()> {
        Tracker::new(Some(start), [])
    }

    #[test]
    fn commits_the_contiguous_part_only() {
        let mut tracker = tracker(10);
        for offset in [10, 11, 14, 15, 16] {
            assert_eq!(tracker.receive(offset, ()), Received::New);
        }
        assert_eq!(tracker.position(), Some(10));
        for offset in [15, 11, 14] {
            assert!(tracker.settle(offset).is_some());
        }
        assert_eq!(tracker.position(), Some(10));
        // 12 and 13 never came: the gap belongs to the range around it.
        assert_eq!(tracker.ahead().as_slice(), std::slice::from_ref(&(11..16)));
        assert!(tracker.settle(10).is_some());
        assert_eq!(tracker.position(), Some(16));
        assert_eq!(tracker.ahead(), []);
        assert!(tracker.settle(16).is_some());
        assert_eq!(tracker.position(), Some(17));
        assert!(tracker.settle(16).is_none(), "settled once");
    }

    #[test]
    fn skips_what_was_settled_before() {
        let mut tracker: Tracker<()> = Tracker::new(Some(5), [6..8, 9..10, 20..30]);
        assert_eq!(tracker.ahead(), [6..8, 9..10, 20..30]);
        let received: Vec<_> = (5..11).map(|offset| tracker.receive(offset, ())).collect();
        use Received::{Already, New};
        assert_eq!(received, [New, Already, Already, New, Already, New]);
        assert_eq!(tracker.ahead(), [6..8, 9..10, 20..30]);
        assert!(tracker.settle(5).is_some());
        assert_eq!(tracker.position(), Some(8));
        assert!(tracker.settle(8).is_some());
        assert_eq!(tracker.position(), Some(10));
    }

    #[test]
    fn counts_what_is_missing() {
        let mut tracker: Tracker<()> = Tracker::new(Some(5), [6..8, 9..20]);
        assert_eq!((tracker.missing_before(5), tracker.missing_before(10)), (0, 2));
        tracker.receive(5, ());
        assert_eq!((tracker.missing_before(3), tracker.missing_before(30)), (0, 11));
        assert_eq!(Tracker::<()>::new(None, []).missing_before(7), 0);
    }

    #[test]
    fn passes_what_is_no_message() {
        let mut tracker = tracker(5);
        tracker.receive(5, ());
        assert!(tracker.pass(8) && !tracker.pass(8) && !tracker.pass(6));
        assert_eq!(tracker.position(), Some(5));
        assert!(tracker.settle(5).is_some());
        assert_eq!((tracker.position(), tracker.missing_before(9)), (Some(8), 1));
    }

    #[test]
    fn knows_no_position_before_the_first_offset() {
        let mut tracker: Tracker<()> = Tracker::new(None, []);
        assert_eq!(tracker.position(), None);
        tracker.receive(3, ());
        assert_eq!(tracker.position(), Some(3));
        assert!(tracker.is_behind(2) && !tracker.is_behind(4));
    }

    /// The one rule that must hold: no commit passes what was received and is not settled, whatever the order.
    #[test]
    fn never_commits_past_an_unsettled_offset() {
        bolero::check!()
            .with_type::<Vec<(u8, u8, bool)>>()
            .for_each(|steps| {
                let mut tracker = tracker(0);
                let (mut offset, mut open, mut done) = (0, BTreeSet::new(), BTreeSet::new());
                for &(gap, pick, settle) in steps {
                    let picked = open.iter().nth(usize::from(pick) % open.len().max(1)).copied();
                    match picked {
                        Some(which) if settle => {
                            assert!(tracker.settle(which).is_some());
                            open.remove(&which);
                            done.insert(which);
                        }
                        _ => {
                            offset += 1 + i64::from(gap % 4);
                            assert_eq!(tracker.receive(offset, ()), Received::New);
                            open.insert(offset);
                        }
                    }
                    let position = tracker.position().unwrap();
                    assert!(open.iter().all(|&open| open >= position));
                    assert_eq!(position, open.first().copied().unwrap_or(tracker.next.unwrap()));
                    let ahead = tracker.ahead();
                    assert!(
                        open.iter()
                            .all(|open| !ahead.iter().any(|range| range.contains(open)))
                    );
                    let told = |one: &i64| *one < position || ahead.iter().any(|range| range.contains(one));
                    assert!(done.iter().all(told));
                }
            });
    }

    /// A crash at any moment, resumed from what was committed: nothing unsettled is skipped, nothing settled comes twice.
    #[test]
    fn resumes_where_it_was() {
        bolero::check!()
            .with_type::<(u8, Vec<u8>)>()
            .for_each(|(count, settled)| {
                let mut first = tracker(0);
                let count = i64::from(*count);
                for offset in 0..count {
                    first.receive(offset, ());
                }
                let settled: BTreeSet<i64> = settled.iter().map(|&offset| offset.into()).collect();
                for &offset in settled.iter().filter(|&&offset| offset < count) {
                    first.settle(offset);
                }
                let position = first.position().unwrap();
                let mut second: Tracker<()> = Tracker::new(Some(position), first.ahead());
                for offset in position..count {
                    let received = second.receive(offset, ());
                    assert_eq!(received == Received::New, !settled.contains(&offset));
                }
                assert_eq!(first.ahead(), second.ahead());
            });
    }
}
