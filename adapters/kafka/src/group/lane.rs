//! One partition as this process sees it.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime};

use postrider_contract::{Delivery, Message, Origin, Position, Token, return_path};

use super::routes::Route;
use crate::incarnation::Incarnation;
use crate::progress::{Counts, Progress};
use crate::tracker::Tracker;

/// A delivery's number within its lane is its offset, with the count of its releases above.
const OFFSET_BITS: u32 = 48;
const OFFSET_MASK: u64 = (1 << OFFSET_BITS) - 1;
/// So many offsets are marked as delivered at a time, and before anything of them is.
pub(super) const MARKED_AT_ONCE: i64 = 64;
/// How far that goes on: what ended the last process was among the first that it had.
pub(super) const MARKED: i64 = 1024;

/// A message that is not settled.
#[derive(Debug)]
pub(crate) struct Item {
    pub(crate) message: Message,
    pub(crate) stage: Stage,
    /// How often it was released: an old token is no longer good.
    pub(crate) turn: u16,
    /// How often it was delivered without a verdict in assignments that ended without a goodbye.
    pub(crate) starts: u32,
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

/// What a commit is to an assignment.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Word {
    /// One of many.
    Interim,
    /// The last: the partition goes to another, and this process goes on.
    Handover,
    /// The last: the consumer closes.
    Farewell,
}

/// The assignment before ended without a goodbye, so that this one may too: what is delivered is marked before, or a process
/// that ends at once would leave nothing to count by.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Marks {
    /// The broker has it that what lies below was delivered.
    confirmed: i64,
    /// It is to be told so up to here.
    wanted: i64,
    /// From this position on, messages are delivered unmarked.
    until: i64,
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
    /// Which topic of its name the position belongs to, once that is known.
    pub(crate) incarnation: Option<Incarnation>,
    /// The topic was made anew, and librdkafka has yet to go to its beginning: what comes until then is not wanted.
    pub(crate) rewinding: bool,
    /// The broker has no longer what lies at this offset: librdkafka goes on with the oldest.
    pub(crate) reset: Option<i64>,
    /// How often messages that are not here yet were delivered before without a verdict.
    counts: Counts,
    pub(crate) marks: Option<Marks>,
    /// Held back until it is marked.
    backlog: BTreeSet<i64>,
    /// About how many bytes those take.
    pub(crate) backlog_size: usize,
    /// The first unsettled offset, and since when nothing more is fetched before it is settled.
    pub(crate) waits_for: Option<(i64, Instant)>,
    /// How long it has yet to be read without word that it, or another that was read as well, cannot be.
    pub(crate) unreadable: Option<Duration>,
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
            incarnation: None,
            rewinding: false,
            reset: None,
            counts: Counts::default(),
            marks: None,
            backlog: BTreeSet::new(),
            backlog_size: 0,
            waits_for: None,
            unreadable: None,
            turn: 0,
        }
    }

    /// Begins a new epoch at this offset; `None`: it is not known yet.
    pub(crate) fn begin(&mut self, start: Option<i64>, before: Progress) {
        self.reset();
        self.tenure = Tenure::Ours;
        self.counts = before.counts;
        self.marks = start.filter(|_| before.open).map(|start| Marks {
            confirmed: start,
            wanted: start,
            until: start.saturating_add(MARKED),
        });
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
        self.counts.clear();
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
            starts: 0,
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
        let starts = self.counts.take(offset);
        if starts > 0
            && let Some(item) = self.tracker.get_mut(offset)
        {
            item.starts = starts;
        }
    }

    /// Another topic than the one that was counted in.
    pub(crate) fn forget(&mut self) {
        self.tracker.forget_already();
        self.counts.clear();
    }

    /// Holds a message of this size back if it is to be marked first.
    pub(crate) fn holds_back(&mut self, offset: i64, size: usize) -> bool {
        let unmarked = self.marks.is_some_and(|marks| offset >= marks.confirmed);
        if unmarked && self.backlog.insert(offset) {
            self.backlog_size += size;
        }
        unmarked
    }

    /// The next that was held back and may go.
    pub(crate) fn next_of_backlog(&mut self) -> Option<(i64, usize)> {
        let &offset = self.backlog.first()?;
        if self.marks.is_some_and(|marks| offset >= marks.confirmed) {
            return None;
        }
        self.backlog.remove(&offset);
        let size = self.tracker.get(offset).map_or(0, Item::size);
        self.backlog_size = self.backlog_size.saturating_sub(size);
        Some((offset, size))
    }

    /// Asks for the next marks where all that has some is delivered; whether it did.
    pub(crate) fn asks_for_marks(&mut self) -> bool {
        let (Some(marks), Some(&next)) = (&mut self.marks, self.backlog.first()) else {
            return false;
        };
        let mut marked = self
            .tracker
            .iter()
            .take_while(|&(offset, _)| offset < marks.confirmed);
        if marks.wanted > marks.confirmed || marked.any(|(_, item)| item.stage == Stage::Waiting) {
            return false;
        }
        marks.wanted = next.saturating_add(MARKED_AT_ONCE);
        self.dirty = true;
        true
    }

    /// How far it is marked by what is committed now: no further than was received, since what comes later is not counted yet.
    pub(crate) fn marked(&mut self) -> Option<i64> {
        let (marks, next) = (self.marks.as_mut()?, self.tracker.next()?);
        marks.wanted = marks.wanted.min(next).max(marks.confirmed);
        Some(marks.wanted)
    }

    /// The broker has confirmed this position, and that what lies below `marked` is delivered.
    pub(crate) fn note_committed(&mut self, position: i64, marked: Option<i64>) {
        self.committed = Some(position);
        if let (Some(marks), Some(marked)) = (&mut self.marks, marked) {
            marks.confirmed = marks.confirmed.max(marked);
        }
        self.marks = self.marks.filter(|marks| position < marks.until);
    }

    /// What a commit says: the offset, and what rides beside it.
    pub(crate) fn progress(&self, word: Word) -> Option<(i64, Progress)> {
        let position = self.tracker.position()?;
        let is_marked = |offset| self.marks.is_some_and(|marks| offset < marks.wanted);
        let counts = self.tracker.iter().map(|(offset, item)| {
            let is_begun = match (word, item.stage) {
                (Word::Interim, Stage::Waiting) => is_marked(offset),
                (Word::Interim | Word::Farewell, Stage::Given) => true,
                // At a handover: this process has survived it.
                _ => false,
            };
            (offset, item.starts.saturating_add(u32::from(is_begun)))
        });
        let is_last = word != Word::Interim;
        let progress = Progress {
            held: if is_last { 0 } else { self.given as u32 },
            open: !is_last,
            incarnation: self.incarnation.clone(),
            counts: Counts::new(counts, &self.counts),
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
        let epoch = self.epoch;
        let item = self
            .tracker
            .get_mut(offset)
            .filter(|item| item.stage == Stage::Waiting)?;
        item.stage = Stage::Given;
        self.given += 1;
        let (starts, message) = (item.starts, item.message.clone());
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
            redeliveries: Some(starts),
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
