//! Messages that the client library cannot parse.
//!
//! A name or property that is not UTF-8 ends the whole connection, with every subscription on it, and the message is
//! delivered again: without more, one such message would stop the process for good. So after a parse error every
//! subscription receives on a connection of its own for a while, one message at a time. Only the queue that holds the
//! message then suffers, until the broker has counted [`DELIVERY_LIMIT`](crate::layout::DELIVERY_LIMIT) deliveries and gives
//! it up to the dead-letter topic, bytes intact.

use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use postrider_contract::Backoff;
use tokio::time::Instant;

/// So long after a parse error, connections are opened apart.
const APART: Duration = Duration::from_secs(60);

/// A connection apart that lived this long has met nothing, and may take more than one message at a time.
pub(crate) const SOUND: Duration = Duration::from_secs(10);

/// How a connection apart is opened again: fast, since it only counts up to the delivery limit.
pub(crate) const PACE: Backoff = Backoff::new(Duration::from_millis(50), Duration::from_millis(50));

/// Whether a message that cannot be parsed is about.
#[derive(Debug, Default)]
pub(crate) struct Quarantine {
    since: Mutex<Option<Instant>>,
}

impl Quarantine {
    /// Takes note of how a connection ended; true if by a parse error.
    pub(crate) fn note(&self, error: Option<&lapin::Error>) -> bool {
        let unparsable = error.is_some_and(is_parse_error);
        if unparsable {
            *self.since.lock().unwrap_or_else(PoisonError::into_inner) = Some(Instant::now());
        }
        unparsable
    }

    /// Whether connections are opened apart now.
    pub(crate) fn is_on(&self) -> bool {
        let since = self.since.lock().unwrap_or_else(PoisonError::into_inner);
        since.is_some_and(|since| since.elapsed() < APART)
    }
}

/// Whether the client library could not parse what the broker sent.
pub(crate) fn is_parse_error(error: &lapin::Error) -> bool {
    matches!(error.kind(), lapin::ErrorKind::ParsingError(_))
}
