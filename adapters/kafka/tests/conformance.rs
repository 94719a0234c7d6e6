//! The failure contract on a real Kafka.

mod support;

use std::sync::Arc;

use postrider_conformance::{Harness, async_trait};
use postrider_contract::{Broker, Error};

struct Kafka;

#[async_trait]
impl Harness for Kafka {
    fn name(&self) -> &'static str {
        "kafka"
    }

    async fn connect(&self, application: &str) -> Result<Arc<dyn Broker>, Error> {
        postrider_kafka::connect(&support::url_with(""), support::client(application)).await
    }

    fn not_possible(&self, case: &str) -> Option<&'static str> {
        match case {
            "broker_restart" => Some("it would disturb the other cases: it runs in tests/restart.rs"),
            "what_one_may_not_take_a_peer_gets" => Some(
                "a partition belongs to one instance: what waits in it goes to a peer when that instance leaves",
            ),
            _ => None,
        }
    }
}

postrider_conformance::cases!(Kafka);
