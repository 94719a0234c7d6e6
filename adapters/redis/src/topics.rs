//! The topics that this process has to do with.

use std::collections::HashMap;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use postrider_contract::{Error, ErrorKind, names};

use crate::keys;
use crate::settings::Transport;

/// More are published to without being remembered: hostile names must not fill the memory.
const MOST: usize = 10_000;

/// A topic.
#[derive(Debug)]
pub(crate) struct Topic {
    /// The key of its stream.
    pub(crate) key: String,
    /// It holds dead letters: a stream on either transport, and never trimmed.
    dead_letters: AtomicBool,
    /// Why nothing may be published to it.
    refused: Option<Error>,
    /// Pub/Sub: how many this process has published to its channel; `None` where there are too many topics to count for each.
    sequence: Option<AtomicU64>,
}

impl Topic {
    pub(crate) fn holds_dead_letters(&self) -> bool {
        self.dead_letters.load(Ordering::Relaxed)
    }

    /// An error if nothing may be published to it.
    pub(crate) fn check(&self) -> Result<(), Error> {
        self.refused.clone().map_or(Ok(()), Err)
    }

    pub(crate) fn next_sequence(&self) -> Option<u64> {
        let sequence = self.sequence.as_ref()?;
        Some(sequence.fetch_add(1, Ordering::Relaxed) + 1)
    }
}

/// All topics that were named so far.
#[derive(Debug)]
pub(crate) struct Topics {
    transport: Transport,
    known: Mutex<HashMap<Arc<str>, Arc<Topic>>>,
}

impl Topics {
    pub(crate) fn new(transport: Transport) -> Self {
        Self {
            transport,
            known: Mutex::default(),
        }
    }

    pub(crate) fn get(&self, topic: &Arc<str>) -> Arc<Topic> {
        let mut known = self.known.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(topic) = known.get(topic) {
            return Arc::clone(topic);
        }
        let remembered = known.len() < MOST;
        let found = Arc::new(Topic {
            key: keys::topic(topic),
            dead_letters: AtomicBool::new(is_called_dead_letters(topic)),
            refused: check(topic).err(),
            sequence: remembered.then(AtomicU64::default),
        });
        if found.refused.is_none() && remembered {
            known.insert(Arc::clone(topic), Arc::clone(&found));
        }
        found
    }

    /// This topic holds dead letters, whatever it is called.
    pub(crate) fn mark_dead_letters(&self, topic: &Arc<str>) {
        self.get(topic).dead_letters.store(true, Ordering::Relaxed);
    }

    /// Whether it is a stream; otherwise it is a channel.
    pub(crate) fn is_stream(&self, topic: &Arc<str>) -> bool {
        self.transport == Transport::Streams || self.get(topic).holds_dead_letters()
    }

    /// The streams that may be trimmed, and the keys of the marks that forbid it.
    pub(crate) fn trimmed(&self) -> Vec<(String, String)> {
        let known = self.known.lock().unwrap_or_else(PoisonError::into_inner);
        known
            .iter()
            .filter(|(_, topic)| self.transport == Transport::Streams && !topic.holds_dead_letters())
            .map(|(name, topic)| (topic.key.clone(), keys::dead_letters(name)))
            .collect()
    }
}

/// Whether a topic may be called so: other names could be those of our own keys.
fn check(topic: &str) -> Result<(), Error> {
    names::check_topic(topic)?;
    if names::is_reserved(topic) && !is_called_dead_letters(topic) {
        return Err(Error::new(
            ErrorKind::Config,
            format!("topic {topic:?} ends in a reserved suffix: give it another name"),
        ));
    }
    Ok(())
}

/// Whether it holds dead letters by its name.
pub(crate) fn is_called_dead_letters(topic: &str) -> bool {
    topic.strip_suffix(".dlq").is_some()
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A number that came again would be taken for a message that was received already.
    #[test]
    fn only_what_is_remembered_counts() {
        let topics = Topics::new(Transport::PubSub);
        let named = |n: usize| topics.get(&format!("t.{n}").into());
        for n in 0..MOST {
            assert_eq!(named(n).next_sequence(), Some(1));
        }
        assert_eq!(named(0).next_sequence(), Some(2));
        assert_eq!(named(MOST).next_sequence(), None);
    }
}
