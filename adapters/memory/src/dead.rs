//! Looking at dead letters, putting them back, and taking them out.

use std::ops::Bound;
use std::str;
use std::sync::Arc;

use postrider_contract::{
    Bytes, DeadLetter, DeadLetters, Error, ErrorKind, Message, Outgoing, async_trait, names, replay_copy,
};

use crate::connection::{Connection, Sent};
use crate::state::State;

pub(crate) struct MemoryDeadLetters {
    connection: Arc<Connection>,
    topic: Arc<str>,
    source: Arc<str>,
    group: Arc<str>,
}

impl MemoryDeadLetters {
    pub(crate) fn new(connection: Arc<Connection>, topic: &str, source: &str, group: &str) -> Self {
        Self {
            connection,
            topic: topic.into(),
            source: source.into(),
            group: group.into(),
        }
    }

    /// Takes one out under the lock, after `first` has used it. One that is not there is done already.
    fn take_out(
        &self,
        id: &Bytes,
        first: impl FnOnce(&mut State, Message) -> Result<(), Error>,
    ) -> Result<(), Error> {
        self.connection.check_open()?;
        let mut state = self.connection.hub.lock();
        let position = position(id)?;
        let Some(topic) = state.look(&self.topic) else {
            return Ok(());
        };
        let letter = state.topics[topic]
            .dead
            .as_ref()
            .and_then(|dead| dead.get(&position));
        let Some(letter) = letter
            .filter(|letter| belongs(letter, &self.source, &self.group))
            .cloned()
        else {
            return Ok(());
        };
        first(&mut state, letter)?;
        if let Some(dead) = &mut state.topics[topic].dead {
            dead.remove(&position);
        }
        state.queues.wake();
        Ok(())
    }
}

#[async_trait]
impl DeadLetters for MemoryDeadLetters {
    async fn browse(&mut self, after: Option<&Bytes>, max: usize) -> Result<Vec<DeadLetter>, Error> {
        self.connection.check_open()?;
        let state = self.connection.hub.lock();
        let after = after.map(position).transpose()?;
        let from = after.map_or(Bound::Unbounded, Bound::Excluded);
        let dead = state
            .look(&self.topic)
            .and_then(|topic| state.topics[topic].dead.as_ref());
        let letters = dead
            .into_iter()
            .flat_map(|dead| dead.range((from, Bound::Unbounded)));
        Ok(letters
            .filter(|(_, message)| belongs(message, &self.source, &self.group))
            .take(max)
            .map(|(position, message)| DeadLetter {
                id: Bytes::from(position.to_string()),
                message: message.clone(),
            })
            .collect())
    }

    async fn replay(&mut self, ids: &[Bytes]) -> Vec<Result<(), Error>> {
        let replay = |state: &mut State, letter: Message| {
            let copy = Outgoing::to_inbox(self.source.clone(), self.group.clone(), replay_copy(&letter));
            // The inbox has no bound and takes what the dead-letter topic took: a refusal is a defect.
            match self.connection.send(state, copy) {
                Sent::Answer(result) => result.map(drop),
                Sent::Full(_) => Err(Error::new(ErrorKind::Internal, "the inbox of the group is full")),
            }
        };
        ids.iter().map(|id| self.take_out(id, replay)).collect()
    }

    async fn purge(&mut self, ids: &[Bytes]) -> Vec<Result<(), Error>> {
        ids.iter().map(|id| self.take_out(id, |_, _| Ok(()))).collect()
    }
}

/// How many dead letters of `(source, group)` lie in this topic.
pub(crate) fn count(state: &State, topic: &str, source: &str, group: &str) -> u64 {
    let dead = state
        .look(topic)
        .and_then(|topic| state.topics[topic].dead.as_ref());
    let ours = |message: &&Message| belongs(message, source, group);
    dead.map_or(0, |dead| dead.values().filter(ours).count() as u64)
}

/// A letter without the headers was put there by hand: it belongs to whoever looks.
fn belongs(letter: &Message, source: &str, group: &str) -> bool {
    let is = |name, expected: &str| letter.headers.get_str(name).is_none_or(|value| value == expected);
    is(names::DEAD_TOPIC, source) && is(names::DEAD_GROUP, group)
}

fn position(id: &Bytes) -> Result<u64, Error> {
    let position = str::from_utf8(id).ok().and_then(|text| text.parse().ok());
    let text = "this is no id of a dead letter: browse lists them";
    position.ok_or_else(|| Error::new(ErrorKind::Rejected, text))
}
