use crate::{Error, Outgoing, Receipt, Token};

/// What the runtime makes of a handler's outcome, after policy. Retries and dead letters are an `Ack` that emits the copy:
/// so there is one way to settle, and an adapter that can do both atomically does.
#[derive(Debug, Clone)]
pub enum Verdict {
    /// Done with it: publish and confirm everything in `emit`, then acknowledge.
    Ack {
        /// What must be confirmed before the acknowledgement. Usually empty, and then owns nothing.
        emit: Vec<Outgoing>,
    },
    /// Deliver it again soon, the attempt not used up.
    Release,
}

impl Verdict {
    /// An acknowledgement that emits nothing.
    pub const ACK: Self = Self::Ack { emit: Vec::new() };
}

/// A verdict for a delivery.
#[derive(Debug, Clone)]
pub struct Settlement {
    /// Which.
    pub token: Token,
    /// What.
    pub verdict: Verdict,
}

/// What became of a [`Settlement`].
#[derive(Debug)]
#[non_exhaustive]
pub enum Settled {
    /// Carried out, or on its way in order on a live connection.
    Done,
    /// Carried out, but of what it emitted the messages at these places went to topics that nobody receives.
    Unreceived(Vec<usize>),
    /// The connection or partition it came by is gone; nothing was touched. The broker delivers it again.
    Stale,
    /// It could not be carried out; the delivery is still unsettled and ours. Try the settlement again.
    Failed(Settlement, Error),
}

impl Settled {
    /// Carried out, and this is what became of what it emitted.
    pub fn done(receipts: impl IntoIterator<Item = Receipt>) -> Self {
        let receipts = receipts.into_iter().enumerate();
        let places = receipts.filter(|(_, receipt)| !receipt.received);
        let unreceived: Vec<usize> = places.map(|(place, _)| place).collect();
        if unreceived.is_empty() {
            Self::Done
        } else {
            Self::Unreceived(unreceived)
        }
    }
}
