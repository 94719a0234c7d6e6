//! The adapter's side of the contract.

use std::sync::{Arc, Mutex};
use std::time::Duration;

use async_trait::async_trait;
use postrider_contract::{
    Broker, Capabilities, Client, DeadLetters, Error, Guarantee, Outgoing, Problem, Receipt, Spec, Status,
    Subscription, Topology as Mode,
};
use tokio::sync::watch;
use tokio::time::{Instant, sleep, timeout, timeout_at};

use crate::dead_letters::RabbitDeadLetters;
use crate::fault;
use crate::ladder;
use crate::link::Link;
use crate::options::Settings;
use crate::outgoing::parcel;
use crate::publisher::Publisher;
use crate::quarantine::{PACE, Quarantine};
use crate::receiver::RabbitReceiver;
use crate::settler::RabbitSettler;
use crate::status::Depths;
use crate::subscription::{Shared, Subscribed};
use crate::topology::Topology;

/// Between two attempts at a plan.
const PAUSE: Duration = Duration::from_millis(250);

/// A close has so long at least.
const SHORTEST: Duration = Duration::from_millis(100);
/// So much of it is for disconnecting, at most.
const GOODBYE: Duration = Duration::from_millis(500);

/// A connected RabbitMQ broker.
pub(crate) struct RabbitBroker {
    capabilities: Capabilities,
    shared: Arc<Shared>,
    depths: Depths,
}

impl RabbitBroker {
    /// Connects, or fails within `connect_timeout`.
    pub(crate) async fn connect(url: &postrider_contract::BrokerUrl, client: Client) -> Result<Self, Error> {
        let settings = Settings::read(url, client)?;
        let intake = Link::new(settings.clone(), "receive");
        intake.first().await?;
        let lookout = Link::paced(settings.clone(), "look", PACE);
        let outlet = Link::new(settings.clone(), "publish");
        let topology = Arc::new(Topology::new(settings.layout.clone()));
        let publisher = Publisher::start(&settings, &outlet, &topology);
        Ok(Self {
            capabilities: Capabilities {
                system: "rabbitmq",
                guarantee: Guarantee::AtLeastOnce,
                ordered: true,
                broadcast: true,
                earliest: false,
                knows_receivers: true,
                counts_redeliveries: true,
                max_delay: ladder::LONGEST,
                max_hold: Some(settings.consumer_timeout),
                lease: None,
                max_payload: settings.max_payload,
            },
            shared: Arc::new(Shared {
                settings,
                topology,
                intake,
                lookout,
                outlet,
                publisher,
                closed: watch::Sender::new(false),
                quarantine: Quarantine::default(),
                unrouted: tokio::sync::Mutex::default(),
                subscribed: Mutex::default(),
            }),
            depths: Depths::default(),
        })
    }
}

#[async_trait]
impl Broker for RabbitBroker {
    fn capabilities(&self) -> &Capabilities {
        &self.capabilities
    }

    async fn plan(&self, all: &[Spec], mode: Mode) -> Result<(), Vec<Problem>> {
        let deadline = Instant::now() + self.shared.settings.connect_timeout;
        loop {
            let (problems, may_pass) = match self.shared.intake.get().await {
                Ok(live) => self.shared.topology.plan(&live, all, mode).await,
                Err(error) => {
                    let may_pass = error.is_retryable();
                    let listener = all
                        .first()
                        .map_or_else(|| "(none)".into(), |spec| spec.listener.clone());
                    let problem = Problem {
                        listener,
                        what: error.to_string(),
                        help: "see that the broker is up".into(),
                    };
                    (vec![problem], may_pass)
                }
            };
            if problems.is_empty() {
                return Ok(());
            }
            // A broker that is starting takes connections before its queues are there.
            if !may_pass || Instant::now() >= deadline {
                return Err(problems);
            }
            sleep(PAUSE).await;
        }
    }

    async fn open(&self, all: Vec<Spec>) -> Result<Vec<Subscription>, Error> {
        if self.shared.is_closed() {
            return Err(fault::closed());
        }
        let open = |spec| {
            let subscribed = Subscribed::new(self.shared.clone(), spec);
            Subscription {
                receiver: Box::new(RabbitReceiver::start(&subscribed)),
                settler: Arc::new(RabbitSettler::new(subscribed)),
            }
        };
        Ok(all.into_iter().map(open).collect())
    }

    async fn publish(&self, batch: Vec<Outgoing>) -> Vec<Result<Receipt, Error>> {
        let shared = &self.shared;
        let prepared = batch
            .into_iter()
            .map(|outgoing| parcel(&shared.settings, &shared.topology, outgoing, false))
            .collect();
        shared.publisher.send_prepared(prepared).await
    }

    fn dead_letters(&self, dead_letter_topic: &str, source: &str, group: &str) -> Box<dyn DeadLetters> {
        Box::new(RabbitDeadLetters::new(
            self.shared.clone(),
            dead_letter_topic,
            source,
            group,
        ))
    }

    async fn status(&self, all: &[Spec]) -> Result<Vec<Status>, Error> {
        self.depths.of(&self.shared, all).await
    }

    async fn close(&self, deadline: Duration) -> Result<(), Error> {
        let deadline = deadline.max(SHORTEST);
        let _ = timeout(deadline, self.shared.written()).await;
        // Receivers end with this, and with their channels what is unsettled goes back.
        self.shared.closed.send_replace(true);
        // What is still to be confirmed may take all of the time but what it takes to disconnect.
        let until = Instant::now() + deadline;
        self.shared
            .publisher
            .finish(deadline.saturating_sub(GOODBYE.min(deadline / 4)))
            .await;
        let _ = timeout_at(until, self.shared.disconnect()).await;
        Ok(())
    }
}
