//! What the two halves of a subscription and the task that keeps it alive have in common.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use futures_util::FutureExt;
use lapin::Channel;
use lapin::options::{BasicAckOptions, BasicNackOptions};
use postrider_contract::{Delivery, Order, Spec, Token};
use tokio::sync::{Notify, watch};

use crate::held::{Held, tag};
use crate::link::Link;
use crate::options::Settings;
use crate::publisher::Publisher;
use crate::topology::Topology;
use crate::window::{Frame, Window};

/// What every part of a connected broker uses.
pub(crate) struct Shared {
    pub(crate) settings: Arc<Settings>,
    pub(crate) topology: Arc<Topology>,
    /// Receives, and declares: never publishes, so the broker never stops reading from it.
    pub(crate) intake: Arc<Link>,
    /// Publishes.
    pub(crate) outlet: Arc<Link>,
    pub(crate) publisher: Publisher,
    pub(crate) closed: watch::Sender<bool>,
}

impl Shared {
    pub(crate) fn is_closed(&self) -> bool {
        *self.closed.borrow()
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
    /// Something is to be brought again.
    pub(crate) again: Notify,
    current: Mutex<Current>,
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
}

impl Subscribed {
    pub(crate) fn new(shared: Arc<Shared>, spec: Spec) -> Arc<Self> {
        Arc::new(Self {
            shared,
            spec,
            again: Notify::new(),
            current: Mutex::default(),
        })
    }

    /// A new channel takes over; answers its epoch.
    pub(crate) fn begin(&self, channel: Channel) -> u32 {
        let mut current = self.current();
        current.epoch += 1;
        current.open = Some(Open {
            channel,
            window: Window::new(),
            held: (self.spec.order == Order::ByKey).then(Held::default),
        });
        current.epoch
    }

    /// The channel is gone, and with it everything unsettled. A later one is left alone.
    pub(crate) fn end(&self, epoch: u32) {
        let mut current = self.current();
        if current.epoch == epoch {
            current.open = None;
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

    /// What is to be brought again first.
    pub(crate) fn take_again(&self) -> Option<Delivery> {
        let mut current = self.current();
        current.open.as_mut()?.held.as_mut()?.take_again()
    }

    /// Whether a delivery can still be settled.
    pub(crate) fn holds(&self, token: Token) -> bool {
        let current = self.current();
        let open = current.open.as_ref().filter(|_| current.epoch == token.epoch);
        open.is_some_and(|open| open.held.as_ref().is_none_or(|held| held.is_out(token)))
    }

    /// Settles: `true` acknowledges, `false` gives back. Answers for each whether it was on a live channel and unsettled.
    ///
    /// The frames are queued on the connection in order before this returns, under the lock, and nothing waits for the
    /// socket: the prefetch bounds how many there can be.
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
        let mut frames = Vec::new();
        let answers = match &mut open.held {
            None => {
                let own: Vec<(u64, bool)> = verdicts
                    .iter()
                    .filter(|(token, _)| token.epoch == epoch)
                    .map(|(token, ack)| (token.seq, *ack))
                    .collect();
                let mut fresh = open.window.settle(&own, &mut frames).into_iter();
                let answer =
                    |(token, _): &(Token, bool)| token.epoch == epoch && fresh.next().unwrap_or(false);
                verdicts.iter().map(answer).collect()
            }
            Some(held) => {
                let mut acks = Vec::new();
                let mut answers = Vec::with_capacity(verdicts.len());
                for (token, ack) in verdicts {
                    let fresh = token.epoch == epoch && held.is_out(*token);
                    answers.push(fresh);
                    if fresh && *ack {
                        held.remove(*token);
                        acks.push((tag(*token), true));
                    } else if fresh {
                        held.give_back(*token);
                        self.again.notify_one();
                    }
                }
                open.window.settle(&acks, &mut frames);
                answers
            }
        };
        for frame in frames {
            queue(&open.channel, frame);
        }
        answers
    }

    fn current(&self) -> MutexGuard<'_, Current> {
        self.current.lock().unwrap_or_else(PoisonError::into_inner)
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
