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

    /// One that has rules of who may do what, and none yet: then everybody may do everything.
    pub fn with_acls() -> Self {
        let settings = [
            "authorizer.class.name=org.apache.kafka.metadata.authorizer.StandardAuthorizer",
            "allow.everyone.if.no.acl.found=true",
        ];
        Self::with(&settings)
    }

    /// One that wants this password of those who come by way of a proxy, of the user `user`.
    pub fn with_password(password: &str) -> Self {
        Self::with_password_and(password, &[])
    }

    /// The same, and the user may do nothing that no rule allows.
    pub fn with_password_and_rules(password: &str) -> Self {
        let settings = [
            "authorizer.class.name=org.apache.kafka.metadata.authorizer.StandardAuthorizer",
            "super.users=User:ANONYMOUS",
        ];
        Self::with_password_and(password, &settings)
    }

    fn with_password_and(password: &str, more: &[&str]) -> Self {
        let user = format!(
            "listener.name.proxied.plain.sasl.jaas.config=\
             org.apache.kafka.common.security.plain.PlainLoginModule required user_user=\"{password}\";"
        );
        let settings = [
            "listener.security.protocol.map=CLIENT:PLAINTEXT,PROXIED:SASL_PLAINTEXT,CONTROLLER:PLAINTEXT",
            "listener.name.proxied.sasl.enabled.mechanisms=PLAIN",
            &user,
        ];
        Self::with(&[&settings, more].concat())
    }

    /// One with settings of its own.
    pub fn with(settings: &[&str]) -> Self {
        let own = postrider_own_broker::OwnBroker::prepare(Server::Kafka);
        let own = own.with("POSTRIDER_TEST_KAFKA_SETTINGS", settings.join("\n"));
        own.up();
        Self(own)
    }

    /// Another broker of its cluster; whether it answers is the test's to see.
    pub fn second(&self) -> Self {
        let own = postrider_own_broker::OwnBroker::prepare(Server::Kafka);
        let settings = [
            "process.roles=broker".to_owned(),
            "node.id=2".to_owned(),
            format!("controller.quorum.voters=1@127.0.0.1:{}", self.controller_port()),
            format!(
                "listeners=CLIENT://127.0.0.1:{},PROXIED://127.0.0.1:{}",
                own.port(),
                own.behind_port()
            ),
        ];
        let own = own.with("POSTRIDER_TEST_KAFKA_SETTINGS", settings.join("\n"));
        own.verb("start");
        Self(own)
    }

    /// Its URL with more options.
    pub fn url_with(&self, options: &str) -> BrokerUrl {
        super::with_options(&format!("kafka://127.0.0.1:{}", self.port()), options)
    }

    /// A proxy before it, and the URL that leads through the proxy.
    pub async fn fenced(&self, options: &str) -> (Fence, BrokerUrl) {
        let port = self.proxy_port();
        let url = super::with_options(&format!("kafka://127.0.0.1:{port}"), options);
        (self.fence().await, url)
    }

    /// A proxy before it.
    pub async fn fence(&self) -> Fence {
        Fence::start(self.proxy_port(), self.behind_port()).await
    }
}

impl Deref for OwnBroker {
    type Target = postrider_own_broker::OwnBroker;

    fn deref(&self) -> &Self::Target {
        &self.0
    }
}
