//! Which deliveries of one channel are unsettled, and how settlements of them reach the broker with few frames.

use std::collections::VecDeque;
use std::ops::Range;

/// What is to be told to the broker, in order.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Frame {
    /// Acknowledges this tag, or everything up to it.
    Ack { tag: u64, multiple: bool },
    /// Gives this tag back.
    Requeue { tag: u64 },
}

/// Delivery tags of a channel: 1, 2, 3… each settled once.
#[derive(Debug)]
pub(crate) struct Window {
    /// The lowest tag that is not settled.
    base: u64,
    /// What is settled above it, in order and apart: no more of them than deliveries that are not settled.
    settled: VecDeque<Range<u64>>,
}

impl Window {
    pub(crate) fn new() -> Self {
        Self {
            base: 1,
            settled: VecDeque::new(),
        }
    }

    /// The frames for settlements that were marked since the last call: `true` acknowledges, `false` gives back.
    ///
    /// Acknowledgements are joined only below the lowest unsettled tag, so that none covers a delivery that is not
    /// settled.
    pub(crate) fn frames(&mut self, marked: &[(u64, bool)]) -> Vec<Frame> {
        if let Some(first) = self.settled.front()
            && first.start == self.base
        {
            self.base = first.end;
            self.settled.pop_front();
        }
        // First, so that no acknowledgement of many reaches over them.
        let back = marked.iter().filter(|(_, ack)| !ack);
        let mut frames: Vec<Frame> = back.map(|(tag, _)| Frame::Requeue { tag: *tag }).collect();
        let acks = marked.iter().filter(|(_, ack)| *ack);
        let mut acks: Vec<u64> = acks.map(|(tag, _)| *tag).collect();
        acks.sort_unstable();
        let joined = acks.partition_point(|tag| *tag < self.base);
        if let Some(tag) = joined.checked_sub(1).and_then(|last| acks.get(last)) {
            frames.push(Frame::Ack {
                tag: *tag,
                multiple: joined > 1,
            });
        }
        frames.extend(acks[joined..].iter().map(|tag| Frame::Ack {
            tag: *tag,
            multiple: false,
        }));
        frames
    }

    /// Marks a tag as settled; false if it was already: a second settlement would be a protocol error that closes the
    /// channel. What is marked must be in the next call for frames.
    pub(crate) fn mark(&mut self, tag: u64) -> bool {
        // The range before this place may hold the tag, or end before it; the one at it begins behind it.
        let place = self.settled.partition_point(|range| range.start <= tag);
        let before = place.checked_sub(1);
        let begun_before = before.and_then(|before| self.settled.get(before));
        if tag < self.base || begun_before.is_some_and(|range| tag < range.end) {
            return false;
        }
        let before = before.filter(|_| begun_before.is_some_and(|range| range.end == tag));
        let mut end = tag + 1;
        if let Some(next) = self.settled.get(place)
            && next.start == end
        {
            end = next.end;
            self.settled.remove(place);
        }
        match before.and_then(|before| self.settled.get_mut(before)) {
            Some(range) => range.end = end,
            None => self.settled.insert(place, tag..end),
        }
        true
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    fn ack(tag: u64, multiple: bool) -> Frame {
        Frame::Ack { tag, multiple }
    }

    fn settle(window: &mut Window, verdicts: &[(u64, bool)]) -> Vec<Frame> {
        assert!(verdicts.iter().all(|(tag, _)| window.mark(*tag)));
        window.frames(verdicts)
    }

    #[test]
    fn a_contiguous_prefix_is_one_frame() {
        let mut window = Window::new();
        let frames = settle(&mut window, &[(2, true), (1, true), (3, true), (5, true)]);
        assert_eq!(frames, [ack(3, true), ack(5, false)]);
        assert_eq!(settle(&mut window, &[(4, true)]), [ack(4, false)]);
        let frames = settle(&mut window, &[(7, true), (6, false)]);
        assert_eq!(frames, [Frame::Requeue { tag: 6 }, ack(7, false)]);
    }

    /// One delivery may take as long as the broker lets it, and millions go by.
    #[test]
    fn one_unsettled_delivery_costs_no_memory() {
        let mut window = Window::new();
        for tag in 2..100_000 {
            assert_eq!(settle(&mut window, &[(tag, true)]), [ack(tag, false)]);
        }
        assert_eq!(window.settled.len(), 1);
        assert_eq!(settle(&mut window, &[(1, true)]), [ack(1, false)]);
        assert!(window.settled.is_empty());
        assert_eq!(settle(&mut window, &[(100_000, true)]), [ack(100_000, false)]);
    }

    #[test]
    fn a_second_settlement_is_told() {
        let mut window = Window::new();
        assert!(window.mark(1) && !window.mark(1) && !window.mark(0));
        assert_eq!(window.frames(&[(1, true)]), [ack(1, false)]);
        assert!(!window.mark(1));
    }

    /// A broker's side of it: every frame must name an outstanding tag, and nothing unsettled may be acknowledged.
    #[test]
    fn never_reaches_over_an_unsettled_delivery() {
        let mut random = 7u64;
        let mut next = |below: u64| {
            random = random
                .wrapping_mul(6_364_136_223_846_793_005)
                .wrapping_add(1_442_695_040_888_963_407);
            (random >> 33) % below
        };
        for _ in 0..200 {
            let mut window = Window::new();
            let mut outstanding: BTreeSet<u64> = (1..=64).collect();
            let mut left: Vec<u64> = (1..=64).collect();
            while !left.is_empty() {
                let mut batch = Vec::new();
                for _ in 0..=next(8).min(left.len() as u64 - 1) {
                    let tag = left.swap_remove(next(left.len() as u64) as usize);
                    batch.push((tag, next(4) > 0));
                }
                for frame in settle(&mut window, &batch) {
                    match frame {
                        Frame::Requeue { tag } => {
                            assert!(outstanding.remove(&tag) && batch.contains(&(tag, false)));
                        }
                        Frame::Ack { tag, multiple: false } => {
                            assert!(outstanding.remove(&tag) && batch.contains(&(tag, true)));
                        }
                        Frame::Ack { tag, multiple: true } => {
                            let rest = outstanding.split_off(&(tag + 1));
                            assert!(outstanding.iter().all(|tag| batch.contains(&(*tag, true))));
                            outstanding = rest;
                        }
                    }
                }
                let unsettled: BTreeSet<u64> = left.iter().copied().collect();
                assert_eq!(outstanding, unsettled);
            }
        }
    }
}
