//! A live subscription.

use std::collections::HashSet;
use std::sync::Arc;
use std::time::Duration;

use postrider_contract::{
    Delivery, Event, Outgoing, Receiver, Settled, Settlement, Settler, Subscription, Token, Verdict,
};
use tokio::time::{Instant, timeout, timeout_at};

use crate::kit::{WATCH, all_done, id};

/// A live subscription that keeps to the rules of the runtime: never more than `in_flight` unsettled, and what is revoked
/// is dropped.
pub struct Subscribed {
    /// Brings deliveries.
    pub receiver: Box<dyn Receiver>,
    /// Takes verdicts.
    pub settler: Arc<dyn Settler>,
    in_flight: usize,
    held: HashSet<Token>,
    waiting: Vec<Delivery>,
    ready: bool,
    patience: Duration,
}

impl Subscribed {
    pub(crate) fn new(subscription: Subscription, in_flight: usize, patience: Duration) -> Self {
        Self {
            receiver: subscription.receiver,
            settler: subscription.settler,
            in_flight,
            held: HashSet::new(),
            waiting: Vec::new(),
            ready: false,
            patience,
        }
    }

    /// Waits for the word that messages flow.
    pub async fn until_ready(&mut self) {
        let deadline = Instant::now() + self.patience;
        while !self.ready {
            let told = timeout_at(deadline, self.step(0)).await;
            told.expect("the subscription says that it is ready");
        }
    }

    /// Waits for one event and keeps what it brings. True where that was deliveries. Cancel-safe.
    pub async fn step(&mut self, max: usize) -> bool {
        let before = self.waiting.len();
        let event = self.receiver.next(max, &mut self.waiting).await;
        let brought = self.waiting.len() - before;
        match event.expect("the subscription lives") {
            Event::Deliveries => {
                assert!((1..=max).contains(&brought), "asked for {max}, got {brought}");
                for delivery in &self.waiting[before..] {
                    assert!(self.held.insert(delivery.token), "a token names one delivery");
                }
                return true;
            }
            Event::Ready => self.ready = true,
            Event::Degraded(_) => self.ready = false,
            Event::Gap { lost } => panic!("the broker lost {lost:?} messages"),
            Event::Revoked { lanes, .. } => {
                self.held.retain(|token| !lanes.contains(&token.lane));
                self.waiting
                    .retain(|delivery| !lanes.contains(&delivery.token.lane));
                self.settler.released(&lanes).await;
            }
            Event::Closed => panic!("the subscription is closed"),
            other => panic!("an event that this suite does not know: {other:?}"),
        }
        assert_eq!(brought, 0, "only Deliveries brings some");
        false
    }

    /// How many more it may take.
    pub fn room(&self) -> usize {
        self.in_flight - self.held.len()
    }

    /// How many it holds unsettled.
    pub fn held(&self) -> usize {
        self.held.len()
    }

    /// Exactly this many deliveries, unsettled.
    pub async fn take(&mut self, count: usize) -> Vec<Delivery> {
        let deadline = Instant::now() + self.patience;
        while self.waiting.len() < count {
            let max = self.room().min(count - self.waiting.len());
            assert!(max > 0, "the case holds more than it may");
            let step = timeout_at(deadline, self.step(max)).await;
            let came = self.waiting.len();
            assert!(step.is_ok(), "{count} deliveries expected, {came} came");
        }
        self.waiting.drain(..count).collect()
    }

    /// Takes until it holds this many.
    pub async fn hold(&mut self, count: usize) {
        let deadline = Instant::now() + self.patience;
        while self.held.len() < count {
            let step = timeout_at(deadline, self.step(count - self.held.len())).await;
            let held = self.held.len();
            assert!(step.is_ok(), "{count} deliveries expected, {held} are held");
        }
    }

    /// One delivery, unsettled.
    pub async fn one(&mut self) -> Delivery {
        self.take(1).await.remove(0)
    }

    /// At least one and at most `max` deliveries, unsettled, as soon as there are some. Cancel-safe.
    pub async fn some(&mut self, max: usize) -> Vec<Delivery> {
        while self.waiting.is_empty() {
            let room = self.room().min(max);
            self.step(room).await;
        }
        let count = self.waiting.len().min(max);
        self.waiting.drain(..count).collect()
    }

    /// This many deliveries, acknowledged one batch after another.
    pub async fn handle(&mut self, count: usize) -> Vec<Delivery> {
        let mut handled = Vec::new();
        while handled.len() < count {
            let chunk = (count - handled.len()).min(self.room());
            let mut more = self.take(chunk.clamp(1, 50)).await;
            self.ack(&more).await;
            handled.append(&mut more);
        }
        handled
    }

    /// Nothing comes for a while.
    pub async fn quiet(&mut self) {
        self.quiet_for(WATCH).await;
    }

    /// Nothing comes for this long.
    pub async fn quiet_for(&mut self, time: Duration) {
        let until = Instant::now() + time;
        let max = self.room();
        while let Ok(brought) = timeout_at(until, self.step(max)).await {
            let ids: Vec<_> = self.waiting.iter().map(|it| id(&it.message)).collect();
            assert!(!brought, "nothing should come, but did: {ids:?}");
        }
    }

    /// Settles; an answer for each.
    pub async fn settle(&mut self, verdicts: impl IntoIterator<Item = (Token, Verdict)>) -> Vec<Settled> {
        let settlement = |(token, verdict)| Settlement { token, verdict };
        let mut batch: Vec<_> = verdicts.into_iter().map(settlement).collect();
        let tokens: Vec<_> = batch.iter().map(|settlement| settlement.token).collect();
        let mut out = Vec::new();
        let settling = self.settler.settle(&mut batch, &mut out);
        timeout(self.patience, settling).await.expect("settling ends");
        assert_eq!(out.len(), tokens.len(), "an answer for each settlement");
        assert!(batch.is_empty(), "the batch is drained");
        for (token, settled) in tokens.iter().zip(&out) {
            if !matches!(settled, Settled::Failed(..)) {
                self.held.remove(token);
            }
        }
        out
    }

    /// Acknowledges; all must be done.
    pub async fn ack(&mut self, deliveries: &[Delivery]) {
        let ack = |delivery: &Delivery| (delivery.token, Verdict::ACK);
        all_done(&self.settle(deliveries.iter().map(ack)).await);
    }

    /// Acknowledges one, publishing first.
    pub async fn emit(&mut self, delivery: &Delivery, emit: Vec<Outgoing>) {
        all_done(&self.settle([(delivery.token, Verdict::Ack { emit })]).await);
    }

    /// Gives back; all must be done.
    pub async fn release(&mut self, deliveries: &[Delivery]) {
        let release = |delivery: &Delivery| (delivery.token, Verdict::Release);
        all_done(&self.settle(deliveries.iter().map(release)).await);
    }
}
