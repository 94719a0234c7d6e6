//! The failure contract on a real RabbitMQ.

mod support;

use std::sync::Arc;

use postrider_conformance::{Harness, async_trait};
use postrider_contract::{Broker, Error};

struct RabbitMq;

#[async_trait]
impl Harness for RabbitMq {
    fn name(&self) -> &'static str {
        "rabbitmq"
    }

    async fn connect(&self, application: &str) -> Result<Arc<dyn Broker>, Error> {
        postrider_rabbitmq::connect(&support::url(), support::client(application)).await
    }

    fn not_possible(&self, case: &str) -> Option<&'static str> {
        (case == "broker_restart").then_some("it would disturb the other cases: it runs in tests/restart.rs")
    }
}

postrider_conformance::cases!(RabbitMq);
