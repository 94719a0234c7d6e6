//! Verdicts: copies are published and confirmed, then originals are acknowledged.

use std::sync::Arc;

use async_trait::async_trait;
use postrider_contract::{Error, ErrorKind, Outgoing, Receipt, Settled, Settlement, Settler, Token, Verdict};

use crate::outgoing::parcel;
use crate::publisher::Answer;
use crate::subscription::Subscribed;

pub(crate) struct RabbitSettler {
    subscribed: Arc<Subscribed>,
}

impl RabbitSettler {
    pub(crate) fn new(subscribed: Arc<Subscribed>) -> Self {
        Self { subscribed }
    }

    /// Publishes copies; where a queue of ours has gone missing, declares it and tries once more.
    async fn publish(&self, copies: &[Outgoing]) -> Vec<Answer> {
        let mut answers = self.publish_once(copies).await;
        let missing: Vec<usize> = answers
            .iter()
            .enumerate()
            .filter(|(_, answer)| matches!(answer, Err(error) if error.kind() == ErrorKind::NoReceiver))
            .map(|(n, _)| n)
            .collect();
        let shared = &self.subscribed.shared;
        if missing.is_empty() || !shared.topology.declares() {
            return answers;
        }
        let Ok(live) = shared.intake.get().await else {
            return answers;
        };
        let spec = &self.subscribed.spec;
        if let Err(error) = shared.topology.again(&live, spec, None, true).await {
            tracing::warn!(%error, listener = %spec.listener, "topology cannot be declared again");
            return answers;
        }
        let again: Vec<Outgoing> = missing.iter().map(|n| copies[*n].clone()).collect();
        for (n, answer) in missing.into_iter().zip(self.publish_once(&again).await) {
            answers[n] = answer;
        }
        answers
    }

    async fn publish_once(&self, copies: &[Outgoing]) -> Vec<Answer> {
        let shared = &self.subscribed.shared;
        let prepared = copies
            .iter()
            .map(|copy| parcel(&shared.settings, &shared.topology, copy.clone(), true))
            .collect();
        shared.publisher.send_prepared(prepared).await
    }
}

#[async_trait]
impl Settler for RabbitSettler {
    async fn settle(&self, batch: &mut Vec<Settlement>, out: &mut Vec<Settled>) {
        let settlements = std::mem::take(batch);
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
            let copies: Vec<Outgoing> = copying
                .iter()
                .flat_map(|(_, one)| emitted(one))
                .cloned()
                .collect();
            let mut published = self.publish(&copies).await.into_iter();
            let mut acks = Vec::with_capacity(copying.len());
            let mut done = Vec::with_capacity(copying.len());
            for (n, settlement) in copying {
                // All of them are taken, also behind one that failed.
                let own: Vec<Answer> = published.by_ref().take(emitted(&settlement).len()).collect();
                match own.into_iter().collect::<Result<Vec<Receipt>, Error>>() {
                    Err(error) => answers[n] = Some(Settled::Failed(settlement, error)),
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
