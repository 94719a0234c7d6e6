//! The brokers, and what differs between them.

use std::sync::Arc;
use std::time::Duration;

use clap::ValueEnum;
use postrider::contract::{Broker, BrokerUrl, Client};
use postrider_own_broker::Server;

use crate::Result;

/// A broker as a service sees it: a scheme.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum System {
    /// Apache Kafka.
    Kafka,
    /// RabbitMQ.
    Rabbitmq,
    /// Redis Streams.
    Redis,
    /// Redis Pub/Sub.
    RedisPubsub,
}

impl System {
    /// As it is written on the command line and in the lines of results.
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Kafka => "kafka",
            Self::Rabbitmq => "rabbitmq",
            Self::Redis => "redis",
            Self::RedisPubsub => "redis-pubsub",
        }
    }

    /// What serves it.
    pub(crate) fn server(self) -> Server {
        match self {
            Self::Kafka => Server::Kafka,
            Self::Rabbitmq => Server::Rabbitmq,
            Self::Redis | Self::RedisPubsub => Server::Redis,
        }
    }

    /// The URL at a port, with limits so short that a round can exceed them.
    pub(crate) fn url(self, port: u16) -> String {
        match self {
            Self::Kafka => format!(
                "kafka://127.0.0.1:{port}?session_timeout=3s&revoke_timeout=2s&publish_timeout=5s&connect_timeout=20s"
            ),
            Self::Rabbitmq => format!(
                "amqp://guest:guest@127.0.0.1:{port}/postrider?heartbeat=2s&publish_timeout=5s&connect_timeout=20s"
            ),
            Self::Redis => {
                format!("redis://127.0.0.1:{port}?lease=2s&publish_timeout=5s&connect_timeout=20s")
            }
            Self::RedisPubsub => {
                format!("redis+pubsub://127.0.0.1:{port}?lease=2s&publish_timeout=5s&connect_timeout=20s")
            }
        }
    }

    /// Longer than the session limits of [`System::url`]: whoever is silent for so long is given up.
    pub(crate) fn beyond_limits(self) -> Duration {
        match self {
            Self::Kafka => Duration::from_secs(5),
            // A connection is given up after two to three heartbeats without a sign.
            Self::Rabbitmq => Duration::from_secs(8),
            Self::Redis | Self::RedisPubsub => Duration::from_secs(4),
        }
    }

    /// Whether what is confirmed is kept until somebody receives it.
    pub(crate) fn is_durable(self) -> bool {
        self != Self::RedisPubsub
    }

    /// Whether order by key can be asked for.
    pub(crate) fn is_ordered(self) -> bool {
        self != Self::RedisPubsub
    }

    /// Connects without an app, to look from outside or to stand a wrapper around.
    pub(crate) async fn connect(self, url: &str, instance: &str) -> Result<Arc<dyn Broker>> {
        let url: BrokerUrl = url.parse()?;
        let client = Client {
            application: "chaos".into(),
            instance: instance.into(),
        };
        Ok(match self {
            Self::Kafka => postrider_kafka::connect(&url, client).await?,
            Self::Rabbitmq => postrider_rabbitmq::connect(&url, client).await?,
            Self::Redis | Self::RedisPubsub => postrider_redis::connect(&url, client).await?,
        })
    }
}
