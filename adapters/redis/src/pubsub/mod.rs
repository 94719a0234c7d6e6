//! The live part of the Pub/Sub transport: from a channel into a group's inbox.

pub(crate) mod channel;
pub(crate) mod gaps;
pub(crate) mod intake;
pub(crate) mod queue;
