//! A broker of a test's own, which it may restart, kill and freeze.

use std::ops::Deref;

use postrider_contract::BrokerUrl;
use postrider_own_broker::Server;

pub struct OwnBroker(postrider_own_broker::OwnBroker);

impl OwnBroker {
    /// Starts one on free ports, and waits until it answers.
    pub fn start() -> Self {
        Self(postrider_own_broker::OwnBroker::start(Server::Rabbitmq))
    }

    pub fn url(&self) -> BrokerUrl {
        self.url_with("")
    }

    /// The URL as text, for another client library.
    pub fn url_text(&self) -> String {
        format!("amqp://guest:guest@127.0.0.1:{}/postrider", self.port())
    }

    /// The URL with a query.
    pub fn url_with(&self, query: &str) -> BrokerUrl {
        (self.url_text() + query).parse().expect("a URL")
    }

    /// Runs rabbitmqctl.
    pub fn rabbitmqctl(&self, arguments: &[&str]) -> String {
        self.cli(arguments)
    }
}

impl Deref for OwnBroker {
    type Target = postrider_own_broker::OwnBroker;

    fn deref(&self) -> &Self::Target {
        &self.0
    }
}
