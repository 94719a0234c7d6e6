use std::fmt;
use std::sync::Arc;

use crate::Message;

/// One received attempt of a message, unsettled.
#[derive(Debug, Clone)]
pub struct Delivery {
    /// Names it towards the [`Settler`](crate::Settler).
    pub token: Token,
    /// How it came, as the adapter can prove.
    pub origin: Origin,
    /// How often it was delivered before without a verdict, where the broker counts that.
    pub redeliveries: Option<u32>,
    /// The topic it was published to, also for what came through the inbox.
    pub topic: Arc<str>,
    /// Where it lies in the broker.
    pub position: Position,
    /// Its content.
    pub message: Message,
}

/// Names a delivery towards the settler of its subscription. Small and `Copy`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Token {
    /// What can be revoked as one: a partition, a channel.
    pub lane: u32,
    /// Counts assignments or connections: a settlement for an old one is stale.
    pub epoch: u32,
    /// The delivery within its lane and epoch.
    pub seq: u64,
}

/// How a delivery came.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Origin {
    /// Published to the topic: attempt 1, whatever its headers say.
    Topic,
    /// Through the group's inbox, which only the runtime and replays write to.
    ReturnPath {
        /// The attempt that this delivery is, from 1.
        attempt: u32,
        /// How often it was replayed from the dead letters.
        replays: u16,
    },
}

impl Origin {
    /// The attempt that a delivery is by this, from 1.
    pub const fn attempt(self) -> u32 {
        match self {
            Self::Topic => 1,
            Self::ReturnPath { attempt, .. } => attempt,
        }
    }
}

/// Where a message lies in the broker: partition and offset, or a stream entry's two halves, or a queue's tag.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Position {
    /// The partition, where there are some.
    pub partition: Option<u32>,
    /// The offset, the entry's first half, or the tag.
    pub offset: u64,
    /// The entry's second half, where it has one.
    pub minor: Option<u64>,
}

impl fmt::Display for Position {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if let Some(partition) = self.partition {
            write!(f, "{partition}:")?;
        }
        write!(f, "{}", self.offset)?;
        if let Some(minor) = self.minor {
            write!(f, "-{minor}")?;
        }
        Ok(())
    }
}
