//! Whether messages flow, and what keeps them from it.

use std::time::Duration;

use postrider_contract::{Error, Event};

use super::lane::Lane;
use super::state::{Shared, State};

/// A partition that is read for so long, and of which librdkafka does not say that it cannot be, can be: it tries every half
/// second.
const UNREADABLE: Duration = Duration::from_secs(5);

/// What keeps messages from flowing, or what is done of them from lasting, until it is told that it is over.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Obstacle {
    /// Some retries are read by nobody.
    Stranded,
    /// What is settled cannot be committed.
    Uncommitted,
    /// A partition waits for one message.
    HeldUp,
}

impl Shared {
    /// Nothing flows: told once.
    pub(crate) fn degrade(&self, error: &Error) {
        let mut state = self.lock();
        state.degrade(error);
        if state.work_waits {
            self.work.notify_all();
        }
    }

    /// Some partition cannot be read: told once, and told again and again to keep that up. It is one of those that are read.
    pub(crate) fn stand_still(&self, error: &Error) {
        for lane in &mut self.lock().lanes {
            if lane.is_assigned() && !lane.paused {
                lane.unreadable = Some(UNREADABLE);
            }
        }
        self.degrade(error);
    }

    /// Something is in the way, or no longer: told once, also where nothing flows for another reason.
    pub(super) fn note(&self, obstacle: Obstacle, met: Option<&Error>) {
        let mut state = self.lock();
        match met {
            Some(error) if state.obstacles.insert(obstacle) => {
                state.degraded = false;
                drop(state);
                self.degrade(error);
            }
            Some(_) => {}
            None => {
                state.obstacles.remove(&obstacle);
            }
        }
    }
}

impl State {
    /// Nothing flows: told once, also where nothing ever has.
    pub(crate) fn degrade(&mut self, error: &Error) {
        let is_news = std::mem::take(&mut self.starting) || !self.degraded;
        if is_news && self.is_open() {
            tracing::warn!(%error, "messages from Kafka stand still");
            self.boxes
                .iter_mut()
                .for_each(|mailbox| mailbox.tell(Event::Degraded(error.clone())));
        }
        self.degraded = true;
    }

    /// Messages flow again, if there is an assignment that is marked as in use, and nothing stands in the way.
    pub(crate) fn recover(&mut self) {
        let is_assigned = self.joined && !self.fresh;
        let is_readable = self.lanes.iter().all(|lane| lane.unreadable.is_none());
        if self.degraded && is_assigned && is_readable && self.obstacles.is_empty() {
            (self.degraded, self.starting) = (false, false);
            self.boxes
                .iter_mut()
                .for_each(|mailbox| mailbox.tell(Event::Ready));
        }
    }
}

impl Lane {
    /// It was read, or not, for so long since this was asked last.
    pub(super) fn note_time(&mut self, passed: Duration) {
        if let Some(left) = self.unreadable.filter(|_| !self.paused) {
            self.unreadable = left.checked_sub(passed).filter(|left| !left.is_zero());
        }
    }

    /// Something came of it: it can be read, unless that was told only now, and this came before.
    pub(super) fn note_read(&mut self) {
        self.unreadable.take_if(|left| *left < UNREADABLE);
    }
}
