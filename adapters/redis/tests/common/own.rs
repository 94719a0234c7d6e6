//! A Redis of a test's own, which it may kill, freeze and set up as it likes.

use std::ops::Deref;

use postrider_own_broker::{OwnBroker, Server};

pub struct Own {
    pub port: u16,
    broker: OwnBroker,
}

impl Own {
    /// Starts one that keeps what it is told, with these settings on top, as on redis-server's command line.
    pub fn start(settings: &[&str]) -> Self {
        // In its file, each is a line. A path may have blanks.
        let line = |word: &&str| match word.strip_prefix("--") {
            Some(name) => format!("\n{name}"),
            None => format!(" \"{word}\""),
        };
        let lines: String = settings.iter().map(line).collect();
        let broker = OwnBroker::prepare(Server::Redis).with("POSTRIDER_TEST_REDIS_SETTINGS", lines);
        broker.up();
        Self {
            port: broker.port(),
            broker,
        }
    }

    /// Ends it with SIGKILL.
    pub fn kill(&self) {
        self.verb("kill");
    }

    /// Freezes it: connections stay open, nothing answers.
    pub fn pause(&self) {
        self.verb("pause");
    }

    pub fn resume(&self) {
        self.verb("resume");
    }

    /// Its URL, with credentials before the host and a query after it.
    pub fn url(&self, scheme: &str, credentials: &str, query: &str) -> String {
        format!("{scheme}://{credentials}127.0.0.1:{}{query}", self.port)
    }

    pub fn streams(&self, query: &str) -> String {
        self.url("redis", "", query)
    }

    pub fn pub_sub(&self, query: &str) -> String {
        self.url("redis+pubsub", "", query)
    }

    pub async fn raw(&self) -> redis::aio::MultiplexedConnection {
        super::raw_at(&self.streams("")).await
    }

    /// Runs a command as the administrator; `words` are its words.
    pub async fn tell(&self, words: &str) -> redis::Value {
        let mut words = words.split(' ');
        let mut command = redis::cmd(words.next().unwrap());
        for word in words {
            command.arg(word);
        }
        command.query_async(&mut self.raw().await).await.unwrap()
    }
}

impl Deref for Own {
    type Target = OwnBroker;

    fn deref(&self) -> &OwnBroker {
        &self.broker
    }
}
