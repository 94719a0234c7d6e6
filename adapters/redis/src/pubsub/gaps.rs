//! Counts what was published and not received, by the publishers' sequence numbers.

use std::collections::HashMap;
use std::time::Duration;

use tokio::time::Instant;

use crate::frame::{Identity, Publisher, is_ordered};

/// How long a missing number may still come: over another connection of its publisher, or through another instance.
const PATIENCE: Duration = Duration::from_secs(1);
/// Publishers remembered. More of them are hostile, or long gone.
const PUBLISHERS: usize = 1_024;
/// Ranges remembered; what comes beyond is counted at once.
const RANGES: usize = 10_000;

/// Numbers of one publisher that did not come, both ends included.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Missing {
    pub(crate) publisher: Publisher,
    pub(crate) first: u64,
    pub(crate) last: u64,
    since: Instant,
}

impl Missing {
    pub(crate) fn count(&self) -> u64 {
        (self.last - self.first).saturating_add(1)
    }
}

#[derive(Debug, Default)]
pub(crate) struct Gaps {
    heard: HashMap<Publisher, Heard>,
    missing: Vec<Missing>,
    /// Lost, and not to be asked after.
    certain: u64,
}

#[derive(Debug, Clone, Copy)]
struct Heard {
    next: u64,
    at: Instant,
}

impl Gaps {
    /// This one came.
    pub(crate) fn came(&mut self, (publisher, sequence): Identity, now: Instant) {
        if !is_ordered(&publisher) {
            return;
        }
        let after = sequence.saturating_add(1);
        let Some(heard) = self.heard.get_mut(&publisher) else {
            // What it published before this instance listened is no gap.
            self.make_room();
            self.heard.insert(publisher, Heard { next: after, at: now });
            return;
        };
        heard.at = now;
        let expected = heard.next;
        heard.next = expected.max(after);
        if sequence > expected {
            self.miss(publisher, expected, sequence - 1, now);
        } else if sequence < expected {
            self.came_late(publisher, sequence);
        }
    }

    /// This one came and there was no room for it.
    pub(crate) fn turned_away(&mut self, identity: Option<Identity>, now: Instant) {
        match identity {
            Some((publisher, sequence)) => self.miss(publisher, sequence, sequence, now),
            None => self.certain = self.certain.saturating_add(1),
        }
    }

    /// What has been missing for long enough, and how many are lost for certain.
    pub(crate) fn overdue(&mut self, now: Instant) -> (Vec<Missing>, u64) {
        let (overdue, patient) = std::mem::take(&mut self.missing)
            .into_iter()
            .partition(|missing| now.duration_since(missing.since) >= PATIENCE);
        self.missing = patient;
        (overdue, std::mem::take(&mut self.certain))
    }

    /// These could not be asked after.
    pub(crate) fn put_back(&mut self, missing: Vec<Missing>) {
        self.missing.extend(missing);
    }

    fn miss(&mut self, publisher: Publisher, first: u64, last: u64, since: Instant) {
        let missing = Missing {
            publisher,
            first,
            last,
            since,
        };
        if let Some(before) = self.missing.last_mut() {
            // A run of what was turned away is one range.
            if before.publisher == publisher && before.last.checked_add(1) == Some(first) {
                before.last = last;
                return;
            }
        }
        self.keep(missing);
    }

    fn keep(&mut self, missing: Missing) {
        if self.missing.len() < RANGES {
            self.missing.push(missing);
        } else {
            self.certain = self.certain.saturating_add(missing.count());
        }
    }

    fn came_late(&mut self, publisher: Publisher, sequence: u64) {
        let within = |missing: &Missing| {
            missing.publisher == publisher && (missing.first..=missing.last).contains(&sequence)
        };
        let Some(at) = self.missing.iter().position(within) else {
            return;
        };
        let whole = self.missing.swap_remove(at);
        let before = (whole.first < sequence).then(|| (whole.first, sequence - 1));
        let behind = (sequence < whole.last).then(|| (sequence + 1, whole.last));
        let mut pieces: Vec<_> = before.into_iter().chain(behind).collect();
        // Where there is room for one alone, the longer one may still come.
        pieces.sort_unstable_by_key(|(first, last)| first.abs_diff(*last));
        for (first, last) in pieces.into_iter().rev() {
            self.keep(Missing { first, last, ..whole });
        }
    }

    fn make_room(&mut self) {
        if self.heard.len() < PUBLISHERS {
            return;
        }
        if let Some(oldest) = self
            .heard
            .iter()
            .min_by_key(|(_, heard)| heard.at)
            .map(|(id, _)| *id)
        {
            self.heard.remove(&oldest);
        }
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    const ONE: Publisher = [1; 16];

    fn lost(gaps: &mut Gaps, now: Instant) -> u64 {
        let (missing, certain) = gaps.overdue(now + PATIENCE);
        certain + missing.iter().map(Missing::count).sum::<u64>()
    }

    #[test]
    fn what_is_skipped_is_counted_once() {
        let (mut gaps, now) = (Gaps::default(), Instant::now());
        for sequence in [5, 6, 10, 11] {
            gaps.came((ONE, sequence), now);
        }
        assert_eq!(gaps.overdue(now), (vec![], 0));
        assert_eq!(lost(&mut gaps, now), 3);
        assert_eq!(lost(&mut gaps, now), 0);
    }

    #[test]
    fn what_is_turned_away_is_counted() {
        let (mut gaps, now) = (Gaps::default(), Instant::now());
        gaps.came((ONE, 1), now);
        gaps.turned_away(Some((ONE, 1)), now);
        gaps.turned_away(None, now);
        assert_eq!(lost(&mut gaps, now), 2);
    }

    #[test]
    fn unordered_publishers_and_extremes() {
        let (mut gaps, now) = (Gaps::default(), Instant::now());
        gaps.came(([0xff; 16], 1), now);
        gaps.came(([0xff; 16], 100), now);
        assert_eq!(lost(&mut gaps, now), 0);
        gaps.came((ONE, 1), now);
        gaps.came((ONE, u64::MAX), now);
        gaps.came((ONE, u64::MAX), now);
        assert_eq!(lost(&mut gaps, now), u64::MAX - 2);
    }

    /// In whatever order they come, only what never came is missing.
    #[test]
    fn order_does_not_matter() {
        bolero::check!().with_type::<Vec<u8>>().for_each(|order| {
            let (mut gaps, now) = (Gaps::default(), Instant::now());
            gaps.came((ONE, 1), now);
            for &number in order.iter().filter(|&&number| number > 1) {
                gaps.came((ONE, number.into()), now);
            }
            let came: BTreeSet<u8> = order
                .iter()
                .copied()
                .filter(|&number| number > 0)
                .chain([1])
                .collect();
            let last = came.last().copied().unwrap_or(1);
            assert_eq!(lost(&mut gaps, now), u64::from(last) - came.len() as u64);
        });
    }

    #[test]
    fn a_publisher_fills_no_memory() {
        let (mut gaps, now) = (Gaps::default(), Instant::now());
        gaps.came((ONE, 1), now);
        gaps.came((ONE, 1 << 40), now);
        // Each splits what is missing once more.
        for number in 2..2 + 2 * RANGES as u64 {
            gaps.came((ONE, 2 * number), now);
        }
        assert!(gaps.missing.len() <= RANGES, "{}", gaps.missing.len());
        assert_eq!(lost(&mut gaps, now), (1 << 40) - 2 - 2 * RANGES as u64);
    }

    #[test]
    fn hostile_numbers_lose_no_count() {
        bolero::check!()
            .with_type::<Vec<(bool, bool, u64)>>()
            .for_each(|frames| {
                let (mut gaps, now) = (Gaps::default(), Instant::now());
                let mut away = BTreeSet::new();
                for &(one, room, number) in frames {
                    let identity = (if one { ONE } else { [2; 16] }, number.max(1));
                    gaps.came(identity, now);
                    if room {
                        // What was turned away may come once more, by another way.
                        away.remove(&identity);
                    } else {
                        gaps.turned_away(Some(identity), now);
                        away.insert(identity);
                    }
                }
                let (missing, certain) = gaps.overdue(now + PATIENCE);
                assert!(missing.iter().all(|range| range.first <= range.last));
                let lost = missing
                    .iter()
                    .map(Missing::count)
                    .fold(certain, u64::saturating_add);
                assert!(lost >= away.len() as u64);
            });
    }

    #[test]
    fn many_publishers_fill_no_memory() {
        let (mut gaps, now) = (Gaps::default(), Instant::now());
        for number in 0..3 * PUBLISHERS as u128 {
            gaps.came(((number << 8 | 1).to_be_bytes(), 1), now);
        }
        assert_eq!(gaps.heard.len(), PUBLISHERS);
    }
}
