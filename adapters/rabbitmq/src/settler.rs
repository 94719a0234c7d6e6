//! Verdicts: copies are published and confirmed, then originals are acknowledged.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use async_trait::async_trait;
use postrider_contract::{Error, ErrorKind, Outgoing, Receipt, Settled, Settlement, Settler, Token, Verdict};
use tokio::sync::oneshot;
use tokio::time::{Instant, timeout_at};

use crate::outgoing::parcel;
use crate::publisher::Answer;
use crate::subscription::Subscribed;

pub(crate) struct RabbitSettler {
    subscribed: Arc<Subscribed>,
    /// Copies of what could not be settled, by their originals.
    unsettled: Mutex<HashMap<Token, Vec<Copied>>>,
}

/// A copy that takes the place of an original, and what became of it.
struct Copied {
    outgoing: Outgoing,
    answer: Answer,
    /// It was sent, and its confirm may still come: sent again, it would arrive twice.
    late: Option<oneshot::Receiver<Answer>>,
}

impl Copied {
    fn new(outgoing: &Outgoing) -> Self {
        Self {
            outgoing: outgoing.clone(),
            answer: Err(Error::new(ErrorKind::Internal, "a copy has no answer")),
            late: None,
        }
    }

    /// Waits for a confirm that is late. None comes any more where its channel has ended.
    async fn wait(&mut self, until: Instant) {
        if let Some(late) = &mut self.late
            && let Ok(landed) = timeout_at(until, late).await
        {
            self.late = None;
            if let Ok(answer) = landed {
                self.answer = answer;
            }
        }
    }

    fn is_to_send(&self) -> bool {
        self.late.is_none() && self.answer.is_err()
    }

    fn has_failed(&self, kind: ErrorKind) -> bool {
        matches!(&self.answer, Err(error) if error.kind() == kind)
    }
}

impl RabbitSettler {
    pub(crate) fn new(subscribed: Arc<Subscribed>) -> Self {
        Self {
            subscribed,
            unsettled: Mutex::default(),
        }
    }

    /// Sends what is to be sent of these, and waits for the confirms of what was sent before.
    async fn publish(&self, copies: &mut [Copied]) {
        let now = Instant::now();
        for copy in &mut *copies {
            copy.wait(now).await;
        }
        let until = now + self.subscribed.shared.settings.publish_timeout;
        let (to_send, sent): (Vec<&mut Copied>, Vec<_>) =
            copies.iter_mut().partition(|copy| copy.is_to_send());
        let late = async {
            for copy in sent {
                copy.wait(until).await;
            }
        };
        tokio::join!(self.send(to_send), late);
    }

    /// Sends copies; where a queue of ours has gone missing, declares it and tries once more.
    async fn send(&self, mut copies: Vec<&mut Copied>) {
        self.send_once(&mut copies).await;
        copies.retain(|copy| copy.has_failed(ErrorKind::NoReceiver));
        let shared = &self.subscribed.shared;
        if copies.is_empty() || !shared.topology.declares() {
            return;
        }
        let Ok(live) = shared.intake.get().await else {
            return;
        };
        let spec = &self.subscribed.spec;
        if let Err(error) = shared.topology.again(&live, spec, None, true).await {
            tracing::warn!(%error, listener = %spec.listener, "topology cannot be declared again");
            return;
        }
        self.send_once(&mut copies).await;
    }

    async fn send_once(&self, copies: &mut [&mut Copied]) {
        let shared = &self.subscribed.shared;
        let prepared = copies.iter_mut().map(|copy| {
            let mut parcel = parcel(&shared.settings, &shared.topology, copy.outgoing.clone(), true)?;
            let (late, told) = oneshot::channel();
            (parcel.late, copy.late) = (Some(late), Some(told));
            Ok(parcel)
        });
        let prepared = prepared.collect();
        let answers = shared.publisher.send_prepared(prepared).await;
        for (copy, answer) in copies.iter_mut().zip(answers) {
            copy.answer = answer;
            if !copy.has_failed(ErrorKind::Unconfirmed) {
                copy.late = None;
            }
        }
    }

    fn unsettled(&self) -> MutexGuard<'_, HashMap<Token, Vec<Copied>>> {
        self.unsettled.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// What became of earlier attempts at these.
    fn former(&self, settlements: &[Settlement]) -> HashMap<Token, Vec<Copied>> {
        let mut unsettled = self.unsettled();
        if unsettled.is_empty() {
            return HashMap::new();
        }
        let tokens = settlements.iter().map(|settlement| settlement.token);
        tokens
            .filter_map(|token| unsettled.remove_entry(&token))
            .collect()
    }
}

#[async_trait]
impl Settler for RabbitSettler {
    async fn settle(&self, batch: &mut Vec<Settlement>, out: &mut Vec<Settled>) {
        let settlements = std::mem::take(batch);
        let mut former = self.former(&settlements);
        let mut answers: Vec<Option<Settled>> = settlements.iter().map(|_| None).collect();
        let mut plain: Vec<(usize, (Token, bool))> = Vec::with_capacity(settlements.len());
        let mut copying: Vec<(usize, Settlement)> = Vec::new();
        for (n, settlement) in settlements.into_iter().enumerate() {
            match &settlement.verdict {
                Verdict::Release => plain.push((n, (settlement.token, false))),
                Verdict::Ack { emit } if emit.is_empty() => plain.push((n, (settlement.token, true))),
                // What cannot be acknowledged any more needs no copy where the original comes again.
                Verdict::Ack { .. }
                    if !self.subscribed.is_broadcast() && !self.subscribed.holds(settlement.token) =>
                {
                    answers[n] = Some(Settled::Stale);
                }
                Verdict::Ack { .. } => copying.push((n, settlement)),
            }
        }
        self.tell(&plain, &mut answers);

        if !copying.is_empty() {
            let mut copies = Vec::with_capacity(copying.len());
            for (_, settlement) in &copying {
                let emit = emitted(settlement);
                let former = former.remove(&settlement.token);
                match former.filter(|former| former.iter().map(|copy| &copy.outgoing).eq(emit)) {
                    Some(former) => copies.extend(former),
                    None => copies.extend(emit.iter().map(Copied::new)),
                }
            }
            self.publish(&mut copies).await;
            let mut copies = copies.into_iter();
            let mut acks = Vec::with_capacity(copying.len());
            let mut done = Vec::with_capacity(copying.len());
            for (n, settlement) in copying {
                // All of them are taken, also behind one that failed.
                let own: Vec<Copied> = copies.by_ref().take(emitted(&settlement).len()).collect();
                let received = own.iter().map(|copy| copy.answer.clone());
                match received.collect::<Result<Vec<Receipt>, Error>>() {
                    Err(error) => {
                        self.unsettled().insert(settlement.token, own);
                        answers[n] = Some(Settled::Failed(settlement, error));
                    }
                    Ok(receipts) => {
                        acks.push((n, (settlement.token, true)));
                        done.push((n, Settled::done(receipts)));
                    }
                }
            }
            self.tell(&acks, &mut answers);
            for (n, done) in done {
                if let Some(answer @ Settled::Done) = &mut answers[n] {
                    *answer = done;
                }
            }
        }
        out.extend(answers.into_iter().map(|answer| answer.unwrap_or(Settled::Stale)));
    }

    /// RabbitMQ leases nothing: a delivery is ours until the consumer timeout of the broker.
    async fn extend(&self, _held: &[Token]) {}

    /// Nothing is ever revoked but by losing the channel.
    async fn released(&self, _lanes: &[u32]) {}
}

impl RabbitSettler {
    fn tell(&self, verdicts: &[(usize, (Token, bool))], answers: &mut [Option<Settled>]) {
        let tokens: Vec<(Token, bool)> = verdicts.iter().map(|(_, verdict)| *verdict).collect();
        // What does not come again is done, also where its queue is gone.
        let alone = self.subscribed.is_broadcast();
        for ((n, (_, acked)), fresh) in verdicts.iter().zip(self.subscribed.settle(&tokens)) {
            answers[*n] = Some(if fresh || alone && *acked {
                Settled::Done
            } else {
                Settled::Stale
            });
        }
    }
}

fn emitted(settlement: &Settlement) -> &[Outgoing] {
    match &settlement.verdict {
        Verdict::Ack { emit } => emit,
        Verdict::Release => &[],
    }
}
