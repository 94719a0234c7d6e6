//! How lanes are taken away, and lost.

use std::collections::HashMap;
use std::time::Duration;

use postrider_contract::{Error, ErrorKind, Event};

use super::lane::{Lane, Tenure};
use super::state::State;

impl State {
    /// Stops delivering lanes and tells the runtime of those that it holds something of.
    pub(crate) fn take_away(&mut self, lanes: &[usize], deadline: Duration) {
        let mut told: HashMap<usize, Vec<u32>> = HashMap::new();
        for &id in lanes {
            self.clear(id);
            if let Some(lane) = self.lanes.get_mut(id) {
                lane.tenure = Tenure::Leaving;
                if lane.is_held() {
                    told.entry(lane.mailbox).or_default().push(id as u32);
                }
            }
        }
        for (mailbox, lanes) in told {
            if let Some(mailbox) = self.boxes.get_mut(mailbox) {
                mailbox.tell(Event::Revoked { lanes, deadline });
            }
        }
    }

    /// The session is over: everything of it is stale, and what was not committed comes again.
    pub(crate) fn lose(&mut self, lanes: &[usize], why: &'static str) {
        for &id in lanes {
            self.unassign(id);
        }
        self.joined = false;
        self.degrade(&Error::new(ErrorKind::Unavailable, why));
    }

    /// The consumer is given up, with all that was assigned to it; the next one begins.
    pub(crate) fn lose_everything(&mut self) {
        let assigned = |(id, lane): (usize, &Lane)| lane.is_assigned().then_some(id);
        let lanes: Vec<usize> = self.lanes.iter().enumerate().filter_map(assigned).collect();
        self.take_away(&lanes, Duration::ZERO);
        let why = "the Kafka consumer was cut off from the broker, which answers others: it is made anew";
        self.lose(&lanes, why);
        // It was degraded already, for another reason.
        let error = Error::new(ErrorKind::Unavailable, why);
        for mailbox in &mut self.boxes {
            mailbox.tell(Event::Degraded(error.clone()));
        }
        self.generation += 1;
        self.cut_off = false;
    }

    /// Forgets everything: the group was left.
    pub(crate) fn unassign_all(&mut self) {
        for id in 0..self.lanes.len() {
            self.unassign(id);
        }
    }
}
