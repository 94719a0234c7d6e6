//! Depths, as the server knows them.

use postrider_contract::{Error, Sharing, Spec, Status};
use redis::Value;

use crate::broker::Redis;
use crate::failure::{Failure, from_server, unexpected};
use crate::fields::bytes;
use crate::keys;
use crate::link::{COMMAND, Link};
use crate::scripts::Name;

impl Redis {
    pub(crate) async fn depths(&self, all: &[Spec]) -> Result<Vec<Status>, Error> {
        let mut depths = Vec::with_capacity(all.len());
        for spec in all {
            depths.push(self.depth(spec).await?);
        }
        Ok(depths)
    }

    async fn depth(&self, spec: &Spec) -> Result<Status, Error> {
        let topic = spec.topic();
        let mut status = Status::default();
        let mut ask = redis::pipe();
        if let Some(dead) = &spec.dead_letter {
            ask.cmd("XLEN").arg(keys::topic(dead));
        }
        if spec.sharing == Sharing::Group {
            ask.cmd("ZCARD").arg(keys::delayed(topic, &spec.group));
        }
        let answers = self
            .link
            .pipeline(&ask, COMMAND)
            .await
            .map_err(|failure| failure.error)?;
        let mut counts = Vec::new();
        for answer in answers {
            match answer {
                Value::Int(count) => counts.push(u64::try_from(count).unwrap_or(0)),
                Value::ServerError(error) => return Err(from_server(&error)),
                _ => counts.push(0),
            }
        }
        let mut counts = counts.into_iter();
        status.dead = spec.dead_letter.as_ref().and_then(|_| counts.next());
        if spec.sharing == Sharing::Broadcast {
            return Ok(status);
        }
        let delayed = counts.next().unwrap_or(0);
        let (arrived, inbox_unsettled) = self
            .of_stream(&keys::inbox(topic, &spec.group), &spec.group)
            .await?;
        if self.topics.is_stream(topic) {
            let (waiting, unsettled) = self.of_stream(&keys::topic(topic), &spec.group).await?;
            status.waiting = waiting;
            status.unsettled = Some(unsettled + inbox_unsettled);
            status.retrying = arrived.map(|arrived| arrived + delayed);
        } else {
            // Everything comes through the inbox.
            status.waiting = arrived;
            status.unsettled = Some(inbox_unsettled);
            status.retrying = Some(delayed);
        }
        Ok(status)
    }

    /// How many wait in a stream for a group, those that were given back with them, and how many are delivered and not
    /// settled.
    async fn of_stream(&self, key: &str, group: &str) -> Result<(Option<u64>, u64), Error> {
        let mut ask = self.link.script(Name::Depth, &[key]);
        // To the server, what was given back is pending still, under a name that nobody uses.
        ask.arg(group).arg(keys::RELEASED);
        let answer = self.link.run(&ask, COMMAND).await;
        let answer = answer.map_err(|failure| failure.error)?;
        let (waiting, unsettled): (i64, u64) = redis::from_redis_value(answer)
            .map_err(|_| unexpected("the depth script's answer is not understood"))?;
        Ok((u64::try_from(waiting).ok(), unsettled))
    }
}

/// The names of a stream's groups; none where there is no stream.
pub(crate) async fn groups_of(link: &Link, key: &str) -> Result<Vec<String>, Error> {
    let mut info = redis::cmd("XINFO");
    info.arg("GROUPS").arg(key);
    match link.run(&info, COMMAND).await {
        Ok(Value::Array(groups)) => Ok(groups.into_iter().filter_map(name).collect()),
        Ok(_) => Ok(Vec::new()),
        Err(failure) if is_missing(&failure) => Ok(Vec::new()),
        Err(failure) => Err(failure.error),
    }
}

/// Whether the answer is that there is no such key.
pub(crate) fn is_missing(failure: &Failure) -> bool {
    !failure.sent && failure.error.to_string().contains("no such key")
}

/// The name in one of the groups of a reply to `XINFO GROUPS`.
fn name(group: Value) -> Option<String> {
    let Value::Array(parts) = group else { return None };
    let mut parts = parts.into_iter();
    while let (Some(name), Some(value)) = (parts.next(), parts.next()) {
        if *bytes(name)? == *b"name" {
            return Some(String::from_utf8_lossy(&bytes(value)?).into_owned());
        }
    }
    None
}
