//! Wrong ways of looking after dead letters.

use std::collections::HashMap;
use std::sync::Arc;

use postrider_conformance::async_trait;
use postrider_contract::{
    Broker, Bytes, DeadLetter, DeadLetters, Error, Message, Outgoing, names, replay_copy,
};

use super::Fault;

pub(super) struct FaultyLetters {
    inner: Vec<Box<dyn DeadLetters>>,
    broker: Arc<dyn Broker>,
    fault: Fault,
    source: Arc<str>,
    seen: HashMap<Bytes, Message>,
}

impl FaultyLetters {
    pub(super) fn new(
        inner: Vec<Box<dyn DeadLetters>>,
        broker: Arc<dyn Broker>,
        fault: Fault,
        source: &str,
    ) -> Self {
        Self {
            inner,
            broker,
            fault,
            source: source.into(),
            seen: HashMap::new(),
        }
    }
}

#[async_trait]
impl DeadLetters for FaultyLetters {
    async fn browse(&mut self, after: Option<&Bytes>, max: usize) -> Result<Vec<DeadLetter>, Error> {
        let after = if self.fault == Fault::SamePageAgain {
            None
        } else {
            after
        };
        let mut letters = Vec::new();
        for inner in &mut self.inner {
            letters.extend(inner.browse(after, max).await?);
        }
        for letter in &mut letters {
            self.seen.insert(letter.id.clone(), letter.message.clone());
            if self.fault == Fault::LossyLetters {
                letter.message.headers.remove("x-raw");
            }
        }
        if self.fault == Fault::BrowsingTakes {
            let ids: Vec<_> = letters.iter().map(|letter| letter.id.clone()).collect();
            self.inner[0].purge(&ids).await;
        }
        Ok(letters)
    }

    async fn replay(&mut self, ids: &[Bytes]) -> Vec<Result<(), Error>> {
        match self.fault {
            Fault::ReplaysToAll => {
                for id in ids {
                    let copy = replay_copy(&self.seen[id]);
                    self.broker
                        .publish(vec![Outgoing::to_topic(self.source.clone(), copy)])
                        .await;
                }
                self.inner[0].purge(ids).await
            }
            Fault::ReplaysAgain => {
                for letter in ids.iter().filter_map(|id| self.seen.get(id)) {
                    let group = letter.headers.get_str(names::DEAD_GROUP).unwrap_or_default();
                    let copy = Outgoing::to_inbox(self.source.clone(), group, replay_copy(letter));
                    self.broker.publish(vec![copy]).await;
                }
                self.inner[0].purge(ids).await
            }
            _ => self.inner[0].replay(ids).await,
        }
    }

    async fn purge(&mut self, ids: &[Bytes]) -> Vec<Result<(), Error>> {
        if self.fault == Fault::PurgesAll {
            let all = self.inner[0].browse(None, usize::MAX).await.unwrap();
            let all: Vec<_> = all.into_iter().map(|letter| letter.id).collect();
            self.inner[0].purge(&all).await;
        }
        self.inner[0].purge(ids).await
    }
}
