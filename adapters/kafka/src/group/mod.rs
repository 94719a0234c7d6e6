//! One consumer for each topic and group of this process, and the listeners that share it.

mod commit;
mod delay;
mod fetch;
mod lane;
mod mailbox;
mod member;
mod routes;
mod state;
mod subscription;
#[cfg(test)]
mod tests;

use std::sync::Arc;
use std::time::Duration;

use postrider_contract::{Error, ErrorKind, Outgoing, Sharing, Spec, Subscription};
use rdkafka::config::FromClientConfigAndContext;
use rdkafka::consumer::{BaseConsumer, Consumer};
use tokio::sync::{Notify, watch};

use self::commit::{Which, commit};
use self::delay::Straggler;
use self::fetch::Fetcher;
use self::member::Member;
use self::routes::Routes;
use self::state::{Phase, Shared};
use self::subscription::{Inlet, Outlet};
use crate::failure::failure;
use crate::options::Settings;
use crate::outbox::Outbox;

/// A running consumer.
pub(crate) struct Group {
    name: String,
    /// The topic and the group whose inbox it reads.
    inbox: (Arc<str>, Arc<str>),
    shared: Arc<Shared>,
    left: watch::Receiver<bool>,
    ephemeral: bool,
    topics: Vec<String>,
}

impl Group {
    /// Joins a group for these listeners, which are all of it and on its topic: usually one. A subscription for each, in
    /// their order.
    pub(crate) fn join(
        name: String,
        specs: &[&Spec],
        settings: &Settings,
        outbox: &Arc<Outbox>,
        repair: &Arc<Notify>,
    ) -> Result<(Self, Vec<Subscription>), Error> {
        let what = || format!("joining group `{name}`");
        let Some(spec) = specs.first() else {
            return Err(Error::new(ErrorKind::Internal, what()));
        };
        let shared = Arc::new(Shared::new(specs.len(), settings.prefetch));
        let routes = Routes::new(spec, specs.len(), outbox);
        let topics = routes.names().map(str::to_owned).collect();
        let subscribed = routes.topic.name.clone();
        let member = Member {
            shared: shared.clone(),
            settings: settings.clone(),
            group: name.clone(),
            routes,
            repair: repair.clone(),
        };
        let consumer = BaseConsumer::from_config_and_context(&settings.consumer(&name), member)
            .map_err(|error| failure(&what(), &error))?;
        consumer
            .subscribe(&[&subscribed])
            .map_err(|error| failure(&what(), &error))?;

        let (gone, left) = watch::channel(false);
        let thread = {
            let (shared, interval) = (shared.clone(), settings.commit_interval);
            move || live(&shared, consumer, interval, &gone)
        };
        std::thread::Builder::new()
            .name(format!("kafka {name}"))
            .spawn(thread)
            .map_err(|error| Error::new(ErrorKind::Internal, what()).with_source(error))?;
        let subscriptions = (0..specs.len())
            .map(|mailbox| subscription(&shared, mailbox, outbox))
            .collect();
        let group = Self {
            inbox: (spec.topic().clone(), spec.group.clone()),
            ephemeral: spec.sharing == Sharing::Broadcast,
            name,
            shared,
            left,
            topics,
        };
        Ok((group, subscriptions))
    }

    /// Kafka's name of the group.
    pub(crate) fn name(&self) -> &str {
        &self.name
    }

    /// It belongs to this instance alone.
    pub(crate) fn is_ephemeral(&self) -> bool {
        self.ephemeral
    }

    /// Kafka's topics that it reads.
    pub(crate) fn topics(&self) -> &[String] {
        &self.topics
    }

    /// Asks the consumer to commit and leave.
    pub(crate) fn begin_leaving(&self) {
        self.shared.close();
    }

    /// Waits until it has left.
    pub(crate) async fn left(&self) {
        let mut left = self.left.clone();
        // An error: its thread is gone.
        let _ = left.wait_for(|left| *left).await;
    }

    /// Sends retries again, unchanged, that are due long after the thousands that came behind them: the position they keep
    /// back moves on.
    pub(crate) async fn move_stragglers(&self, outbox: &Outbox) {
        let stragglers = self.shared.lock().stragglers();
        if stragglers.is_empty() {
            return;
        }
        let (topic, group) = &self.inbox;
        let again = |straggler: &Straggler| {
            let copy = straggler.message.clone();
            Outgoing::to_inbox(topic.clone(), group.clone(), copy).not_before(straggler.due)
        };
        let copies: Vec<Outgoing> = stragglers.iter().map(again).collect();
        let sent = outbox.send(copies.iter().collect()).await;
        let mut state = self.shared.lock();
        for (straggler, sent) in stragglers.iter().zip(sent) {
            if sent.is_ok() {
                state.overtake(straggler);
            }
        }
        self.shared.wake(&mut state);
    }

    /// How far the return path is done and committed: topic, partition, offset.
    pub(crate) fn finished_retries(&self) -> Vec<(String, i32, i64)> {
        let state = self.shared.lock();
        let lanes = state
            .lanes
            .iter()
            .filter(|lane| lane.is_assigned() && lane.route.return_path);
        lanes
            .filter_map(|lane| Some((lane.route.name.clone(), lane.partition, lane.committed?)))
            .collect()
    }
}

fn subscription(shared: &Arc<Shared>, mailbox: usize, outbox: &Arc<Outbox>) -> Subscription {
    let news = shared
        .lock()
        .boxes
        .get(mailbox)
        .map(|mailbox| mailbox.news.clone());
    Subscription {
        receiver: Box::new(Inlet {
            shared: shared.clone(),
            mailbox,
            news: news.unwrap_or_default(),
        }),
        settler: Arc::new(Outlet {
            shared: shared.clone(),
            outbox: outbox.clone(),
        }),
    }
}

/// The consumer's thread, from joining to leaving.
fn live(
    shared: &Arc<Shared>,
    consumer: BaseConsumer<Member>,
    interval: Duration,
    gone: &watch::Sender<bool>,
) {
    let _told = Farewell { shared, gone };
    let consumer = Arc::new(consumer);
    let committing = {
        let (shared, consumer) = (shared.clone(), consumer.clone());
        let run = move || commit::run(&shared, &consumer, interval);
        std::thread::Builder::new()
            .name("kafka commits".to_owned())
            .spawn(run)
    };
    let Ok(committing) = committing else {
        return shared.fail(Error::new(ErrorKind::Internal, "no thread could be started"));
    };
    Fetcher::new(shared.clone(), consumer.clone()).run();
    shared.work.notify_all();
    if committing.join().is_err() {
        tracing::error!("the thread that commits to Kafka ended early");
    }
    if matches!(shared.lock().phase, Phase::Closing) {
        if let Err(error) = commit(shared, &consumer, Which::AllLeaving) {
            tracing::warn!(%error, "the last commit failed: some messages come twice");
        }
        let mut state = shared.lock();
        state.unassign_all();
        state.phase = Phase::Closed;
        state.wake_all();
    }
    // Leaves the group, and waits for that.
    drop(consumer);
}

/// Tells that the thread has ended, however it did.
struct Farewell<'a> {
    shared: &'a Shared,
    gone: &'a watch::Sender<bool>,
}

impl Drop for Farewell<'_> {
    fn drop(&mut self) {
        let open = !matches!(self.shared.lock().phase, Phase::Closed | Phase::Failed(_));
        if open {
            let text = "the thread of the Kafka consumer ended early";
            self.shared.fail(Error::new(ErrorKind::Internal, text));
        }
        self.gone.send_replace(true);
    }
}
