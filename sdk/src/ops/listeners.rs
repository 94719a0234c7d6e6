//! What `/listeners` tells of each listener.

use std::collections::VecDeque;
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use serde_json::{Value, json};

use crate::app::ListenerStatus;
use crate::contract::{Error, Status};
use crate::engine::ListenerState;
use crate::meter::Counts;

/// Rates are over this long.
const WINDOW: Duration = Duration::from_secs(10);

/// What every listener had done at some times, to tell rates and standstill.
#[derive(Default)]
pub(super) struct Rates(Mutex<Samples>);

#[derive(Default)]
struct Samples {
    /// The oldest first.
    taken: VecDeque<(Instant, Vec<Counts>)>,
    /// When each listener last brought an attempt, or a duplicate, to its end.
    moved: Vec<(u64, Instant)>,
}

impl Rates {
    /// Called about every second.
    pub(super) fn sample(&self, status: &[ListenerStatus]) {
        let now = Instant::now();
        let counts: Vec<Counts> = status.iter().map(|listener| listener.counts).collect();
        let mut samples = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let Samples { taken, moved } = &mut *samples;
        moved.resize(counts.len(), (0, now));
        for (moved, counts) in moved.iter_mut().zip(&counts) {
            let ended = ended(counts);
            if moved.0 != ended {
                *moved = (ended, now);
            }
        }
        taken.push_back((now, counts));
        // The first of those that remain is as old as the window, or all that there is.
        while taken.get(1).is_some_and(|(at, _)| now - *at >= WINDOW) {
            taken.pop_front();
        }
    }

    /// Events a second of the listener at this place, and how long nothing has come to its end.
    fn of(&self, place: usize, now: &Counts) -> (Value, f64) {
        let samples = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let idle = samples
            .moved
            .get(place)
            .filter(|(before, _)| *before == ended(now))
            .map_or(0.0, |(_, at)| at.elapsed().as_secs_f64());
        let oldest = samples
            .taken
            .front()
            .and_then(|(at, counts)| Some((at.elapsed().as_secs_f64(), counts.get(place)?)));
        let rate = |of: fn(&Counts) -> u64| match oldest {
            Some((seconds, then)) if seconds > 0.0 => {
                tenths(of(now).saturating_sub(of(then)) as f64 / seconds)
            }
            _ => 0.0,
        };
        let rates = json!({
            "received": rate(|counts| counts.received),
            "handled": rate(|counts| counts.handled),
            "retried": rate(|counts| counts.retried),
            "dead_lettered": rate(|counts| counts.dead_lettered),
        });
        (rates, idle)
    }

    /// One listener.
    pub(super) fn tell(
        &self,
        place: usize,
        status: &ListenerStatus,
        depths: &Result<Status, Error>,
    ) -> Value {
        let counts = &status.counts;
        let (rates, idle) = self.of(place, counts);
        let (state, reason) = state(&status.state);
        let (depths, untold) = match depths {
            Ok(depths) => (*depths, None),
            Err(error) => (Status::default(), Some(error.to_string())),
        };
        json!({
            "name": status.name,
            "topic": status.topic,
            "group": status.group,
            "dead_letter_topic": status.dead_letter_topic,
            "system": status.system,
            "state": state,
            "reason": reason,
            "last_error": status.last_error,
            "last_failure": status.last_failure,
            "in_flight": status.in_flight,
            "lag": depths.waiting,
            "unsettled": depths.unsettled,
            "retrying": depths.retrying,
            "dead": depths.dead,
            "depths_error": untold,
            "idle_seconds": tenths(idle),
            "rates": rates,
            "counts": {
                "received": counts.received,
                "attempts": counts.attempts,
                "handled": counts.handled,
                "retried": counts.retried,
                "dead_lettered": counts.dead_lettered,
                "released": counts.released,
                "duplicates": counts.duplicates,
                "stale": counts.stale,
                "lost": counts.lost,
                "reconnects": counts.reconnects,
            },
        })
    }
}

/// A word for a state, and the reason where it has one.
pub(super) fn state(state: &ListenerState) -> (&'static str, Option<&str>) {
    match state {
        ListenerState::Starting => ("starting", None),
        ListenerState::Ready => ("ready", None),
        ListenerState::Degraded(reason) => ("degraded", Some(reason)),
        ListenerState::Paused => ("paused", None),
        ListenerState::Stopped(reason) => ("stopped", reason.as_deref()),
    }
}

fn ended(counts: &Counts) -> u64 {
    counts.attempts + counts.duplicates
}

fn tenths(number: f64) -> f64 {
    (number * 10.0).round() / 10.0
}
