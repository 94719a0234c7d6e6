//! What the receiver is told beside deliveries.

use postrider_contract::{Error, Event};

use crate::subscription::table::{Part, Table, Told};

/// News kept for a receiver that does not ask; older news make way.
const NEWS: usize = 64;

impl Table {
    pub(crate) fn tell(&self, event: Event) {
        let mut state = self.state();
        if let Event::Gap { lost } = &event {
            // Gaps add up where nobody asks.
            if let Some(Event::Gap { lost: before }) = state.news.back_mut() {
                *before = before.zip(*lost).map(|(a, b)| a.saturating_add(b));
                return;
            }
        }
        if state.news.len() >= NEWS {
            state.news.pop_front();
        }
        state.news.push_back(event);
        drop(state);
        self.arrived.notify_one();
    }

    /// This part works (again).
    pub(crate) fn up(&self, part: Part) {
        let mut state = self.state();
        state.missing &= !(part as u8);
        if state.missing == 0 && state.told != Told::Ready {
            state.told = Told::Ready;
            state.news.push_back(Event::Ready);
            drop(state);
            self.arrived.notify_one();
        }
    }

    /// This part does not work for now.
    pub(crate) fn down(&self, part: Part, error: Error) {
        let mut state = self.state();
        state.missing |= part as u8;
        if state.told != Told::Degraded && !state.closed {
            state.told = Told::Degraded;
            tracing::warn!(topic = %self.topic, %error, "receiving is interrupted");
            state.news.push_back(Event::Degraded(error));
            drop(state);
            self.arrived.notify_one();
        }
    }

    /// The subscription is over.
    pub(crate) fn fail(&self, error: Error) {
        self.state().failed.get_or_insert(error);
        self.arrived.notify_one();
    }

    /// This side closed.
    pub(crate) fn close(&self) {
        let mut state = self.state();
        state.closed = true;
        state.epoch += 1;
        state.waiting.clear();
        state.held.clear();
        drop(state);
        self.arrived.notify_one();
    }
}
