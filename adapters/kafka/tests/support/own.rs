//! A broker of a test's own, which it may restart, kill and freeze.

use std::ops::Deref;

use postrider_contract::BrokerUrl;
use postrider_own_broker::Server;

use super::fence::Fence;

pub struct OwnBroker(postrider_own_broker::OwnBroker);

impl OwnBroker {
    /// Starts one on free ports, and waits until it answers.
    pub fn start() -> Self {
        Self(postrider_own_broker::OwnBroker::start(Server::Kafka))
    }

    /// Its URL with more options.
    pub fn url_with(&self, options: &str) -> BrokerUrl {
        super::with_options(&format!("kafka://127.0.0.1:{}", self.port()), options)
    }

    /// A proxy before it, and the URL that leads through the proxy.
    pub async fn fenced(&self, options: &str) -> (Fence, BrokerUrl) {
        let port = self.proxy_port();
        let url = super::with_options(&format!("kafka://127.0.0.1:{port}"), options);
        (Fence::start(port, self.behind_port()).await, url)
    }
}

impl Deref for OwnBroker {
    type Target = postrider_own_broker::OwnBroker;

    fn deref(&self) -> &Self::Target {
        &self.0
    }
}
