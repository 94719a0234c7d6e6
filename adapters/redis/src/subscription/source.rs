use std::sync::Arc;

use postrider_contract::{Order, Spec};

use crate::keys;
use crate::subscription::entry::Stream;
use crate::subscription::lease::Lease;

/// What a subscription reads, and as whom.
#[derive(Debug)]
pub(crate) struct Source {
    pub(crate) topic: Arc<str>,
    pub(crate) group: Arc<str>,
    /// This instance.
    pub(crate) consumer: Arc<str>,
    /// The topic's stream; on Pub/Sub there is none.
    pub(crate) stream: Option<String>,
    pub(crate) inbox: String,
    /// Where one instance reads for all.
    pub(crate) leader: Option<Lease>,
    /// Where instances share: the key of the same lease, which they hold together.
    pub(crate) shared: Option<String>,
    /// Replay and purge delete from it: a deleted entry is no loss.
    pub(crate) holds_dead_letters: bool,
    pub(crate) in_flight: usize,
}

impl Source {
    pub(crate) fn new(
        spec: &Spec,
        consumer: Arc<str>,
        stream: Option<String>,
        holds_dead_letters: bool,
    ) -> Self {
        let topic = spec.topic();
        let ordered = spec.order == Order::ByKey;
        let lease = keys::leader(topic, &spec.group);
        Self {
            topic: Arc::clone(topic),
            group: Arc::clone(&spec.group),
            consumer,
            inbox: keys::inbox(topic, &spec.group),
            shared: (!ordered).then(|| lease.clone()),
            leader: ordered.then(|| Lease::new(lease)),
            stream,
            holds_dead_letters,
            in_flight: spec.in_flight.max(1) as usize,
        }
    }

    /// What it reads, with the keys.
    pub(crate) fn streams(&self) -> impl Iterator<Item = (Stream, &str)> {
        let topic = self.stream.as_deref().map(|key| (Stream::Topic, key));
        topic.into_iter().chain([(Stream::Inbox, self.inbox.as_str())])
    }

    /// The key of one of them.
    pub(crate) fn key(&self, stream: Stream) -> &str {
        match (stream, &self.stream) {
            (Stream::Topic, Some(key)) => key,
            _ => &self.inbox,
        }
    }
}
