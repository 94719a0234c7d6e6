#![doc = include_str!("docs/crate.md")]

// The macros emit paths into `postrider::…`: inside this crate's own tests and doctests that is this name.
#[allow(unused_extern_crates, reason = "used by what the macros emit in tests")]
extern crate self as postrider;

mod app;
mod config;
mod connect;
pub mod dead_letters;
pub mod dedup;
mod engine;
mod listener;
mod message;
mod meter;
mod middleware;
#[cfg(feature = "ops")]
mod ops;
#[cfg(feature = "otel")]
pub mod otel;
pub mod prelude;
mod publisher;
mod scratch;
#[cfg(feature = "testing")]
pub mod testing;
mod trace;

pub use app::{App, ListenerState, ListenerStatus, Running};
pub use dead_letters::{DeadLetter, DeadLetters};
pub use engine::Registration;
pub use listener::{
    Acker, Attempt, Context, Extension, Extract, FromBatch, FromPayload, HandlerError, Headers,
    IntoBatchOutcome, IntoOutcome, IntoReply, Json, Key, MessageId, Outcome, Reason, State, StateMap, Topic,
};
pub use message::Message;
pub use meter::Counts;
pub use middleware::{Middleware, Next};
pub use postrider_contract as contract;
pub use postrider_contract::{Bytes, Error, ErrorKind, Topology, async_trait};
pub use postrider_macros::{Message, listener};
pub use publisher::{Draft, Publisher};

/// Collects listeners by name, for [`App::listen`].
///
/// ```
/// # use postrider::prelude::*;
/// mod stock {
///     # use postrider::prelude::*;
///     #[listener(topic = "order.created")]
///     pub async fn reserve(order: Bytes) {}
/// }
///
/// #[listener(topic = "payment.settled")]
/// async fn book(payment: Bytes) {}
///
/// let both = listeners![book, stock::reserve];
/// # assert_eq!(both.len(), 2);
/// let none = listeners![];
/// # assert!(none.is_empty());
/// ```
#[macro_export]
macro_rules! listeners {
    () => {
        ::std::vec::Vec::<$crate::__private::Registration>::new()
    };
    ($($($segment:ident)::+),* $(,)?) => {
        ::std::vec![$($crate::__private::Register::register($($segment)::+ {})),*]
    };
}

/// What the macros emit paths into. No part of the API.
#[doc(hidden)]
pub mod __private {
    pub use std::time::Duration;

    pub use crate::contract::{Backoff, Bytes, Start};
    pub use crate::engine::{Register, Registration};
    pub use crate::listener::{
        AckMode, Batch, Breaker, Context, Dedup, Extract, FromBatch, FromPayload, HandlerError,
        IntoBatchOutcome, IntoOutcome, IntoReply, Listener, Many, Outcome, Rate, Retry, Settings, Single,
        StateMap,
    };
    pub use crate::message::Message;

    /// What an extractor refuses of a message that it accepted a moment ago tells nothing of the message, nor of the batch that
    /// would be given up with it.
    pub fn not_now(error: HandlerError) -> HandlerError {
        if error.is_retryable() {
            return error;
        }
        HandlerError::retryable(error.to_string())
    }

    /// The topic that the type of a batch listener's messages names.
    pub const fn topic_of_items<L: Many>() -> Option<&'static str> {
        <<L::Items as FromBatch>::Item as FromPayload>::MESSAGE_TOPIC
    }

    /// A field of `#[message(key = …)]` as a partition key: its text.
    pub fn key(field: &impl ::std::fmt::Display) -> Bytes {
        Bytes::from(field.to_string())
    }
}
