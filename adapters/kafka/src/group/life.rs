//! The life of a group's consumer: its threads, and a new consumer in place of one that reaches no broker any more.

use std::sync::Arc;
use std::time::Duration;

use postrider_contract::{Error, ErrorKind};
use rdkafka::config::FromClientConfigAndContext;
use rdkafka::consumer::{BaseConsumer, Consumer};
use tokio::sync::{Notify, watch};

use super::commit::{self, Which, commit};
use super::cut_off::Watch;
use super::fetch::Fetcher;
use super::member::Member;
use super::routes::Routes;
use super::state::{Phase, Shared};
use crate::failure::failure;
use crate::inspector::Inspector;
use crate::options::Settings;

/// After a consumer could not be made anew.
const PAUSE: Duration = Duration::from_secs(1);

/// What a group's consumer is made of.
pub(crate) struct Life {
    pub(crate) shared: Arc<Shared>,
    pub(crate) settings: Settings,
    /// Kafka's name of the group.
    pub(crate) group: String,
    pub(crate) routes: Arc<Routes>,
    /// Asks for topics to be made again.
    pub(crate) repair: Arc<Notify>,
    /// Tells whether the broker is away, or only our consumer cut off from it.
    pub(crate) inspector: Inspector,
}

impl Life {
    /// A consumer that joins the group.
    pub(crate) fn consumer(&self) -> Result<BaseConsumer<Member>, Error> {
        let what = || format!("joining group `{}`", self.group);
        let member = Member {
            shared: self.shared.clone(),
            settings: self.settings.clone(),
            group: self.group.clone(),
            routes: self.routes.clone(),
            repair: self.repair.clone(),
            generation: self.shared.lock().generation,
        };
        let config = self.settings.member(&self.group);
        let consumer = BaseConsumer::from_config_and_context(&config, member)
            .map_err(|error| failure(&what(), &error))?;
        consumer
            .subscribe(&[&self.routes.topic.name])
            .map_err(|error| failure(&what(), &error))?;
        Ok(consumer)
    }

    /// The consumer's thread, from joining to leaving.
    pub(crate) fn live(&self, first: BaseConsumer<Member>, gone: &watch::Sender<bool>) {
        let shared = &self.shared;
        let _told = Farewell { shared, gone };
        let mut consumer = Arc::new(first);
        loop {
            self.work(&consumer);
            if !shared.lock().is_open() {
                break;
            }
            tracing::warn!(
                group = self.group,
                "the Kafka consumer reached no broker while others did, and is made anew"
            );
            shared.lock().lose_everything();
            dismiss(consumer);
            consumer = match self.again() {
                Some(consumer) => Arc::new(consumer),
                None => return self.leave(None),
            };
        }
        self.leave(Some(&consumer));
        // Leaves the group, and waits for that.
        drop(consumer);
    }

    /// Fetches and commits until the consumer is to leave, or is cut off.
    fn work(&self, consumer: &Arc<BaseConsumer<Member>>) {
        let (shared, settings) = (&self.shared, &self.settings);
        let (interval, patience) = (settings.commit_interval, settings.session_timeout);
        let committing = {
            let (shared, consumer) = (shared.clone(), consumer.clone());
            let watch = Watch::new(self.inspector.clone());
            let run = move || commit::run(&shared, &consumer, interval, patience, watch);
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
    }

    /// A consumer in place of the one before; `None`: the group is to be left meanwhile.
    fn again(&self) -> Option<BaseConsumer<Member>> {
        loop {
            match self.consumer() {
                Ok(consumer) => return Some(consumer),
                Err(error) => tracing::warn!(%error, "a Kafka consumer cannot be made anew"),
            }
            if !commit::pause(&self.shared, PAUSE) {
                return None;
            }
        }
    }

    /// The last commit, if the group is left on purpose.
    fn leave(&self, consumer: Option<&Arc<BaseConsumer<Member>>>) {
        let shared = &self.shared;
        if !matches!(shared.lock().phase, Phase::Closing) {
            return;
        }
        let committed = consumer.map(|consumer| commit(shared, consumer, Which::AllLeaving));
        if let Some(Err(error)) = committed {
            tracing::warn!(%error, "the last commit failed: some messages come twice");
        }
        let mut state = shared.lock();
        state.unassign_all();
        state.phase = Phase::Closed;
        state.wake_all();
    }
}

/// Closes a consumer that is needed no more. It waits for a broker that it may not reach: not on our time.
fn dismiss(consumer: Arc<BaseConsumer<Member>>) {
    let closing = std::thread::Builder::new()
        .name("kafka farewell".to_owned())
        .spawn(move || {
            drop(consumer);
            tracing::debug!(target: "postrider::kafka", "a consumer that reached no broker is closed");
        });
    if let Err(error) = closing {
        tracing::warn!(%error, "no thread could be started to close a Kafka consumer");
    }
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
