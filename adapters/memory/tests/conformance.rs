//! The whole contract, on the embedded broker.

use std::sync::Arc;

use postrider_conformance::{Harness, async_trait};
use postrider_contract::{Broker, Client, Error};
use postrider_memory::Memory;

struct Embedded(Memory);

#[async_trait]
impl Harness for Embedded {
    fn name(&self) -> &'static str {
        "memory"
    }

    async fn connect(&self, application: &str) -> Result<Arc<dyn Broker>, Error> {
        Ok(self.0.connect(Client {
            application: application.into(),
            instance: "conformance".into(),
        }))
    }
}

postrider_conformance::cases!(Embedded(Memory::new(1_000_000, 10_000)));
