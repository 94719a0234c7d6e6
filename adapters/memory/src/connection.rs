//! One instance's connection, and waiting for room in a full queue.

use std::mem;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use postrider_contract::{Capabilities, Error, ErrorKind, Guarantee, Outgoing, Receipt};
use tokio::time::{Instant, sleep_until};

use crate::route::Refusal;
use crate::settings::ConnectionSettings;
use crate::state::{Hub, State};

const YEAR: Duration = Duration::from_secs(365 * 24 * 3600);

/// What a connection's broker, receivers and settlers share.
pub(crate) struct Connection {
    pub(crate) hub: Arc<Hub>,
    pub(crate) number: u64,
    pub(crate) capabilities: Capabilities,
    publish_timeout: Duration,
    closed: AtomicBool,
}

/// What came of an attempt to send.
pub(crate) enum Sent {
    Answer(Result<Receipt, Error>),
    /// A queue is full; the message is handed back.
    Full(Outgoing),
}

impl Connection {
    pub(crate) fn new(hub: Arc<Hub>, settings: ConnectionSettings) -> Self {
        let number = u64::from(hub.lock().number());
        let capabilities = Capabilities {
            system: "memory",
            guarantee: Guarantee::AtLeastOnce,
            ordered: true,
            broadcast: true,
            earliest: hub.limits.retain > 0,
            knows_receivers: true,
            counts_redeliveries: true,
            max_delay: YEAR,
            max_hold: None,
            lease: None,
            max_payload: settings.max_payload,
        };
        Self {
            hub,
            number,
            capabilities,
            publish_timeout: settings.publish_timeout,
            closed: AtomicBool::new(false),
        }
    }

    /// # Errors
    /// It was closed.
    pub(crate) fn check_open(&self) -> Result<(), Error> {
        if self.closed.load(Ordering::Acquire) {
            return Err(Error::new(
                ErrorKind::Closed,
                "the connection was closed from this side",
            ));
        }
        Ok(())
    }

    /// Ends every subscription of this connection and everything that waits on it.
    pub(crate) fn close(&self) {
        self.closed.store(true, Ordering::Release);
        let mut state = self.hub.lock();
        for index in 0..state.consumers.len() {
            if matches!(&state.consumers[index], Some(consumer) if consumer.owner == self.number) {
                state.end(index);
            }
        }
        state.queues.wake();
        drop(state);
        self.hub.room.notify_waiters();
    }

    /// Sends a message now; hands it back where a queue is full.
    pub(crate) fn send(&self, state: &mut State, outgoing: Outgoing) -> Sent {
        match state.admit(&outgoing, self.capabilities.max_payload) {
            Ok(route) => Sent::Answer(Ok(state.place(outgoing, route))),
            Err(Refusal::Error(error)) => Sent::Answer(Err(error)),
            Err(Refusal::Full) => Sent::Full(outgoing),
        }
    }

    /// Tries `attempt` on everything that waits, in order, whenever there may be room; it hands back what still finds
    /// none.
    ///
    /// # Errors
    /// Closed, or no room within the publish timeout: for all that is left in `waiting`.
    pub(crate) async fn when_there_is_room<T>(
        &self,
        waiting: &mut Vec<T>,
        mut attempt: impl FnMut(&mut State, T) -> Option<T>,
    ) -> Result<(), Error> {
        let deadline = Instant::now() + self.publish_timeout;
        loop {
            // Made before looking: room that appears in between is not missed.
            let room = self.hub.room.notified();
            self.check_open()?;
            {
                let mut state = self.hub.lock();
                for item in mem::take(waiting) {
                    waiting.extend(attempt(&mut state, item));
                }
                state.starved |= !waiting.is_empty();
                state.queues.wake();
            }
            if waiting.is_empty() {
                return Ok(());
            }
            tokio::select! {
                () = room => (),
                () = sleep_until(deadline) => return Err(no_room(self.publish_timeout)),
            }
        }
    }
}

fn no_room(waited: Duration) -> Error {
    let text = format!(
        "a group's queue is full and had no room within {waited:?}: start its listeners or raise capacity"
    );
    Error::new(ErrorKind::Unavailable, text)
}
