use std::sync::Arc;

use async_trait::async_trait;
use futures_util::future::{join_all, join3};
use postrider_contract::{Error, Outgoing, Receipt, Settled, Settlement, Settler, Token, Verdict};
use redis::Value;
use tokio::time::Instant;

use crate::failure::{Failure, from_server};
use crate::link::{COMMAND, Link};
use crate::mover::Mover;
use crate::publish::Publisher;
use crate::settings::Settings;
use crate::subscription::claims::renew;
use crate::subscription::entry::{EntryId, Stream};
use crate::subscription::source::Source;
use crate::subscription::table::{Named, Place, Table};
use crate::topics::Topics;

/// Empties a table: acknowledgements in one `XACK` per stream, what is emitted within the topic's slot by a script together
/// with its acknowledgement, and everything else confirmed first.
pub(crate) struct TableSettler {
    pub(crate) link: Arc<Link>,
    pub(crate) settings: Arc<Settings>,
    pub(crate) source: Arc<Source>,
    pub(crate) table: Arc<Table>,
    pub(crate) topics: Arc<Topics>,
    pub(crate) publisher: Arc<Publisher>,
    pub(crate) mover: Arc<Mover>,
    /// Broadcast: nothing is pending on the server, so nothing is acknowledged there.
    pub(crate) broadcast: bool,
}

/// A delivery to acknowledge, at its place in the batch.
pub(crate) struct Item {
    pub(crate) index: usize,
    pub(crate) token: Token,
    pub(crate) place: Place,
    /// What must be confirmed first.
    pub(crate) emit: Vec<Outgoing>,
    /// What became of it.
    pub(crate) receipts: Vec<Receipt>,
}

#[async_trait]
impl Settler for TableSettler {
    async fn settle(&self, batch: &mut Vec<Settlement>, out: &mut Vec<Settled>) {
        let _under_way = self.table.settling();
        let named = self.table.named(batch.iter().map(|settlement| settlement.token));
        let mut answers: Vec<Option<Settled>> = Vec::new();
        answers.resize_with(batch.len(), || None);
        let (mut acks, mut moves, mut remote) = (Vec::with_capacity(batch.len()), Vec::new(), Vec::new());
        let mut gone = Vec::new();
        for ((index, Settlement { token, verdict }), named) in batch.drain(..).enumerate().zip(named) {
            let Some(Named { place, orphaned }) = named else {
                gone.push(token);
                answers[index] = Some(Settled::Stale);
                continue;
            };
            let emit = match verdict {
                Verdict::Ack { emit } => emit,
                Verdict::Release => {
                    let released = self.table.release(token);
                    answers[index] = Some(if released { Settled::Done } else { Settled::Stale });
                    continue;
                }
            };
            let item = Item {
                index,
                token,
                place,
                emit,
                receipts: Vec::new(),
            };
            if item.emit.is_empty() {
                acks.push(item);
            } else if !orphaned && self.is_movable(&item.emit) {
                moves.push(item);
            } else {
                remote.push(item);
            }
        }
        let (acknowledged, moved, emitted) = join3(
            self.acknowledge(acks),
            join_all(self.moves(moves)),
            self.emit(remote),
        )
        .await;
        let moved = moved.into_iter().flatten();
        for (index, token, settled) in acknowledged.into_iter().chain(moved).chain(emitted) {
            if !matches!(settled, Settled::Failed(..)) {
                gone.push(token);
            }
            answers[index] = Some(settled);
        }
        self.table.settled(gone.into_iter());
        out.extend(answers.into_iter().map(|answer| answer.unwrap_or(Settled::Stale)));
    }

    async fn extend(&self, held: &[Token]) {
        if self.broadcast || self.source.leader.is_some() {
            return;
        }
        let places: Vec<Place> = self
            .table
            .named(held.iter().copied())
            .into_iter()
            .flatten()
            .filter(|named| !named.orphaned)
            .map(|named| named.place)
            .collect();
        if let Err(error) = renew(
            &self.link,
            &self.source,
            &self.table,
            self.settings.lease,
            &places,
        )
        .await
        {
            tracing::warn!(topic = %self.source.topic, %error, "leases could not be renewed");
        }
    }

    async fn released(&self, _lanes: &[u32]) {
        // Lanes are only ever revoked when they are lost already: nothing waits for this.
    }
}

/// What became of an item, and whose it was.
pub(crate) type Outcome = (usize, Token, Settled);

impl TableSettler {
    /// Publishes what cannot be moved within one slot, and acknowledges what is confirmed. Nothing else waits for it.
    async fn emit(&self, items: Vec<Item>) -> Vec<Outcome> {
        let (mut confirmed, mut outcomes) = (Vec::new(), Vec::new());
        if items.is_empty() {
            return outcomes;
        }
        let all = items.iter().flat_map(|item| item.emit.iter().cloned()).collect();
        let mut receipts = self.publisher.publish(all).await.into_iter();
        for mut item in items {
            // What was confirmed is not sent again when the rest is tried again.
            let (mut left, mut why) = (Vec::new(), None);
            for outgoing in item.emit.drain(..) {
                match receipts.next() {
                    Some(Err(error)) => {
                        left.push(outgoing);
                        why = Some(error);
                    }
                    Some(Ok(receipt)) => item.receipts.push(receipt),
                    None => {}
                }
            }
            item.emit = left;
            match why {
                None => confirmed.push(item),
                Some(error) => outcomes.push(failed(item, error)),
            }
        }
        outcomes.extend(self.acknowledge(confirmed).await);
        outcomes
    }

    async fn acknowledge(&self, items: Vec<Item>) -> Vec<Outcome> {
        let done = |item: Item| (item.index, item.token, Settled::done(item.receipts));
        if items.is_empty() || self.broadcast {
            return items.into_iter().map(done).collect();
        }
        let mut commands = redis::pipe();
        let mut of_stream = [None, None];
        for (stream, key) in self.source.streams() {
            let ids: Vec<EntryId> = items
                .iter()
                .filter(|item| item.place.0 == stream)
                .map(|item| item.place.1)
                .collect();
            if ids.is_empty() {
                continue;
            }
            of_stream[stream as usize] = Some(commands.len());
            commands.cmd("XACK").arg(key).arg(&*self.source.group).arg(&ids);
            if stream == Stream::Inbox {
                // Nobody else reads the inbox.
                commands.cmd("XDEL").arg(key).arg(&ids);
            }
        }
        match self.patiently(&commands).await {
            Err(failure) => items
                .into_iter()
                .map(|item| failed(item, failure.error.clone()))
                .collect(),
            Ok(replies) => items
                .into_iter()
                .map(
                    |item| match of_stream[item.place.0 as usize].and_then(|at| replies.get(at)) {
                        Some(Value::ServerError(error)) => failed(item, from_server(error)),
                        _ => done(item),
                    },
                )
                .collect(),
        }
    }
}

impl TableSettler {
    /// An acknowledgement may be sent any number of times: a connection that breaks under it is made again first.
    async fn patiently(&self, commands: &redis::Pipeline) -> Result<Vec<Value>, Failure> {
        let until = Instant::now() + COMMAND;
        loop {
            let left = until.saturating_duration_since(Instant::now());
            match self.link.pipeline(commands, left).await {
                Err(failure) if failure.broken && Instant::now() < until => {}
                answered => return answered,
            }
        }
    }
}

/// Hands it back, with what is left to emit.
pub(crate) fn failed(item: Item, error: Error) -> Outcome {
    let Item {
        index, token, emit, ..
    } = item;
    let verdict = Verdict::Ack { emit };
    (
        index,
        token,
        Settled::Failed(Settlement { token, verdict }, error),
    )
}
