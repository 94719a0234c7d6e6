//! The cases that restart the broker, on one of their own.

mod support;

use std::sync::Arc;

use postrider_conformance::{Harness, async_trait};
use postrider_contract::{Broker, Error};
use support::own::OwnBroker;

struct Own(OwnBroker);

#[async_trait]
impl Harness for Own {
    fn name(&self) -> &'static str {
        "rabbitmq (its own)"
    }

    async fn connect(&self, application: &str) -> Result<Arc<dyn Broker>, Error> {
        postrider_rabbitmq::connect(&self.0.url(), support::client(application)).await
    }

    async fn restart(&self) -> bool {
        self.0.write_down();
        self.0.verb("kill");
        self.0.up();
        true
    }
}

postrider_conformance::some_cases!(Own(OwnBroker::start()); lifecycle: broker_restart);
