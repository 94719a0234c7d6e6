//! Depths, as the server knows them.

use postrider_contract::{Error, Sharing, Spec, Status};
use redis::Value;

use crate::broker::Redis;
use crate::failure::{Failure, from_server};
use crate::fields::bytes;
use crate::keys;
use crate::link::{COMMAND, Link};

/// Counted one by one, where the server does not know how many wait.
const COUNTED: usize = 1_000;

/// A consumer group, as `XINFO GROUPS` tells it.
#[derive(Debug, Default)]
pub(crate) struct Group {
    pub(crate) name: String,
    pending: u64,
    last: String,
    /// Redis 7 and later, and not always.
    lag: Option<u64>,
}

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
        let groups = groups_of(&self.link, key).await?;
        let found = groups.into_iter().find(|found| found.name == group);
        let Some(found) = found else {
            return Ok((Some(0), 0));
        };
        let waiting = match found.lag {
            Some(lag) => Some(lag),
            None => self.count_after(key, &found.last).await?,
        };
        // To the server they are pending still, under a name that nobody uses.
        let given_back = match found.pending {
            0 => 0,
            _ => self.given_back(key, group).await?,
        };
        Ok((
            waiting.map(|waiting| waiting + given_back),
            found.pending.saturating_sub(given_back),
        ))
    }

    /// How many were given back and wait for whoever looks next.
    async fn given_back(&self, key: &str, group: &str) -> Result<u64, Error> {
        let mut ask = redis::cmd("XPENDING");
        ask.arg(key).arg(group);
        let reply = self.link.run(&ask, COMMAND).await;
        Ok(pending_of(
            keys::RELEASED,
            reply.map_err(|failure| failure.error)?,
        ))
    }

    async fn count_after(&self, key: &str, last: &str) -> Result<Option<u64>, Error> {
        let mut range = redis::cmd("XRANGE");
        range
            .arg(key)
            .arg(format!("({last}"))
            .arg("+")
            .arg("COUNT")
            .arg(COUNTED + 1);
        let reply = self
            .link
            .run(&range, COMMAND)
            .await
            .map_err(|failure| failure.error)?;
        Ok(match reply {
            Value::Array(entries) if entries.len() <= COUNTED => Some(entries.len() as u64),
            _ => None,
        })
    }
}

/// How many are pending for this consumer, in a reply to `XPENDING` without a range.
fn pending_of(consumer: &str, reply: Value) -> u64 {
    let Value::Array(mut summary) = reply else {
        return 0;
    };
    let Some(Value::Array(consumers)) = summary.pop() else {
        return 0;
    };
    let count = |entry| {
        let Value::Array(entry) = entry else { return None };
        let [name, count] = <[Value; 2]>::try_from(entry).ok()?;
        if *bytes(name)? != *consumer.as_bytes() {
            return None;
        }
        std::str::from_utf8(&bytes(count)?).ok()?.parse().ok()
    };
    consumers.into_iter().find_map(count).unwrap_or(0)
}

/// The groups of a stream; none where there is no stream.
pub(crate) async fn groups_of(link: &Link, key: &str) -> Result<Vec<Group>, Error> {
    let mut info = redis::cmd("XINFO");
    info.arg("GROUPS").arg(key);
    match link.run(&info, COMMAND).await {
        Ok(reply) => Ok(groups(reply)),
        Err(failure) if is_missing(&failure) => Ok(Vec::new()),
        Err(failure) => Err(failure.error),
    }
}

/// Whether the answer is that there is no such key.
pub(crate) fn is_missing(failure: &Failure) -> bool {
    !failure.sent && failure.error.to_string().contains("no such key")
}

/// Reads a reply to `XINFO GROUPS`.
fn groups(reply: Value) -> Vec<Group> {
    let Value::Array(groups) = reply else {
        return Vec::new();
    };
    groups.into_iter().map(group).collect()
}

fn group(reply: Value) -> Group {
    let mut group = Group::default();
    let Value::Array(parts) = reply else { return group };
    let mut parts = parts.into_iter();
    while let (Some(name), Some(value)) = (parts.next(), parts.next()) {
        let number = match &value {
            Value::Int(number) => u64::try_from(*number).ok(),
            _ => None,
        };
        let text = || {
            bytes(value.clone()).map_or_else(String::new, |text| String::from_utf8_lossy(&text).into_owned())
        };
        match bytes(name).as_deref() {
            Some(b"name") => group.name = text(),
            Some(b"pending") => group.pending = number.unwrap_or(0),
            Some(b"last-delivered-id") => group.last = text(),
            Some(b"lag") => group.lag = number,
            _ => {}
        }
    }
    group
}
