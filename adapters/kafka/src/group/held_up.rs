//! Messages that stay unsettled for long: what is done behind one is remembered, and only so much of that.

use std::time::{Duration, Instant};

use postrider_contract::{Error, ErrorKind};

use super::lane::{Lane, Stage};
use super::state::{LONGEST_SPAN, State};

/// How long a partition may wait for one message before that is told.
const LONG: Duration = Duration::from_secs(5);

impl State {
    /// Looks for a partition that has waited for one message for long, and has nothing else to deliver.
    pub(super) fn held_up(&mut self) -> Option<Error> {
        // Each is looked at, so that their times pass side by side.
        self.lanes.iter_mut().map(Lane::held_up).fold(None, Option::or)
    }
}

impl Lane {
    fn held_up(&mut self) -> Option<Error> {
        let is_full = self.delivers() && self.tracker.span() > LONGEST_SPAN;
        let Some(first) = self.tracker.position().filter(|_| is_full) else {
            self.waits_for = None;
            return None;
        };
        let same = self.waits_for.filter(|(before, _)| *before == first);
        let (_, since) = *self.waits_for.insert(same.unwrap_or((first, Instant::now())));
        let mut unsettled = self.tracker.iter();
        if since.elapsed() < LONG || !unsettled.all(|(_, item)| item.stage == Stage::Given) {
            return None;
        }
        let text = format!(
            "partition {} of topic `{}` waits until the message at offset {first} is settled: what is done of {LONGEST_SPAN} \
             behind it is remembered, and no more",
            self.partition, self.route.name
        );
        Some(Error::new(ErrorKind::Unavailable, text))
    }
}
