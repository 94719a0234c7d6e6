//! One partition as this process sees it.

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::SystemTime;

use postrider_contract::{Delivery, Message, Origin, Position, Token, return_path};

use super::routes::Route;
use crate::incarnation::Incarnation;
use crate::progress::Progress;
use crate::tracker::Tracker;

/// A delivery's number within its lane is its offset, with the count of its releases above.
const OFFSET_BITS: u32 = 48;
const OFFSET_MASK: u64 = (1 << OFFSET_BITS) - 1;
/// From so many starts on, a lane's messages are delivered one at a time: whichever ends the process is the first unsettled
/// one then, and is counted instead of its neighbours.
const STARTS_TO_ISOLATE: u32 = 3;

/// A message that is not settled.
#[derive(Debug)]
pub(crate) struct Item {
    pub(crate) message: Message,
    pub(crate) stage: Stage,
    /// How often it was released: an old token is no longer good.
    pub(crate) turn: u16,
}

/// Where an unsettled message is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Stage {
    /// On the return path, and not due before this time.
    Delayed(SystemTime),
    /// To be delivered.
    Waiting,
    /// With the runtime.
    Given,
}

impl Item {
    /// About what it takes in memory.
    pub(crate) fn size(&self) -> usize {
        self.message.size() + 256
    }
}

/// Whose a partition is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Tenure {
    /// Not assigned to us.
    Gone,
    /// Assigned.
    Ours,
    /// Being taken away: nothing more is delivered, what the runtime has may be settled.
    Leaving,
    /// Likewise, and the runtime said that it holds nothing of it any more.
    Released,
}

/// How the first message of an assignment is delivered.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum FirstDelivery {
    /// As every other.
    Plain,
    /// The assignment before ended without a goodbye: it is marked as begun before it is delivered.
    ToBeMarked,
    /// So it was marked, and is about to come.
    Marked,
}

/// A partition, assigned now or before.
#[derive(Debug)]
pub(crate) struct Lane {
    pub(crate) route: Arc<Route>,
    pub(crate) partition: i32,
    /// The listener that it delivers to.
    pub(crate) mailbox: usize,
    pub(crate) epoch: u32,
    pub(crate) tenure: Tenure,
    /// As librdkafka was told.
    pub(crate) paused: bool,
    pub(crate) tracker: Tracker<Item>,
    /// How many items the runtime has.
    pub(crate) given: usize,
    /// How many are on the return path and not due, and their size.
    pub(crate) delayed: (usize, usize),
    /// There is something to commit.
    pub(crate) dirty: bool,
    /// What the broker has confirmed as this group's position.
    pub(crate) committed: Option<i64>,
    pub(crate) first_delivery: FirstDelivery,
    /// Which topic of its name the position belongs to, once that is known.
    pub(crate) incarnation: Option<Incarnation>,
    /// The topic was made anew, and librdkafka has yet to go to its beginning: what comes until then is not wanted.
    pub(crate) rewinding: bool,
    /// How often the first message was delivered before without a verdict.
    starts: u32,
    /// The offset of that message, once it is here.
    suspect: Option<i64>,
    /// Held back while messages are delivered one at a time.
    pub(crate) backlog: VecDeque<i64>,
    /// About how many bytes those take.
    pub(crate) backlog_size: usize,
    /// What items begin to count their releases from.
    turn: u16,
}

impl Lane {
    pub(crate) fn new(route: Arc<Route>, partition: i32) -> Self {
        Self {
            mailbox: partition.unsigned_abs() as usize % route.boxes.max(1),
            route,
            partition,
            epoch: 0,
            tenure: Tenure::Gone,
            paused: false,
            tracker: Tracker::new(None, []),
            given: 0,
            delayed: (0, 0),
            dirty: false,
            committed: None,
            first_delivery: FirstDelivery::Plain,
            incarnation: None,
            rewinding: false,
            starts: 0,
            suspect: None,
            backlog: VecDeque::new(),
            backlog_size: 0,
            turn: 0,
        }
    }

    /// Begins a new epoch at this offset; `None`: it is not known yet.
    pub(crate) fn begin(&mut self, start: Option<i64>, before: Progress) {
        self.reset();
        self.tenure = Tenure::Ours;
        self.starts = before.starts_so_far();
        if before.open {
            self.first_delivery = FirstDelivery::ToBeMarked;
        }
        self.incarnation = before.incarnation;
        self.tracker = Tracker::new(start, before.ahead);
        self.dirty = start.is_some();
        self.committed = start;
    }

    /// What was received from this offset on is gone: tokens of it are stale, those of what lies before stay good.
    pub(crate) fn truncate(&mut self, offset: i64) {
        self.tracker.truncate(offset);
        // More than anything is released: what comes at an offset again is not what was there.
        self.turn = self.turn.wrapping_add(1 << 8);
        self.suspect = self.suspect.filter(|&suspect| suspect < offset);
        self.backlog.retain(|&held| held < offset);
        (self.given, self.delayed, self.backlog_size) = (0, (0, 0), 0);
        for (at, item) in self.tracker.iter() {
            match item.stage {
                Stage::Given => self.given += 1,
                Stage::Delayed(_) => {
                    self.delayed.0 += 1;
                    self.delayed.1 += item.size();
                }
                Stage::Waiting if self.backlog.contains(&at) => self.backlog_size += item.size(),
                Stage::Waiting => {}
            }
        }
        self.dirty = true;
    }

    /// An item that was received just now.
    pub(crate) fn item(&self, message: Message, stage: Stage) -> Item {
        Item {
            message,
            stage,
            turn: self.turn,
        }
    }

    /// Ends the epoch: every token of it is stale from here.
    pub(crate) fn end(&mut self) {
        self.reset();
    }

    fn reset(&mut self) {
        *self = Self {
            epoch: self.epoch.wrapping_add(1),
            ..Self::new(self.route.clone(), self.partition)
        };
    }

    /// One of the delayed messages, of this size, is due or gone.
    pub(crate) fn is_no_longer_delayed(&mut self, size: usize) {
        self.delayed.0 = self.delayed.0.saturating_sub(1);
        self.delayed.1 = self.delayed.1.saturating_sub(size);
    }

    /// An offset was received for the first time.
    pub(crate) fn note_received(&mut self, offset: i64) {
        self.suspect.get_or_insert(offset);
        // From here on the message itself tells whether it is begun.
        self.first_delivery = FirstDelivery::Plain;
    }

    /// An offset was settled.
    pub(crate) fn note_settled(&mut self, offset: i64) {
        if self.suspect == Some(offset) {
            self.starts = 0;
        }
        self.dirty = true;
    }

    /// Whether its messages are delivered one at a time.
    pub(crate) fn one_at_a_time(&self) -> bool {
        self.starts >= STARTS_TO_ISOLATE
    }

    /// What a commit says: the offset, and what rides beside it. `leaving`: this is the goodbye.
    pub(crate) fn progress(&self, leaving: bool) -> Option<(i64, Progress)> {
        let position = self.tracker.position()?;
        let first = self.tracker.first();
        let progress = Progress {
            starts: self.starts,
            begun: match first {
                Some((_, item)) => item.stage == Stage::Given,
                None => self.first_delivery == FirstDelivery::Marked,
            },
            held: if leaving { 0 } else { self.given as u32 },
            open: !leaving,
            incarnation: self.incarnation.clone(),
            ahead: self.tracker.ahead(),
        };
        Some((position, progress))
    }

    /// Whether it is ours to settle and commit.
    pub(crate) fn is_assigned(&self) -> bool {
        self.tenure != Tenure::Gone
    }

    /// Whether its messages are delivered.
    pub(crate) fn delivers(&self) -> bool {
        self.tenure == Tenure::Ours
    }

    /// Whether the runtime may still settle something of it.
    pub(crate) fn is_held(&self) -> bool {
        self.given > 0 && self.tenure != Tenure::Released
    }

    /// Hands an item to the runtime.
    pub(crate) fn give(&mut self, id: u32, offset: i64) -> Option<Delivery> {
        let (epoch, starts, suspect) = (self.epoch, self.starts, self.suspect);
        let item = self
            .tracker
            .get_mut(offset)
            .filter(|item| item.stage == Stage::Waiting)?;
        item.stage = Stage::Given;
        self.given += 1;
        let message = item.message.clone();
        let origin = if self.route.return_path {
            return_path(&message)
        } else {
            Origin::Topic
        };
        let token = Token {
            lane: id,
            epoch,
            seq: (u64::from(item.turn) << OFFSET_BITS) | (offset as u64 & OFFSET_MASK),
        };
        // What is begun, and how much is held, is part of what is committed.
        self.dirty = true;
        Some(Delivery {
            token,
            origin,
            redeliveries: Some(if suspect == Some(offset) { starts } else { 0 }),
            topic: self.route.topic.clone(),
            position: Position {
                partition: u32::try_from(self.partition).ok(),
                offset: offset as u64,
                minor: None,
            },
            message,
        })
    }

    /// The offset of a token that is still good: given, not settled, of this epoch.
    pub(crate) fn holds(&self, token: Token) -> Option<i64> {
        let offset = (token.seq & OFFSET_MASK) as i64;
        let item = self.tracker.get(offset)?;
        let current = self.is_assigned()
            && self.epoch == token.epoch
            && item.stage == Stage::Given
            && u64::from(item.turn) == token.seq >> OFFSET_BITS;
        current.then_some(offset)
    }
}
