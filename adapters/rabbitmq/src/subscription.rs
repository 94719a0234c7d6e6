//! What the two halves of a subscription and the task that keeps it alive have in common.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError, Weak};
use std::time::Duration;

use futures_util::FutureExt;
use lapin::options::{BasicAckOptions, BasicNackOptions, BasicQosOptions};
use lapin::{Channel, Consumer};
use postrider_contract::{Delivery, Order, Sharing, Spec, Token};
use tokio::sync::{Notify, watch};
use tokio::time::{sleep, timeout};

use crate::held::{Held, tag};
use crate::link::Link;
use crate::options::Settings;
use crate::prefetch::Prefetch;
use crate::publisher::Publisher;
use crate::quarantine::{self, Quarantine};
use crate::topology::Topology;
use crate::window::{Frame, Window};

/// So many settlements travel together at most.
const TOGETHER: usize = 128;
/// So long a settlement waits for others: far less than a round trip to a busy broker, and enough for a burst.
const MOMENT: Duration = Duration::from_millis(1);
/// So long the end of a subscription waits for the server's answer to its last settlements.
const WRITTEN: Duration = Duration::from_secs(2);
/// So long the server has to hand settlements on to the queue before its channel is closed.
const HANDED_ON: Duration = Duration::from_millis(150);

/// What every part of a connected broker uses.
pub(crate) struct Shared {
    pub(crate) settings: Arc<Settings>,
    pub(crate) topology: Arc<Topology>,
    /// Receives, and declares: never publishes, so the broker never stops reading from it.
    pub(crate) intake: Arc<Link>,
    /// Looks at dead letters and depths.
    pub(crate) lookout: Arc<Link>,
    /// Publishes.
    pub(crate) outlet: Arc<Link>,
    pub(crate) publisher: Publisher,
    pub(crate) closed: watch::Sender<bool>,
    pub(crate) quarantine: Quarantine,
    /// Held while retries that have lost their queue are looked at.
    pub(crate) unrouted: tokio::sync::Mutex<()>,
    /// Every subscription there is.
    pub(crate) subscribed: Mutex<Vec<Weak<Subscribed>>>,
}

impl Shared {
    pub(crate) fn is_closed(&self) -> bool {
        *self.closed.borrow()
    }

    /// Sends every settlement that waits for others.
    pub(crate) fn flush(&self) {
        let all = self.subscribed.lock().unwrap_or_else(PoisonError::into_inner);
        all.iter()
            .filter_map(Weak::upgrade)
            .for_each(|subscribed| subscribed.flush());
    }

    /// Waits until every settlement has reached the server.
    pub(crate) async fn written(&self) {
        let all: Vec<Arc<Subscribed>> = {
            let all = self.subscribed.lock().unwrap_or_else(PoisonError::into_inner);
            all.iter().filter_map(Weak::upgrade).collect()
        };
        for subscribed in all {
            subscribed.written().await;
        }
    }

    /// Disconnects; what is queued on the connections goes out before.
    pub(crate) async fn disconnect(&self) {
        self.outlet.close().await;
        self.flush();
        let apart: Vec<Arc<Link>> = {
            let all = self.subscribed.lock().unwrap_or_else(PoisonError::into_inner);
            let all = all.iter().filter_map(Weak::upgrade);
            all.filter_map(|subscribed| subscribed.apart.get().cloned())
                .collect()
        };
        for link in apart.iter().chain([&self.intake, &self.lookout]) {
            link.close().await;
        }
    }

    /// Resolves when this side is closed.
    pub(crate) async fn closing(&self) {
        let mut closed = self.closed.subscribe();
        let _ = closed.wait_for(|closed| *closed).await;
    }
}

/// One subscription.
pub(crate) struct Subscribed {
    pub(crate) shared: Arc<Shared>,
    pub(crate) spec: Spec,
    pub(crate) prefetch: Prefetch,
    /// Nothing is to be fetched for now.
    paused: watch::Sender<bool>,
    /// Nothing that was fetched is to be handed out for now.
    held_back: AtomicBool,
    /// A connection of its own, for quarantine.
    apart: OnceLock<Arc<Link>>,
    /// Something is to be brought again, or something else about what may be handed out has changed.
    pub(crate) again: Notify,
    /// The first settlement was queued.
    queued: Notify,
    /// Nobody sends in time what is queued.
    alone: AtomicBool,
    /// So many travel together at most: the broker must not run out of room in its prefetch meanwhile.
    together: usize,
    current: Mutex<Current>,
    /// What an ordered subscription received by until it ended.
    left: Mutex<Option<(Channel, Vec<Consumer>)>>,
}

/// The channel that deliveries come by now.
#[derive(Default)]
struct Current {
    epoch: u32,
    open: Option<Open>,
}

struct Open {
    channel: Channel,
    window: Window,
    /// Only where order is kept.
    held: Option<Held>,
    /// Settlements that wait for others to travel with.
    queued: Vec<(u64, bool)>,
}

impl Subscribed {
    pub(crate) fn new(shared: Arc<Shared>, spec: Spec) -> Arc<Self> {
        let subscribed = Arc::new(Self {
            prefetch: Prefetch::new(spec.in_flight),
            together: (spec.in_flight as usize / 4).clamp(1, TOGETHER),
            paused: watch::Sender::new(false),
            held_back: AtomicBool::new(false),
            apart: OnceLock::new(),
            again: Notify::new(),
            queued: Notify::new(),
            alone: AtomicBool::new(true),
            current: Mutex::default(),
            left: Mutex::default(),
            shared: shared.clone(),
            spec,
        });
        let mut all = shared.subscribed.lock().unwrap_or_else(PoisonError::into_inner);
        all.retain(|one: &Weak<Self>| one.strong_count() > 0);
        all.push(Arc::downgrade(&subscribed));
        drop(all);
        subscribed
    }

    /// A connection of this subscription's own.
    pub(crate) fn apart(&self) -> Arc<Link> {
        let link = || Link::paced(self.shared.settings.clone(), "receive apart", quarantine::PACE);
        self.apart.get_or_init(link).clone()
    }

    pub(crate) fn pause(&self, paused: bool) {
        self.paused.send_replace(paused);
    }

    /// Whether it has no channel where nothing is unsettled: while it is the active consumer nobody else gets anything.
    pub(crate) fn rests(&self) -> bool {
        self.is_ordered() && *self.paused.borrow()
    }

    /// Resolves when that is, or is not.
    pub(crate) async fn resting(&self, wanted: bool) {
        let mut paused = self.paused.subscribe();
        let _ = paused
            .wait_for(|paused| (self.is_ordered() && *paused) == wanted)
            .await;
    }

    /// A new channel takes over; answers its epoch.
    pub(crate) fn begin(&self, channel: Channel) -> u32 {
        let mut current = self.current();
        current.epoch += 1;
        current.open = Some(Open {
            channel,
            window: Window::new(),
            held: self.is_ordered().then(Held::default),
            queued: Vec::new(),
        });
        current.epoch
    }

    /// The channel is gone, and with it everything unsettled. A later one is left alone.
    pub(crate) fn end(&self, epoch: u32) {
        let mut current = self.current();
        if current.epoch == epoch
            && let Some(mut open) = current.open.take()
        {
            open.flush();
        }
    }

    /// Keeps the consumers of an ordered subscription that nobody reads any more: dropped, they would be cancelled, and the
    /// next instance would become the active one and be given what follows before what is unsettled here.
    pub(crate) fn leave(&self, channel: Channel, consumers: Vec<Consumer>) {
        *self.left.lock().unwrap_or_else(PoisonError::into_inner) = Some((channel, consumers));
    }

    /// Closes the channel of what was left: the broker takes back what is unsettled and makes the next instance the active one
    /// in one step, in that order.
    pub(crate) async fn hand_over(&self) {
        let left = self.left.lock().unwrap_or_else(PoisonError::into_inner).take();
        if let Some((channel, consumers)) = left {
            let _ = timeout(WRITTEN, channel.close(200, "OK".into())).await;
            drop(consumers);
        }
    }

    /// Notes what is being delivered, where it may have to be brought again.
    pub(crate) fn out(&self, delivery: &Delivery) {
        if let Some(held) = self.current().open.as_mut().and_then(|open| open.held.as_mut()) {
            held.add(delivery);
        }
    }

    /// Whether order is kept, and so something may have to be brought again.
    pub(crate) fn is_ordered(&self) -> bool {
        self.spec.order == Order::ByKey
    }

    /// Whether the queue is this instance's own, and gone with its connection: then nothing of it comes again.
    pub(crate) fn is_broadcast(&self) -> bool {
        self.spec.sharing == Sharing::Broadcast
    }

    /// What is to be brought again first.
    pub(crate) fn take_again(&self) -> Option<Delivery> {
        let mut current = self.current();
        current.open.as_mut()?.held.as_mut()?.take_again()
    }

    /// Hands out nothing until the answer is dropped, where order is kept.
    pub(crate) fn hold_back(&self) -> HeldBack<'_> {
        let held_back = HeldBack(self);
        held_back.set(true);
        held_back
    }

    pub(crate) fn is_held_back(&self) -> bool {
        self.held_back.load(Ordering::Relaxed)
    }

    /// Waits until it is seen that twice as much as is fetched now would be settled in time.
    pub(crate) async fn could_fetch_twice(&self) {
        self.prefetch
            .could_be_twice(self.shared.settings.consumer_timeout)
            .await;
    }

    /// Whether everything that came to an ordered subscription is settled or was given back.
    pub(crate) fn is_settled(&self) -> bool {
        let current = self.current();
        let held = current.open.as_ref().and_then(|open| open.held.as_ref());
        held.is_none_or(Held::none_is_out)
    }

    /// Whether a delivery can still be settled.
    pub(crate) fn holds(&self, token: Token) -> bool {
        let current = self.current();
        let open = current.open.as_ref().filter(|_| current.epoch == token.epoch);
        open.is_some_and(|open| open.held.as_ref().is_none_or(|held| held.is_out(token)))
    }

    /// Settles: `true` acknowledges, `false` gives back. Answers for each whether it was on a live channel and unsettled.
    ///
    /// Nothing waits for the socket. Settlements wait a moment for others, so that one frame carries many; should the
    /// connection be lost before, the broker delivers them again.
    pub(crate) fn settle(&self, verdicts: &[(Token, bool)]) -> Vec<bool> {
        let mut current = self.current();
        let epoch = current.epoch;
        let Some(open) = current
            .open
            .as_mut()
            .filter(|open| open.channel.status().connected())
        else {
            return vec![false; verdicts.len()];
        };
        let was_empty = open.queued.is_empty();
        let mut at_once = false;
        let mut acknowledged = 0;
        let mut answers = Vec::with_capacity(verdicts.len());
        for &(token, ack) in verdicts {
            let fresh = token.epoch == epoch
                && match &mut open.held {
                    Some(held) => held.is_out(token),
                    None => open.window.mark(token.seq),
                };
            answers.push(fresh);
            acknowledged += u64::from(fresh && ack);
            match &mut open.held {
                _ if !fresh => {}
                None => {
                    open.queued.push((token.seq, ack));
                    at_once |= !ack;
                }
                Some(held) if ack => {
                    held.remove(token);
                    open.window.mark(tag(token));
                    open.queued.push((tag(token), true));
                }
                Some(held) => {
                    held.give_back(token);
                    self.again.notify_one();
                }
            }
        }
        self.prefetch.acknowledge(acknowledged);
        if at_once || open.queued.len() >= self.together || self.alone.load(Ordering::Relaxed) {
            open.flush();
        } else if was_empty && !open.queued.is_empty() {
            self.queued.notify_one();
        }
        answers
    }

    /// Sends what is queued.
    pub(crate) fn flush(&self) {
        if let Some(open) = &mut self.current().open {
            open.flush();
        }
    }

    /// Sends what is queued and waits until the server has dealt with it: an answer on the same channel comes after. What a
    /// closing channel has not written yet the client library drops, and the server would deliver it again.
    pub(crate) async fn written(&self) {
        self.flush();
        let channel = self.current().open.as_ref().map(|open| open.channel.clone());
        if let Some(channel) = channel {
            // Counts for later consumers of this channel alone, and there are none.
            let _ = timeout(WRITTEN, channel.basic_qos(1, BasicQosOptions::default())).await;
            // Behind the channel the server hands settlements on to a quorum queue, 32 at a time, and forgets the rest when
            // the channel ends. Nothing tells when it is done.
            sleep(HANDED_ON).await;
        }
    }

    /// Sends what is queued, a moment after the first of it was. Never ends; where it is dropped, nothing waits any more.
    pub(crate) async fn flush_in_time(&self) {
        let _company = Company::keep(self);
        loop {
            self.queued.notified().await;
            sleep(MOMENT).await;
            self.flush();
        }
    }

    fn current(&self) -> MutexGuard<'_, Current> {
        self.current.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// While it lives, nothing is handed out.
pub(crate) struct HeldBack<'a>(&'a Subscribed);

impl HeldBack<'_> {
    fn set(&self, is_held_back: bool) {
        self.0.held_back.store(is_held_back, Ordering::Relaxed);
        self.0.again.notify_one();
    }
}

impl Drop for HeldBack<'_> {
    fn drop(&mut self) {
        self.set(false);
    }
}

/// While it lives, settlements are sent in time.
struct Company<'a>(&'a Subscribed);

impl<'a> Company<'a> {
    fn keep(subscribed: &'a Subscribed) -> Self {
        subscribed.alone.store(false, Ordering::Relaxed);
        Self(subscribed)
    }
}

impl Drop for Company<'_> {
    fn drop(&mut self) {
        let current = &mut self.0.current();
        self.0.alone.store(true, Ordering::Relaxed);
        if let Some(open) = &mut current.open {
            open.flush();
        }
    }
}

impl Open {
    fn flush(&mut self) {
        if !self.queued.is_empty() {
            for frame in self.window.frames(&self.queued) {
                queue(&self.channel, frame);
            }
            self.queued.clear();
        }
    }
}

/// Queues a frame. lapin pushes it at the first poll; what follows only waits for the socket.
fn queue(channel: &Channel, frame: Frame) {
    let sent = match frame {
        Frame::Ack { tag, multiple } => channel
            .basic_ack(tag, BasicAckOptions { multiple })
            .now_or_never(),
        Frame::Requeue { tag } => {
            let options = BasicNackOptions {
                requeue: true,
                multiple: false,
            };
            channel.basic_nack(tag, options).now_or_never()
        }
    };
    if let Some(Err(error)) = sent {
        // The channel has just ended: the broker delivers it again.
        tracing::debug!(%error, "a settlement was too late");
    }
}
