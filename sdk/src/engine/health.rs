use std::sync::{Mutex, MutexGuard, PoisonError};

use tokio::sync::watch;

use super::settles::Kind;
use crate::middleware::Change;

/// How a listener is.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub enum ListenerState {
    /// Not subscribed yet.
    Starting,
    /// Messages flow.
    Ready,
    /// Nothing flows, or verdicts cannot be carried out; it is being mended. The reason.
    Degraded(String),
    /// Paused from code.
    Paused,
    /// It has ended; the reason where it was not asked to.
    Stopped(Option<String>),
}

/// Keeps a listener's state, for status and readiness.
pub(crate) struct Health {
    state: watch::Sender<ListenerState>,
    paused: watch::Sender<bool>,
    last_error: Mutex<Option<String>>,
    /// The last change of the circuit breaker.
    breaker: Mutex<Change>,
    /// Why the marks of what was handled cannot be looked at.
    marks: Mutex<Option<String>>,
    /// Why verdicts of each [`Kind`] cannot be carried out.
    settling: [Mutex<Option<String>>; 2],
    /// Why what a handler publishes is not confirmed, where that goes before its mark.
    publishing: Mutex<Option<String>>,
}

impl Health {
    pub(crate) fn new() -> Self {
        Self {
            state: watch::Sender::new(ListenerState::Starting),
            paused: watch::Sender::new(false),
            last_error: Mutex::default(),
            breaker: Mutex::default(),
            marks: Mutex::default(),
            settling: Default::default(),
            publishing: Mutex::default(),
        }
    }

    pub(crate) fn set(&self, state: ListenerState) {
        if let ListenerState::Degraded(reason) | ListenerState::Stopped(Some(reason)) = &state {
            self.note_error(reason);
        }
        self.state.send_if_modified(|current| {
            let changed = *current != state && !matches!(current, ListenerState::Stopped(_));
            if changed {
                *current = state;
            }
            changed
        });
    }

    pub(crate) fn state(&self) -> ListenerState {
        let state = self.state.borrow().clone();
        if state != ListenerState::Ready {
            return state;
        }
        if *self.paused.borrow() {
            return ListenerState::Paused;
        }
        let reason =
            |held: &Mutex<Option<String>>| held.lock().unwrap_or_else(PoisonError::into_inner).clone();
        let open = || self.last_change().open.clone();
        let held = self
            .settling
            .iter()
            .find_map(reason)
            .or_else(|| reason(&self.publishing))
            .or_else(|| reason(&self.marks))
            .or_else(open);
        held.map_or(state, ListenerState::Degraded)
    }

    /// The circuit breaker opened or closed.
    pub(crate) fn breaker(&self, change: Change) {
        match &change.open {
            Some(reason) => {
                tracing::warn!("{reason}");
                self.note_error(reason);
            }
            None => tracing::info!("the circuit breaker is closed: messages are handled again"),
        }
        let mut last = self.last_change();
        // Lanes tell of changes side by side, and an older one may come later.
        if change.number > last.number {
            *last = change;
        }
    }

    fn last_change(&self) -> MutexGuard<'_, Change> {
        self.breaker.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn note_error(&self, reason: &str) {
        *self.last_error.lock().unwrap_or_else(PoisonError::into_inner) = Some(reason.to_owned());
    }

    /// The store of marks does not answer, or does again.
    pub(crate) fn marks(&self, reason: Option<String>) {
        let mut marks = self.marks.lock().unwrap_or_else(PoisonError::into_inner);
        match (&*marks, &reason) {
            // Each lane that waits for the store says so again and again.
            (None, Some(reason)) => tracing::warn!("{reason}"),
            (Some(_), None) => tracing::info!("duplicates can be told again"),
            _ => {}
        }
        if let Some(reason) = &reason {
            self.note_error(reason);
        }
        *marks = reason;
    }

    /// Verdicts cannot be carried out, or can again.
    pub(crate) fn settling(&self, kind: Kind, reason: Option<String>) {
        if let Some(reason) = &reason {
            self.note_error(reason);
        }
        let mut settling = self.settling[kind as usize]
            .lock()
            .unwrap_or_else(PoisonError::into_inner);
        *settling = reason;
    }

    /// What a handler publishes is not confirmed, or is now.
    pub(crate) fn publishing(&self, reason: Option<String>) {
        if let Some(reason) = &reason {
            tracing::warn!("{reason}");
            self.note_error(reason);
        }
        *self.publishing.lock().unwrap_or_else(PoisonError::into_inner) = reason;
    }

    pub(crate) fn last_error(&self) -> Option<String> {
        self.last_error
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .clone()
    }

    pub(crate) fn watch(&self) -> watch::Receiver<ListenerState> {
        self.state.subscribe()
    }

    pub(crate) fn pause(&self, paused: bool) {
        self.paused.send_replace(paused);
    }

    pub(crate) fn watch_paused(&self) -> watch::Receiver<bool> {
        self.paused.subscribe()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_older_change_of_the_breaker_that_comes_later_is_passed_over() {
        let change = |number, open: Option<&str>| Change {
            number,
            open: open.map(str::to_owned),
        };
        let health = Health::new();
        health.set(ListenerState::Ready);
        health.breaker(change(2, None));
        health.breaker(change(1, Some("down")));
        assert_eq!(health.state(), ListenerState::Ready);
        health.breaker(change(3, Some("down")));
        assert_eq!(health.state(), ListenerState::Degraded("down".into()));
    }
}
