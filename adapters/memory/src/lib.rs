//! The embedded broker of Postrider: a real broker in this process.
//!
//! It keeps the whole failure contract: groups with queues of their own, redelivery when an instance ends, a durable
//! (for the life of the process) return path with delays, order by key, broadcast, bounded queues, retention and
//! dead-letter topics. Tests that pass on it fail on no other broker for a reason that it could have shown. It takes more
//! than others in one respect: on RabbitMQ a message's key and headers have about 64 KiB at most.
//!
//! # URLs
//!
//! `memory://` and `memory://name` are shared within the process by name; a broker ends, with everything in it, when
//! the last connection and subscription to it is dropped. Each [`connect`] to the same name is one more instance.
//!
//! | option | default | what it is |
//! |---|---|---|
//! | `capacity` | `1000000` | messages that may wait for one group; a publish waits for room until `publish_timeout` |
//! | `retain` | `0` | how many messages each topic keeps for groups that start at the earliest |
//! | `max_payload` | `1000000` | the largest payload in bytes; dead-letter topics and inboxes take any |
//! | `publish_timeout` | `30s` | how long a publish waits for room, then fails as unavailable |
//! | `connect_timeout` | `10s` | accepted as everywhere; connecting is immediate |
//!
//! `capacity` and `retain` belong to the named broker: the first connection sets them, and a later one that states
//! another value is refused.
//!
//! # What a confirmed message can count on
//!
//! Delivery at least once for the life of the process: publishers, handlers and the broker live and die together, so the
//! broker cannot be lost to an application that goes on. Nothing outlives the process.
//!
//! # Time
//!
//! Delays and timeouts use tokio's clock. Under `tokio::time::pause` the virtual clock therefore decides when a retry is
//! due, and a test needs no sleeping: a time handed over as [`SystemTime`](std::time::SystemTime) counts from the moment
//! of the publish.
//!
//! ```
//! # use std::time::{Duration, SystemTime};
//! # use postrider_contract::{Client, Message, Outgoing};
//! # tokio::runtime::Builder::new_current_thread().enable_time().build().unwrap().block_on(async {
//! let client = Client { application: "shop".into(), instance: "1".into() };
//! let broker = postrider_memory::isolated(client);
//! let results = broker.publish(vec![Outgoing::to_topic("order.created", Message::new("{}"))]).await;
//! assert!(!results[0].as_ref().unwrap().received, "no group was declared yet");
//! # });
//! ```

mod broker;
mod clock;
mod connection;
mod consumer;
mod dead;
mod group;
mod plan;
mod queues;
mod receiver;
mod registry;
mod route;
mod settings;
mod settler;
mod state;
mod topic;

use std::sync::Arc;

use postrider_contract::{Broker, BrokerUrl, Client, Error};

pub use registry::Memory;

/// The URL schemes that this adapter answers to.
pub const SCHEMES: &[&str] = &["memory"];

/// The usual address.
pub const LOCAL: &str = "memory://";

/// Connects one more instance to the broker of this name, which is made if it is not there.
///
/// # Errors
/// The URL has a part or option that this broker does not know, or contradicts how the broker was made.
#[allow(clippy::unused_async, reason = "every adapter's connect has this shape")]
pub async fn connect(url: &BrokerUrl, client: Client) -> Result<Arc<dyn Broker>, Error> {
    registry::connect(url, client)
}

/// A broker that nobody else can reach, with default settings: for tests. [`Memory`] connects several instances.
pub fn isolated(client: Client) -> Arc<dyn Broker> {
    Memory::default().connect(client)
}
