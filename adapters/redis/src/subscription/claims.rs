//! Entries that are pending already: this instance's own from before, and those of others that are gone.

use std::collections::{HashSet, VecDeque};
use std::time::Duration;

use postrider_contract::{Error, Event, Origin};
use redis::Value;
use tokio::time::Instant;

use crate::failure::unexpected;
use crate::fields::{self, FIRST};
use crate::keys::RELEASED;
use crate::link::COMMAND;
use crate::scripts::Name;
use crate::subscription::entry::{Entry, EntryId, Stream, entry_id};
use crate::subscription::lease::Lease;
use crate::subscription::page::PAGE_BYTES;
use crate::subscription::reader::{Reader, Session};
use crate::subscription::table::Place;

/// Asked for at once.
const PAGE: usize = 500;
/// What was given back counts as idle for longer, and what is leased for less: see scripts/give_back.lua.
pub(crate) const GIVEN_BACK: Duration = Duration::from_secs(12 * 3600);
/// A consumer that holds nothing and was not heard of for so long is forgotten.
const FORGET: Duration = Duration::from_secs(3600);

/// What a claim brought.
struct Claimed {
    entries: Vec<Entry>,
    deleted: u64,
    /// How many of the ids; the others did not fit.
    looked_at: usize,
}

impl Reader {
    /// What is pending for so long and not here, in order: of this consumer (from before a restart, or delivered by the server
    /// into a connection that broke), or of all.
    pub(crate) async fn pending(
        &self,
        idle: Duration,
        consumer: Option<&str>,
    ) -> Result<VecDeque<Place>, Error> {
        let mut places = VecDeque::new();
        for (stream, key) in self.source.streams() {
            let mut after = "-".to_owned();
            loop {
                let mut ask = redis::cmd("XPENDING");
                ask.arg(key).arg(&*self.source.group);
                ask.arg("IDLE").arg(idle.as_millis() as u64);
                ask.arg(&after).arg("+").arg(PAGE).arg(consumer);
                let page = self
                    .link
                    .run(&ask, COMMAND)
                    .await
                    .map_err(|failure| failure.error)?;
                let page = pending_ids(page);
                let Some(last) = page.last() else { break };
                after = format!("({last}");
                places.extend(page.into_iter().map(|id| (stream, id)));
            }
        }
        let known = self.table.known();
        places.retain(|place| !known.contains(place));
        let mut unanswered = self.pages.unanswered();
        if !unanswered.is_empty() {
            // The others have been settled since, by whoever took them up.
            let still: HashSet<&Place> = places.iter().collect();
            unanswered.retain(|place| still.contains(place));
        }
        drop(unanswered);
        Ok(places)
    }

    /// Takes up the next of the backlog, as far as there is room.
    pub(crate) async fn take_from_backlog(&self, session: &mut Session, room: usize) -> Result<(), Error> {
        let Some(&(stream, _)) = session.backlog.front() else {
            return Ok(());
        };
        let key = self.source.key(stream);
        let mut claim = match &self.source.leader {
            None => self.claim(&[key]),
            Some(lease) => self.claim(&[key, &lease.key]),
        };
        match &self.source.leader {
            None => claim.arg("mine"),
            Some(lease) => claim.arg("any").arg(lease.holder(&self.source.consumer)),
        };
        let of_stream = session.backlog.iter().take_while(|(of, _)| *of == stream);
        let ids: Vec<EntryId> = of_stream.take(self.page(room)).map(|(_, id)| *id).collect();
        let looked_at = self.take_up(stream, claim, &ids).await?;
        session.backlog.drain(..looked_at);
        Ok(())
    }

    /// Takes over what has been idle for so long, whoever's it is, as far as there is room. What is held here
    /// is left out: claiming it would raise its delivery count, and renew a lease that nobody asked to be renewed. Answers
    /// whether that was all: after a full page there are other things to do first.
    pub(crate) async fn sweep(&self, session: &mut Session, idle: Duration) -> Result<bool, Error> {
        let idle = idle.as_millis() as u64;
        for (stream, key) in self.source.streams() {
            let mut after = "-".to_owned();
            loop {
                let room = self.table.room();
                if room == 0 || self.stopped() {
                    return Ok(true);
                }
                let mut ask = redis::cmd("XPENDING");
                ask.arg(key).arg(&*self.source.group).arg("IDLE").arg(idle);
                ask.arg(&after).arg("+").arg(self.page(room));
                let page = self
                    .link
                    .run(&ask, COMMAND)
                    .await
                    .map_err(|failure| failure.error)?;
                let commands = self.link.generation();
                if session.commands != commands {
                    // The question has outlived an outage, which this session has not noticed yet.
                    session.commands = commands;
                    session.spares_until = Instant::now() + self.sparing();
                    return Ok(true);
                }
                let page = pending_ids(page);
                let Some(last) = page.last() else { break };
                after = format!("({last}");
                let known = self.table.known();
                let mut claim = self.claim(&[key]);
                claim.arg("idle").arg(idle);
                let ids: Vec<EntryId> = page
                    .into_iter()
                    .filter(|&id| !known.contains(&(stream, id)))
                    .collect();
                if self.take_up(stream, claim, &ids).await? < ids.len() {
                    return Ok(false);
                }
            }
        }
        Ok(true)
    }

    /// How many to claim at once.
    fn page(&self, room: usize) -> usize {
        self.pages.count(room, 1).min(PAGE)
    }

    fn claim(&self, keys: &[&str]) -> redis::Cmd {
        let mut claim = self.link.script(Name::Claim, keys);
        claim
            .arg(&*self.source.group)
            .arg(&*self.source.consumer)
            .arg(PAGE_BYTES);
        claim
    }

    /// Runs a claim of these and adds what it brought; answers how many of them that settles.
    async fn take_up(&self, stream: Stream, mut claim: redis::Cmd, ids: &[EntryId]) -> Result<usize, Error> {
        if ids.is_empty() {
            return Ok(0);
        }
        let mut first = Vec::with_capacity(ids.len());
        for &id in ids {
            if self.pages.unanswered().insert((stream, id)) {
                first.push(id);
                claim.arg(id.to_string());
            } else {
                claim.arg(format!("={id}"));
            }
        }
        let (epoch, sent) = (self.table.epoch(), Instant::now());
        let reply = match self.link.run(&claim, COMMAND).await {
            Ok(reply) => reply,
            Err(failure) => {
                if failure.sent {
                    self.pages.failed();
                } else {
                    self.answered(stream, &first);
                }
                return Err(failure.error);
            }
        };
        self.answered(stream, ids);
        let claimed = claimed(stream, reply)
            .ok_or_else(|| unexpected("the claim script's answer is not understood"))?;
        self.pages.came(&claimed.entries);
        self.tell_deleted(stream, claimed.deleted);
        self.table.add(epoch, claimed.entries, sent + self.lease);
        Ok(claimed.looked_at.clamp(1, ids.len()))
    }

    fn tell_deleted(&self, stream: Stream, lost: u64) {
        if lost > 0 && stream == Stream::Topic && !self.source.holds_dead_letters {
            tracing::error!(
                topic = %self.source.topic,
                group = %self.source.group,
                lost,
                "messages were deleted from the stream before this group had handled them"
            );
            self.table.tell(Event::Gap { lost: Some(lost) });
        }
    }

    fn answered(&self, stream: Stream, ids: &[EntryId]) {
        let mut unanswered = self.pages.unanswered();
        for &id in ids {
            unanswered.remove(&(stream, id));
        }
    }

    /// Renews leases; what turns out to be another's is lost.
    pub(crate) async fn renew(&self, places: &[Place]) -> Result<(), Error> {
        renew(&self.link, &self.source, &self.table, self.lease, places).await
    }

    /// The end: hands back what is not settled: all of it when this side closes, what was not handed out when it only stops.
    pub(crate) async fn leave(&self) {
        let all = self.closing.is_cancelled();
        while all && self.table.is_settling() {
            // Verdicts that are on their way count.
            tokio::time::sleep(Duration::from_millis(2)).await;
        }
        if let Err(error) = self.give_back(all).await {
            tracing::warn!(
                topic = %self.source.topic, %error,
                "unsettled messages could not be given back; others take them over when the lease ends"
            );
        }
        self.pass_on_orphans(all).await;
        if all {
            self.table.revoke(false);
        }
        // What is in hand still must be settled before another reads on behind it.
        if !self.table.is_held() {
            self.resign().await;
        }
    }

    /// Hands what waits here to whoever looks next; `all`: what is handed out and not settled, too.
    pub(crate) async fn give_back(&self, all: bool) -> Result<(), Error> {
        let waiting = self.table.take_waiting();
        for (stream, key) in self.source.streams() {
            let mut give = match &self.source.leader {
                None => self.link.script(Name::GiveBack, &[key]),
                Some(lease) => self.link.script(Name::GiveBack, &[key, &lease.key]),
            };
            give.arg(&*self.source.group)
                .arg(&*self.source.consumer)
                .arg(RELEASED);
            give.arg(self.source.leader.as_ref().map_or(0, Lease::session));
            give.arg(if all { "all" } else { "some" });
            let mut any = all;
            for ((_, id), count) in waiting.iter().filter(|((of, _), _)| *of == stream) {
                give.arg(id.to_string()).arg(count);
                any = true;
            }
            if any {
                let within = Duration::from_secs(2);
                let answer = self.link.run(&give, within).await;
                if let Value::Int(deleted) = answer.map_err(|failure| failure.error)? {
                    self.tell_deleted(stream, u64::try_from(deleted).unwrap_or(0));
                }
            }
        }
        Ok(())
    }

    /// What is gone from the server cannot be given back: others get a copy by the inbox.
    async fn pass_on_orphans(&self, all: bool) {
        let orphans = self.table.orphans(all);
        if orphans.is_empty() {
            return;
        }
        let mut copies = redis::pipe();
        for entry in &orphans {
            let mut copy = redis::cmd("XADD");
            copy.arg(&self.source.inbox).arg("*");
            if entry.origin == Origin::Topic {
                copy.arg(FIRST).arg(1);
            }
            fields::add_to(&mut copy, &entry.message);
            copies.add_command(copy);
        }
        let answers = self.link.pipeline(&copies, COMMAND).await.unwrap_or_default();
        let refused = |answer: &&Value| matches!(answer, Value::ServerError(_));
        let added = answers.len() - answers.iter().filter(refused).count();
        self.tell_deleted(Stream::Topic, (orphans.len() - added) as u64);
    }

    pub(crate) async fn forget_consumers(&self) -> Result<(), Error> {
        for (_, key) in self.source.streams() {
            let mut sweep = self.link.script(Name::Sweep, &[key]);
            sweep
                .arg(&*self.source.group)
                .arg(&*self.source.consumer)
                .arg(FORGET.as_millis() as u64);
            self.link
                .run(&sweep, COMMAND)
                .await
                .map_err(|failure| failure.error)?;
        }
        Ok(())
    }
}

/// Renews leases of entries in a table; what turns out to be another's is marked lost there.
pub(crate) async fn renew(
    link: &crate::link::Link,
    source: &crate::subscription::source::Source,
    table: &crate::subscription::table::Table,
    lease: Duration,
    places: &[Place],
) -> Result<(), Error> {
    for (stream, key) in source.streams() {
        let ids: Vec<EntryId> = places
            .iter()
            .filter(|(of, _)| *of == stream)
            .map(|(_, id)| *id)
            .collect();
        for ids in ids.chunks(PAGE) {
            let mut renew = link.script(Name::Renew, &[key]);
            renew.arg(&*source.group).arg(&*source.consumer);
            for id in ids {
                renew.arg(id.to_string());
            }
            let sent = Instant::now();
            let reply = link.run(&renew, COMMAND).await.map_err(|failure| failure.error)?;
            let (lost, deleted): (Vec<Value>, Vec<Value>) = redis::from_redis_value(reply)
                .map_err(|_| unexpected("the renew script's answer is not understood"))?;
            let places = |ids: Vec<Value>| -> HashSet<Place> {
                let ids = ids.into_iter().filter_map(entry_id);
                ids.map(|id| (stream, id)).collect()
            };
            let (lost, deleted) = (places(lost), places(deleted));
            if !deleted.is_empty() {
                tracing::error!(
                    topic = %source.topic,
                    group = %source.group,
                    count = deleted.len(),
                    "messages were deleted from the stream while this instance works on them; it goes on with its own copies"
                );
                table.orphan(&deleted);
            }
            let renewed = ids
                .iter()
                .map(|&id| (stream, id))
                .filter(|place| !lost.contains(place))
                .collect();
            table.renewed(&renewed, &lost, sent + lease);
        }
    }
    Ok(())
}

/// The ids in a reply to `XPENDING` with a range.
fn pending_ids(reply: Value) -> Vec<EntryId> {
    let Value::Array(pending) = reply else {
        return Vec::new();
    };
    let id = |one| match one {
        Value::Array(parts) => entry_id(parts.into_iter().next()?),
        _ => None,
    };
    pending.into_iter().filter_map(id).collect()
}

/// What the claim script answers.
fn claimed(stream: Stream, reply: Value) -> Option<Claimed> {
    let Value::Array(parts) = reply else { return None };
    let mut parts = parts.into_iter();
    let (Value::Array(entries), Value::Array(counts)) = (parts.next()?, parts.next()?) else {
        return None;
    };
    let (Value::Int(deleted), Value::Int(looked_at)) = (parts.next()?, parts.next()?) else {
        return None;
    };
    let count = |count: &Value| match count {
        Value::Int(count) => u32::try_from(*count).unwrap_or(u32::MAX),
        _ => 1,
    };
    let entries = entries
        .into_iter()
        .zip(counts.iter().map(count))
        .filter_map(|(entry, count)| Entry::read(stream, entry, count))
        .collect();
    Some(Claimed {
        entries,
        deleted: u64::try_from(deleted).unwrap_or(0),
        looked_at: usize::try_from(looked_at).ok()?,
    })
}
