//! RabbitMQ for Postrider, through lapin.

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
