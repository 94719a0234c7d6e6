#![doc = include_str!("docs/redis.md")]

mod broker;
mod dead_letters;
mod dedup;
mod durability;
mod failure;
mod fields;
mod frame;
mod keys;
mod link;
mod mover;
mod plan;
mod publish;
mod pubsub;
mod scripts;
mod settings;
mod status;
mod subscription;
mod tls;
mod topics;
mod trim;

use std::sync::Arc;

use postrider_contract::{Broker, BrokerUrl, Client, Error};

/// The URL schemes of this adapter: Streams, Streams over TLS, Pub/Sub, Pub/Sub over TLS.
pub const SCHEMES: &[&str] = &["redis", "rediss", "redis+pubsub", "rediss+pubsub"];

/// Where a Redis usually runs on one's own machine.
pub const LOCAL: &str = "redis://127.0.0.1:6379";

/// Connects to the Redis that the URL names.
///
/// # Errors
/// `Config` for a wrong URL, before any socket is opened; `Denied` at once for wrong credentials; `Unavailable` when the
/// server cannot be reached within `connect_timeout`; `Unsupported` for a Redis Cluster or a version before 6.2.
pub async fn connect(url: &BrokerUrl, client: Client) -> Result<Arc<dyn Broker>, Error> {
    broker::Redis::connect(url, client).await
}
