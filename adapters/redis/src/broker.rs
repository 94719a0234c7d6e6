use std::sync::atomic::AtomicBool;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use async_trait::async_trait;
use postrider_contract::{
    Broker, BrokerUrl, Capabilities, Client, DeadLetters, DedupStore, Error, ErrorKind, Order, Outgoing,
    Problem, Receipt, Sharing, Spec, Status, Subscription, Topology,
};
use tokio::time::{Instant, sleep, timeout};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use crate::dead_letters::Letters;
use crate::dedup::Marks;
use crate::durability;
use crate::keys;
use crate::link::{Link, closed};
use crate::mover::{Kind, Mover, Route};
use crate::publish::Publisher;
use crate::pubsub::channel::Channel;
use crate::pubsub::gaps::Gaps;
use crate::pubsub::intake::Intake;
use crate::pubsub::queue::Queue;
use crate::settings::{Settings, Transport};
use crate::subscription::broadcast::BroadcastReader;
use crate::subscription::page::Pages;
use crate::subscription::reader::Reader;
use crate::subscription::receiver::TableReceiver;
use crate::subscription::settler::TableSettler;
use crate::subscription::source::Source;
use crate::subscription::table::{Part, Table};
use crate::topics::Topics;
use crate::trim::Trimmer;

/// Ten years: a sorted set holds a delay as long as the server exists.
const LONGEST_DELAY: Duration = Duration::from_secs(10 * 365 * 24 * 3600);

/// A connected Redis, by either transport.
pub(crate) struct Redis {
    pub(crate) settings: Arc<Settings>,
    client: Client,
    capabilities: Capabilities,
    pub(crate) link: Arc<Link>,
    pub(crate) topics: Arc<Topics>,
    mover: Arc<Mover>,
    publisher: Arc<Publisher>,
    trimmer: Arc<Trimmer>,
    pub(crate) mode: Mutex<Topology>,
    tables: Mutex<Vec<Arc<Table>>>,
    /// Receiving ends, and what is unsettled is given back.
    closing: CancellationToken,
    /// Everything ends.
    closed: CancellationToken,
    /// What must end before the connection does.
    tasks: TaskTracker,
}

impl Redis {
    pub(crate) async fn connect(url: &BrokerUrl, client: Client) -> Result<Arc<dyn Broker>, Error> {
        let settings = Arc::new(Settings::read(url)?);
        let link = Arc::new(Link::new(
            Arc::clone(&settings),
            &format!("{}:{}", client.application, client.instance),
        ));
        let ping = link.run(&redis::cmd("PING"), settings.connect_timeout).await;
        ping.map_err(|failure| failure.error)?;
        let guarantee = durability::guarantee(&link, &settings).await?;
        let streams = settings.transport == Transport::Streams;
        let capabilities = Capabilities {
            system: "redis",
            guarantee,
            ordered: streams,
            broadcast: true,
            earliest: streams,
            knows_receivers: !streams,
            counts_redeliveries: true,
            max_delay: LONGEST_DELAY,
            max_hold: None,
            lease: Some(settings.lease),
            max_payload: settings.max_payload,
        };
        let topics = Arc::new(Topics::new(settings.transport));
        let mover = Arc::new(Mover::new(Arc::clone(&link)));
        let publishing = if settings.wait_replicas == 0 {
            Arc::clone(&link)
        } else {
            // `WAIT` would hold up acknowledgements and leases.
            Arc::new(link.another())
        };
        let publisher = Arc::new(Publisher::new(
            publishing,
            Arc::clone(&settings),
            Arc::clone(&topics),
            Arc::clone(&mover),
        ));
        let trimmer = Arc::new(Trimmer::new(
            Arc::clone(&link),
            Arc::clone(&topics),
            settings.retention,
        ));
        let closed = CancellationToken::new();
        let (moving, trimming, until) = (Arc::clone(&mover), Arc::clone(&trimmer), closed.clone());
        tokio::spawn(async move { moving.run(until).await });
        let until = closed.clone();
        tokio::spawn(async move { trimming.run(until).await });
        let (keeping, until) = (Arc::clone(&publisher), closed.clone());
        tokio::spawn(async move { keeping.keep(until).await });
        Ok(Arc::new(Self {
            settings,
            client,
            capabilities,
            link,
            topics,
            mover,
            publisher,
            trimmer,
            mode: Mutex::new(Topology::Declare),
            tables: Mutex::default(),
            closing: CancellationToken::new(),
            closed,
            tasks: TaskTracker::new(),
        }))
    }

    fn subscribe(&self, spec: &Spec) -> Subscription {
        let topic = spec.topic();
        let is_stream = self.topics.is_stream(topic);
        let broadcast = spec.sharing == Sharing::Broadcast;
        let known = self.topics.get(topic);
        let source = Arc::new(Source::new(
            spec,
            Arc::clone(&self.client.instance),
            is_stream.then(|| known.key.clone()),
            known.holds_dead_letters(),
        ));
        let parts: &[Part] = match (is_stream, broadcast) {
            (true, _) => &[Part::Reader],
            (false, false) => &[Part::Reader, Part::Channel],
            (false, true) => &[Part::Channel],
        };
        let ordered = spec.order == Order::ByKey && !broadcast;
        let table = Arc::new(Table::new(
            Arc::clone(topic),
            source.in_flight,
            ordered,
            !broadcast,
            parts,
        ));
        self.tables
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .push(Arc::clone(&table));
        let stop = CancellationToken::new();
        if !is_stream {
            self.listen(&source, &table, &stop, broadcast);
        }
        if !broadcast {
            self.read(&source, &table, &stop);
        } else if is_stream {
            let reader = BroadcastReader {
                link: Arc::clone(&self.link),
                table: Arc::clone(&table),
                key: known.key.clone(),
                holds_dead_letters: known.holds_dead_letters(),
                pages: Pages::new(),
                stop: stop.clone(),
                closing: self.closing.clone(),
            };
            self.tasks.spawn(reader.run());
        }
        self.watch(spec, is_stream);
        Subscription {
            receiver: Box::new(TableReceiver {
                table: Arc::clone(&table),
                stop,
            }),
            settler: Arc::new(TableSettler {
                link: Arc::clone(&self.link),
                settings: Arc::clone(&self.settings),
                source,
                table,
                topics: Arc::clone(&self.topics),
                publisher: Arc::clone(&self.publisher),
                mover: Arc::clone(&self.mover),
                broadcast,
            }),
        }
    }

    /// Fills the table from streams.
    fn read(&self, source: &Arc<Source>, table: &Arc<Table>, stop: &CancellationToken) {
        let reader = Reader {
            link: Arc::clone(&self.link),
            source: Arc::clone(source),
            table: Arc::clone(table),
            lease: self.settings.lease,
            mode: *self.mode.lock().unwrap_or_else(PoisonError::into_inner),
            pages: Pages::new(),
            missed: Mutex::default(),
            stop: stop.clone(),
            closing: self.closing.clone(),
        };
        self.tasks.spawn(reader.run());
        self.trimmer.empty(source.inbox.clone());
    }

    /// Takes a channel's messages into the inbox, or to the table.
    fn listen(&self, source: &Arc<Source>, table: &Arc<Table>, stop: &CancellationToken, broadcast: bool) {
        let queue = Arc::new(Queue::new(self.settings.queue));
        let gaps = Arc::new(Mutex::new(Gaps::default()));
        let channel = Channel {
            link: Arc::clone(&self.link),
            topic: Arc::clone(&source.topic),
            table: Arc::clone(table),
            queue: Arc::clone(&queue),
            gaps: Arc::clone(&gaps),
            stop: stop.clone(),
            closing: self.closing.clone(),
        };
        let intake = Intake {
            link: Arc::clone(&self.link),
            source: Arc::clone(source),
            table: Arc::clone(table),
            queue,
            gaps,
            window: self.settings.claim_window,
            broadcast,
            closing: self.closing.clone(),
            warned: AtomicBool::new(false),
        };
        self.tasks.spawn(channel.run());
        self.tasks.spawn(intake.run());
    }

    /// Passes on what is due for this subscription.
    fn watch(&self, spec: &Spec, is_stream: bool) {
        let topic = spec.topic();
        if spec.sharing == Sharing::Group {
            self.mover.watch(Route {
                from: keys::delayed(topic, &spec.group),
                to: keys::inbox(topic, &spec.group),
                kind: Kind::Inbox,
            });
        }
        let (to, kind) = if is_stream {
            (keys::topic(topic), Kind::Stream)
        } else {
            (topic.to_string(), Kind::Channel)
        };
        self.mover.watch(Route {
            from: keys::scheduled(topic),
            to,
            kind,
        });
    }
}

#[async_trait]
impl Broker for Redis {
    fn capabilities(&self) -> &Capabilities {
        &self.capabilities
    }

    async fn plan(&self, all: &[Spec], mode: Topology) -> Result<(), Vec<Problem>> {
        self.check_and_declare(all, mode).await
    }

    async fn open(&self, all: Vec<Spec>) -> Result<Vec<Subscription>, Error> {
        if self.closing.is_cancelled() {
            return Err(closed());
        }
        Ok(all.iter().map(|spec| self.subscribe(spec)).collect())
    }

    async fn publish(&self, batch: Vec<Outgoing>) -> Vec<Result<Receipt, Error>> {
        if self.closing.is_cancelled() {
            return batch.iter().map(|_| Err(closed())).collect();
        }
        self.publisher.publish(batch).await
    }

    fn dead_letters(&self, dead_letter_topic: &str, source: &str, group: &str) -> Box<dyn DeadLetters> {
        Box::new(Letters::new(
            Arc::clone(&self.link),
            Arc::clone(&self.publisher),
            dead_letter_topic,
            source,
            group,
        ))
    }

    async fn status(&self, all: &[Spec]) -> Result<Vec<Status>, Error> {
        self.depths(all).await
    }

    fn dedup_store(&self) -> Option<Arc<dyn DedupStore>> {
        let (link, settings) = (Arc::clone(&self.link), Arc::clone(&self.settings));
        Some(Arc::new(Marks::new(link, settings)))
    }

    async fn close(&self, deadline: Duration) -> Result<(), Error> {
        let until = Instant::now() + deadline;
        self.closing.cancel();
        self.tasks.close();
        let left = || until.saturating_duration_since(Instant::now());
        while self.publisher.under_way() > 0 && !left().is_zero() {
            sleep(Duration::from_millis(2)).await;
        }
        let ended = timeout(left(), self.tasks.wait()).await;
        for table in self.tables.lock().unwrap_or_else(PoisonError::into_inner).iter() {
            table.close();
        }
        self.closed.cancel();
        self.publisher.disconnect();
        self.link.disconnect();
        ended.map_err(|_| {
            Error::new(
                ErrorKind::Unavailable,
                "Redis was left before everything was given back; others take it over when the lease ends",
            )
        })
    }
}

impl Drop for Redis {
    fn drop(&mut self) {
        self.closing.cancel();
        self.closed.cancel();
    }
}
