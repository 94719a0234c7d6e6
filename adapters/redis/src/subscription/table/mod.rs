//! What lies between reader, receiver and settler: fetched entries that wait, and handed-out ones that are not settled.

mod news;
mod verdicts;

use std::collections::{HashMap, HashSet, VecDeque};
use std::sync::atomic::AtomicUsize;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use postrider_contract::{Delivery, Error, Event, Token};
use tokio::sync::Notify;
use tokio::time::Instant;

use crate::subscription::entry::{Entry, EntryId, Stream};

pub(crate) struct Table {
    topic: Arc<str>,
    in_flight: usize,
    ordered: bool,
    /// Redeliveries are known.
    counted: bool,
    state: Mutex<State>,
    /// Something to receive.
    pub(crate) arrived: Notify,
    /// Room for the reader.
    pub(crate) freed: Notify,
    /// The reader is to stop for a while.
    pub(crate) hushed: Notify,
    settling: AtomicUsize,
}

struct State {
    epoch: u32,
    next: u64,
    waiting: VecDeque<Waiting>,
    held: HashMap<u64, Held>,
    news: VecDeque<Event>,
    /// Parts that must work before messages flow, as bits.
    missing: u8,
    told: Told,
    paused: bool,
    /// Ordered: until when this instance reads for the group.
    leads_until: Option<Instant>,
    failed: Option<Error>,
    closed: bool,
}

#[derive(Clone, Copy, PartialEq)]
enum Told {
    Nothing,
    Ready,
    Degraded,
}

#[derive(Debug)]
struct Waiting {
    entry: Entry,
    /// It was handed out before, and released.
    seen: bool,
    leased_until: Instant,
}

#[derive(Debug)]
struct Held {
    entry: Entry,
    leased_until: Instant,
    /// Another instance took it over.
    lost: bool,
}

/// Which stream, and where in it.
pub(crate) type Place = (Stream, EntryId);

/// What a token names.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Named {
    pub(crate) place: Place,
    /// It is not on the server any more.
    pub(crate) orphaned: bool,
}

/// A part of a subscription that must work before messages flow.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Part {
    Reader = 1,
    Channel = 2,
    /// It works until it fails.
    Intake = 4,
}

impl Table {
    pub(crate) fn new(
        topic: Arc<str>,
        in_flight: usize,
        ordered: bool,
        counted: bool,
        parts: &[Part],
    ) -> Self {
        Self {
            topic,
            in_flight,
            ordered,
            counted,
            state: Mutex::new(State {
                epoch: 0,
                next: 0,
                waiting: VecDeque::new(),
                held: HashMap::new(),
                news: VecDeque::new(),
                missing: parts.iter().fold(0, |bits, part| bits | *part as u8),
                told: Told::Nothing,
                paused: false,
                leads_until: None,
                failed: None,
                closed: false,
            }),
            arrived: Notify::new(),
            freed: Notify::new(),
            hushed: Notify::new(),
            settling: AtomicUsize::new(0),
        }
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    // What the receiver does.

    /// News, or deliveries, or nothing yet.
    pub(crate) fn take(&self, max: usize, into: &mut Vec<Delivery>) -> Option<Result<Event, Error>> {
        let mut state = self.state();
        if let Some(event) = state.news.pop_front() {
            return Some(Ok(event));
        }
        if let Some(error) = &state.failed {
            return Some(Err(error.clone()));
        }
        if state.closed {
            return Some(Ok(Event::Closed));
        }
        if state.paused {
            return None;
        }
        let now = Instant::now();
        if self.ordered && state.leads_until.is_none_or(|until| until <= now) {
            return None;
        }
        let before = into.len();
        let mut dropped = false;
        while into.len() - before < max {
            let Some(waiting) = state.waiting.pop_front() else {
                break;
            };
            if waiting.leased_until <= now && !self.ordered && !waiting.entry.orphaned {
                // Its lease ran out here: it may be somebody else's by now. If not, it is claimed again.
                dropped = true;
                continue;
            }
            let token = Token {
                lane: 0,
                epoch: state.epoch,
                seq: state.next,
            };
            state.next += 1;
            into.push(waiting.entry.delivery(token, &self.topic, self.counted));
            state.held.insert(
                token.seq,
                Held {
                    entry: waiting.entry,
                    leased_until: waiting.leased_until,
                    lost: false,
                },
            );
        }
        if dropped {
            self.freed.notify_one();
        }
        (into.len() > before).then_some(Ok(Event::Deliveries))
    }

    pub(crate) fn pause(&self, paused: bool) {
        self.state().paused = paused;
        if paused {
            self.hushed.notify_one();
        } else {
            self.arrived.notify_one();
        }
        self.freed.notify_one();
    }

    pub(crate) fn is_paused(&self) -> bool {
        self.state().paused
    }

    // What the reader does.

    /// How many more may be fetched.
    pub(crate) fn room(&self) -> usize {
        let state = self.state();
        if state.paused {
            return 0;
        }
        self.in_flight
            .saturating_sub(state.waiting.len() + state.held.len())
    }

    /// Adds entries that are not here yet, leased until then. Nothing is added for an epoch that is over.
    pub(crate) fn add(&self, epoch: u32, entries: Vec<Entry>, leased_until: Instant) {
        if entries.is_empty() {
            return;
        }
        let mut state = self.state();
        if state.epoch != epoch || state.closed {
            return;
        }
        state.waiting.extend(entries.into_iter().map(|entry| Waiting {
            entry,
            seen: false,
            leased_until,
        }));
        drop(state);
        self.arrived.notify_one();
    }

    pub(crate) fn epoch(&self) -> u32 {
        self.state().epoch
    }

    /// Everything that is here and not lost.
    pub(crate) fn known(&self) -> HashSet<Place> {
        let state = self.state();
        let waiting = state.waiting.iter().map(|waiting| &waiting.entry);
        let held = state
            .held
            .values()
            .filter(|held| !held.lost)
            .map(|held| &held.entry);
        waiting.chain(held).map(Entry::place).collect()
    }

    /// What waits on a lease that ends before `then`.
    pub(crate) fn waiting_until(&self, then: Instant) -> Vec<Place> {
        let state = self.state();
        let ending = state
            .waiting
            .iter()
            .filter(|waiting| waiting.leased_until < then && !waiting.entry.orphaned);
        ending.map(|waiting| waiting.entry.place()).collect()
    }

    /// Nobody else can have these: they are gone from the server.
    pub(crate) fn orphan(&self, deleted: &HashSet<Place>) {
        let mut state = self.state();
        let State { waiting, held, .. } = &mut *state;
        let waiting = waiting.iter_mut().map(|waiting| &mut waiting.entry);
        for entry in waiting.chain(held.values_mut().map(|held| &mut held.entry)) {
            entry.orphaned |= deleted.contains(&entry.place());
        }
    }

    /// What is gone from the server and waits here; `all`: what is handed out, too.
    pub(crate) fn orphans(&self, all: bool) -> Vec<Entry> {
        let state = self.state();
        let held = state.held.values().filter(|held| all && !held.lost);
        let waiting = state.waiting.iter().map(|waiting| &waiting.entry);
        let here = waiting.chain(held.map(|held| &held.entry));
        here.filter(|entry| entry.orphaned).cloned().collect()
    }

    /// Notes renewed leases, and what turned out to be another's.
    pub(crate) fn renewed(&self, renewed: &HashSet<Place>, lost: &HashSet<Place>, leased_until: Instant) {
        let is_lost = |entry: &Entry| lost.contains(&entry.place()) && !entry.orphaned;
        let mut state = self.state();
        state.waiting.retain(|waiting| !is_lost(&waiting.entry));
        for waiting in &mut state.waiting {
            if renewed.contains(&waiting.entry.place()) {
                waiting.leased_until = leased_until;
            }
        }
        for held in state.held.values_mut() {
            if is_lost(&held.entry) {
                held.lost = true;
            } else if renewed.contains(&held.entry.place()) {
                held.leased_until = leased_until;
            }
        }
    }

    /// Ordered: this instance reads for the group until then.
    pub(crate) fn lead_until(&self, until: Instant) {
        self.state().leads_until = Some(until);
        self.arrived.notify_one();
    }

    pub(crate) fn leads_until(&self) -> Option<Instant> {
        self.state().leads_until
    }

    /// Ordered: whether it is paused and nothing is unsettled that was handed out. Then it leads no more, so that nothing is.
    pub(crate) fn may_rest(&self) -> bool {
        let mut state = self.state();
        let may = state.paused && state.held.is_empty();
        if may {
            state.leads_until = None;
        }
        may
    }

    /// Whether something is unsettled that was handed out.
    pub(crate) fn is_held(&self) -> bool {
        !self.state().held.is_empty()
    }

    /// Everything here is another's from now on. `told`: the receiver hears of it.
    pub(crate) fn revoke(&self, told: bool) {
        let mut state = self.state();
        state.epoch += 1;
        state.leads_until = None;
        state.waiting.clear();
        let held = !state.held.is_empty();
        state.held.clear();
        if held && told {
            state.news.push_back(Event::Revoked {
                lanes: vec![0],
                deadline: std::time::Duration::ZERO,
            });
        }
        drop(state);
        self.arrived.notify_one();
    }

    /// What waits and is not orphaned, to be given back: with the delivery count it had before it was fetched, where it was never handed out.
    pub(crate) fn take_waiting(&self) -> Vec<(Place, i64)> {
        let mut state = self.state();
        let (orphaned, waiting): (VecDeque<_>, VecDeque<_>) = std::mem::take(&mut state.waiting)
            .into_iter()
            .partition(|waiting| waiting.entry.orphaned);
        state.waiting = orphaned;
        waiting
            .into_iter()
            .map(|waiting| {
                let before = i64::from(waiting.entry.delivered) - 1;
                (waiting.entry.place(), if waiting.seen { -1 } else { before })
            })
            .collect()
    }
}
