use std::sync::{Mutex, PoisonError};

use tokio::sync::watch;

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
    /// Why the circuit breaker is open.
    open: Mutex<Option<String>>,
    /// Why the marks of what was handled cannot be looked at.
    marks: Mutex<Option<String>>,
    /// Why verdicts cannot be carried out.
    settling: Mutex<Option<String>>,
}

impl Health {
    pub(crate) fn new() -> Self {
        Self {
            state: watch::Sender::new(ListenerState::Starting),
            paused: watch::Sender::new(false),
            last_error: Mutex::default(),
            open: Mutex::default(),
            marks: Mutex::default(),
            settling: Mutex::default(),
        }
    }

    pub(crate) fn set(&self, state: ListenerState) {
        if let ListenerState::Degraded(reason) | ListenerState::Stopped(Some(reason)) = &state {
            *self.last_error.lock().unwrap_or_else(PoisonError::into_inner) = Some(reason.clone());
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
        let held = reason(&self.settling)
            .or_else(|| reason(&self.marks))
            .or_else(|| reason(&self.open));
        held.map_or(state, ListenerState::Degraded)
    }

    /// The circuit breaker opened or closed.
    pub(crate) fn breaker(&self, change: Change) {
        let reason = match change {
            Change::Opened(reason) => {
                tracing::warn!("{reason}");
                *self.last_error.lock().unwrap_or_else(PoisonError::into_inner) = Some(reason.clone());
                Some(reason)
            }
            Change::Closed => {
                tracing::info!("the circuit breaker is closed: messages are handled again");
                None
            }
        };
        *self.open.lock().unwrap_or_else(PoisonError::into_inner) = reason;
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
        if reason.is_some() {
            (*self.last_error.lock().unwrap_or_else(PoisonError::into_inner)).clone_from(&reason);
        }
        *marks = reason;
    }

    /// Verdicts cannot be carried out, or can again.
    pub(crate) fn settling(&self, reason: Option<String>) {
        if reason.is_some() {
            (*self.last_error.lock().unwrap_or_else(PoisonError::into_inner)).clone_from(&reason);
        }
        *self.settling.lock().unwrap_or_else(PoisonError::into_inner) = reason;
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
