//! What the broker itself says: dead letters and depths, by a connection of the driver's own.

use std::collections::HashSet;
use std::sync::Arc;
use std::time::Duration;

use postrider::Message as _;
use postrider::contract::{Broker, Order, Sharing, Source, Spec, Start, names};

use crate::Result;
use crate::system::System;
use crate::work::{GROUP, Step, Work};

/// The topics that are listened to.
pub(crate) fn topics(system: System) -> Vec<&'static str> {
    if system.is_ordered() {
        vec![Work::TOPIC, Step::TOPIC]
    } else {
        vec![Work::TOPIC]
    }
}

pub(crate) struct Inspector {
    system: System,
    broker: Arc<dyn Broker>,
}

/// How much is left to do, where the broker can tell.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct Depth {
    pub(crate) waiting: u64,
    pub(crate) unsettled: u64,
    /// `None`: it does not tell.
    pub(crate) retrying: Option<u64>,
}

impl Depth {
    pub(crate) fn is_empty(self) -> bool {
        self.waiting + self.unsettled + self.retrying.unwrap_or(0) == 0
    }
}

impl Inspector {
    pub(crate) async fn connect(system: System, url: &str) -> Result<Self> {
        let broker = system.connect(url, "inspector").await?;
        Ok(Self { system, broker })
    }

    /// The ids of all dead letters.
    pub(crate) async fn dead(&self) -> Result<HashSet<u64>> {
        let mut ids = HashSet::new();
        for topic in topics(self.system) {
            let dead_letter_topic = names::dead_letter_topic(topic, GROUP);
            let mut letters = self.broker.dead_letters(&dead_letter_topic, topic, GROUP);
            let mut after = None;
            loop {
                let page = letters.browse(after.as_ref(), 500).await?;
                let Some(last) = page.last() else { break };
                after = Some(last.id.clone());
                for letter in &page {
                    let payload = letter.message.payload.clone().unwrap_or_default();
                    let value: serde_json::Value = serde_json::from_slice(&payload)?;
                    ids.insert(value["id"].as_u64().ok_or("a dead letter without an id")?);
                }
            }
        }
        Ok(ids)
    }

    /// Of all topics together.
    pub(crate) async fn depth(&self) -> Result<Depth> {
        let specs: Vec<Spec> = topics(self.system).into_iter().map(spec).collect();
        let mut depth = Depth::default();
        for status in self.broker.status(&specs).await? {
            depth.waiting += status.waiting.unwrap_or(0);
            depth.unsettled += status.unsettled.unwrap_or(0);
            if let Some(retrying) = status.retrying {
                *depth.retrying.get_or_insert(0) += retrying;
            }
        }
        Ok(depth)
    }

    pub(crate) async fn close(&self) {
        let _ = self.broker.close(Duration::from_secs(1)).await;
    }
}

/// The subscription of a listener, as the app makes it.
fn spec(topic: &'static str) -> Spec {
    let order = if topic == Step::TOPIC {
        Order::ByKey
    } else {
        Order::None
    };
    Spec {
        listener: "inspector".into(),
        source: Source::Topic(topic.into()),
        group: GROUP.into(),
        sharing: Sharing::Group,
        order,
        start: Start::New,
        in_flight: 1,
        dead_letter: Some(names::dead_letter_topic(topic, GROUP).into()),
        max_delay: (order == Order::None).then_some(Duration::from_secs(1)),
        publishes: Vec::new(),
    }
}
