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

    fn not_possible(&self, case: &str) -> Option<&'static str> {
        match case {
            "broker_restart" => Some("the broker is this process: it cannot restart without its clients"),
            _ => None,
        }
    }
}

postrider_conformance::cases!(Embedded(Memory::new(1_000_000, 10_000)));

/// The same without retention, where that makes a difference: the start at the earliest is refused.
mod without_retention {
    use super::{Embedded, Memory};

    postrider_conformance::some_cases!(Embedded(Memory::default()); groups:
        earliest_reads_history
        a_declared_group_misses_nothing
        a_new_group_starts_with_its_declaration
    );
    postrider_conformance::some_cases!(Embedded(Memory::default()); publishing:
        nobody_receives
    );
}
