use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use super::{Context, Extract, HandlerError, Outcome};
use crate::contract::{Delivery, Error, ErrorKind};

/// Settles a delivery by hand: a parameter of a listener with `ack = manual`.
///
/// Settle within the handler, once. A handler that ends without settling failed: it is tried again.
#[derive(Clone)]
pub struct Acker(Arc<Cell>);

struct Cell {
    settled: AtomicBool,
    /// It was asked for: the handler, or who stands before it, has it.
    is_taken: AtomicBool,
    delivery: Delivery,
    attempt: u32,
    sink: Arc<dyn Sink>,
}

/// Where verdicts go: the engine's settle queue.
pub(crate) trait Sink: Send + Sync {
    fn settle(&self, delivery: &Delivery, attempt: u32, outcome: Outcome);
}

impl Acker {
    pub(crate) fn new(delivery: Delivery, attempt: u32, sink: Arc<dyn Sink>) -> Self {
        Self(Arc::new(Cell {
            settled: AtomicBool::new(false),
            is_taken: AtomicBool::new(false),
            delivery,
            attempt,
            sink,
        }))
    }

    /// Done with it. Resolves when the acknowledgement is on its way.
    ///
    /// # Errors
    /// It was settled before, or the handler had ended or was cut off.
    #[allow(
        clippy::unused_async,
        reason = "settling may wait for room one day; callers write .await today"
    )]
    pub async fn ack(&self) -> Result<(), Error> {
        self.settle(Outcome::ACK)
    }

    /// Deliver it again soon; the attempt is not used up.
    ///
    /// # Errors
    /// As [`Acker::ack`].
    #[allow(clippy::unused_async, reason = "as ack")]
    pub async fn release(&self) -> Result<(), Error> {
        self.settle(Outcome::Release)
    }

    /// It failed: tried again or dead-lettered, as if the handler had returned this error.
    ///
    /// # Errors
    /// As [`Acker::ack`].
    #[allow(clippy::unused_async, reason = "as ack")]
    pub async fn fail(&self, error: impl Into<HandlerError>) -> Result<(), Error> {
        self.settle(Outcome::Failed(error.into()))
    }

    /// Whether anybody has it. Where middleware answers in the handler's place, nobody does.
    pub(crate) fn is_taken(&self) -> bool {
        self.0.is_taken.load(Ordering::Acquire)
    }

    /// Takes the right to settle; false where it was taken before.
    pub(crate) fn close(&self) -> bool {
        !self.0.settled.swap(true, Ordering::AcqRel)
    }

    fn settle(&self, outcome: Outcome) -> Result<(), Error> {
        if !self.close() {
            return Err(Error::new(
                ErrorKind::Rejected,
                "this delivery is settled already, or its handler has ended",
            ));
        }
        self.0.sink.settle(&self.0.delivery, self.0.attempt, outcome);
        Ok(())
    }
}

impl Extract for Acker {
    const IS_ACKER: bool = true;

    fn extract(cx: &Context) -> Result<Self, HandlerError> {
        let acker = cx.acker.clone();
        let acker = acker.ok_or_else(|| HandlerError::permanent("the listener is not `ack = manual`"))?;
        acker.0.is_taken.store(true, Ordering::Release);
        Ok(acker)
    }
}

impl std::fmt::Debug for Acker {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Acker")
            .field("settled", &self.0.settled)
            .finish_non_exhaustive()
    }
}
