//! One consumer for each topic and group of this process, and the listeners that share it.

mod commit;
mod cut_off;
mod delay;
mod fetch;
mod gap;
mod health;
mod held_up;
mod lane;
mod leader;
mod life;
mod loss;
mod mailbox;
mod member;
mod renewal;
mod routes;
mod state;
mod stranded;
mod subscription;
#[cfg(test)]
mod tests;

use std::sync::Arc;

use postrider_contract::{Error, ErrorKind, Outgoing, Sharing, Spec, Subscription};
use tokio::sync::{Notify, watch};

use self::delay::Straggler;
use self::life::Life;
use self::routes::Routes;
use self::state::{Phase, Shared};
use self::subscription::{Inlet, Membership, Outlet};
use crate::inspector::Inspector;
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
        inspector: &Inspector,
    ) -> Result<(Self, Vec<Subscription>), Error> {
        let what = || format!("joining group `{name}`");
        let Some(spec) = specs.first() else {
            return Err(Error::new(ErrorKind::Internal, what()));
        };
        let shared = Arc::new(Shared::new(specs.len(), settings.prefetch));
        let routes = Routes::new(spec, specs.len(), outbox);
        let topics = routes.names().map(str::to_owned).collect();
        let life = Life {
            shared: shared.clone(),
            settings: settings.clone(),
            group: name.clone(),
            routes: Arc::new(routes),
            repair: repair.clone(),
            inspector: inspector.clone(),
        };
        let consumer = life.consumer()?;
        let (gone, left) = watch::channel(false);
        std::thread::Builder::new()
            .name(format!("kafka {name}"))
            .spawn(move || life.live(consumer, &gone))
            .map_err(|error| Error::new(ErrorKind::Internal, what()).with_source(error))?;
        let membership = Arc::new(Membership(shared.clone()));
        let subscriptions = (0..specs.len())
            .map(|mailbox| subscription(&membership, mailbox, outbox))
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

    /// Whether its last commit is behind it, and only the leaving left to do.
    pub(crate) fn has_committed(&self) -> bool {
        matches!(self.shared.lock().phase, Phase::Closed)
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

    /// Commits the positions on the return path again.
    pub(crate) fn refresh(&self) {
        let mut state = self.shared.lock();
        state.refresh_return_path();
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

fn subscription(membership: &Arc<Membership>, mailbox: usize, outbox: &Arc<Outbox>) -> Subscription {
    let shared = &membership.0;
    let news = shared
        .lock()
        .boxes
        .get(mailbox)
        .map(|mailbox| mailbox.news.clone());
    Subscription {
        receiver: Box::new(Inlet {
            membership: membership.clone(),
            mailbox,
            news: news.unwrap_or_default(),
        }),
        settler: Arc::new(Outlet {
            shared: shared.clone(),
            outbox: outbox.clone(),
        }),
    }
}
