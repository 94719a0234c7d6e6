//! What the models have in common: deliveries, a lane, the settling side.

use std::collections::VecDeque;
use std::sync::Arc;

use shuttle::rand::{Rng, thread_rng};
use shuttle::sync::Mutex;

use crate::contract::{Delivery, Message, Origin, Position, Token, Verdict};
use crate::engine::queue::Queue;
use crate::engine::settles::{Kind, Settles, Sorted, Verdicts};
use crate::meter::What;

/// A listener's queue and verdicts, and what has become of each delivery.
pub(crate) struct Stage {
    pub(crate) queue: Queue,
    pub(crate) settles: Settles,
    pub(crate) settled: Mutex<Vec<(Token, What)>>,
}

impl Stage {
    pub(crate) fn new() -> Arc<Self> {
        Arc::new(Self {
            queue: Queue::new(false, 2),
            settles: Settles::new(true, false),
            settled: Mutex::new(Vec::new()),
        })
    }

    /// A lane that takes at most `most` at once, for handlers some of which wait. Ends when the queue is closed.
    pub(crate) async fn lane(self: Arc<Self>, most: usize) {
        let (mut chunk, mut verdicts) = (VecDeque::new(), Sorted::default());
        loop {
            self.queue.pop_chunk(most, &mut chunk, || ()).await;
            if chunk.is_empty() {
                return;
            }
            while let Some(delivery) = chunk.pop_front() {
                if thread_rng().gen_bool(0.5) {
                    // As a lane does before a handler waits: others may have what it has not started.
                    self.queue.put_back(&mut chunk);
                    for delivery in chunk.drain(..) {
                        verdicts.add(delivery.token, What::Released, Verdict::Release);
                    }
                    self.settles.push_all(&mut verdicts);
                    shuttle::future::yield_now().await;
                }
                verdicts.add(delivery.token, What::Handled, Verdict::ACK);
            }
            self.settles.push_all(&mut verdicts);
        }
    }

    /// Takes verdicts until there will be no more.
    pub(crate) async fn settle(self: Arc<Self>) {
        let mut verdicts = Verdicts::default();
        loop {
            let open = self.settles.take(Kind::Plain, &mut verdicts);
            if verdicts.batch.is_empty() {
                if !open {
                    return;
                }
                self.settles.arrived(Kind::Plain).await;
                continue;
            }
            let tokens: Vec<Token> = verdicts
                .batch
                .drain(..)
                .map(|settlement| settlement.token)
                .collect();
            shuttle::future::yield_now().await;
            let whats = verdicts.whats.drain(..);
            self.settled
                .lock()
                .unwrap()
                .extend(tokens.iter().copied().zip(whats));
            self.settles.done(&tokens);
        }
    }

    /// What became of each delivery, in the order of their tokens.
    pub(crate) fn outcome(&self) -> Vec<Token> {
        let mut tokens: Vec<Token> = self
            .settled
            .lock()
            .unwrap()
            .iter()
            .map(|(token, _)| *token)
            .collect();
        tokens.sort_unstable();
        tokens
    }
}

/// Deliveries from two lanes of the adapter by turns.
pub(crate) fn deliveries(count: u64) -> Vec<Delivery> {
    (0..count).map(|seq| delivery((seq % 2) as u32, seq)).collect()
}

fn delivery(lane: u32, seq: u64) -> Delivery {
    Delivery {
        token: Token { lane, epoch: 0, seq },
        origin: Origin::Topic,
        redeliveries: None,
        topic: "t".into(),
        position: Position::default(),
        message: Message::new("x"),
    }
}
