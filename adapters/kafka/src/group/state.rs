//! What the threads of a group's consumer share: partitions, listeners, and who waits for what.

use std::cmp::Reverse;
use std::collections::{BTreeSet, HashMap};
use std::sync::{Condvar, Mutex, MutexGuard};
use std::time::SystemTime;

use postrider_contract::{Delivery, Error, Token};

use super::health::Obstacle;
use super::lane::{Lane, Stage};
use super::mailbox::{Mailbox, Waiting};
use super::routes::Route;
use crate::lock::lock;
use crate::progress::Progress;
use crate::record::Inbound;
use crate::tracker::Received;

/// How many entries a partition's tracker may hold before fetching waits for the first of them.
pub(super) const LONGEST_SPAN: usize = 16 * 1024;
/// How many messages of a partition of the return path are read ahead.
const LONGEST_DELAYED: usize = 2000;
/// Shared by the consumer's thread, the committing thread, receivers and settlers.
pub(crate) struct Shared {
    state: Mutex<State>,
    /// The consumer's thread waits here for room and for drained lanes.
    pub(crate) flow: Condvar,
    /// The committing thread waits here for something to commit.
    pub(crate) work: Condvar,
    /// One commit at a time, so that none of them goes back.
    pub(crate) committing: Mutex<()>,
}

impl Shared {
    pub(crate) fn new(mailboxes: usize, prefetch: usize) -> Self {
        Self {
            state: Mutex::new(State {
                lanes: Vec::new(),
                boxes: (0..mailboxes).map(|_| Mailbox::default()).collect(),
                phase: Phase::Open,
                degraded: true,
                starting: true,
                dirty: false,
                hurry: false,
                joined: false,
                obstacles: BTreeSet::new(),
                generation: 0,
                cut_off: false,
                fresh: false,
                bare: false,
                ids: HashMap::new(),
                unchecked: false,
                rewinding: false,
                awaited: None,
                work_waits: false,
                prefetch,
            }),
            flow: Condvar::new(),
            work: Condvar::new(),
            committing: Mutex::new(()),
        }
    }

    pub(crate) fn lock(&self) -> MutexGuard<'_, State> {
        lock(&self.state)
    }

    /// Wakes whoever what was just done is of interest to.
    pub(crate) fn wake(&self, state: &mut State) {
        for mailbox in &mut state.boxes {
            if std::mem::take(&mut mailbox.fuller) {
                mailbox.news.notify_one();
            }
        }
        if state.awaited.is_some_and(|awaited| state.has_come(awaited)) {
            // Whoever waits for more says so again.
            state.awaited = None;
            self.flow.notify_all();
        }
        if state.hurry || (state.work_waits && state.dirty) {
            self.work.notify_all();
        }
    }

    /// Asks the consumer to commit and leave.
    pub(crate) fn close(&self) {
        let mut state = self.lock();
        if matches!(state.phase, Phase::Open) {
            state.phase = Phase::Closing;
        }
        drop(state);
        self.flow.notify_all();
        self.work.notify_all();
    }

    /// Asks for another consumer in place of the one that reaches no broker.
    pub(crate) fn cut_off(&self) {
        self.lock().cut_off = true;
        self.flow.notify_all();
        self.work.notify_all();
    }

    /// Ends every subscription with an error that trying again does not mend.
    pub(crate) fn fail(&self, error: Error) {
        let mut state = self.lock();
        if !matches!(state.phase, Phase::Failed(_) | Phase::Closed) {
            tracing::error!(%error, "a Kafka subscription is over");
            state.phase = Phase::Failed(error);
        }
        state.wake_all();
        drop(state);
        self.flow.notify_all();
        self.work.notify_all();
    }
}

/// How far the consumer's life is.
#[derive(Debug)]
pub(crate) enum Phase {
    Open,
    /// Leaving; what is settled meanwhile still counts.
    Closing,
    /// Left.
    Closed,
    /// Over, and why.
    Failed(Error),
}

/// What the consumer's thread waits for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Awaited {
    /// No mailbox is full.
    Room,
    /// None is more than half full.
    MuchRoom,
    /// Something is settled or released.
    Settled,
}

/// What is shared, under its lock.
#[allow(clippy::struct_excessive_bools, reason = "independent facts, not a state")]
pub(crate) struct State {
    /// By [`Token::lane`].
    pub(crate) lanes: Vec<Lane>,
    /// By the listener's place in the group.
    pub(crate) boxes: Vec<Mailbox>,
    pub(crate) phase: Phase,
    /// Nothing flows for now.
    pub(crate) degraded: bool,
    /// Nothing has ever flowed, and nothing was told of that.
    pub(crate) starting: bool,
    /// Some lane has something to commit.
    pub(crate) dirty: bool,
    /// And at once.
    pub(crate) hurry: bool,
    /// The group has assigned us something, if only nothing.
    pub(crate) joined: bool,
    /// What keeps messages from flowing.
    pub(crate) obstacles: BTreeSet<Obstacle>,
    /// Counts the consumers: only the one of the time has a say.
    pub(crate) generation: u32,
    /// The consumer of the time is to be made anew.
    pub(crate) cut_off: bool,
    /// There is a new assignment, not yet marked as in use.
    pub(crate) fresh: bool,
    /// It was told that positions are committed without what is noted beside them.
    pub(crate) bare: bool,
    /// Kafka's topics, and the ids that they have.
    pub(crate) ids: HashMap<String, String>,
    /// There are ids or positions that have not been compared.
    pub(crate) unchecked: bool,
    /// Some lane is to be read from the beginning.
    pub(crate) rewinding: bool,
    /// What is waited for on [`Shared::flow`], and whether somebody waits on [`Shared::work`]: waking nobody is a system
    /// call too.
    pub(crate) awaited: Option<Awaited>,
    pub(crate) work_waits: bool,
    /// How many bytes a mailbox takes before fetching stops.
    pub(crate) prefetch: usize,
}

impl State {
    pub(crate) fn wake_all(&mut self) {
        for mailbox in &mut self.boxes {
            mailbox.news.notify_one();
        }
    }

    pub(crate) fn is_open(&self) -> bool {
        matches!(self.phase, Phase::Open)
    }

    /// Whether the consumer of the time goes on.
    pub(crate) fn is_working(&self) -> bool {
        self.is_open() && !self.cut_off
    }

    /// Whether there is what is waited for. A mailbox that is left to itself is in nobody's way.
    pub(crate) fn has_come(&self, awaited: Awaited) -> bool {
        let most = match awaited {
            Awaited::Room => self.prefetch.saturating_sub(1),
            Awaited::MuchRoom => self.prefetch / 2,
            Awaited::Settled => return true,
        };
        self.boxes
            .iter()
            .all(|mailbox| mailbox.choked || mailbox.size <= most)
    }

    /// The lane of a partition.
    pub(crate) fn lane_of(&self, topic: &str, partition: i32) -> Option<usize> {
        self.lanes
            .iter()
            .position(|lane| lane.partition == partition && lane.route.name == topic)
    }

    /// A partition is assigned, with what the last assignment left. Answers its lane.
    pub(crate) fn assign(
        &mut self,
        route: &std::sync::Arc<Route>,
        partition: i32,
        start: Option<i64>,
        before: Progress,
    ) -> usize {
        let id = self.lane_of(&route.name, partition).unwrap_or_else(|| {
            self.lanes.push(Lane::new(route.clone(), partition));
            self.lanes.len() - 1
        });
        self.clear(id);
        if let Some(lane) = self.lanes.get_mut(id) {
            lane.begin(start, before);
            self.dirty |= lane.dirty;
            self.fresh = true;
            self.unchecked |= self.ids.contains_key(&route.name);
        }
        id
    }

    /// A partition is gone: what waits is dropped, what the runtime has becomes stale.
    pub(crate) fn unassign(&mut self, id: usize) {
        self.clear(id);
        if let Some(lane) = self.lanes.get_mut(id) {
            lane.end();
        }
    }

    /// Drops what waits of a lane.
    pub(crate) fn clear(&mut self, id: usize) {
        let mailbox = self.lanes.get(id).map(|lane| lane.mailbox);
        if let Some(mailbox) = mailbox.and_then(|mailbox| self.boxes.get_mut(mailbox)) {
            mailbox.drop_lane(id as u32, i64::MIN);
        }
    }

    /// What is known of the return path is to be committed, whether it has changed or not.
    pub(crate) fn refresh_return_path(&mut self) {
        for lane in &mut self.lanes {
            lane.dirty |= lane.route.return_path && lane.is_assigned();
            self.dirty |= lane.dirty;
        }
    }

    /// Takes in a record. Records of lanes that are being taken away are not wanted.
    pub(crate) fn accept(&mut self, id: usize, offset: i64, inbound: Inbound, now: SystemTime) {
        let Some(lane) = self.lanes.get_mut(id) else {
            return;
        };
        if !lane.delivers() || lane.rewinding {
            return;
        }
        lane.note_read();
        let due = inbound.not_before.filter(|&due| due > now);
        let stage = due.map_or(Stage::Waiting, Stage::Delayed);
        if lane.tracker.is_behind(offset) {
            tracing::warn!(
                topic = lane.route.name,
                partition = lane.partition,
                offset,
                "the partition went back: it was truncated or made anew"
            );
            self.go_back(id, offset);
        }
        self.tell_gap(id, offset);
        let Some(lane) = self.lanes.get_mut(id) else {
            return;
        };
        let item = lane.item(inbound.message, stage);
        let size = item.size();
        let received = lane.tracker.receive(offset, item);
        if received == Received::Already {
            lane.dirty = true;
            self.dirty = true;
            return;
        }
        lane.note_received(offset);
        let place = (id as u32, lane.epoch, offset);
        match due {
            Some(due) => {
                lane.delayed.0 += 1;
                lane.delayed.1 += size;
                if let Some(mailbox) = self.boxes.get_mut(lane.mailbox) {
                    mailbox.delayed.push(Reverse((due, place)));
                }
            }
            None => self.line_up(id, offset, size),
        }
    }

    /// All messages of a partition before this offset have been accepted.
    pub(super) fn pass(&mut self, topic: &str, partition: i32, offset: i64) {
        let Some(id) = self.lane_of(topic, partition) else {
            return;
        };
        let may = |lane: &&mut Lane| lane.delivers() && !lane.rewinding;
        let is_behind_a_gap = |lane: &mut Lane| lane.reset.is_some_and(|reset| reset < offset);
        if self.lanes.get_mut(id).filter(may).is_some_and(is_behind_a_gap) {
            self.tell_gap(id, offset);
        }
        if let Some(lane) = self.lanes.get_mut(id).filter(may)
            && lane.tracker.pass(offset)
        {
            lane.dirty = true;
            self.dirty = true;
        }
    }

    /// A lane goes on at an offset that lies before what was received. A log that was truncated still has what lies before
    /// that offset, and librdkafka does not fetch it again; of one that was made anew nothing is left.
    fn go_back(&mut self, id: usize, offset: i64) {
        let Some(lane) = self.lanes.get_mut(id) else {
            return;
        };
        let is_truncated = lane.tracker.position().is_some_and(|first| first < offset);
        if is_truncated {
            lane.truncate(offset);
            if let Some(mailbox) = self.boxes.get_mut(lane.mailbox) {
                mailbox.drop_lane(id as u32, offset);
            }
            self.dirty = true;
            return;
        }
        self.begin_anew(id, offset);
    }

    /// Puts a waiting item of this size in line.
    pub(super) fn line_up(&mut self, id: usize, offset: i64, size: usize) {
        let Some(lane) = self.lanes.get_mut(id) else {
            return;
        };
        if lane.holds_back(offset, size) {
            if lane.asks_for_marks() {
                self.hurry();
            }
        } else if let Some(mailbox) = self.boxes.get_mut(lane.mailbox) {
            mailbox.push(Waiting {
                place: (id as u32, lane.epoch, offset),
                size,
            });
        }
    }

    /// Hands out up to `max` deliveries of a mailbox.
    pub(crate) fn give(&mut self, mailbox: usize, max: usize, into: &mut Vec<Delivery>) {
        let Some(mailbox) = self.boxes.get_mut(mailbox) else {
            return;
        };
        let wanted = into.len() + max;
        while into.len() < wanted {
            let Some((id, epoch, offset)) = mailbox.pop() else {
                return;
            };
            let Some(lane) = self.lanes.get_mut(id as usize) else {
                continue;
            };
            if lane.epoch == epoch && lane.delivers() {
                into.extend(lane.give(id, offset));
                self.dirty |= lane.dirty;
                self.hurry |= lane.asks_for_marks();
            }
        }
    }

    /// Something is to be committed, and at once.
    fn hurry(&mut self) {
        (self.dirty, self.hurry) = (true, true);
    }

    /// Whether a token is still good.
    pub(crate) fn holds(&self, token: Token) -> bool {
        let lane = self.lanes.get(token.lane as usize);
        lane.is_some_and(|lane| lane.holds(token).is_some())
    }

    /// Settles a delivery whose copies, if any, are confirmed. False: it is stale.
    pub(crate) fn acknowledge(&mut self, token: Token) -> bool {
        let Some(lane) = self.lanes.get_mut(token.lane as usize) else {
            return false;
        };
        let Some(offset) = lane.holds(token) else {
            return false;
        };
        let item = lane.tracker.settle(offset);
        lane.given = lane.given.saturating_sub(1);
        lane.dirty = true;
        self.dirty = true;
        // Before another one ends the process, and this is counted once more.
        self.hurry |= item.is_some_and(|item| item.starts > 0);
        true
    }

    /// A commit was confirmed: what it marks goes on.
    pub(super) fn note_committed(&mut self, id: usize, position: i64, marked: Option<i64>) {
        let Some(lane) = self.lanes.get_mut(id) else {
            return;
        };
        lane.note_committed(position, marked);
        while let Some((offset, size)) = self.lanes.get_mut(id).and_then(Lane::next_of_backlog) {
            self.line_up(id, offset, size);
        }
    }

    /// Puts deliveries back in line, in their order, before everything else. Answers for each whether it was good.
    pub(crate) fn put_back(&mut self, tokens: &[Token]) -> Vec<bool> {
        let mut good = Vec::with_capacity(tokens.len());
        let mut places = Vec::new();
        for token in tokens {
            let lane = self.lanes.get_mut(token.lane as usize);
            let Some((lane, offset)) = lane.and_then(|lane| lane.holds(*token).map(|offset| (lane, offset)))
            else {
                good.push(false);
                continue;
            };
            good.push(true);
            lane.given = lane.given.saturating_sub(1);
            lane.dirty = true;
            self.dirty = true;
            let delivers = lane.delivers();
            if let Some(item) = lane.tracker.get_mut(offset) {
                item.stage = Stage::Waiting;
                item.turn = item.turn.wrapping_add(1);
                if delivers {
                    let place = (token.lane, lane.epoch, offset);
                    let size = item.size();
                    places.push((lane.mailbox, Waiting { place, size }));
                }
            }
        }
        places.sort_unstable_by_key(|(_, waiting)| Reverse(waiting.place));
        for (mailbox, waiting) in places {
            if let Some(mailbox) = self.boxes.get_mut(mailbox) {
                mailbox.push_front(waiting);
            }
        }
        good
    }

    /// Whether a lane's fetching should stand still, given that it does or does not now: with slack, so that it does not
    /// flutter.
    pub(crate) fn should_pause(&self, lane: &Lane) -> bool {
        let slack = if lane.paused { 2 } else { 1 };
        let most = self.prefetch / slack;
        let held = self.boxes.get(lane.mailbox).is_some_and(|mailbox| {
            mailbox.paused || mailbox.choked || (lane.marks.is_some() && mailbox.backlog > most)
        });
        held || !lane.delivers()
            || lane.tracker.span() > LONGEST_SPAN / slack
            || lane.delayed.0 > LONGEST_DELAYED / slack
            || lane.delayed.1 > most
    }

    /// Adds up what the lanes of each mailbox hold back.
    pub(crate) fn weigh_backlogs(&mut self) {
        for mailbox in &mut self.boxes {
            mailbox.backlog = 0;
        }
        for lane in &self.lanes {
            if let Some(mailbox) = self.boxes.get_mut(lane.mailbox) {
                mailbox.backlog += lane.backlog_size;
            }
        }
    }
}
