//! RabbitMQ for Postrider, through lapin. Version 3.10 or later.
//!
//! # The URL
//!
//! `amqp://user:password@host:5672/vhost?option=value`, or `amqps://…` with TLS (cargo feature `tls`). Several hosts are tried
//! in turn. Left out, the user and password are `guest`, the port is 5672 (5671 with TLS), the virtual host `/`.
//!
//! | option | default | meaning |
//! |---|---|---|
//! | `connect_timeout` | `10s` | how long connecting tries |
//! | `publish_timeout` | `30s` | how long a publish waits for its confirmation |
//! | `max_payload` | `1000000` | bytes; larger publishes are refused |
//! | `exchange` | `postrider` | the topic exchange that topics are published to |
//! | `heartbeat` | `10s` | a connection that is silent for twice as long is given up |
//! | `consumer_timeout` | `30m` | the server's own setting: how long a delivery may stay unsettled |
//! | `auth` | `plain` | or `external`: the client certificate says who we are |
//! | `ca_file` | the system's | file with the certificates that the server's is checked against (`amqps://`) |
//! | `cert_file`, `key_file` | none | files with our own certificate and its key (`amqps://`) |
//!
//! # How the contract maps to RabbitMQ
//!
//! Topics are routing keys of one durable topic exchange. A *group* on a topic is a durable quorum queue
//! `<topic>.<group>` bound to it; an ordered group has a queue of its own, `<topic>.<group>:ordered`, with a single active
//! consumer. Messages are persistent, publishes mandatory and confirmed, acknowledgements coalesced over contiguous tags.
//!
//! The *inbox* of a group is the same queue, reached through the direct exchange `postrider.inbox` or out of the delay
//! ladder, and that exchange is the proof that a delivery came back. The ladder is one for each virtual host: twenty quorum
//! queues `postrider.delay.NN` that hold a message for 2^NN times 100 ms each, so a delay is the sum of those whose bit is
//! set, up to 29 hours.
//!
//! *Dead letters* lie in a stream named like their topic. Looking consumes nothing; replayed and purged ones are marked in
//! the same stream under a route that no listener is bound to.
//!
//! A message that is delivered 200 times without reaching a verdict is given up by the broker itself, to the default
//! dead-letter topic. That is for what the client library cannot parse; the runtime gives up after 20.

mod broker;
mod confirms;
mod dead_index;
mod dead_letters;
mod declare;
mod fault;
mod held;
mod keeper;
mod ladder;
mod layout;
mod link;
mod options;
mod outgoing;
mod properties;
mod publish_loop;
mod publisher;
mod quarantine;
mod receiver;
mod settler;
mod status;
mod stream;
mod subscription;
mod tls;
mod topology;
mod unrouted;
mod values;
mod window;

use std::sync::Arc;

use postrider_contract::{Broker, BrokerUrl, Client, Error};

/// The URL schemes of this adapter.
pub const SCHEMES: &[&str] = &["amqp", "amqps"];

/// The usual local address.
pub const LOCAL: &str = "amqp://127.0.0.1:5672";

/// Connects to RabbitMQ, or fails within the URL's `connect_timeout`.
///
/// # Errors
/// Wrong options ([`Config`](postrider_contract::ErrorKind::Config)) before any socket is opened; wrong credentials or a
/// virtual host that is missing ([`Denied`](postrider_contract::ErrorKind::Denied)) at once; a broker that cannot be reached
/// ([`Unavailable`](postrider_contract::ErrorKind::Unavailable)).
pub async fn connect(url: &BrokerUrl, client: Client) -> Result<Arc<dyn Broker>, Error> {
    Ok(Arc::new(broker::RabbitBroker::connect(url, client).await?))
}
