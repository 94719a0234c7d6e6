//! Ordered groups: one instance reads for all of them, by a lease that it renews; the others stand by. Every read checks
//! the lease on the server, so that a former leader that wakes up reads nothing, nor does a read that arrives late.

use std::collections::HashSet;
use std::time::Duration;

use postrider_contract::Error;
use redis::Value;
use tokio::time::Instant;

use crate::failure::unexpected;
use crate::fields::bytes;
use crate::keys::SHARED;
use crate::link::COMMAND;
use crate::scripts::Name;
use crate::subscription::entry::{Entry, Stream};
use crate::subscription::lease::Lease;
use crate::subscription::reader::{Reader, Session};
use crate::subscription::table::Place;

/// Whose the lease of a group's readers is.
#[derive(Clone, Copy, PartialEq)]
enum Held {
    Others,
    Ours,
    WasFree,
}

impl Reader {
    /// One round of an ordered group: reads as its leader, or waits to become it.
    pub(crate) async fn lead_or_wait(&self, session: &mut Session) -> Result<(), Error> {
        let Some(lease) = &self.source.leader else {
            return Ok(());
        };
        let leading = self.is_leading();
        if !leading {
            // Also when the lease only ran out: another may have led in between.
            self.step_down();
        }
        if self.table.may_rest() {
            // Others may be idle: what was not handed out is theirs, and the lease.
            if leading {
                self.give_back(false).await?;
                self.resign().await;
            }
            self.idle(self.standby()).await;
            return Ok(());
        }
        let interval = if leading { self.lease / 4 } else { self.standby() };
        if session
            .courted
            .is_none_or(|courted| courted.elapsed() >= interval)
        {
            let sent = Instant::now();
            let answer = self.ask_for(&lease.key, lease.session(), &self.source.consumer, session);
            match answer.await? {
                held @ (Held::Ours | Held::WasFree) => {
                    let was_free = held == Held::WasFree;
                    if was_free {
                        // Whoever deleted it may have let another lead in between.
                        self.step_down();
                    }
                    self.table.lead_until(sent + self.lease);
                    if !leading || session.is_new || was_free {
                        // First what the former leader left, in its order; only then what is new.
                        let known = self.table.known();
                        session.backlog = self.pending(Duration::ZERO, None).await?;
                        if is_set_back(session.backlog.iter().copied(), &known) {
                            self.set_back();
                            self.table.lead_until(sent + self.lease);
                            session.backlog = self.pending(Duration::ZERO, None).await?;
                        }
                        session.is_new = false;
                        session.swept = Some(Instant::now());
                    }
                }
                Held::Others => self.step_down(),
            }
        }
        if !self.is_leading() {
            self.idle(self.standby()).await;
            return Ok(());
        }
        self.chores(session).await?;
        let room = self.table.room();
        if room == 0 {
            self.idle(self.lease / 8).await;
            return Ok(());
        }
        if !session.backlog.is_empty() {
            return self.take_from_backlog(session, room).await;
        }
        if session.swept.is_none_or(|swept| swept.elapsed() >= self.lease) {
            // What is settled while that is asked was handed out here.
            let known = self.table.known();
            session.backlog = self.pending(self.lease, None).await?;
            session.backlog.retain(|place| !known.contains(place));
            session.swept = Some(Instant::now());
            if !session.backlog.is_empty() {
                tracing::warn!(
                    topic = %self.source.topic, group = %self.source.group, count = session.backlog.len(),
                    "others have read for this group beside the one that keeps its order, and left messages: they come late",
                );
            }
            return Ok(());
        }
        self.read_as_leader(session, lease, room).await
    }

    /// Whether instances that share may read, as none reads in order: they have its lease together.
    pub(crate) async fn may_share(&self, session: &mut Session) -> Result<bool, Error> {
        let Some(key) = &self.source.shared else {
            return Ok(true);
        };
        if session.courted.is_some_and(|had| had.elapsed() < self.lease / 4) {
            return Ok(true);
        }
        let number = self.lease.as_millis() as u64;
        if self.ask_for(key, number, SHARED, session).await? != Held::Others {
            return Ok(true);
        }
        session.courted = None;
        // It takes up all that is pending.
        self.table.revoke(true);
        Ok(false)
    }

    /// Asks for the lease of the group's readers, for this holder.
    async fn ask_for(
        &self,
        key: &str,
        number: u64,
        holder: &str,
        session: &mut Session,
    ) -> Result<Held, Error> {
        let mut lead = self.link.script(Name::Lead, &[key]);
        lead.arg(number).arg(holder).arg(self.lease.as_millis() as u64);
        let answer = self.link.run(&lead, self.lease.min(COMMAND)).await;
        session.courted = Some(Instant::now());
        let (held, longest): (u8, u64) = redis::from_redis_value(answer.map_err(|failure| failure.error)?)
            .map_err(|_| unexpected("the lead script's answer is not understood"))?;
        session.longest = self.lease.max(Duration::from_millis(longest));
        if held == 3 && !session.told {
            let not = if holder == SHARED { "" } else { "not " };
            tracing::warn!(
                topic = %self.source.topic, group = %self.source.group,
                "instances of this group that are {not}`ordered` are running, or were until a moment ago: this one waits for them to end",
            );
            session.told = true;
        }
        Ok(match held {
            1 => Held::Ours,
            2 => Held::WasFree,
            _ => Held::Others,
        })
    }

    fn set_back(&self) {
        tracing::warn!(
            topic = %self.source.topic, group = %self.source.group,
            "the server has forgotten acknowledgements: what came after them is handled again",
        );
        self.table.revoke(true);
    }

    async fn read_as_leader(&self, session: &mut Session, lease: &Lease, room: usize) -> Result<(), Error> {
        let keys: Vec<&str> = std::iter::once(lease.key.as_str())
            .chain(self.source.streams().map(|(_, key)| key))
            .collect();
        let mut read = self.link.script(Name::ReadAsLeader, &keys);
        read.arg(lease.holder(&self.source.consumer))
            .arg(&*self.source.consumer)
            .arg(&*self.source.group);
        read.arg(self.pages.count(room, keys.len() - 1));
        let (epoch, sent) = (self.table.epoch(), Instant::now());
        let reply = self.link.run(&read, COMMAND).await.map_err(|failure| {
            self.pages.failed();
            failure.error
        })?;
        let Value::Array(parts) = reply else { return Ok(()) };
        let mut parts = parts.into_iter();
        if parts.next() != Some(Value::Int(1)) {
            self.step_down();
            return Ok(());
        }
        let mut entries = self.entries(parts.next().unwrap_or_default());
        if !entries.is_empty() {
            self.pages.came(&entries);
            // Where a failover has forgotten a read, what is here already comes once more.
            let known = self.table.known();
            if is_set_back(entries.iter().map(Entry::place), &known) {
                // They are pending now: in their order, as for a new leader.
                self.set_back();
                session.courted = None;
                return Ok(());
            }
            entries.retain(|entry| !known.contains(&entry.place()));
            self.table.add(epoch, entries, sent + self.lease);
            return Ok(());
        }
        // Nothing: wait for the first entry after where the group stands, and then read by the script.
        let Some(Value::Array(positions)) = parts.next() else {
            return Ok(());
        };
        let mut wait = redis::cmd("XREAD");
        wait.arg("COUNT")
            .arg(1)
            .arg("BLOCK")
            .arg(self.block().as_millis().max(1) as u64)
            .arg("STREAMS");
        wait.arg(&keys[1..]);
        for position in positions {
            wait.arg(bytes(position).as_deref().unwrap_or(b"$"));
        }
        self.blocking(session, &wait, self.block()).await?;
        Ok(())
    }

    fn is_leading(&self) -> bool {
        self.table
            .leads_until()
            .is_some_and(|until| until > Instant::now())
    }

    fn step_down(&self) {
        if self.table.leads_until().is_some() {
            tracing::warn!(topic = %self.source.topic, group = %self.source.group, "the lease is lost: another instance may read for this group now");
            self.table.revoke(true);
        }
    }

    /// Lets another instance lead at once.
    pub(crate) async fn resign(&self) {
        if let Some(lease) = &self.source.leader {
            let mut resign = self.link.script(Name::Resign, &[&lease.key]);
            resign.arg(lease.session()).arg(&*self.source.consumer);
            let _ = self.link.run(&resign, Duration::from_secs(2)).await;
        }
    }

    pub(crate) fn standby(&self) -> Duration {
        (self.lease / 4).min(Duration::from_millis(500))
    }
}

/// Whether something is pending that was not known, before something that was. What a lost connection leaves comes after it;
/// what was acknowledged comes before, where a failover has forgotten that.
fn is_set_back(mut pending: impl Iterator<Item = Place>, known: &HashSet<Place>) -> bool {
    let newest = [Stream::Topic, Stream::Inbox].map(|stream| {
        let of_it = known.iter().copied().filter(|(of, _)| *of == stream);
        of_it.max()
    });
    pending.any(|place| {
        let is_before = newest
            .iter()
            .flatten()
            .any(|last| last.0 == place.0 && place < *last);
        is_before && !known.contains(&place)
    })
}
