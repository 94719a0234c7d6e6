//! Verdicts on their way to the broker, and the count of what is unsettled.

use std::collections::BTreeSet;
use std::sync::atomic::{AtomicBool, Ordering};

use super::sync::{Mutex, MutexGuard, Notify, PoisonError};
use crate::contract::{Delivery, Settlement, Token, Verdict};
use crate::meter::What;

/// Collects verdicts until the settling side takes them all at once.
pub(crate) struct Settles {
    inner: Mutex<Inner>,
    /// Verdicts of each [`Kind`] came, or no more will.
    arrived: [Notify; 2],
    /// Room for more deliveries came.
    pub(crate) freed: Notify,
    /// Whether single tokens are remembered, to extend their leases.
    leased: bool,
    /// Whether verdicts are carried out in their order, as one [`Kind`]: where order is kept, none overtakes what is published
    /// before it. After a crash what was published for would come again behind it.
    pub(crate) together: bool,
    /// Whether `Inner::revoked` has anything, for those who need not lock then.
    any_revoked: AtomicBool,
}

/// What has a call to the adapter of its own.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Kind {
    /// Acknowledgements that emit nothing, and releases.
    Plain,
    /// What is published and confirmed first: that may take long, and holds up nothing else.
    Emitting,
}

impl Kind {
    pub(crate) const ALL: [Self; 2] = [Self::Plain, Self::Emitting];

    #[inline]
    fn of(verdict: &Verdict) -> Self {
        match verdict {
            Verdict::Ack { emit } if !emit.is_empty() => Self::Emitting,
            _ => Self::Plain,
        }
    }
}

/// Verdicts by their [`Kind`], or all as one.
#[derive(Default)]
pub(crate) struct Sorted {
    of: [Verdicts; 2],
    together: bool,
}

impl Sorted {
    pub(crate) fn new(together: bool) -> Self {
        Self {
            of: Default::default(),
            together,
        }
    }

    #[inline]
    pub(crate) fn add(&mut self, token: Token, what: What, verdict: Verdict) {
        self.of(Kind::of(&verdict)).add(token, what, verdict);
    }

    /// The delivery, in its attempt, of the verdict that was added last: its handler publishes something.
    pub(crate) fn publishes(&mut self, delivery: Delivery, attempt: u32) {
        self.of(Kind::Emitting).emitting.push((delivery, attempt));
    }

    #[inline]
    fn of(&mut self, kind: Kind) -> &mut Verdicts {
        let kind = if self.together { Kind::Plain } else { kind };
        &mut self.of[kind as usize]
    }
}

/// Verdicts with what each was for, side by side: the adapter takes the one, the counters the other.
#[derive(Default)]
pub(crate) struct Verdicts {
    pub(crate) batch: Vec<Settlement>,
    pub(crate) whats: Vec<What>,
    /// The deliveries whose handlers publish something, with their attempts: each has failed where that is refused for good.
    pub(crate) emitting: Vec<(Delivery, u32)>,
}

impl Verdicts {
    #[inline]
    pub(crate) fn add(&mut self, token: Token, what: What, verdict: Verdict) {
        self.batch.push(Settlement { token, verdict });
        self.whats.push(what);
    }

    /// Whether the verdict is on what a handler publishes.
    #[inline]
    pub(crate) fn is_emitting(what: What, verdict: &Verdict) -> bool {
        matches!(verdict, Verdict::Ack { emit } if !emit.is_empty()) && what == What::Handled
    }

    /// Moves what comes behind the first that emit something, one after the other, into empty `rest`: an adapter carries out
    /// a call's verdicts in any order.
    fn keep_order(&mut self, rest: &mut Self) {
        let emits = |settlement: &Settlement| Kind::of(&settlement.verdict) == Kind::Emitting;
        let Some(first) = self.batch.iter().position(emits) else {
            return;
        };
        // What goes to one place is confirmed in its order, or refused alike; to another, it knows nothing of the first.
        let same = |it: &&Settlement| match (&it.verdict, &self.batch[first].verdict) {
            (Verdict::Ack { emit }, Verdict::Ack { emit: of_first }) => emit
                .iter()
                .map(|one| &one.to)
                .eq(of_first.iter().map(|one| &one.to)),
            _ => false,
        };
        let end = first + self.batch[first..].iter().take_while(same).count();
        let published = self.whats[first..end]
            .iter()
            .filter(|&&what| what == What::Handled)
            .count();
        rest.batch.extend(self.batch.drain(end..));
        rest.whats.extend(self.whats.drain(end..));
        rest.emitting.extend(self.emitting.drain(published..));
    }
}

#[derive(Default)]
struct Inner {
    verdicts: Sorted,
    closed: bool,
    /// Of the lanes of the adapter, each by epoch: few, looked through from the last used.
    counts: Vec<Count>,
    unsettled: usize,
    tokens: BTreeSet<Token>,
    /// Lanes that were revoked and still hold something, with the last epoch that was: one may be back already.
    revoked: Vec<(u32, u32)>,
}

struct Count {
    lane: u32,
    epoch: u32,
    unsettled: usize,
}

/// What is counted as one.
fn place(token: Token) -> (u32, u32) {
    (token.lane, token.epoch)
}

impl Settles {
    pub(crate) fn new(leased: bool, together: bool) -> Self {
        Self {
            inner: Mutex::new(Inner {
                verdicts: Sorted::new(together),
                ..Inner::default()
            }),
            arrived: [Notify::new(), Notify::new()],
            freed: Notify::new(),
            leased,
            together,
            any_revoked: AtomicBool::new(false),
        }
    }

    /// Deliveries came.
    pub(crate) fn received(&self, deliveries: &[Delivery]) {
        let mut inner = self.lock();
        inner.unsettled += deliveries.len();
        for same in deliveries.chunk_by(|a, b| place(a.token) == place(b.token)) {
            inner.count(same[0].token).unsettled += same.len();
        }
        if self.leased {
            inner
                .tokens
                .extend(deliveries.iter().map(|delivery| delivery.token));
        }
    }

    /// A verdict.
    #[inline]
    pub(crate) fn push(&self, token: Token, what: What, verdict: Verdict) {
        let kind = Kind::of(&verdict);
        self.put(kind, |waiting| waiting.add(token, what, verdict));
    }

    /// A verdict on what a handler came to.
    #[inline]
    pub(crate) fn push_for(&self, delivery: Delivery, attempt: u32, what: What, verdict: Verdict) {
        if !Verdicts::is_emitting(what, &verdict) {
            return self.push(delivery.token, what, verdict);
        }
        self.put(Kind::Emitting, |waiting| {
            waiting.add(delivery.token, what, verdict);
            waiting.emitting.push((delivery, attempt));
        });
    }

    /// Adds to what waits; the settling side is woken for the first that arrives.
    #[inline]
    fn put(&self, kind: Kind, put: impl FnOnce(&mut Verdicts)) {
        let kind = if self.together { Kind::Plain } else { kind };
        let mut inner = self.lock();
        let waiting = &mut inner.verdicts.of[kind as usize];
        let is_first = waiting.batch.is_empty();
        put(waiting);
        drop(inner);
        if is_first {
            self.arrived[kind as usize].notify_one();
        }
    }

    /// Several verdicts; leaves `verdicts` empty.
    pub(crate) fn push_all(&self, verdicts: &mut Sorted) {
        for kind in Kind::ALL {
            let new = &mut verdicts.of[kind as usize];
            if new.batch.is_empty() {
                continue;
            }
            self.put(kind, |waiting| {
                if waiting.batch.is_empty() {
                    return std::mem::swap(waiting, new);
                }
                waiting.batch.append(&mut new.batch);
                waiting.whats.append(&mut new.whats);
                waiting.emitting.append(&mut new.emitting);
            });
        }
    }

    /// Waits until verdicts come, or no more will.
    pub(crate) async fn arrived(&self, kind: Kind) {
        self.arrived[kind as usize].notified().await;
    }

    /// Everything that has arrived, into empty `verdicts`, or what order lets go together; false once closed and empty.
    pub(crate) fn take(&self, kind: Kind, verdicts: &mut Verdicts) -> bool {
        let mut inner = self.lock();
        let waiting = &mut inner.verdicts.of[kind as usize];
        std::mem::swap(waiting, verdicts);
        if self.together {
            verdicts.keep_order(waiting);
        }
        !(verdicts.batch.is_empty() && inner.closed)
    }

    /// Whether verdicts may still come.
    pub(crate) fn is_open(&self) -> bool {
        !self.lock().closed
    }

    /// These are settled, or dropped by a revocation.
    pub(crate) fn done(&self, tokens: &[Token]) {
        let mut inner = self.lock();
        inner.unsettled = inner.unsettled.saturating_sub(tokens.len());
        for same in tokens.chunk_by(|a, b| place(*a) == place(*b)) {
            let count = inner.count(same[0]);
            count.unsettled = count.unsettled.saturating_sub(same.len());
        }
        if self.leased {
            for token in tokens {
                inner.tokens.remove(token);
            }
        }
        drop(inner);
        self.freed.notify_one();
    }

    /// These lanes are taken away: nothing of them may be started any more.
    pub(crate) fn revoke(&self, lanes: &[u32]) {
        let mut inner = self.lock();
        for &lane in lanes {
            let of_lane = inner.counts.iter().filter(|count| count.lane == lane);
            let last = of_lane.map(|count| count.epoch).max().unwrap_or_default();
            inner.revoked.push((lane, last));
        }
        self.any_revoked
            .store(!inner.revoked.is_empty(), Ordering::Release);
        drop(inner);
        self.freed.notify_one();
    }

    /// Revoked lanes that hold nothing any more, each answered once.
    pub(crate) fn emptied(&self) -> Vec<u32> {
        let mut inner = self.lock();
        if inner.revoked.is_empty() {
            return Vec::new();
        }
        let Inner { revoked, counts, .. } = &mut *inner;
        let belongs = |count: &Count, &(lane, last): &(u32, u32)| count.lane == lane && count.epoch <= last;
        let is_empty = |of: &(u32, u32)| {
            counts
                .iter()
                .all(|count| count.unsettled == 0 || !belongs(count, of))
        };
        let emptied: Vec<(u32, u32)> = revoked.extract_if(.., |of| is_empty(of)).collect();
        counts.retain(|count| !emptied.iter().any(|of| belongs(count, of)));
        let emptied = emptied.into_iter().map(|(lane, _)| lane).collect();
        self.any_revoked.store(!revoked.is_empty(), Ordering::Release);
        emptied
    }

    /// Whether this delivery is of a lane that was taken away, and not of one that has come back since.
    #[inline]
    pub(crate) fn is_revoked(&self, token: Token) -> bool {
        self.any_revoked.load(Ordering::Acquire) && self.is_among_revoked(token)
    }

    #[cold]
    fn is_among_revoked(&self, token: Token) -> bool {
        let inner = self.lock();
        inner
            .revoked
            .iter()
            .any(|&(lane, epoch)| lane == token.lane && token.epoch <= epoch)
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
        self.arrived.iter().for_each(Notify::notify_one);
    }

    fn lock(&self) -> MutexGuard<'_, Inner> {
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Inner {
    fn count(&mut self, token: Token) -> &mut Count {
        let (lane, epoch) = place(token);
        let at = self
            .counts
            .iter()
            .rposition(|count| (count.lane, count.epoch) == (lane, epoch))
            .unwrap_or_else(|| {
                // What an adapter has ended without revoking it.
                self.counts
                    .retain(|count| count.unsettled > 0 || count.lane != lane);
                self.counts.push(Count {
                    lane,
                    epoch,
                    unsettled: 0,
                });
                self.counts.len() - 1
            });
        &mut self.counts[at]
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::contract::{Message, Origin, Outgoing, Position};

    #[test]
    fn what_emits_has_a_call_of_its_own_but_where_order_is_kept() {
        let apart = [vec![vec![0, 3, 4]], vec![vec![1, 2, 5, 6]]];
        let together = [vec![vec![0, 1], vec![2], vec![3, 4, 5, 6]], vec![]];
        for (is_together, expected) in [(false, apart), (true, together)] {
            let settles = Settles::new(false, is_together);
            let mut verdicts = Sorted::new(is_together);
            for seq in 0..7 {
                let delivery = delivery(0, seq);
                let mut emit = Vec::new();
                if [1, 2, 5, 6].contains(&seq) {
                    let topic = if seq == 2 { "elsewhere" } else { "t" };
                    emit.push(Outgoing::to_topic(topic, Message::new("x")));
                }
                // The second is a dead letter's copy, or the like.
                let what = if seq == 1 { What::Released } else { What::Handled };
                let verdict = Verdict::Ack { emit };
                let is_emitting = Verdicts::is_emitting(what, &verdict);
                verdicts.add(delivery.token, what, verdict);
                if is_emitting {
                    verdicts.publishes(delivery, 1);
                }
            }
            settles.push_all(&mut verdicts);
            let calls = Kind::ALL.map(|kind| {
                let mut calls = Vec::new();
                loop {
                    let mut taken = Verdicts::default();
                    settles.take(kind, &mut taken);
                    if taken.batch.is_empty() {
                        return calls;
                    }
                    let seqs: Vec<u64> = taken.batch.iter().map(|it| it.token.seq).collect();
                    let emitting: Vec<u64> = taken.emitting.iter().map(|(it, _)| it.token.seq).collect();
                    let published = seqs.iter().copied().filter(|seq| [2, 5, 6].contains(seq));
                    assert_eq!(emitting, published.collect::<Vec<_>>());
                    assert_eq!(taken.whats.len(), seqs.len());
                    calls.push(seqs);
                }
            });
            assert_eq!(calls, expected, "{is_together}");
        }
    }

    fn delivery(epoch: u32, seq: u64) -> Delivery {
        Delivery {
            token: Token { lane: 0, epoch, seq },
            origin: Origin::Topic,
            redeliveries: None,
            topic: "t".into(),
            position: Position::default(),
            message: Message::new("x"),
        }
    }

    #[test]
    fn a_lane_that_has_come_back_is_not_revoked() {
        let (before, after) = (delivery(1, 0), delivery(2, 0));
        let settles = Settles::new(false, false);
        settles.received(std::slice::from_ref(&before));
        settles.revoke(&[0]);
        settles.received(std::slice::from_ref(&after));
        assert!(settles.is_revoked(before.token));
        assert!(!settles.is_revoked(after.token), "it would never be settled");
    }
}
