//! Messages on the return path that are not due yet.

use std::cmp::Reverse;
use std::time::{Duration, SystemTime};

use postrider_contract::Message;

use super::lane::Stage;
use super::state::{LONGEST_SPAN, State};

/// How many messages are moved at a time.
const MOVED_AT_ONCE: usize = 500;

/// A message that is due long after those that came behind it: it keeps its partition's position back.
pub(crate) struct Straggler {
    lane: usize,
    epoch: u32,
    offset: i64,
    /// When it is due.
    pub(crate) due: SystemTime,
    /// What is to be sent again.
    pub(crate) message: Message,
}

impl State {
    /// Puts what has become due in line; answers how long until the next is.
    pub(crate) fn release_due(&mut self, now: SystemTime) -> Option<Duration> {
        let mut next: Option<Duration> = None;
        for index in 0..self.boxes.len() {
            while let Some(&Reverse((due, (id, epoch, offset)))) =
                self.boxes.get(index).and_then(|mailbox| mailbox.delayed.peek())
            {
                if due > now {
                    let wait = due.duration_since(now).unwrap_or_default();
                    next = Some(next.map_or(wait, |next| next.min(wait)));
                    break;
                }
                if let Some(mailbox) = self.boxes.get_mut(index) {
                    mailbox.delayed.pop();
                }
                let id = id as usize;
                let Some(lane) = self.lanes.get_mut(id).filter(|lane| lane.epoch == epoch) else {
                    continue;
                };
                if let Some(item) = lane.tracker.get_mut(offset) {
                    item.stage = Stage::Waiting;
                    let size = item.size();
                    lane.is_no_longer_delayed(size);
                    self.line_up(id, offset, size);
                }
            }
        }
        next
    }

    /// The first messages of return paths whose span has grown long.
    pub(crate) fn stragglers(&self) -> Vec<Straggler> {
        let long = |lane: &super::lane::Lane| {
            lane.delivers() && lane.route.return_path && lane.tracker.span() > LONGEST_SPAN / 2
        };
        let lanes = self.lanes.iter().enumerate().filter(|(_, lane)| long(lane));
        lanes
            .flat_map(|(id, lane)| {
                let first = lane
                    .tracker
                    .iter()
                    .map_while(move |(offset, item)| match item.stage {
                        Stage::Delayed(due) => Some(Straggler {
                            lane: id,
                            epoch: lane.epoch,
                            offset,
                            due,
                            message: item.message.clone(),
                        }),
                        _ => None,
                    });
                first.take(MOVED_AT_ONCE)
            })
            .collect()
    }

    /// A straggler was sent again, and that is confirmed: this copy of it is done, unless it became due meanwhile.
    pub(crate) fn overtake(&mut self, straggler: &Straggler) {
        let lane = self.lanes.get_mut(straggler.lane);
        let Some(lane) = lane.filter(|lane| lane.epoch == straggler.epoch && lane.delivers()) else {
            return;
        };
        let item = lane.tracker.get(straggler.offset);
        if item.is_some_and(|item| matches!(item.stage, Stage::Delayed(_))) {
            if let Some(item) = lane.tracker.settle(straggler.offset) {
                lane.is_no_longer_delayed(item.size());
            }
            lane.dirty = true;
            self.dirty = true;
        }
    }
}
