//! Finds out whether a broker that is out of reach is back, and whether it is only our consumer that does not see it.
//!
//! librdkafka removes the brokers that an answer of the cluster does not name. A cluster that has fenced all of them names
//! none, as one of a single node does for a moment after it was frozen, and a client that asks just then has none left and,
//! more often than not, never goes back to the ones in the URL (its issue 5301).

use std::sync::Arc;
use std::time::{Duration, Instant};

use rdkafka::consumer::{BaseConsumer, Consumer};

use super::commit::pause;
use super::member::{Member, Reach};
use super::state::Shared;
use crate::inspector::{CUT_OFF, Inspector};

/// How often a broker is looked for while none is to be reached.
const PROBE: Duration = Duration::from_millis(250);
/// How long the inspector is given.
const ANSWER: Duration = Duration::from_secs(1);

/// Looks on while nothing flows.
pub(crate) struct Watch {
    inspector: Inspector,
    /// Since when the inspector reaches a broker, every time, and the consumer none.
    since: Option<Instant>,
}

impl Watch {
    pub(crate) fn new(inspector: Inspector) -> Self {
        Self {
            inspector,
            since: None,
        }
    }

    /// Whether a broker answers again and commits make sense. Takes its time where not all is well.
    pub(crate) fn recovered(&mut self, shared: &Shared, consumer: &Arc<BaseConsumer<Member>>) -> bool {
        match consumer.context().reach(consumer) {
            Reach::All => {
                self.since = None;
                let mut state = shared.lock();
                state.recover();
                if !state.degraded {
                    return true;
                }
                let joined = state.joined;
                drop(state);
                // One partition cannot be read: what is settled of the others is committed.
                if joined {
                    return pause(shared, PROBE);
                }
                // It has yet to be assigned something, which is told in another way.
                pause(shared, ANSWER);
                return false;
            }
            // A topic is gone, perhaps for good, or a leader. What is settled of the rest is committed.
            Reach::Brokers => {
                self.since = None;
                return pause(shared, PROBE);
            }
            Reach::Broker => self.since = None,
            // The broker was away, or is: only where somebody else reaches it, it is us.
            Reach::Nothing => match self.inspector.probe(ANSWER) {
                Ok(()) => {
                    let since = *self.since.get_or_insert_with(Instant::now);
                    if since.elapsed() >= CUT_OFF {
                        shared.cut_off();
                        return false;
                    }
                }
                Err(_) => self.since = None,
            },
        }
        pause(shared, PROBE);
        false
    }
}
