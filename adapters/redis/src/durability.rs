//! What this server keeps when it crashes, as far as it lets itself be asked.

use std::borrow::Cow;
use std::time::Duration;

use postrider_contract::{Error, ErrorKind, Guarantee};
use redis::Value;

use crate::failure::Failure;
use crate::fields::bytes;
use crate::link::{COMMAND, Link};
use crate::settings::{Settings, Transport};

const NOTHING_KEPT: &str = "Redis Pub/Sub keeps nothing: a group without a running instance, and an instance that is slow or \
    disconnected, miss what is published meanwhile; use redis:// (Streams) where nothing may be lost";

/// Asks the server what it is, refuses what cannot work, and states what can be promised.
pub(crate) async fn guarantee(link: &Link, settings: &Settings) -> Result<Guarantee, Error> {
    let mut ask = redis::pipe();
    for section in ["server", "cluster", "persistence", "memory"] {
        ask.cmd("INFO").arg(section);
    }
    for name in ["appendonly", "maxmemory-policy", "maxmemory"] {
        ask.cmd("CONFIG").arg("GET").arg(name);
    }
    let answers = link
        .pipeline(&ask, COMMAND)
        .await
        .map_err(|failure: Failure| failure.error)?;
    let told: Vec<(String, String)> = answers.into_iter().flat_map(pairs).collect();
    let value = |names: &[&str]| {
        told.iter()
            .find(|(name, _)| names.contains(&name.as_str()))
            .map(|(_, value)| value.as_str())
    };
    if value(&["cluster_enabled"]) == Some("1") {
        return Err(Error::new(
            ErrorKind::Unsupported,
            "this is a Redis Cluster, which is not supported: use a single primary",
        ));
    }
    if let Some(version) = value(&["redis_version"])
        && parsed(version) < (6, 2)
    {
        return Err(Error::new(
            ErrorKind::Unsupported,
            format!("this Redis is version {version}; 6.2 or later is needed"),
        ));
    }
    if settings.transport == Transport::PubSub {
        return Ok(Guarantee::AtMostOnce(NOTHING_KEPT.into()));
    }
    if settings.assume_durable {
        return Ok(Guarantee::AtLeastOnce);
    }
    let kept = value(&["appendonly", "aof_enabled"]);
    Ok(stated(
        kept,
        value(&["maxmemory"]),
        value(&["maxmemory-policy", "maxmemory_policy"]),
    ))
}

/// For how long the server has been up; very long where it does not tell.
pub(crate) async fn uptime(link: &Link) -> Duration {
    let answer = link.run(redis::cmd("INFO").arg("server"), COMMAND).await;
    let told = answer.map(pairs).unwrap_or_default();
    let uptime = told.iter().find(|(name, _)| name == "uptime_in_seconds");
    uptime
        .and_then(|(_, seconds)| seconds.parse().ok())
        .map_or(Duration::MAX, Duration::from_secs)
}

fn stated(kept: Option<&str>, maxmemory: Option<&str>, policy: Option<&str>) -> Guarantee {
    let at_most_once = |why: Cow<'static, str>| Guarantee::AtMostOnce(why);
    match kept {
        Some("yes" | "1") => {}
        None => {
            return at_most_once(
                "this Redis does not let its persistence be looked at: if it appends to a file (appendonly yes) and does \
                 not evict, say so with assume_durable=true in the URL"
                    .into(),
            );
        }
        Some(_) => {
            return at_most_once(
                "this Redis loses what it took since its last snapshot when it crashes: set `appendonly yes` in its \
                 configuration"
                    .into(),
            );
        }
    }
    let limited = maxmemory.is_none_or(|limit| limit != "0");
    match policy {
        Some(policy) if limited && policy.starts_with("allkeys") => at_most_once(
            format!("this Redis deletes messages when it is full (maxmemory-policy {policy}): set it to noeviction").into(),
        ),
        _ => Guarantee::AtLeastOnce,
    }
}

/// Names and values: of `INFO`, lines of `name:value`; of `CONFIG GET`, an array of both.
fn pairs(answer: Value) -> Vec<(String, String)> {
    match answer {
        Value::Array(parts) => {
            let texts: Vec<String> = parts.into_iter().filter_map(text).collect();
            texts
                .chunks_exact(2)
                .map(|pair| (pair[0].clone(), pair[1].clone()))
                .collect()
        }
        other => text(other)
            .unwrap_or_default()
            .lines()
            .filter_map(|line| line.split_once(':'))
            .map(|(name, value)| (name.to_owned(), value.trim().to_owned()))
            .collect(),
    }
}

fn text(value: Value) -> Option<String> {
    match value {
        Value::VerbatimString { text, .. } => Some(text),
        other => bytes(other).map(|bytes| String::from_utf8_lossy(&bytes).into_owned()),
    }
}

fn parsed(version: &str) -> (u32, u32) {
    let mut parts = version.split('.').map(|part| part.parse().unwrap_or(0));
    (parts.next().unwrap_or(0), parts.next().unwrap_or(0))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_promised() {
        assert_eq!(
            stated(Some("yes"), Some("0"), Some("allkeys-lru")),
            Guarantee::AtLeastOnce
        );
        assert_eq!(
            stated(Some("1"), Some("100"), Some("noeviction")),
            Guarantee::AtLeastOnce
        );
        for (kept, policy, says) in [
            (Some("yes"), "allkeys-lru", "noeviction"),
            (Some("no"), "noeviction", "appendonly yes"),
            (None, "noeviction", "assume_durable"),
        ] {
            match stated(kept, Some("100"), Some(policy)) {
                Guarantee::AtMostOnce(why) => assert!(why.contains(says), "{why}"),
                Guarantee::AtLeastOnce => panic!("{says}"),
            }
        }
        assert!(parsed("6.0.16") < (6, 2));
        assert!(parsed("7.0.15") >= (6, 2));
    }
}
