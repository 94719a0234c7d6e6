//! A connected instance.

use std::ops::Range;
use std::sync::Arc;
use std::time::Duration;

use postrider_contract::{Broker, Outgoing, Receipt, Spec, Status, Topology};

use crate::kit::{Subscribed, numbered_for};

/// A connected instance.
pub struct Instance {
    /// Its connection.
    pub broker: Arc<dyn Broker>,
    patience: Duration,
}

impl Instance {
    pub(crate) fn new(broker: Arc<dyn Broker>, patience: Duration) -> Self {
        Self { broker, patience }
    }

    /// Declares without opening.
    pub async fn plan(&self, specs: &[Spec]) {
        if let Err(problems) = self.broker.plan(specs, Topology::Declare).await {
            let problems: Vec<_> = problems.iter().map(ToString::to_string).collect();
            panic!("plan refuses: {}", problems.join("; "));
        }
    }

    /// Declares and opens, and waits until messages flow.
    pub async fn open<const N: usize>(&self, specs: [Spec; N]) -> [Subscribed; N] {
        self.plan(&specs).await;
        self.open_only(specs).await
    }

    /// Opens what is declared, and waits until messages flow.
    pub async fn open_only<const N: usize>(&self, specs: [Spec; N]) -> [Subscribed; N] {
        let opened = self.broker.open(specs.to_vec()).await;
        let opened = opened.expect("open what was planned");
        assert_eq!(opened.len(), N, "one subscription for each spec");
        let mut subscribed = Vec::new();
        for (subscription, spec) in opened.into_iter().zip(&specs) {
            let mut one = Subscribed::new(subscription, spec.in_flight as usize, self.patience);
            one.until_ready().await;
            subscribed.push(one);
        }
        subscribed.try_into().unwrap_or_else(|_| unreachable!())
    }

    /// Publishes; every message must be confirmed.
    pub async fn publish(&self, batch: Vec<Outgoing>) -> Vec<Receipt> {
        let count = batch.len();
        let results = self.broker.publish(batch).await;
        assert_eq!(results.len(), count, "an answer for each message");
        let receipts: Result<_, _> = results.into_iter().collect();
        receipts.expect("the broker confirms")
    }

    /// Publishes the numbered messages of this range to a topic.
    pub async fn publish_numbered(&self, topic: &Arc<str>, range: Range<usize>) {
        self.publish(numbered_for(topic, range)).await;
    }

    /// Depths of one subscription.
    pub async fn status(&self, spec: &Spec) -> Status {
        let status = self.broker.status(std::slice::from_ref(spec)).await;
        let status = status.expect("the broker tells its depths");
        assert_eq!(status.len(), 1, "an answer for each spec");
        status[0]
    }

    /// Closes in the orderly way.
    pub async fn close(&self) {
        self.broker.close(Duration::from_secs(10)).await.expect("close");
    }
}
