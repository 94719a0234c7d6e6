//! Which deliveries of one channel are unsettled, and how settlements of them reach the broker with few frames.

use std::collections::VecDeque;

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
    /// Whether `base`, `base + 1`… are settled.
    settled: VecDeque<bool>,
}

impl Window {
    pub(crate) fn new() -> Self {
        Self {
            base: 1,
            settled: VecDeque::new(),
        }
    }

    /// Settles tags: `true` acknowledges, `false` gives back. Appends the frames, and answers for each whether it was
    /// still unsettled: a second settlement would be a protocol error that closes the channel.
    ///
    /// Acknowledgements are joined only below the lowest unsettled tag, so that none covers a delivery that is not
    /// settled.
    pub(crate) fn settle(&mut self, verdicts: &[(u64, bool)], frames: &mut Vec<Frame>) -> Vec<bool> {
        let fresh: Vec<bool> = verdicts.iter().map(|(tag, _)| self.mark(*tag)).collect();
        while self.settled.front() == Some(&true) {
            self.settled.pop_front();
            self.base += 1;
        }
        let each = || verdicts.iter().zip(&fresh).filter(|(_, fresh)| **fresh);
        // First, so that no acknowledgement of many reaches over them.
        frames.extend(
            each()
                .filter(|((_, ack), _)| !ack)
                .map(|((tag, _), _)| Frame::Requeue { tag: *tag }),
        );
        let mut acks: Vec<u64> = each()
            .filter(|((_, ack), _)| *ack)
            .map(|((tag, _), _)| *tag)
            .collect();
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
        fresh
    }

    fn mark(&mut self, tag: u64) -> bool {
        let Some(place) = tag.checked_sub(self.base).and_then(|n| usize::try_from(n).ok()) else {
            return false;
        };
        if place >= self.settled.len() {
            self.settled.resize(place + 1, false);
        }
        !std::mem::replace(&mut self.settled[place], true)
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    fn ack(tag: u64, multiple: bool) -> Frame {
        Frame::Ack { tag, multiple }
    }

    #[test]
    fn a_contiguous_prefix_is_one_frame() {
        let mut window = Window::new();
        let mut frames = Vec::new();
        window.settle(&[(2, true), (1, true), (3, true), (5, true)], &mut frames);
        assert_eq!(frames, [ack(3, true), ack(5, false)]);
        frames.clear();
        window.settle(&[(4, true)], &mut frames);
        assert_eq!(frames, [ack(4, false)]);
        frames.clear();
        window.settle(&[(7, true), (6, false)], &mut frames);
        assert_eq!(frames, [Frame::Requeue { tag: 6 }, ack(7, false)]);
    }

    #[test]
    fn a_second_settlement_sends_nothing() {
        let mut window = Window::new();
        let mut frames = Vec::new();
        assert_eq!(
            window.settle(&[(1, true), (1, true), (0, true)], &mut frames),
            [true, false, false]
        );
        frames.clear();
        assert_eq!(window.settle(&[(1, false)], &mut frames), [false]);
        assert!(frames.is_empty());
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
                let mut frames = Vec::new();
                assert!(window.settle(&batch, &mut frames).iter().all(|fresh| *fresh));
                for frame in frames {
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
