//! Whether messages flow, and what keeps them from it.

use std::time::{Duration, Instant};

use postrider_contract::{Error, Event};

use super::state::{Shared, State};

/// A partition of which librdkafka does not say for so long that it cannot be read can be: it tries every half second, where
/// nothing is paused.
const UNREADABLE: Duration = Duration::from_secs(5);

/// What keeps messages from flowing, or what is done of them from lasting, until it is told that it is over.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Obstacle {
    /// Some retries are read by nobody.
    Stranded,
    /// What is settled cannot be committed.
    Uncommitted,
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

    /// A partition goes no further: told once, and told again and again to keep that up.
    pub(crate) fn stand_still(&self, error: &Error) {
        self.lock().unreadable = Some(Instant::now());
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

    /// Messages flow again, if there is an assignment, and nothing stands in the way.
    pub(crate) fn recover(&mut self) {
        self.unreadable.take_if(|told| told.elapsed() >= UNREADABLE);
        if self.degraded && self.joined && self.unreadable.is_none() && self.obstacles.is_empty() {
            (self.degraded, self.starting) = (false, false);
            self.boxes
                .iter_mut()
                .for_each(|mailbox| mailbox.tell(Event::Ready));
        }
    }
}
