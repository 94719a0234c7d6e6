//! Which messages a group has handled: a key for each, which expires.

use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use postrider_contract::{DedupScope, DedupStore, Error};
use redis::{Cmd, Value};

use crate::failure::{Failure, unexpected};
use crate::keys;
use crate::link::{COMMAND, Link};
use crate::scripts::Name;
use crate::settings::Settings;

/// A hundred years: past that the server refuses a time to live.
const LONGEST_WINDOW: Duration = Duration::from_secs(100 * 365 * 24 * 3600);

/// On the connection that all commands share, so that what many lanes ask at once travels together.
pub(crate) struct Marks {
    link: Arc<Link>,
    settings: Arc<Settings>,
}

impl Marks {
    pub(crate) fn new(link: Arc<Link>, settings: Arc<Settings>) -> Self {
        Self { link, settings }
    }

    async fn run(&self, command: &Cmd) -> Result<Value, Error> {
        let answer = self.link.run(command, COMMAND).await;
        answer.map_err(|Failure { error, .. }| error)
    }
}

#[async_trait]
impl DedupStore for Marks {
    async fn seen(&self, scope: DedupScope<'_>, id: &[u8]) -> Result<bool, Error> {
        let mut ask = redis::cmd("EXISTS");
        ask.arg(keys::handled(scope.topic, scope.group, id));
        match self.run(&ask).await? {
            Value::Int(count) => Ok(count > 0),
            _ => Err(unexpected("EXISTS did not answer with a number")),
        }
    }

    async fn mark(&self, scope: DedupScope<'_>, id: &[u8], window: Duration) -> Result<(), Error> {
        let window = window.min(LONGEST_WINDOW).as_millis().max(1) as u64;
        let key = keys::handled(scope.topic, scope.group, id);
        let mut mark = self.link.script_of(Name::Mark, &key);
        mark.arg(window);
        self.run(&mark).await.map(drop)
    }

    fn describe(&self) -> String {
        format!("in Redis at {}, shared by all instances", self.settings.shown)
    }
}
