//! The failure contract on a real Redis, over both transports.

mod common;

use std::sync::Arc;

use postrider_conformance::{Harness, async_trait};
use postrider_contract::{Broker, Error};

struct Streams;

#[async_trait]
impl Harness for Streams {
    fn name(&self) -> &'static str {
        "redis"
    }

    async fn connect(&self, application: &str) -> Result<Arc<dyn Broker>, Error> {
        // A lease that ends well within the suite's patience.
        let url = format!("{}?lease=5s", common::url());
        common::try_connect_as(&url, application, &common::unique("instance")).await
    }

    fn not_possible(&self, case: &str) -> Option<&'static str> {
        (case == "broker_restart").then_some("it would disturb the other cases: it runs in tests/faults.rs")
    }
}

struct PubSub;

#[async_trait]
impl Harness for PubSub {
    fn name(&self) -> &'static str {
        "redis+pubsub"
    }

    async fn connect(&self, application: &str) -> Result<Arc<dyn Broker>, Error> {
        let url = format!("{}?lease=5s", common::pub_sub_url());
        common::try_connect_as(&url, application, &common::unique("instance")).await
    }

    fn not_possible(&self, case: &str) -> Option<&'static str> {
        const NOT_KEPT: &str =
            "nothing is kept for a group that has no instance running: its stated guarantee";
        match case {
            "broker_restart" => {
                Some("what is published while a subscription reconnects is lost: its stated guarantee")
            }
            "a_declared_group_misses_nothing"
            | "a_backlog_is_told"
            | "planning_again_changes_nothing"
            | "subscribing_again_and_again_loses_nothing" => Some(NOT_KEPT),
            _ => None,
        }
    }
}

mod streams {
    postrider_conformance::cases!(super::Streams);
}

mod pub_sub {
    postrider_conformance::cases!(super::PubSub);
}
