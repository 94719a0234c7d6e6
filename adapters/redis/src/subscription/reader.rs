//! Keeps a table filled, on a connection of its own because it blocks there.

use std::collections::VecDeque;
use std::pin::pin;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use postrider_contract::{Backoff, Error, ErrorKind, Event, Topology};
use redis::aio::MultiplexedConnection;
use redis::{Cmd, Value};
use tokio::time::{Instant, timeout};
use tokio_util::sync::CancellationToken;

use crate::durability::uptime;
use crate::failure::{Failure, checked};
use crate::link::{COMMAND, Dedicated, Link};
use crate::subscription::claims::GIVEN_BACK;
use crate::subscription::entry::{Entry, Stream};
use crate::subscription::page::Pages;
use crate::subscription::source::Source;
use crate::subscription::stand::{Missed, Stand};
use crate::subscription::table::{Part, Place, Table};

/// What a blocking read may take longer than it blocks.
const GRACE: Duration = Duration::from_secs(5);

/// Reads one subscription's streams into its table.
pub(crate) struct Reader {
    pub(crate) link: Arc<Link>,
    pub(crate) source: Arc<Source>,
    pub(crate) table: Arc<Table>,
    pub(crate) lease: Duration,
    pub(crate) mode: Topology,
    pub(crate) pages: Pages,
    /// What was deleted before the group had it and is told already.
    pub(crate) missed: Mutex<Missed>,
    /// Stop fetching; what is handed out stays.
    pub(crate) stop: CancellationToken,
    /// This side closes: give back everything.
    pub(crate) closing: CancellationToken,
}

/// A connection to read by, and what happens on it from time to time.
pub(crate) struct Session {
    pub(crate) connection: MultiplexedConnection,
    id: Option<i64>,
    /// Which of the hosts: the one that commands go to, as long as this lasts.
    host: usize,
    /// Pending already, and to be handed out before anything new.
    pub(crate) backlog: VecDeque<Place>,
    pub(crate) swept: Option<Instant>,
    /// The longest lease of the instances that share.
    pub(crate) longest: Duration,
    /// Which stream was asked first when there was room for one.
    turn: usize,
    /// Until then others may not have renewed what nobody could renew: they connect again as this side did.
    pub(crate) spares_until: Instant,
    /// Which connection commands go by, made again by whoever comes first after an outage.
    pub(crate) commands: u64,
    refreshed: Instant,
    tidied: Instant,
    /// When it was last asked what others have deleted.
    looked: Option<Instant>,
    /// Ordered: what is pending was not looked at on this connection.
    pub(crate) is_new: bool,
    /// When the lease of the group's readers was last asked for; where instances share, only while they have it.
    pub(crate) courted: Option<Instant>,
    /// It was told that this side waits for instances whose `ordered` is another one.
    pub(crate) told: bool,
}

impl Reader {
    pub(crate) async fn run(self) {
        let mut failures = 0;
        while !self.stopped() {
            let Err(error) = self.session(&mut failures).await else {
                break;
            };
            if is_fatal(&error) {
                self.table.fail(error);
                break;
            }
            self.table.down(Part::Reader, error);
            failures += 1;
            tokio::select! {
                () = tokio::time::sleep(Backoff::RECONNECT.wait(failures)) => {}
                () = self.stop.cancelled() => {}
                () = self.closing.cancelled() => {}
            }
        }
        self.leave().await;
    }

    pub(crate) fn stopped(&self) -> bool {
        self.stop.is_cancelled() || self.closing.is_cancelled()
    }

    /// Reads until this side stops, or something fails.
    async fn session(&self, failures: &mut u32) -> Result<(), Error> {
        if let Some(lease) = &self.source.leader {
            lease.begin();
        }
        let Dedicated { connection, id, host } = tokio::select! {
            made = self.link.beside() => made?,
            () = self.stop.cancelled() => return Ok(()),
            () = self.closing.cancelled() => return Ok(()),
        };
        // One that starts may not have seen the outage.
        let since = match failures {
            0 => uptime(&self.link).await,
            _ => Duration::ZERO,
        };
        let spares = self.sparing().saturating_sub(since);
        let now = Instant::now();
        let mut session = Session {
            connection,
            id,
            host,
            backlog: VecDeque::new(),
            swept: None,
            longest: self.lease,
            turn: 0,
            spares_until: now + spares,
            commands: self.link.generation(),
            refreshed: now,
            tidied: now,
            looked: None,
            is_new: true,
            courted: None,
            told: false,
        };
        self.declare_again().await?;
        if self.source.leader.is_none() {
            let known: Vec<Place> = self.table.known().into_iter().collect();
            self.renew(&known).await?;
            session.backlog = self.pending(Duration::ZERO, Some(&self.source.consumer)).await?;
        }
        self.try_to_write().await?;
        self.table.up(Part::Reader);
        *failures = 0;
        while !self.stopped() {
            self.link.still_beside(session.host)?;
            if self.source.leader.is_some() {
                self.lead_or_wait(&mut session).await?;
            } else {
                self.follow(&mut session).await?;
            }
        }
        Ok(())
    }

    /// How long what others hold is spared after an outage.
    pub(crate) fn sparing(&self) -> Duration {
        self.lease / 3 + Backoff::RECONNECT.cap
    }

    /// One round of a group whose instances share.
    async fn follow(&self, session: &mut Session) -> Result<(), Error> {
        if !self.may_share(session).await? {
            self.idle(self.standby()).await;
            return Ok(());
        }
        if self.table.is_paused() {
            // Others may be idle: what was not handed out is theirs, and what is left of it is swept up afterwards.
            self.give_back(false).await?;
            session.swept = None;
            self.idle(self.block()).await;
            return Ok(());
        }
        self.chores(session).await?;
        let room = self.table.room();
        if room == 0 {
            self.idle(self.chore_interval()).await;
            return Ok(());
        }
        if !session.backlog.is_empty() {
            return self.take_from_backlog(session, room).await;
        }
        if session
            .swept
            .is_none_or(|swept| swept.elapsed() >= self.chore_interval())
        {
            let idle = if session.spares_until > Instant::now() {
                GIVEN_BACK
            } else {
                session.longest
            };
            session.swept = self.sweep(session, idle).await?.then(Instant::now);
            return Ok(());
        }
        let streams: Vec<Stream> = self.source.streams().map(|(stream, _)| stream).collect();
        if room == 1 && streams.len() > 1 {
            // `COUNT` is per stream: with both there would be two. So they take turns.
            session.turn = (session.turn + 1) % streams.len();
            let one = &streams[session.turn..=session.turn];
            if self.read(session, one, 1, None).await? > 0 {
                return Ok(());
            }
        }
        let each = self.pages.count(room, streams.len());
        self.read(session, &streams, each, Some(self.block())).await?;
        Ok(())
    }

    /// What has to be done now and then, whatever else is.
    pub(crate) async fn chores(&self, session: &mut Session) -> Result<(), Error> {
        if self.source.leader.is_none() && session.refreshed.elapsed() >= self.lease / 6 {
            let ending = self.table.waiting_until(Instant::now() + self.lease * 2 / 3);
            self.renew(&ending).await?;
            session.refreshed = Instant::now();
        }
        if session.tidied.elapsed() >= Duration::from_secs(600) {
            self.forget_consumers().await?;
            session.tidied = Instant::now();
        }
        if session
            .looked
            .is_none_or(|looked| looked.elapsed() >= self.chore_interval())
        {
            self.tell_unread().await?;
            session.looked = Some(Instant::now());
        }
        Ok(())
    }

    /// Tells of what others have deleted before the group had it. Each of its instances does.
    async fn tell_unread(&self) -> Result<(), Error> {
        let Some(key) = self
            .source
            .stream
            .as_ref()
            .filter(|_| !self.source.holds_dead_letters)
        else {
            return Ok(());
        };
        let stand = Stand::of(&self.link, key, &self.source.group).await?;
        let misses_more = stand.misses_more(&mut self.missed.lock().unwrap_or_else(PoisonError::into_inner));
        if misses_more {
            tracing::error!(
                topic = %self.source.topic,
                group = %self.source.group,
                "messages were deleted from the stream before this group had them"
            );
            self.table.tell(Event::Gap { lost: None });
        }
        Ok(())
    }

    /// How long a read blocks: not so long that the chores wait.
    pub(crate) fn block(&self) -> Duration {
        (self.lease / 8).min(Duration::from_secs(1))
    }

    fn chore_interval(&self) -> Duration {
        (self.lease / 4).min(Duration::from_secs(1))
    }

    /// Until there is room, or a while has passed.
    pub(crate) async fn idle(&self, at_most: Duration) {
        tokio::select! {
            () = self.table.freed.notified() => {}
            () = tokio::time::sleep(at_most) => {}
            () = self.stop.cancelled() => {}
            () = self.closing.cancelled() => {}
        }
    }

    /// Reads what was never delivered, into the table; says how many it was.
    async fn read(
        &self,
        session: &mut Session,
        streams: &[Stream],
        count: usize,
        block: Option<Duration>,
    ) -> Result<usize, Error> {
        let mut read = redis::cmd("XREADGROUP");
        read.arg("GROUP")
            .arg(&*self.source.group)
            .arg(&*self.source.consumer);
        read.arg("COUNT").arg(count);
        if let Some(block) = block {
            read.arg("BLOCK").arg(block.as_millis().max(1) as u64);
        }
        read.arg("STREAMS");
        for &stream in streams {
            read.arg(self.source.key(stream));
        }
        for _ in streams {
            read.arg(">");
        }
        let (epoch, sent) = (self.table.epoch(), Instant::now());
        let reply = self.blocking(session, &read, block.unwrap_or_default()).await;
        let entries = self.entries(reply.inspect_err(|_| self.pages.failed())?);
        self.pages.came(&entries);
        let count = entries.len();
        self.table.add(epoch, entries, sent + self.lease);
        Ok(count)
    }

    /// Runs a command that may block for so long, and cuts it short when this side stops or pauses.
    pub(crate) async fn blocking(
        &self,
        session: &mut Session,
        command: &Cmd,
        block: Duration,
    ) -> Result<Value, Error> {
        let within = block + GRACE;
        let (id, host) = (session.id, session.host);
        let mut reply = pin!(timeout(within, session.connection.send_packed_command(command)));
        let reply = tokio::select! {
            reply = &mut reply => reply,
            () = async {
                tokio::select! {
                    () = self.stop.cancelled() => {}
                    () = self.closing.cancelled() => {}
                    () = self.table.hushed.notified() => {}
                }
            } => {
                // Not dropped: what the server delivers at this moment would be neither handed out nor given back.
                // On another host the id would be somebody else's.
                if let Some(id) = id
                    && self.link.still_beside(host).is_ok()
                {
                    let mut unblock = redis::cmd("CLIENT");
                    unblock.arg("UNBLOCK").arg(id);
                    let _ = self.link.run(&unblock, Duration::from_secs(1)).await;
                }
                reply.await
            }
        };
        let reply = reply.map_err(|_| Failure::silent(within).error)?;
        checked(reply.map_err(|error| Failure::of(&error).error)?)
    }

    /// The entries in a reply to `XREADGROUP`.
    pub(crate) fn entries(&self, reply: Value) -> Vec<Entry> {
        let Value::Array(streams) = reply else {
            return Vec::new();
        };
        let mut entries = Vec::new();
        for stream in streams {
            let Value::Array(parts) = stream else { continue };
            let mut parts = parts.into_iter();
            let (Some(Value::BulkString(key)), Some(Value::Array(found))) = (parts.next(), parts.next())
            else {
                continue;
            };
            let stream = if key == self.source.inbox.as_bytes() {
                Stream::Inbox
            } else {
                Stream::Topic
            };
            entries.reserve(found.len());
            entries.extend(
                found
                    .into_iter()
                    .filter_map(|entry| Entry::read(stream, entry, 1)),
            );
        }
        entries
    }

    /// What reads writes, too: a server that only answers questions is of no use. This claims an entry that cannot be.
    async fn try_to_write(&self) -> Result<(), Error> {
        let mut claims = redis::pipe();
        for (_, key) in self.source.streams() {
            let claim = claims.cmd("XCLAIM").arg(key).arg(&*self.source.group);
            claim.arg(&*self.source.consumer).arg(0).arg("0-0").arg("JUSTID");
        }
        let answers = self.link.pipeline(&claims, COMMAND).await;
        for answer in answers.map_err(|failure| failure.error)? {
            checked(answer)?;
        }
        Ok(())
    }

    /// Makes streams and groups that have vanished since they were declared.
    async fn declare_again(&self) -> Result<(), Error> {
        if self.mode == Topology::Verify {
            return Ok(());
        }
        let missing = self.missing().await?;
        let mut create = redis::pipe();
        for (_, key) in &missing {
            // From the beginning: what was published since it vanished is not to be missed.
            create
                .cmd("XGROUP")
                .arg("CREATE")
                .arg(key)
                .arg(&*self.source.group)
                .arg("0")
                .arg("MKSTREAM");
        }
        let answers = self
            .link
            .pipeline(&create, COMMAND)
            .await
            .map_err(|failure| failure.error)?;
        for ((stream, key), answer) in missing.into_iter().zip(answers) {
            match answer {
                Value::ServerError(error) if error.code() == "BUSYGROUP" => {}
                Value::ServerError(error) => return Err(crate::failure::from_server(&error)),
                _ => {
                    tracing::error!(key, group = %self.source.group, "the group had vanished from the server; made again");
                    if stream == Stream::Topic && !self.source.holds_dead_letters {
                        self.table.tell(Event::Gap { lost: None });
                    }
                }
            }
        }
        Ok(())
    }

    /// The streams without the group. Asked first: a server at its maxmemory refuses to make a group that it has.
    async fn missing(&self) -> Result<Vec<(Stream, &str)>, Error> {
        let mut missing = Vec::new();
        for (stream, key) in self.source.streams() {
            let groups = crate::status::groups_of(&self.link, key).await?;
            if !groups.iter().any(|group| *group == *self.source.group) {
                missing.push((stream, key));
            }
        }
        Ok(missing)
    }
}

/// What does not mend by trying again.
pub(crate) fn is_fatal(error: &Error) -> bool {
    matches!(
        error.kind(),
        ErrorKind::Denied | ErrorKind::Unsupported | ErrorKind::Config
    )
}
