//! Wrong ways of publishing, planning and closing.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use postrider_conformance::async_trait;
use postrider_contract::{
    Address, Broker, Capabilities, DeadLetters, Error, Order, Outgoing, Problem, Receipt, Settler, Sharing,
    Spec, Start, Status, Subscription, Topology,
};
use tokio::time::timeout;

use super::letters::FaultyLetters;
use super::receiving::{FaultyReceiver, Slots};
use super::settling::FaultySettler;
use super::{Fault, Held, ack};

pub(super) struct FaultyBroker {
    pub(super) inner: Arc<dyn Broker>,
    /// A connection of its own for what the fault does on the side.
    pub(super) other: Arc<dyn Broker>,
    pub(super) fault: Fault,
    pub(super) count: AtomicU64,
    pub(super) held: Mutex<Vec<(Arc<dyn Settler>, Held)>>,
    /// Retries that are written down when it is closed.
    pub(super) unwritten: Arc<Mutex<Vec<Outgoing>>>,
    pub(super) kept: Arc<Mutex<Vec<Arc<dyn Settler>>>>,
}

impl FaultyBroker {
    fn specs(&self, all: &[Spec]) -> Vec<Spec> {
        let change = |spec: &Spec| {
            let mut spec = spec.clone();
            match self.fault {
                Fault::MergesGroups => spec.group = "merged".into(),
                Fault::EveryoneGetsAll => spec.sharing = Sharing::Broadcast,
                Fault::SharesBroadcast => spec.sharing = Sharing::Group,
                Fault::StartsAtEarliest => spec.start = Start::Earliest,
                Fault::StartsAtNew => spec.start = Start::New,
                Fault::Unordered => spec.order = Order::None,
                Fault::Hoards | Fault::GivesTooMany => spec.in_flight = 10_000,
                _ => (),
            }
            spec
        };
        all.iter().map(change).collect()
    }

    fn change(&self, batch: Vec<Outgoing>) -> Vec<Outgoing> {
        let mut changed = Vec::new();
        for mut outgoing in batch {
            let Address::Topic(topic) = outgoing.to.clone() else {
                changed.push(outgoing);
                continue;
            };
            let message = &mut outgoing.message;
            match (self.fault, &message.payload) {
                (Fault::LossyPayload, Some(payload)) => {
                    message.payload = Some(String::from_utf8_lossy(payload).into_owned().into());
                }
                (Fault::CutsPayload, Some(payload)) => {
                    message.payload = Some(payload.slice(..payload.len().min(500_000)));
                }
                (Fault::FewHeaders, _) => {
                    let few = message.headers.iter().take(100);
                    message.headers = few
                        .map(|(name, value)| (name.to_owned(), value.clone()))
                        .collect();
                }
                (Fault::HasBackDoor, _) => {
                    if let Some((topic, group)) =
                        topic.strip_suffix(".inbox").and_then(|it| it.rsplit_once('.'))
                    {
                        outgoing.to = Address::Inbox {
                            topic: topic.into(),
                            group: group.into(),
                        };
                    }
                }
                (Fault::Early, _) => {
                    outgoing.not_before = outgoing.not_before.map(|due| due - Duration::from_millis(300));
                }
                (Fault::PretendsReceived, _) => outgoing.require_receiver = false,
                (Fault::Doubles, _) => changed.push(outgoing.clone()),
                (Fault::MixesTopics, _) => {
                    if let Some(base) = topic.strip_suffix(".t1") {
                        let wrong = Address::Topic(format!("{base}.t2").into());
                        changed.push(Outgoing {
                            to: wrong,
                            ..outgoing.clone()
                        });
                    }
                }
                _ => (),
            }
            changed.push(outgoing);
        }
        changed
    }

    /// Whether a publish is lost although it is confirmed.
    fn is_dropped(&self, outgoing: &Outgoing) -> bool {
        match self.fault {
            Fault::DropsSome => self.count.fetch_add(1, Ordering::Relaxed) % 10 == 9,
            Fault::ObeysControlHeaders => outgoing.message.headers.get("expiration").is_some(),
            _ => false,
        }
    }
}

#[async_trait]
impl Broker for FaultyBroker {
    fn capabilities(&self) -> &Capabilities {
        self.inner.capabilities()
    }

    async fn plan(&self, all: &[Spec], mode: Topology) -> Result<(), Vec<Problem>> {
        let specs = self.specs(all);
        let is_new = self.inner.plan(&specs, Topology::Verify).await.is_err();
        let mode = if self.fault == Fault::VerifyDeclares {
            Topology::Declare
        } else {
            mode
        };
        if self.fault == Fault::DeclaresAtOpen {
            return Ok(());
        }
        let planned = self.inner.plan(&specs, mode).await;
        match self.fault {
            Fault::AcceptsNames => Ok(()),
            Fault::OneProblemOnly => planned.map_err(|mut problems| {
                problems.truncate(1);
                problems
            }),
            Fault::PlanResets if !is_new => {
                for mut subscription in self.other.open(specs).await.unwrap() {
                    let mut gone = Vec::new();
                    drop(subscription.receiver.next(0, &mut gone).await);
                    drop(
                        timeout(
                            Duration::from_millis(50),
                            subscription.receiver.next(100, &mut gone),
                        )
                        .await,
                    );
                    ack(&subscription.settler, gone.iter().map(|it| it.token)).await;
                }
                planned
            }
            Fault::ShortNames if specs.iter().any(|spec| spec.topic().len() > 150) => {
                let problem = |spec: &Spec| Problem {
                    listener: spec.listener.clone(),
                    what: "its name is long".into(),
                    help: "shorten it".into(),
                };
                Err(specs.iter().map(problem).collect())
            }
            _ => planned,
        }
    }

    async fn open(&self, all: Vec<Spec>) -> Result<Vec<Subscription>, Error> {
        let specs = self.specs(&all);
        if self.fault == Fault::DeclaresAtOpen {
            drop(self.inner.plan(&specs, Topology::Declare).await);
        }
        let opened = self.inner.open(specs).await?;
        let wrap = |subscription: Subscription| {
            let held = Held::default();
            let (inner, slots) = (subscription.settler, Slots::default());
            match self.fault {
                Fault::AcksAtClose => self.held.lock().unwrap().push((inner.clone(), held.clone())),
                Fault::KeepsForEver => self.kept.lock().unwrap().push(inner.clone()),
                _ => (),
            }
            Subscription {
                receiver: Box::new(FaultyReceiver::new(
                    subscription.receiver,
                    inner.clone(),
                    self.fault,
                    held.clone(),
                    slots.clone(),
                )),
                settler: Arc::new(FaultySettler::new(
                    inner,
                    self.inner.clone(),
                    self.fault,
                    held,
                    slots,
                    self.unwritten.clone(),
                )),
            }
        };
        Ok(opened.into_iter().map(wrap).collect())
    }

    async fn publish(&self, batch: Vec<Outgoing>) -> Vec<Result<Receipt, Error>> {
        let count = batch.len();
        let changed = self.change(batch);
        let mut results = Vec::new();
        for outgoing in changed {
            if self.is_dropped(&outgoing) {
                results.push(Ok(Receipt { received: true }));
            } else {
                results.extend(self.inner.publish(vec![outgoing]).await);
            }
        }
        results.truncate(count);
        match self.fault {
            Fault::AnswersMixedUp => results.reverse(),
            Fault::PretendsReceived => results
                .iter_mut()
                .flatten()
                .for_each(|receipt| receipt.received = true),
            Fault::RefusesWholeBatch => {
                let refused = results.iter().find_map(|result| result.as_ref().err().cloned());
                if let Some(error) = refused {
                    for result in &mut results {
                        *result = Err(error.clone());
                    }
                }
            }
            _ => (),
        }
        results
    }

    fn dead_letters(&self, dead_letter_topic: &str, source: &str, group: &str) -> Box<dyn DeadLetters> {
        let groups = if self.fault == Fault::MixesLetters {
            vec!["one", "two"]
        } else {
            vec![group]
        };
        let open = |group: &&str| self.inner.dead_letters(dead_letter_topic, source, group);
        let inner = groups.iter().map(open).collect();
        Box::new(FaultyLetters::new(inner, self.other.clone(), self.fault, source))
    }

    async fn status(&self, all: &[Spec]) -> Result<Vec<Status>, Error> {
        let mut status = self.inner.status(all).await?;
        if self.fault == Fault::WrongDepths {
            for status in &mut status {
                status.retrying = Some(0);
            }
        }
        Ok(status)
    }

    async fn close(&self, deadline: Duration) -> Result<(), Error> {
        if self.fault == Fault::NeverCloses {
            return Ok(());
        }
        if self.fault == Fault::AcksAtClose {
            let held: Vec<_> = self.held.lock().unwrap().drain(..).collect();
            for (settler, held) in held {
                let tokens: Vec<_> = held.lock().unwrap().drain(..).collect();
                ack(&settler, tokens).await;
            }
        }
        let unwritten = std::mem::take(&mut *self.unwritten.lock().unwrap());
        self.inner.publish(unwritten).await;
        self.inner.close(deadline).await
    }
}
