//! Brings deliveries, as many as are there, without a task or a queue between the client library and the caller.

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use futures_util::{FutureExt, StreamExt};
use lapin::Consumer;
use lapin::options::BasicCancelOptions;
use lapin::types::ShortString;
use postrider_contract::{Delivery, Error, ErrorKind, Event, Origin, Position, Receiver, Token, return_path};
use tokio::sync::mpsc;
use tokio::time::{Instant, sleep};

use crate::fault;
use crate::keeper::{self, End, Flow, News};
use crate::ladder::{self, Destination};
use crate::layout::{INBOX, LADDER};
use crate::properties;
use crate::subscription::Subscribed;

/// How often a channel is looked at while nothing may be taken from it.
const LOOK: Duration = Duration::from_millis(500);

pub(crate) struct RabbitReceiver {
    subscribed: Arc<Subscribed>,
    news: mpsc::UnboundedReceiver<News>,
    ended: mpsc::UnboundedSender<End>,
    flow: Option<Flow>,
    /// Consumers from before a pause: what they fetched still comes.
    former: VecDeque<Consumer>,
    /// The queue that deliveries came from last, and since when on this channel.
    queue: Option<ShortString>,
    since: Instant,
    /// All of a channel is lost at once. What is in hand of a broadcast's former queue is not, so the next one has the other lane.
    lane: u32,
    /// How often in a row something of that queue was unsettled for too long. One of a broadcast counts nothing itself.
    overdue: u32,
    /// What had arrived of a queue that may be gone with its connection.
    kept: VecDeque<Delivery>,
    paused: bool,
    /// Told at the next calls: the end, in its parts, and where it was seen behind deliveries.
    later: VecDeque<Event>,
    over: Option<Error>,
}

/// What a look at the consumer gave.
#[allow(clippy::large_enum_variant, reason = "it is taken apart at once")]
enum Look {
    Delivery(lapin::message::Delivery),
    Ended(Option<lapin::Error>),
}

impl RabbitReceiver {
    pub(crate) fn start(subscribed: &Arc<Subscribed>) -> Self {
        let (tell, news) = mpsc::unbounded_channel();
        let (ended, hear) = mpsc::unbounded_channel();
        tokio::spawn(keeper::keep(subscribed.clone(), tell, hear));
        Self {
            subscribed: subscribed.clone(),
            news,
            ended,
            flow: None,
            former: VecDeque::new(),
            queue: None,
            since: Instant::now(),
            lane: 0,
            overdue: 0,
            kept: VecDeque::new(),
            paused: false,
            later: VecDeque::new(),
            over: None,
        }
    }

    fn hear(&mut self, news: Option<News>) -> Result<Event, Error> {
        match news {
            Some(News::Open(flow)) => {
                self.former.clear();
                self.since = Instant::now();
                let before = match self.queue.replace(flow.queue.clone()) {
                    // What was in the former one is gone with it, and what was published until now.
                    Some(former) if former != flow.queue => {
                        (self.lane, self.overdue) = (1 - self.lane, 0);
                        Some(Event::Gap { lost: None })
                    }
                    // Its connection lives: all that was not settled comes again.
                    Some(_) if self.subscribed.is_broadcast() => {
                        self.kept.retain(|kept| kept.token.lane != self.lane);
                        Some(revoked(self.lane))
                    }
                    _ => None,
                };
                self.flow = Some(flow);
                if self.paused && !self.stays_active() {
                    self.stop_fetching();
                }
                let Some(before) = before else {
                    return Ok(Event::Ready);
                };
                self.later.push_back(Event::Ready);
                Ok(before)
            }
            Some(News::More(consumer)) => {
                self.stop_fetching();
                if let Some(flow) = &mut self.flow {
                    self.former.extend(flow.consumer.replace(consumer));
                }
                if self.paused && !self.stays_active() {
                    self.stop_fetching();
                }
                Ok(Event::Ready)
            }
            Some(News::Degraded(error)) => Ok(Event::Degraded(error)),
            Some(News::Over(error)) => {
                self.over = Some(error.clone());
                Err(error)
            }
            None => Ok(Event::Closed),
        }
    }

    /// The channel has ended: nothing of it can be settled any more, and the broker delivers it again.
    fn lost(&mut self, why: Option<&lapin::Error>) {
        self.leave();
        self.former.clear();
        if let Some(flow) = self.flow.take() {
            // The queue of a broadcast instance may be gone with its connection: then nobody else gets what came from it.
            if !self.subscribed.is_broadcast() {
                self.later.push_back(revoked(self.lane));
            }
            self.subscribed.end(flow.epoch);
            let overdue = why.is_some_and(fault::is_overdue);
            if overdue {
                let in_a_row = self.since.elapsed() < 2 * self.subscribed.shared.settings.consumer_timeout;
                self.overdue = if in_a_row { self.overdue + 1 } else { 1 };
            }
            let _ = self.ended.send(End {
                epoch: flow.epoch,
                unparsable: self.subscribed.shared.quarantine.note(why),
                overdue,
            });
        }
        if why.is_none() && self.subscribed.rests() {
            return;
        }
        let topic = self.subscribed.spec.topic();
        self.later.push_back(Event::Degraded(match why {
            Some(error) => fault::error(&format!("receiving `{topic}`"), error),
            None => Error::new(
                ErrorKind::Unavailable,
                format!("receiving `{topic}`: the connection is lost, or the broker ended it, as when a queue is deleted"),
            ),
        }));
    }

    fn is_cut_off(&self) -> bool {
        self.flow
            .as_ref()
            .is_some_and(|flow| !flow.channel.status().connected())
    }

    /// The channel was found cut off.
    fn lose(&mut self) {
        let why = self.last_words();
        self.lost(why.as_ref());
    }

    /// Why a channel has ended, behind what it brought: that is stale, but where nobody else may get it.
    fn last_words(&mut self) -> Option<lapin::Error> {
        loop {
            match look(&mut self.former, self.flow.as_mut(), self.paused).now_or_never()? {
                Look::Delivery(delivery) if self.subscribed.is_broadcast() => {
                    let delivery = self.delivery(delivery);
                    self.kept.extend(delivery);
                }
                Look::Delivery(_) => {}
                Look::Ended(why) => return why,
            }
        }
    }

    /// What is told next of what is known already.
    fn told(&mut self) -> Option<Event> {
        if self.subscribed.shared.is_closed() {
            self.lost(None);
            self.later.clear();
            return Some(Event::Closed);
        }
        self.later.pop_front()
    }

    /// Gives back what still comes of a consumer that a pause has cancelled: kept, nobody would get it.
    fn give_back(&mut self) {
        let mut back = Vec::new();
        let ended = loop {
            match look(&mut self.former, self.flow.as_mut(), self.paused).now_or_never() {
                Some(Look::Delivery(delivery)) => back.extend(self.token(delivery.delivery_tag)),
                Some(Look::Ended(why)) => break Some(why),
                None => break None,
            }
        };
        self.requeue(&back);
        if let Some(why) = ended {
            self.lost(why.as_ref());
        }
    }

    fn requeue(&self, tokens: &[Token]) {
        let back: Vec<_> = tokens.iter().map(|token| (*token, false)).collect();
        self.subscribed.settle(&back);
    }

    /// Takes what is there, at most `max`.
    fn take(&mut self, max: usize, into: &mut Vec<Delivery>) {
        for _ in 0..max {
            if let Some(delivery) = self.kept.pop_front() {
                into.push(delivery);
                continue;
            }
            if self.subscribed.is_ordered()
                && let Some(delivery) = self.subscribed.take_again()
            {
                into.push(delivery);
                continue;
            }
            match look(&mut self.former, self.flow.as_mut(), self.paused).now_or_never() {
                Some(Look::Delivery(delivery)) => self.push(delivery, into),
                // What was taken is told first, and is stale by now.
                Some(Look::Ended(why)) => return self.lost(why.as_ref()),
                None => return,
            }
        }
    }

    fn token(&self, tag: u64) -> Option<Token> {
        self.flow.as_ref().map(|flow| Token {
            lane: self.lane,
            epoch: flow.epoch,
            seq: tag,
        })
    }

    fn push(&self, delivery: lapin::message::Delivery, into: &mut Vec<Delivery>) {
        into.extend(self.delivery(delivery));
    }

    fn delivery(&self, delivery: lapin::message::Delivery) -> Option<Delivery> {
        let token = self.token(delivery.delivery_tag)?;
        let spec = &self.subscribed.spec;
        let exchange = delivery.exchange.as_str();
        // Only the adapter's own exchanges lead here: what a producer writes into a header, or publishes to a topic or
        // straight to the queue, does not come by them.
        let returned = exchange == INBOX
            || exchange.starts_with(LADDER)
                && matches!(
                    ladder::destination(delivery.routing_key.as_str()),
                    Some(Destination::Inbox(_))
                );
        let returned = returned && !self.subscribed.is_broadcast();
        let inbound = properties::inbound(&delivery.properties, delivery.data, returned);
        let origin = if returned {
            return_path(&inbound.message)
        } else {
            Origin::Topic
        };
        // The count of a first delivery is none of this queue's, nor one in a broadcast's: somebody else wrote it.
        let redeliveries = match delivery.redelivered {
            true if self.subscribed.is_broadcast() => self.overdue,
            true => inbound.redeliveries,
            false => 0,
        };
        let delivery = Delivery {
            token,
            origin,
            redeliveries: Some(redeliveries),
            topic: spec.topic().clone(),
            position: Position {
                partition: None,
                offset: delivery.delivery_tag,
                minor: None,
            },
            message: inbound.message,
        };
        if self.subscribed.is_ordered() {
            self.subscribed.out(&delivery);
        }
        Some(delivery)
    }

    /// Where order is kept the consumers outlive their receiver, until their channel is closed.
    fn leave(&mut self) {
        if let Some(flow) = &mut self.flow
            && self.subscribed.is_ordered()
        {
            let consumers = self.former.drain(..).chain(flow.consumer.take()).collect();
            self.subscribed.leave(flow.channel.clone(), consumers);
        }
    }

    /// Where order is kept a pause does not cancel the consumer: the next instance would become the active one at once, and
    /// be given what follows before what is still held here; the channel is closed once nothing is. Nothing is asked for
    /// meanwhile, and the prefetch bounds what the broker sends.
    fn stays_active(&self) -> bool {
        self.subscribed.is_ordered()
    }

    /// Cancels the consumer. The frame is queued at the first poll, and the client library takes the answer by itself.
    fn stop_fetching(&self) {
        let Some(flow) = &self.flow else { return };
        if let Some(consumer) = &flow.consumer {
            let cancelling = flow
                .channel
                .basic_cancel(consumer.tag(), BasicCancelOptions::default());
            drop(cancelling.now_or_never());
        }
    }

    async fn start_fetching(&mut self) {
        let Some(flow) = &mut self.flow else { return };
        self.former.extend(flow.consumer.take());
        match keeper::consume(&self.subscribed, &flow.channel, &flow.queue).await {
            Ok(consumer) => flow.consumer = Some(consumer),
            // The next look at it finds that its channel has ended.
            Err(_) if !flow.channel.status().connected() => {}
            // No answer: nothing would come by this channel any more, and nobody would tell.
            Err(error) => {
                drop(flow.channel.close(200, "OK".into()).now_or_never());
                self.lost(Some(&error));
            }
        }
    }
}

impl Drop for RabbitReceiver {
    fn drop(&mut self) {
        self.leave();
    }
}

/// What was not settled comes again.
fn revoked(lane: u32) -> Event {
    Event::Revoked {
        lanes: vec![lane],
        deadline: Duration::ZERO,
    }
}

/// Waits for the next delivery, those of former consumers first. A consumer that a pause cancelled ends while its channel
/// lives: then nothing comes until there is another.
async fn look(former: &mut VecDeque<Consumer>, flow: Option<&mut Flow>, paused: bool) -> Look {
    let Some(flow) = flow else {
        return std::future::pending().await;
    };
    while let Some(consumer) = former.front_mut() {
        match consumer.next().await {
            Some(Ok(delivery)) => return Look::Delivery(delivery),
            Some(Err(error)) => return Look::Ended(Some(error)),
            None => drop(former.pop_front()),
        }
    }
    let Some(consumer) = &mut flow.consumer else {
        return std::future::pending().await;
    };
    match consumer.next().await {
        Some(Ok(delivery)) => Look::Delivery(delivery),
        Some(Err(error)) => Look::Ended(Some(error)),
        None if paused && flow.channel.status().connected() => {
            flow.consumer = None;
            std::future::pending().await
        }
        None => Look::Ended(None),
    }
}

#[async_trait]
impl Receiver for RabbitReceiver {
    async fn next(&mut self, max: usize, into: &mut Vec<Delivery>) -> Result<Event, Error> {
        if let Some(error) = &self.over {
            return Err(error.clone());
        }
        let before = into.len();
        loop {
            if let Some(event) = self.told() {
                return Ok(event);
            }
            if let Ok(news) = self.news.try_recv() {
                return self.hear(Some(news));
            }
            let held_back = self.subscribed.is_held_back();
            if held_back && self.is_cut_off() {
                self.lose();
                continue;
            }
            let max = if held_back { 0 } else { max };
            let gives_back = self.paused && !self.stays_active();
            if gives_back {
                self.give_back();
            } else {
                self.take(max, into);
            }
            if into.len() > before {
                return Ok(Event::Deliveries);
            }
            if !self.later.is_empty() {
                continue;
            }
            let idle = self
                .flow
                .as_ref()
                .is_some_and(|flow| max == 0 || flow.consumer.is_none());
            let subscribed = self.subscribed.clone();
            tokio::select! {
                news = self.news.recv() => return self.hear(news),
                () = subscribed.shared.closing() => {}
                looked = look(&mut self.former, self.flow.as_mut(), self.paused), if max > 0 || gives_back => match looked {
                    Look::Delivery(delivery) if gives_back => {
                        let token = self.token(delivery.delivery_tag);
                        self.requeue(token.as_slice());
                    }
                    Look::Delivery(delivery) => {
                        self.push(delivery, into);
                        self.take(max - 1, into);
                        return Ok(Event::Deliveries);
                    }
                    Look::Ended(why) => self.lost(why.as_ref()),
                },
                () = subscribed.again.notified(), if subscribed.is_ordered() => {}
                () = sleep(LOOK), if idle => {
                    if self.is_cut_off() {
                        self.lose();
                    }
                }
            }
        }
    }

    async fn pause(&mut self, paused: bool) {
        if paused == self.paused {
            return;
        }
        // What is still here of a channel that was closed in the meantime others may have handled.
        if self.subscribed.rests() && self.is_cut_off() {
            self.lost(None);
        }
        self.paused = paused;
        self.subscribed.pause(paused);
        if self.stays_active() {
            return;
        }
        if paused {
            self.stop_fetching();
        } else {
            self.start_fetching().await;
        }
    }
}
