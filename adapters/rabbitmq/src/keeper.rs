//! The task that keeps one subscription alive: opens its channel, and opens it again whenever it ends.

use std::sync::Arc;
use std::time::Duration;

use futures_util::FutureExt;
use lapin::options::{BasicConsumeOptions, BasicQosOptions};
use lapin::types::{FieldTable, ShortString};
use lapin::{Channel, Consumer};
use postrider_contract::{Backoff, Error, ErrorKind, Order, Sharing};
use tokio::sync::mpsc;
use tokio::time::{Instant, sleep, timeout};

use crate::fault;
use crate::line::{answer, open_channel};
use crate::link::Live;
use crate::own_queue::OwnQueue;
use crate::properties::short;
use crate::quarantine;
use crate::subscription::Subscribed;
use crate::unrouted;

/// How often bindings are made sure of: an exchange that was deleted and declared again by a publisher has lost them, and
/// nothing tells their owner.
const ASSURE: Duration = Duration::from_secs(10);
/// A channel that lived this long was a good one.
const GOOD: Duration = Duration::from_secs(5);

/// How long others may be held up for a moment in which nothing is unsettled, and how often it is looked for.
const CALM: Duration = Duration::from_secs(30);
const GLANCE: Duration = Duration::from_millis(5);
/// How often while it is paused.
const PAUSED_GLANCE: Duration = Duration::from_millis(100);

/// What the keeper tells the receiver.
#[allow(clippy::large_enum_variant, reason = "there are few of them")]
pub(crate) enum News {
    /// Deliveries come by this consumer now.
    Open(Flow),
    /// Another consumer on the same channel takes over.
    More(Consumer),
    /// Nothing flows; it is being mended.
    Degraded(Error),
    /// It cannot be mended.
    Over(Error),
}

/// A channel that delivers.
pub(crate) struct Flow {
    pub(crate) epoch: u32,
    pub(crate) channel: Channel,
    /// `None` while it is paused and everything fetched has come.
    pub(crate) consumer: Option<Consumer>,
    pub(crate) queue: ShortString,
    /// On a connection apart, one message at a time.
    pub(crate) alone: bool,
}

/// The channel of an epoch has ended.
pub(crate) struct End {
    pub(crate) epoch: u32,
    /// By a message that cannot be parsed.
    pub(crate) unparsable: bool,
    /// Because something was unsettled for too long.
    pub(crate) overdue: bool,
}

/// Runs until this side is closed or nothing helps. `ended` brings the epoch whose consumer has ended.
pub(crate) async fn keep(
    subscribed: Arc<Subscribed>,
    news: mpsc::UnboundedSender<News>,
    ended: mpsc::UnboundedReceiver<End>,
) {
    let mut copy = None;
    keep_open(&subscribed, news, ended, &mut copy).await;
    // A connection that is closed takes it along.
    if let Some(copy) = copy.filter(|_| !subscribed.shared.is_closed()) {
        copy.delete().await;
    }
}

async fn keep_open(
    subscribed: &Arc<Subscribed>,
    news: mpsc::UnboundedSender<News>,
    mut ended: mpsc::UnboundedReceiver<End>,
    copy: &mut Option<OwnQueue>,
) {
    let shared = subscribed.shared.clone();
    let mut failures = 0u32;
    let mut first = true;
    loop {
        tokio::select! {
            () = shared.closing() => return,
            () = news.closed() => return,
            () = subscribed.resting(false) => {}
        }
        let opened = tokio::select! {
            () = shared.closing() => return,
            opened = open(subscribed, first, copy) => opened,
        };
        match opened {
            Ok((flow, live)) => {
                first = false;
                let since = Instant::now();
                let epoch = flow.epoch;
                let lifting = lift(subscribed, &flow, &news);
                let resting = rest(subscribed, &flow);
                let queue = flow.queue.clone();
                if news.send(News::Open(flow)).is_err() {
                    return;
                }
                let end = tokio::select! {
                    () = shared.closing() => None,
                    end = wait_for_end(&mut ended, epoch) => end,
                    () = assure(subscribed, &live, &queue) => None,
                    () = bring_back(subscribed) => None,
                    () = subscribed.flush_in_time() => None,
                    () = lifting => None,
                    () = resting => None,
                };
                let Some(end) = end else {
                    subscribed.written().await;
                    subscribed.hand_over().await;
                    return;
                };
                if end.overdue {
                    subscribed.prefetch.halve();
                    tracing::warn!(
                        listener = %subscribed.spec.listener, prefetch = subscribed.prefetch.now(),
                        "a delivery was unsettled for longer than the server's consumer timeout: less is fetched"
                    );
                }
                failures = if since.elapsed() >= GOOD || end.unparsable || end.overdue || subscribed.rests() {
                    0
                } else {
                    failures + 1
                };
            }
            Err(error) => {
                failures += 1;
                let over = matches!(
                    error.kind(),
                    ErrorKind::Denied | ErrorKind::Topology | ErrorKind::Unsupported | ErrorKind::Closed
                );
                tracing::warn!(%error, listener = %subscribed.spec.listener, "no messages flow");
                let told = if over {
                    News::Over(error)
                } else {
                    News::Degraded(error)
                };
                if news.send(told).is_err() || over {
                    return;
                }
            }
        }
        if failures > 0 {
            tokio::select! {
                () = shared.closing() => return,
                () = sleep(Backoff::RECONNECT.wait(failures)) => {}
            }
        }
    }
}

/// How this epoch ended; `None` when the receiver is gone.
async fn wait_for_end(ended: &mut mpsc::UnboundedReceiver<End>, epoch: u32) -> Option<End> {
    while let Some(end) = ended.recv().await {
        if end.epoch == epoch {
            return Some(end);
        }
    }
    None
}

/// Fetches more where less was fetched than the listener wishes: once a connection apart has proved sound, and while what is
/// fetched is settled in time. Never ends.
///
/// A consumer with another prefetch takes over on the same channel, so nothing is delivered twice.
fn lift<'a>(
    subscribed: &'a Subscribed,
    flow: &Flow,
    news: &'a mpsc::UnboundedSender<News>,
) -> impl Future<Output = ()> + use<'a> {
    let (alone, channel, queue) = (flow.alone, flow.channel.clone(), flow.queue.clone());
    async move {
        let mut alone = alone;
        while alone || subscribed.prefetch.is_reduced() {
            if subscribed.is_ordered() {
                return reopen(subscribed, channel, alone).await;
            }
            if alone {
                sleep(quarantine::SOUND).await;
            } else {
                subscribed.could_fetch_twice().await;
                subscribed.prefetch.double();
            }
            alone = false;
            match take_over(subscribed, &channel, &queue).await {
                Ok(consumer) => drop(news.send(News::More(consumer))),
                // No answer: what comes to that consumer later would be nobody's. The receiver finds that the channel ends.
                Err(_) => {
                    drop(channel.close(200, "OK".into()).now_or_never());
                    break;
                }
            }
        }
        // The channel must not be kept open from here.
        drop(channel);
        std::future::pending::<()>().await;
    }
}

/// The same where order is kept. There no consumer can take over: cancelled, the first one would hand the queue over to another
/// instance, which would be given what follows before what is unsettled here. So nothing more is handed out until nothing is
/// unsettled, and the channel is closed then; the receiver finds that, and another one is opened. Never ends.
async fn reopen(subscribed: &Subscribed, channel: Channel, alone: bool) {
    // What was tried for nothing is tried again after ten times as long, and then after more.
    let mut rest = 10 * CALM;
    // Until the receiver has found it: what it has of a closed channel others may have handled.
    let _held_back = loop {
        if alone {
            while subscribed.shared.quarantine.is_on() {
                sleep(quarantine::SOUND).await;
            }
        } else {
            subscribed.could_fetch_twice().await;
        }
        let held_back = subscribed.hold_back();
        let calm = settled(subscribed, GLANCE);
        // Where one is fetched at a time nothing waits behind it here. Otherwise one that takes long must not hold up all.
        if alone {
            calm.await;
            break held_back;
        }
        if timeout(CALM, calm).await.is_ok() {
            subscribed.prefetch.double();
            break held_back;
        }
        drop(held_back);
        tracing::info!(
            listener = %subscribed.spec.listener,
            "nothing was handed out for {CALM:?}, to fetch more at once again, and something stayed unsettled for longer: the \
             prefetch stays at {} for {rest:?}",
            subscribed.prefetch.now(),
        );
        sleep(rest).await;
        rest *= 2;
    };
    let _ = answer(&channel, channel.close(200, "OK".into())).await;
    // The channel must not be kept open from here.
    drop(channel);
    subscribed.again.notify_one();
    std::future::pending::<()>().await;
}

/// Another consumer on the same channel, with the prefetch of now.
async fn take_over(
    subscribed: &Subscribed,
    channel: &Channel,
    queue: &ShortString,
) -> lapin::Result<Consumer> {
    let prefetch = subscribed.prefetch.now();
    answer(channel, channel.basic_qos(prefetch, BasicQosOptions::default())).await?;
    consume(subscribed, channel, queue).await
}

/// Closes the channel of a paused subscription that keeps order, once nothing of it is unsettled: what was fetched goes back,
/// and another instance becomes the active one. Never ends.
fn rest<'a>(subscribed: &'a Subscribed, flow: &Flow) -> impl Future<Output = ()> + use<'a> {
    let channel = flow.channel.clone();
    async move {
        loop {
            subscribed.resting(true).await;
            tokio::select! {
                () = subscribed.resting(false) => {}
                () = settled(subscribed, PAUSED_GLANCE) => break,
            }
        }
        let _ = answer(&channel, channel.close(200, "OK".into())).await;
        // The channel must not be kept open from here.
        drop(channel);
        std::future::pending::<()>().await;
    }
}

/// Waits until nothing is in hand, and the broker knows what is settled.
async fn settled(subscribed: &Subscribed, glance: Duration) {
    loop {
        if subscribed.is_settled() {
            subscribed.written().await;
            if subscribed.is_settled() {
                return;
            }
        }
        sleep(glance).await;
    }
}

/// Declares the listener's own part again from time to time. Never ends.
async fn assure(subscribed: &Subscribed, live: &Live, queue: &ShortString) {
    let spec = &subscribed.spec;
    let copy = subscribed.is_broadcast().then_some(queue.as_str());
    loop {
        sleep(ASSURE).await;
        if let Err(error) = subscribed.shared.topology.again(live, spec, copy, false).await {
            tracing::warn!(%error, listener = %spec.listener, "topology cannot be made sure of");
        }
    }
}

/// Looks for retries that had lost their queue. Never ends.
async fn bring_back(subscribed: &Subscribed) {
    let (shared, spec) = (&subscribed.shared, &subscribed.spec);
    if spec.sharing != Sharing::Group || !shared.topology.declares() {
        return std::future::pending().await;
    }
    unrouted::bring_back(shared, spec).await;
}

/// Opens a channel that delivers. `first`: the topology was planned just now.
async fn open(
    subscribed: &Subscribed,
    first: bool,
    copy: &mut Option<OwnQueue>,
) -> Result<(Flow, Live), Error> {
    let shared = &subscribed.shared;
    let spec = &subscribed.spec;
    let alone = shared.quarantine.is_on();
    let link = if alone {
        subscribed.apart()
    } else {
        shared.intake.clone()
    };
    copy.take_if(|copy| copy.is_gone());
    let live = match copy {
        Some(copy) => copy.live.clone(),
        None => link.get().await?,
    };
    // Apart, only the same channel is opened again.
    if !first && !alone && !subscribed.is_broadcast() {
        shared.topology.again(&live, spec, None, false).await?;
    }
    let opening = |error: lapin::Error| fault::error(&format!("receiving `{}`", spec.topic()), &error);
    let channel = open_channel(&live).await.map_err(opening)?;
    let prefetch = if alone { 1 } else { subscribed.prefetch.now() };
    answer(&channel, channel.basic_qos(prefetch, BasicQosOptions::default()))
        .await
        .map_err(opening)?;
    let queue = match spec.sharing {
        Sharing::Group => {
            let ordered = spec.order == Order::ByKey;
            short(&shared.topology.layout().queue(spec.topic(), &spec.group, ordered))?
        }
        Sharing::Broadcast => {
            let queue = OwnQueue::declare(copy, &live, &channel).await.map_err(opening)?;
            let bound = Some(queue.as_str());
            shared.topology.again(&live, spec, bound, false).await?;
            queue
        }
    };
    let consumer = consume(subscribed, &channel, &queue).await.map_err(opening)?;
    let epoch = subscribed.begin(channel.clone());
    let flow = Flow {
        epoch,
        channel,
        consumer: Some(consumer),
        queue,
        alone,
    };
    Ok((flow, live))
}

/// Starts a consumer on a channel.
pub(crate) async fn consume(
    subscribed: &Subscribed,
    channel: &Channel,
    queue: &ShortString,
) -> lapin::Result<Consumer> {
    let consuming = channel.basic_consume(
        queue.clone(),
        // The broker invents a tag.
        ShortString::default(),
        BasicConsumeOptions::default(),
        FieldTable::default(),
    );
    let consumer = answer(channel, consuming).await?;
    tracing::debug!(listener = %subscribed.spec.listener, %queue, "consuming");
    Ok(consumer)
}
