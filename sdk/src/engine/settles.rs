//! Verdicts on their way to the broker, and the count of what is unsettled.

use std::collections::{BTreeSet, HashMap};
use std::sync::{Mutex, MutexGuard, PoisonError};

use tokio::sync::Notify;

use crate::contract::{Delivery, Settlement, Token, Verdict};
use crate::middleware::What;

/// Collects verdicts until the settling side takes them all at once.
pub(crate) struct Settles {
    inner: Mutex<Inner>,
    /// Verdicts came, or no more will.
    pub(crate) arrived: Notify,
    /// Room for more deliveries came.
    pub(crate) freed: Notify,
    /// Whether single tokens are remembered, to extend their leases.
    leased: bool,
}

#[derive(Default)]
struct Inner {
    batch: Vec<Settlement>,
    whats: Vec<What>,
    closed: bool,
    /// How many are unsettled in each lane of the adapter.
    lanes: HashMap<u32, usize>,
    unsettled: usize,
    tokens: BTreeSet<Token>,
    /// Lanes that were revoked and still hold something.
    revoked: Vec<u32>,
}

impl Settles {
    pub(crate) fn new(leased: bool) -> Self {
        Self {
            inner: Mutex::default(),
            arrived: Notify::new(),
            freed: Notify::new(),
            leased,
        }
    }

    /// Deliveries came.
    pub(crate) fn received(&self, deliveries: &[Delivery]) {
        let mut inner = self.lock();
        inner.unsettled += deliveries.len();
        for same_lane in deliveries.chunk_by(|a, b| a.token.lane == b.token.lane) {
            *inner.lanes.entry(same_lane[0].token.lane).or_default() += same_lane.len();
        }
        if self.leased {
            inner
                .tokens
                .extend(deliveries.iter().map(|delivery| delivery.token));
        }
    }

    /// A verdict.
    pub(crate) fn push(&self, token: Token, what: What, verdict: Verdict) {
        let mut inner = self.lock();
        inner.batch.push(Settlement { token, verdict });
        inner.whats.push(what);
        let first = inner.batch.len() == 1;
        drop(inner);
        if first {
            self.arrived.notify_one();
        }
    }

    /// Everything that has arrived, into empty vectors; false once closed and empty.
    pub(crate) fn take(&self, batch: &mut Vec<Settlement>, whats: &mut Vec<What>) -> bool {
        let mut inner = self.lock();
        std::mem::swap(&mut inner.batch, batch);
        std::mem::swap(&mut inner.whats, whats);
        !(batch.is_empty() && inner.closed)
    }

    /// These are settled, or dropped by a revocation.
    pub(crate) fn done(&self, tokens: impl Iterator<Item = Token>) {
        let mut inner = self.lock();
        for token in tokens {
            inner.unsettled = inner.unsettled.saturating_sub(1);
            if let Some(count) = inner.lanes.get_mut(&token.lane) {
                *count = count.saturating_sub(1);
            }
            if self.leased {
                inner.tokens.remove(&token);
            }
        }
        drop(inner);
        self.freed.notify_one();
    }

    /// These lanes are taken away, with `dropped` deliveries of theirs that were never started.
    pub(crate) fn revoke(&self, lanes: &[u32], dropped: &[Token]) {
        self.done(dropped.iter().copied());
        let mut inner = self.lock();
        inner.revoked.extend_from_slice(lanes);
        drop(inner);
        self.freed.notify_one();
    }

    /// Revoked lanes that hold nothing any more, each answered once.
    pub(crate) fn emptied(&self) -> Vec<u32> {
        let mut inner = self.lock();
        if inner.revoked.is_empty() {
            return Vec::new();
        }
        let Inner { revoked, lanes, .. } = &mut *inner;
        let is_empty = |lane: &u32| lanes.get(lane).is_none_or(|&count| count == 0);
        let emptied: Vec<u32> = revoked.extract_if(.., |lane| is_empty(lane)).collect();
        for lane in &emptied {
            lanes.remove(lane);
        }
        emptied
    }

    /// Whether this lane was taken away and still holds something.
    pub(crate) fn is_revoked(&self, lane: u32) -> bool {
        self.lock().revoked.contains(&lane)
    }

    pub(crate) fn unsettled(&self) -> usize {
        self.lock().unsettled
    }

    /// Tokens to extend the leases of.
    pub(crate) fn held(&self, into: &mut Vec<Token>) {
        into.extend(self.lock().tokens.iter().copied());
    }

    /// No more verdicts will come.
    pub(crate) fn close(&self) {
        self.lock().closed = true;
        self.arrived.notify_one();
    }

    fn lock(&self) -> MutexGuard<'_, Inner> {
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
