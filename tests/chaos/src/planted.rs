//! Bugs that are known to lose messages, to show that the checker sees a loss: a wrapper between the app and its broker.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use clap::ValueEnum;
use postrider::async_trait;
use postrider::contract::{
    Broker, Capabilities, DeadLetters, Delivery, Error, Event, Outgoing, Problem, Receipt, Receiver, Settled,
    Settlement, Settler, Spec, Status, Subscription, Token, Topology, Verdict,
};

/// What is wrong.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum Planted {
    /// Acknowledged when it is received.
    AckBeforeHandler,
    /// Acknowledged before the copy for a retry or the dead-letter topic is written; what becomes of the copy is not asked.
    AckBeforeCopy,
    /// Whatever was received is acknowledged now and then, as Kafka's clients do by default.
    AutoCommit,
}

impl Planted {
    /// As it is written on the command line.
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::AckBeforeHandler => "ack-before-handler",
            Self::AckBeforeCopy => "ack-before-copy",
            Self::AutoCommit => "auto-commit",
        }
    }
}

/// The same broker with a bug.
pub(crate) fn plant(bug: Planted, inner: Arc<dyn Broker>) -> Arc<dyn Broker> {
    Arc::new(Buggy { bug, inner })
}

struct Buggy {
    bug: Planted,
    inner: Arc<dyn Broker>,
}

#[async_trait]
impl Broker for Buggy {
    fn capabilities(&self) -> &Capabilities {
        self.inner.capabilities()
    }

    async fn plan(&self, all: &[Spec], mode: Topology) -> Result<(), Vec<Problem>> {
        self.inner.plan(all, mode).await
    }

    async fn open(&self, all: Vec<Spec>) -> Result<Vec<Subscription>, Error> {
        let opened = self.inner.open(all).await?;
        let wrap = |Subscription { receiver, settler }| {
            let received = Arc::default();
            if self.bug == Planted::AutoCommit {
                tokio::spawn(commit_now_and_then(settler.clone(), Arc::clone(&received)));
            }
            Subscription {
                receiver: Box::new(BuggyReceiver {
                    bug: self.bug,
                    inner: receiver,
                    settler: settler.clone(),
                    received,
                }),
                settler: Arc::new(BuggySettler {
                    bug: self.bug,
                    inner: settler,
                    broker: self.inner.clone(),
                }),
            }
        };
        Ok(opened.into_iter().map(wrap).collect())
    }

    async fn publish(&self, batch: Vec<Outgoing>) -> Vec<Result<Receipt, Error>> {
        self.inner.publish(batch).await
    }

    fn dead_letters(&self, dead_letter_topic: &str, source: &str, group: &str) -> Box<dyn DeadLetters> {
        self.inner.dead_letters(dead_letter_topic, source, group)
    }

    async fn status(&self, all: &[Spec]) -> Result<Vec<Status>, Error> {
        self.inner.status(all).await
    }

    async fn close(&self, deadline: Duration) -> Result<(), Error> {
        self.inner.close(deadline).await
    }
}

type Received = Arc<Mutex<Vec<Token>>>;

struct BuggyReceiver {
    bug: Planted,
    inner: Box<dyn Receiver>,
    settler: Arc<dyn Settler>,
    received: Received,
}

#[async_trait]
impl Receiver for BuggyReceiver {
    async fn next(&mut self, max: usize, into: &mut Vec<Delivery>) -> Result<Event, Error> {
        let before = into.len();
        let event = self.inner.next(max, into).await?;
        let tokens = into[before..].iter().map(|delivery| delivery.token);
        match self.bug {
            Planted::AckBeforeHandler => {
                // Beside, since this future may be dropped while it waits.
                let (settler, tokens) = (self.settler.clone(), tokens.collect::<Vec<_>>());
                tokio::spawn(async move { ack(&settler, tokens).await });
            }
            Planted::AutoCommit => self
                .received
                .lock()
                .unwrap_or_else(PoisonError::into_inner)
                .extend(tokens),
            Planted::AckBeforeCopy => {}
        }
        Ok(event)
    }

    async fn pause(&mut self, paused: bool) {
        self.inner.pause(paused).await;
    }
}

struct BuggySettler {
    bug: Planted,
    inner: Arc<dyn Settler>,
    broker: Arc<dyn Broker>,
}

#[async_trait]
impl Settler for BuggySettler {
    async fn settle(&self, batch: &mut Vec<Settlement>, out: &mut Vec<Settled>) {
        for settlement in std::mem::take(batch) {
            match settlement.verdict {
                // It is acknowledged already, so there is nothing to take back.
                Verdict::Release if self.bug != Planted::AckBeforeCopy => {}
                Verdict::Ack { emit } if self.bug != Planted::AckBeforeCopy || !emit.is_empty() => {
                    if self.bug == Planted::AckBeforeCopy {
                        ack(&self.inner, [settlement.token]).await;
                    }
                    if !emit.is_empty() {
                        let broker = self.broker.clone();
                        tokio::spawn(async move { broker.publish(emit).await });
                    }
                }
                verdict => {
                    let token = settlement.token;
                    self.inner
                        .settle(&mut vec![Settlement { token, verdict }], out)
                        .await;
                    continue;
                }
            }
            out.push(Settled::Done);
        }
    }

    async fn extend(&self, held: &[Token]) {
        self.inner.extend(held).await;
    }

    async fn released(&self, lanes: &[u32]) {
        self.inner.released(lanes).await;
    }
}

async fn commit_now_and_then(settler: Arc<dyn Settler>, received: Received) {
    loop {
        tokio::time::sleep(Duration::from_millis(50)).await;
        let tokens = std::mem::take(&mut *received.lock().unwrap_or_else(PoisonError::into_inner));
        ack(&settler, tokens).await;
    }
}

async fn ack(settler: &Arc<dyn Settler>, tokens: impl IntoIterator<Item = Token>) {
    let verdict = Verdict::ACK;
    let mut batch = tokens
        .into_iter()
        .map(|token| Settlement {
            token,
            verdict: verdict.clone(),
        })
        .collect();
    settler.settle(&mut batch, &mut Vec::new()).await;
}
