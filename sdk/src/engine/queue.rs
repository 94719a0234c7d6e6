//! Deliveries between the receiving side and a lane, with what is held back for a later attempt.

use std::collections::{HashMap, VecDeque};
use std::pin::pin;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::Duration;

use tokio::time::{Instant, sleep_until};

use super::settles::Settles;
use super::sync::{Mutex, MutexGuard, Notify, PoisonError};
use crate::contract::{Bytes, Delivery, Token};

/// What waits for one or more lanes. Where order is kept, it is the queue of one lane alone, and items of a key stay
/// behind the one that failed.
pub(crate) struct Queue {
    ordered: bool,
    /// How many lanes take from it.
    lanes: usize,
    inner: Mutex<Inner>,
    /// There may be something to take: told to as many lanes as have work by that.
    changed: Notify,
    /// How many lanes found nothing to take, and have not looked again.
    idle: AtomicUsize,
    /// It was closed.
    ended: Notify,
    /// Whether `Inner::again` has anything, for those who need not lock then.
    again: AtomicBool,
    /// Whether it is closed, for the same.
    closed: AtomicBool,
}

#[derive(Default)]
struct Inner {
    ready: VecDeque<Delivery>,
    held: HashMap<Line, Held>,
    /// Which attempt comes next for those that were held and are not started again.
    again: HashMap<Token, u32>,
    closed: bool,
}

/// What is held together: a partition key, or a single delivery.
#[derive(PartialEq, Eq, Hash, Clone)]
enum Line {
    Key(Bytes),
    One(Token),
}

/// What a look into the queue gave.
enum Pop {
    Taken,
    Closed,
    /// When the next held item is due.
    Empty(Option<Instant>),
}

/// What became of a delivery that was to be held.
pub(crate) enum Kept {
    Held,
    /// The queue is closed, and nobody would come for it.
    Closed,
    Revoked,
}

/// Counts a lane as idle.
struct Idle<'a>(&'a AtomicUsize);

impl<'a> Idle<'a> {
    fn new(count: &'a AtomicUsize) -> Self {
        count.fetch_add(1, Ordering::AcqRel);
        Self(count)
    }
}

impl Drop for Idle<'_> {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::AcqRel);
    }
}

struct Held {
    due: Instant,
    deliveries: VecDeque<Delivery>,
}

impl Queue {
    pub(crate) fn new(ordered: bool, lanes: usize) -> Self {
        Self {
            ordered,
            lanes,
            inner: Mutex::default(),
            changed: Notify::new(),
            idle: AtomicUsize::new(0),
            ended: Notify::new(),
            again: AtomicBool::new(false),
            closed: AtomicBool::new(false),
        }
    }

    /// Adds deliveries in order; leaves `deliveries` empty.
    pub(crate) fn push(&self, deliveries: &mut Vec<Delivery>) {
        let new = deliveries.len();
        let mut inner = self.lock();
        if inner.ready.is_empty() {
            // As a whole, without moving each.
            let spare = std::mem::take(&mut inner.ready);
            inner.ready = std::mem::replace(deliveries, spare.into()).into();
        } else {
            inner.ready.extend(deliveries.drain(..));
        }
        drop(inner);
        self.wake(new);
    }

    /// Wakes an idle lane for each of `new` deliveries. One that is not counted yet looks once more after it is.
    fn wake(&self, new: usize) {
        for _ in 0..new.min(self.idle.load(Ordering::Acquire)) {
            self.changed.notify_one();
        }
    }

    /// Adds one that was taken and not started behind all others; false where order or the end forbids that.
    pub(crate) fn push_last(&self, delivery: &Delivery) -> bool {
        let mut inner = self.lock();
        if self.ordered || inner.closed {
            return false;
        }
        inner.ready.push_back(delivery.clone());
        drop(inner);
        self.wake(1);
        true
    }

    /// Starts a delivery: says which attempt that is.
    #[inline]
    pub(crate) fn start(&self, delivery: &Delivery) -> u32 {
        if self.has_held()
            && let Some(attempt) = self.start_again(delivery.token)
        {
            return attempt;
        }
        delivery.origin.attempt()
    }

    #[cold]
    fn start_again(&self, token: Token) -> Option<u32> {
        let mut inner = self.lock();
        let attempt = inner.again.remove(&token);
        self.again.store(!inner.again.is_empty(), Ordering::Release);
        attempt
    }

    /// Whether anything is held, or was and is not started again.
    #[inline]
    fn has_held(&self) -> bool {
        self.again.load(Ordering::Acquire)
    }

    /// Whether what a lane has taken and not started must go back: order wants it behind what is held, or behind what was
    /// given back to the broker since nothing is held any more.
    #[inline]
    pub(crate) fn wants_back(&self) -> bool {
        self.ordered && (self.has_held() || self.is_closed())
    }

    /// Whether nothing is to be started any more.
    #[inline]
    pub(crate) fn is_closed(&self) -> bool {
        self.closed.load(Ordering::Acquire)
    }

    /// Holds a delivery, unless its lane is taken away: whoever has that now gets it again, and it must not be handled here
    /// too.
    pub(crate) fn keep(&self, settles: &Settles, delivery: Delivery, attempt: u32, wait: Duration) -> Kept {
        let token = delivery.token;
        if settles.is_revoked(token) {
            return Kept::Revoked;
        }
        if self.hold(delivery, attempt, wait).is_some() {
            return Kept::Closed;
        }
        // Taken away meanwhile, it may have come after the others of its lane were discarded.
        if settles.is_revoked(token) && !self.discard(|held| held == token).is_empty() {
            return Kept::Revoked;
        }
        Kept::Held
    }

    /// Keeps a delivery back until its next attempt; in an ordered queue, later ones of its key with it. Answers the delivery
    /// where the queue is closed and nobody will come for it.
    fn hold(&self, delivery: Delivery, attempt: u32, wait: Duration) -> Option<Delivery> {
        let line = self.line(&delivery);
        let mut inner = self.lock();
        if inner.closed {
            return Some(delivery);
        }
        inner.again.insert(delivery.token, attempt);
        self.again.store(true, Ordering::Release);
        let due = Instant::now() + wait;
        let held = inner.held.entry(line).or_insert_with(|| Held {
            due,
            deliveries: VecDeque::new(),
        });
        held.due = due;
        held.deliveries.push_front(delivery);
        drop(inner);
        self.changed.notify_waiters();
        None
    }

    /// Waits until there is something and takes up to `most` into an empty `chunk`; one alone while something is held.
    /// Leaves it empty once closed. `idle` is called whenever nothing is left for an idle lane: more may be fetched.
    /// Answers whether it waited.
    pub(crate) async fn pop_chunk(
        &self,
        most: usize,
        chunk: &mut VecDeque<Delivery>,
        idle: impl Fn(),
    ) -> bool {
        let mut waited = false;
        loop {
            if !matches!(self.try_pop(most, chunk, &idle), Pop::Empty(_)) {
                return waited;
            }
            // First, so that whoever takes the last one later than that look tells.
            let _counted = Idle::new(&self.idle);
            idle();
            // Among those that are woken before the second look, so that a change after that look is not missed. One that is
            // woken and goes without having waited leaves that to another.
            let mut changed = pin!(self.changed.notified());
            changed.as_mut().enable();
            match self.try_pop(most, chunk, &idle) {
                Pop::Taken | Pop::Closed => return waited,
                Pop::Empty(None) => changed.await,
                Pop::Empty(Some(due)) => tokio::select! { () = changed => {}, () = sleep_until(due) => {} },
            }
            waited = true;
        }
    }

    fn try_pop(&self, most: usize, chunk: &mut VecDeque<Delivery>, idle: &impl Fn()) -> Pop {
        let mut inner = self.lock();
        if inner.closed {
            return Pop::Closed;
        }
        if inner.held.is_empty() {
            match inner.ready.len() {
                0 => return Pop::Empty(None),
                // As a whole, unless there are several lanes: each would come to have room for all that ever waited.
                waiting if waiting <= most && self.lanes == 1 => {
                    std::mem::swap(&mut inner.ready, chunk);
                }
                waiting => chunk.extend(inner.ready.drain(..most.min(waiting))),
            }
        } else {
            match self.take(&mut inner) {
                Ok(delivery) => chunk.push_back(delivery),
                Err(due) => return Pop::Empty(due),
            }
        }
        if inner.ready.is_empty() && self.idle.load(Ordering::Acquire) > 0 {
            drop(inner);
            idle();
        }
        Pop::Taken
    }

    /// Puts what was taken and not started back before everything else. Leaves it in `chunk` where the queue is closed and
    /// nobody will come for it.
    pub(crate) fn put_back(&self, chunk: &mut VecDeque<Delivery>) {
        if chunk.is_empty() {
            return;
        }
        let mut inner = self.lock();
        if inner.closed {
            return;
        }
        let back = chunk.len();
        if back <= inner.ready.len() || self.lanes > 1 {
            // One by one, so that it costs nothing for those that wait, and their room stays theirs.
            while let Some(delivery) = chunk.pop_back() {
                inner.ready.push_front(delivery);
            }
        } else {
            chunk.append(&mut inner.ready);
            std::mem::swap(&mut inner.ready, chunk);
        }
        drop(inner);
        self.wake(back);
    }

    /// Waits for the first item, then gathers more until there are `size` or `wait` has passed. Leaves it empty once
    /// closed.
    pub(crate) async fn pop_many(
        &self,
        size: usize,
        wait: Duration,
        chunk: &mut VecDeque<Delivery>,
        idle: impl Fn(),
    ) {
        self.pop_chunk(size, chunk, &idle).await;
        if chunk.is_empty() {
            return;
        }
        let gather = async {
            let mut more = VecDeque::new();
            while chunk.len() < size {
                self.pop_chunk(size - chunk.len(), &mut more, &idle).await;
                if more.is_empty() {
                    break;
                }
                chunk.append(&mut more);
            }
        };
        // The deadline ends the waiting; what was gathered stays gathered, since nothing is taken before it is ready.
        let _ = tokio::time::timeout(wait, gather).await;
    }

    /// Takes out everything that was not started and is `gone`.
    pub(crate) fn discard(&self, gone: impl Fn(Token) -> bool) -> Vec<Token> {
        let mut inner = self.lock();
        let mut discarded = Vec::new();
        let mut stays = |delivery: &Delivery| {
            let token = delivery.token;
            let stays = !gone(token);
            if !stays {
                discarded.push(token);
            }
            stays
        };
        inner.ready.retain(&mut stays);
        for held in inner.held.values_mut() {
            held.deliveries.retain(&mut stays);
        }
        inner.held.retain(|_, held| !held.deliveries.is_empty());
        for token in &discarded {
            inner.again.remove(token);
        }
        self.again.store(!inner.again.is_empty(), Ordering::Release);
        discarded
    }

    /// Resolves once it is closed.
    pub(crate) async fn closed(&self) {
        loop {
            let ended = self.ended.notified();
            if self.is_closed() {
                return;
            }
            ended.await;
        }
    }

    /// Ends the lanes after what they are at; answers what was not started.
    pub(crate) fn close(&self) -> Vec<Delivery> {
        let mut inner = self.lock();
        inner.closed = true;
        self.closed.store(true, Ordering::Release);
        let held: Vec<Held> = inner.held.drain().map(|(_, held)| held).collect();
        let left = inner
            .ready
            .drain(..)
            .chain(held.into_iter().flat_map(|held| held.deliveries))
            .collect();
        drop(inner);
        self.changed.notify_waiters();
        self.ended.notify_waiters();
        left
    }

    /// How many wait to be started now; those held back do not count.
    pub(crate) fn waiting(&self) -> usize {
        self.lock().ready.len()
    }

    /// The next delivery, or when the next held one is due.
    fn take(&self, inner: &mut Inner) -> Result<Delivery, Option<Instant>> {
        let next = inner
            .held
            .iter()
            .min_by_key(|(_, held)| held.due)
            .map(|(line, held)| (line.clone(), held.due));
        if let Some((line, due)) = &next
            && *due <= Instant::now()
            && let Some(held) = inner.held.remove(line)
        {
            // The first is tried again at once; the others go back before everything that came later.
            let mut deliveries = held.deliveries;
            let first = deliveries.pop_front();
            while let Some(delivery) = deliveries.pop_back() {
                inner.ready.push_front(delivery);
            }
            if let Some(first) = first {
                return Ok(first);
            }
        }
        while let Some(delivery) = inner.ready.pop_front() {
            if !inner.held.is_empty() && self.ordered {
                let line = self.line(&delivery);
                if let Some(held) = inner.held.get_mut(&line) {
                    held.deliveries.push_back(delivery);
                    continue;
                }
            }
            return Ok(delivery);
        }
        Err(next.map(|(_, due)| due))
    }

    fn line(&self, delivery: &Delivery) -> Line {
        match &delivery.message.key {
            Some(key) if self.ordered => Line::Key(key.clone()),
            _ => Line::One(delivery.token),
        }
    }

    fn lock(&self) -> MutexGuard<'_, Inner> {
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use tokio::task::JoinSet;

    use super::*;
    use crate::contract::{Message, Origin, Position};

    fn delivery(seq: u64, key: &'static str) -> Delivery {
        let token = Token {
            lane: (seq % 2) as u32,
            epoch: 0,
            seq,
        };
        let message = Message::new("x").with_key(key);
        Delivery {
            token,
            origin: Origin::Topic,
            redeliveries: None,
            topic: "t".into(),
            position: Position::default(),
            message,
        }
    }

    async fn pop(queue: &Queue) -> Option<Delivery> {
        let mut one = VecDeque::new();
        queue.pop_chunk(1, &mut one, || ()).await;
        one.pop_front()
    }

    async fn next(queue: &Queue) -> u64 {
        pop(queue).await.unwrap().token.seq
    }

    #[tokio::test]
    async fn what_is_put_back_comes_before_the_rest() {
        let queue = Queue::new(false, 1);
        queue.push(&mut (0..4).map(|seq| delivery(seq, "a")).collect());
        let mut chunk = VecDeque::new();
        queue.pop_chunk(3, &mut chunk, || ()).await;
        assert_eq!(chunk.pop_front().map(|delivery| delivery.token.seq), Some(0));
        queue.push(&mut vec![delivery(4, "a")]);
        queue.put_back(&mut chunk);
        for expected in 1..5 {
            assert_eq!(next(&queue).await, expected);
        }
    }

    #[tokio::test]
    async fn what_is_put_back_costs_what_was_taken_however_much_waits() {
        let queue = Queue::new(false, 100);
        queue.push(&mut (0..10_000).map(|seq| delivery(seq, "a")).collect());
        let mut chunk = VecDeque::new();
        for expected in 0..10_000 {
            queue.pop_chunk(16, &mut chunk, || ()).await;
            assert_eq!(
                chunk.pop_front().map(|delivery| delivery.token.seq),
                Some(expected)
            );
            queue.put_back(&mut chunk);
            assert!(chunk.is_empty() && chunk.capacity() < 100, "{}", chunk.capacity());
        }
        assert_eq!(queue.waiting(), 0);
    }

    #[tokio::test(start_paused = true)]
    async fn as_many_lanes_are_woken_as_there_is_work_for() {
        let (queue, looks) = (Arc::new(Queue::new(false, 100)), Arc::new(AtomicUsize::new(0)));
        let mut lanes = JoinSet::new();
        for _ in 0..100 {
            let (queue, looks) = (queue.clone(), looks.clone());
            lanes.spawn(async move {
                let mut chunk = VecDeque::new();
                let idle = || _ = looks.fetch_add(1, Ordering::Relaxed);
                queue.pop_chunk(1, &mut chunk, idle).await;
                chunk.len()
            });
        }
        let pause = || tokio::time::sleep(Duration::from_millis(1));
        pause().await;
        assert_eq!(looks.swap(0, Ordering::Relaxed), 100);
        for seq in 0..10 {
            queue.push(&mut vec![delivery(seq, "a")]);
            pause().await;
        }
        assert_eq!(looks.load(Ordering::Relaxed), 10, "nothing is left, ten times");
        queue.close();
        assert_eq!(lanes.join_all().await.iter().sum::<usize>(), 10);
    }

    #[tokio::test(start_paused = true)]
    async fn a_failed_key_waits_and_others_go_on() {
        let queue = Queue::new(true, 1);
        queue.push(&mut vec![
            delivery(0, "a"),
            delivery(1, "a"),
            delivery(2, "b"),
            delivery(3, "a"),
        ]);
        let mut taken = VecDeque::new();
        queue.pop_chunk(9, &mut taken, || ()).await;
        let first = taken.pop_front().unwrap();
        assert_eq!((taken.len(), queue.start(&first)), (3, 1));
        assert!(queue.hold(first, 2, Duration::from_secs(1)).is_none());
        assert!(queue.wants_back());
        queue.put_back(&mut taken);
        assert_eq!(next(&queue).await, 2);
        queue.push(&mut vec![delivery(4, "a"), delivery(5, "b")]);
        assert_eq!(next(&queue).await, 5);
        let begin = Instant::now();
        let again = pop(&queue).await.unwrap();
        assert_eq!(
            (again.token.seq, queue.start(&again), begin.elapsed()),
            (0, 2, Duration::from_secs(1))
        );
        assert!(!queue.wants_back());
        for expected in [1, 3, 4] {
            assert_eq!(next(&queue).await, expected);
        }
    }

    #[tokio::test(start_paused = true)]
    async fn unordered_items_are_held_alone() {
        let queue = Queue::new(false, 100);
        queue.push(&mut vec![delivery(0, "a"), delivery(1, "a")]);
        let first = pop(&queue).await.unwrap();
        assert!(queue.hold(first, 2, Duration::from_secs(1)).is_none());
        assert_eq!(next(&queue).await, 1);
        assert_eq!(next(&queue).await, 0);
    }

    #[tokio::test(start_paused = true)]
    async fn a_batch_waits_no_longer_than_told() {
        let queue = Queue::new(false, 100);
        queue.push(&mut (0..5).map(|seq| delivery(seq, "a")).collect());
        let mut batch = VecDeque::new();
        queue
            .pop_many(3, Duration::from_millis(50), &mut batch, || ())
            .await;
        assert_eq!(batch.len(), 3);
        batch.clear();
        let begin = Instant::now();
        queue
            .pop_many(3, Duration::from_millis(50), &mut batch, || ())
            .await;
        assert_eq!((batch.len(), begin.elapsed()), (2, Duration::from_millis(50)));
    }

    #[tokio::test]
    async fn a_closed_queue_wants_back_what_follows_a_failed_one() {
        let queue = Queue::new(true, 1);
        queue.push(&mut vec![delivery(0, "a"), delivery(1, "a")]);
        let mut taken = VecDeque::new();
        queue.pop_chunk(9, &mut taken, || ()).await;
        let first = taken.pop_front().unwrap();
        assert!(!queue.wants_back());
        queue.close();
        assert!(queue.hold(first, 2, Duration::from_secs(1)).is_some());
        assert!(
            queue.wants_back(),
            "it would be handled before the first comes again"
        );
    }

    #[tokio::test]
    async fn discarding_and_closing_leave_nothing_behind() {
        let queue = Queue::new(true, 1);
        queue.push(&mut (0..6).map(|seq| delivery(seq, "a")).collect());
        let first = pop(&queue).await.unwrap();
        assert!(queue.hold(first, 2, Duration::from_secs(1)).is_none());
        assert_eq!(queue.discard(|token| token.lane == 0).len(), 3);
        let mut started = VecDeque::from([pop(&queue).await.unwrap()]);
        assert_eq!(queue.close().len(), 2);
        assert!(pop(&queue).await.is_none());
        queue.put_back(&mut started);
        assert_eq!(started.len(), 1, "it is its owner's to release");
    }
}
