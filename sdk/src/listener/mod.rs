//! What `#[listener]` describes: settings, handler, extractors, outcome.

mod acker;
mod context;
mod extract;
mod outcome;
mod payload;
mod settings;
mod told;

use std::future::Future;

pub use acker::Acker;
pub(crate) use acker::Sink;
pub(crate) use context::Scope;
pub use context::{Context, StateMap};
pub use extract::{Attempt, Extension, Extract, Headers, Key, MessageId, State, Topic};
pub use outcome::{HandlerError, IntoBatchOutcome, IntoOutcome, IntoReply, Outcome, Reason};
pub(crate) use payload::decode;
pub use payload::{FromBatch, FromPayload, Json};
pub use settings::{AckMode, Batch, Breaker, Dedup, Rate, Retry, Settings};

/// A named handler with its topic and policy: what the attribute makes of a function.
pub trait Listener: Send + Sync + 'static {
    /// What the attribute says.
    const SETTINGS: Settings;

    /// Adds what each parameter lacks in this app.
    fn check(state: &StateMap, problems: &mut Vec<String>);
}

/// A listener that takes one message at a time.
pub trait Single: Listener {
    /// Extracts the parameters and calls the function.
    fn call(cx: &Context) -> impl Future<Output = Outcome> + Send;
}

/// A listener that takes a batch.
pub trait Many: Listener {
    /// The first parameter.
    type Items: FromBatch;

    /// Whether the other parameters can be taken from a delivery: what they refuse is given up alone.
    ///
    /// # Errors
    /// The extractor's.
    fn admit(cx: &Context) -> Result<(), HandlerError>;

    /// Extracts the other parameters from the first delivery and calls the function with all that decoded and was admitted;
    /// an outcome for each of the `count` items, in the same order. There is at least one, and the first context is the first
    /// item's.
    fn call(first: &Context, items: Self::Items, count: usize) -> impl Future<Output = Vec<Outcome>> + Send;
}
