//! What the Postrider runtime and a broker adapter say to each other.
//!
//! An adapter implements [`Broker`], [`Receiver`], [`Settler`] and [`DeadLetters`]; the runtime calls them. Everything
//! crosses this boundary in *batches*, so that a `dyn` trait costs one call per batch and never one per message, and so
//! that acknowledgements reach the broker in its own batch form.
//!
//! # The rules an adapter keeps
//!
//! 1. **Never lose.** What [`Broker::publish`] answered `Ok` for is durable to the extent that
//!    [`Capabilities::guarantee`] states. [`Settler::settle`] with [`Verdict::Ack`] publishes what it is to `emit` and has
//!    it confirmed *before* the original is acknowledged. A crash between the two makes a duplicate, never a loss.
//! 2. **One primitive.** A message goes to an [`Address`] and *not before* a time. A retry is that to the group's inbox
//!    with a delay, a replay is that without, a dead letter is that to a topic. No other group sees what goes to an inbox.
//! 3. **Trust is proven.** [`Origin::ReturnPath`] is said only of a delivery that the adapter knows came through the
//!    inbox; a header alone proves nothing.
//! 4. **Late acknowledgements are stale.** A [`Token`] carries the epoch of its connection or assignment. A settlement for
//!    an epoch that has gone is answered with [`Settled::Stale`] and touches nothing.
//! 5. **Adapters reconnect by themselves**, with a capped, jittered [`Backoff`], declare their topology again, and say
//!    [`Event::Degraded`] and [`Event::Ready`]. An `Err` from [`Receiver::next`] is the end of the subscription: it is for
//!    what a retry cannot mend (credentials, permissions, a topology that contradicts itself).
//! 6. **No secret** in any `Debug`, `Display`, log line or header.

mod address;
mod backoff;
mod broker;
mod capabilities;
mod copies;
mod dedup;
mod delivery;
mod error;
mod headers;
mod message;
pub mod names;
mod settle;
mod spec;
mod url;

pub use address::{Address, Outgoing};
pub use backoff::{Backoff, Growth};
pub use broker::{
    Broker, Client, DeadLetter, DeadLetters, Event, Receipt, Receiver, Settler, Status, Subscription,
};
pub use capabilities::{Capabilities, Guarantee};
pub use copies::{dead_letter_id, replay_copy, return_path, undo_dead_letter};
pub use dedup::{DedupScope, DedupStore};
pub use delivery::{Delivery, Origin, Position, Token};
pub use error::{Error, ErrorKind};
pub use headers::{Headers, Value};
pub use message::Message;
pub use settle::{Settled, Settlement, Verdict};
pub use spec::{Order, Problem, Sharing, Source, Spec, Start, Topology};
pub use url::{BrokerUrl, Options, Secret, parse_duration};

/// Re-exported so that an adapter needs no version of its own.
pub use async_trait::async_trait;
pub use bytes::Bytes;
pub use bytestring::ByteString;
