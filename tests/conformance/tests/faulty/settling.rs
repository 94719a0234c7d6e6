//! Wrong ways of settling.

use std::sync::Arc;
use std::sync::Mutex;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, SystemTime};

use postrider_conformance::async_trait;
use postrider_contract::{
    Address, Broker, Error, ErrorKind, Outgoing, Settled, Settlement, Settler, Token, Verdict,
};
use tokio::time::sleep;

use super::receiving::Slots;
use super::{Fault, Held, ack};

pub(super) struct FaultySettler {
    inner: Arc<dyn Settler>,
    broker: Arc<dyn Broker>,
    fault: Fault,
    held: Held,
    slots: Slots,
    unwritten: Arc<Mutex<Vec<Outgoing>>>,
    releases: AtomicU64,
    last_due: Mutex<Option<SystemTime>>,
}

impl FaultySettler {
    pub(super) fn new(
        inner: Arc<dyn Settler>,
        broker: Arc<dyn Broker>,
        fault: Fault,
        held: Held,
        slots: Slots,
        unwritten: Arc<Mutex<Vec<Outgoing>>>,
    ) -> Self {
        Self {
            inner,
            broker,
            fault,
            held,
            slots,
            unwritten,
            releases: AtomicU64::new(0),
            last_due: Mutex::default(),
        }
    }

    async fn plainly(&self, token: Token, verdict: Verdict) -> Settled {
        let (mut batch, mut out) = (vec![Settlement { token, verdict }], Vec::new());
        self.inner.settle(&mut batch, &mut out).await;
        out.remove(0)
    }

    /// What is emitted, wrongly.
    async fn change(&self, outgoing: &mut Outgoing) {
        if self.fault == Fault::LeaksInbox
            && let Address::Inbox { topic, .. } = &outgoing.to
        {
            outgoing.to = Address::Topic(topic.clone());
        }
        let Some(due) = outgoing.not_before else {
            return;
        };
        match self.fault {
            Fault::Early => outgoing.not_before = Some(due - Duration::from_millis(300)),
            Fault::Late => outgoing.not_before = Some(due + Duration::from_millis(900)),
            Fault::FirstInFirstOut => {
                let mut last = self.last_due.lock().unwrap();
                *last = (*last).max(Some(due));
                outgoing.not_before = *last;
            }
            Fault::BlocksWhileWaiting => {
                sleep(due.duration_since(SystemTime::now()).unwrap_or_default()).await;
            }
            _ => (),
        }
    }

    async fn emit(&self, token: Token, mut emit: Vec<Outgoing>) -> Settled {
        for outgoing in &mut emit {
            self.change(outgoing).await;
        }
        match self.fault {
            Fault::FirstCopyOnly => emit.truncate(1),
            Fault::NoHeadroom => {
                let max = self.broker.capabilities().max_payload;
                if emit.iter().any(|outgoing| outgoing.message.size() > max) {
                    let error = Error::new(ErrorKind::TooLarge, "with its headers it is too large");
                    let verdict = Verdict::Ack { emit };
                    return Settled::Failed(Settlement { token, verdict }, error);
                }
            }
            Fault::AcksBeforeEmit => {
                let settled = self.plainly(token, Verdict::ACK).await;
                let results = self.broker.publish(emit.clone()).await;
                return match results.into_iter().find_map(Result::err) {
                    Some(error) => {
                        let verdict = Verdict::Ack { emit };
                        Settled::Failed(Settlement { token, verdict }, error)
                    }
                    None => settled,
                };
            }
            Fault::WritesAtClose => {
                self.unwritten.lock().unwrap().extend(emit);
                return self.plainly(token, Verdict::ACK).await;
            }
            Fault::ForgetsWaiting => {
                // It ends with its client.
                let client = Arc::downgrade(&self.broker);
                tokio::spawn(async move {
                    for mut outgoing in emit {
                        let due = outgoing.not_before.take();
                        let wait = due.and_then(|due| due.duration_since(SystemTime::now()).ok());
                        sleep(wait.unwrap_or_default()).await;
                        let Some(broker) = client.upgrade() else {
                            return;
                        };
                        drop(broker.publish(vec![outgoing]).await);
                    }
                });
                return self.plainly(token, Verdict::ACK).await;
            }
            Fault::ObeysControlHeaders => {
                emit.retain(|outgoing| outgoing.message.headers.get("expiration").is_none());
            }
            _ => (),
        }
        self.plainly(token, Verdict::Ack { emit }).await
    }

    async fn one(&self, settlement: Settlement) -> Settled {
        let Settlement { mut token, verdict } = settlement;
        if self.fault == Fault::NamesSlots {
            token = self.slots.real(token);
        }
        match (self.fault, verdict) {
            (Fault::LosesRelease, Verdict::Release) => self.plainly(token, Verdict::ACK).await,
            (Fault::LimitsReleases, Verdict::Release) => {
                let beyond = self.releases.fetch_add(1, Ordering::Relaxed) >= 10;
                let verdict = if beyond { Verdict::ACK } else { Verdict::Release };
                self.plainly(token, verdict).await
            }
            (Fault::ForgetsAcks, Verdict::Ack { emit }) if emit.is_empty() => Settled::Done,
            (Fault::AcksAllBefore, Verdict::Ack { emit }) if emit.is_empty() => {
                let before: Vec<_> = {
                    let held = self.held.lock().unwrap();
                    held.iter().copied().take_while(|&other| other != token).collect()
                };
                ack(&self.inner, before).await;
                drop(self.plainly(token, Verdict::ACK).await);
                Settled::Done
            }
            (_, Verdict::Ack { emit }) if !emit.is_empty() => self.emit(token, emit).await,
            (_, verdict) => self.plainly(token, verdict).await,
        }
    }
}

#[async_trait]
impl Settler for FaultySettler {
    async fn settle(&self, batch: &mut Vec<Settlement>, out: &mut Vec<Settled>) {
        for settlement in std::mem::take(batch) {
            let token = settlement.token;
            let settled = self.one(settlement).await;
            if !matches!(settled, Settled::Failed(..)) {
                self.held.lock().unwrap().retain(|&other| other != token);
            }
            match settled {
                Settled::Stale if self.fault == Fault::DoneWhenStale => out.push(Settled::Done),
                settled => out.push(settled),
            }
        }
    }

    async fn extend(&self, held: &[Token]) {
        self.inner.extend(held).await;
    }

    async fn released(&self, lanes: &[u32]) {
        self.inner.released(lanes).await;
    }
}
