//! Clients that the client library cuts off from every broker, while others reach them: each is made anew.
//!
//! A cluster that names no broker for a while makes librdkafka forget all that it knew, and most of its clients never find
//! back (its issue 5301). A broker that is really away must not look like that.

mod support;

use std::sync::Arc;
use std::time::{Duration, Instant};

use postrider_contract::{Broker, BrokerUrl, Delivery, Event, Outgoing, Settled, Spec, Verdict};
use support::fence::{Cluster, Fence};
use support::own::OwnBroker;
use support::{Listener, PATIENCE, client, message, open, publish, spec, text, unique};

/// Longer than a client is given to find back by itself.
const LONG: Duration = Duration::from_secs(6);

struct Outage {
    broker: Arc<dyn Broker>,
    topic: String,
    listener: Listener,
    held: Delivery,
    /// What was told since.
    cut_off: bool,
    revoked: bool,
}

impl Outage {
    /// One message is settled and committed, and one is held.
    async fn begin(url: &BrokerUrl) -> Self {
        let broker = postrider_kafka::connect(url, client("cut-off")).await.unwrap();
        let topic = unique("cut");
        let spec = spec(&topic, "g");
        let mut listener = open(&broker, spec.clone()).await;
        let mut held = None;
        for payload in ["settled", "held"] {
            publish(&broker, &topic, &[payload]).await;
            let delivery = listener.one().await;
            assert_eq!(text(&delivery), payload);
            if payload == "settled" {
                listener.ack(&delivery).await;
            } else {
                held = Some(delivery);
            }
        }
        committed(&broker, &spec).await;
        Self {
            broker,
            topic,
            listener,
            held: held.unwrap(),
            cut_off: false,
            revoked: false,
        }
    }

    async fn until(&mut self, wanted: fn(&Event) -> bool) {
        let (cut_off, revoked) = (&mut self.cut_off, &mut self.revoked);
        let seen = |event: &Event| {
            *cut_off |= matches!(event, Event::Degraded(why) if why.to_string().contains("cut off"));
            *revoked |= matches!(event, Event::Revoked { .. });
            wanted(event)
        };
        self.listener.event(seen).await;
    }

    async fn degraded(&mut self) {
        self.until(|event| matches!(event, Event::Degraded(_))).await;
    }

    /// It works again: what was held was taken away and comes again, or is still ours. Nothing else comes twice.
    async fn ends(mut self) -> bool {
        let begin = Instant::now();
        self.until(|event| matches!(event, Event::Ready)).await;
        println!("ready after {:?}, cut off: {}", begin.elapsed(), self.cut_off);
        let late = self.listener.settle(self.held.token, Verdict::ACK).await;
        assert_eq!(matches!(late, Settled::Stale), self.revoked, "{late:?}");
        self.publish("new").await;
        let mut expected = vec!["new"];
        expected.extend(self.revoked.then_some("held"));
        let got = self.listener.drain(expected.len(), PATIENCE).await;
        let more = self.listener.some(9, Duration::from_secs(2)).await;
        let mut got: Vec<String> = got.iter().chain(&more).map(text).collect();
        got.sort();
        expected.sort_unstable();
        assert_eq!(got, expected);
        self.broker.close(PATIENCE).await.unwrap();
        self.cut_off
    }

    /// Publishing works too. What is not confirmed was not sent: the proxy lets everything pass.
    async fn publish(&self, payload: &str) {
        let deadline = Instant::now() + PATIENCE;
        let outgoing = || vec![Outgoing::to_topic(self.topic.as_str(), message(payload))];
        while let Err(error) = self.broker.publish(outgoing()).await.remove(0) {
            assert!(error.is_retryable() && Instant::now() < deadline, "{error}");
            println!("{error}");
        }
    }
}

/// Waits until everything but one held message is committed.
async fn committed(broker: &Arc<dyn Broker>, spec: &Spec) {
    let deadline = Instant::now() + PATIENCE;
    loop {
        let status = broker.status(std::slice::from_ref(spec)).await.unwrap().remove(0);
        if (status.waiting, status.unsettled) == (Some(0), Some(1)) {
            return;
        }
        assert!(Instant::now() < deadline, "{status:?}");
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
}

async fn begin(own: &OwnBroker, count: usize, options: &str) -> (Fence, Vec<Outage>) {
    let (fence, url) = own.fenced(options).await;
    let mut outages = Vec::new();
    for _ in 0..count {
        outages.push(Outage::begin(&url).await);
    }
    (fence, outages)
}

/// How many consumers were cut off.
async fn end(outages: Vec<Outage>) -> usize {
    let mut cut_off = 0;
    for outage in outages {
        cut_off += usize::from(outage.ends().await);
    }
    cut_off
}

#[tokio::test(flavor = "multi_thread")]
async fn consumers_that_forgot_all_brokers_are_made_anew() {
    let own = OwnBroker::start();
    // About every second one is cut off: that none of eight is, three times, is no chance.
    for _ in 0..3 {
        let (fence, mut outages) = begin(&own, 8, "&publish_timeout=5s").await;
        fence.set(Cluster::Fenced);
        for outage in &mut outages {
            outage.degraded().await;
        }
        tokio::time::sleep(LONG).await;
        fence.set(Cluster::Whole);
        let cut_off = end(outages).await;
        println!("{cut_off} consumers were cut off");
        if cut_off > 0 {
            return;
        }
    }
    panic!("librdkafka finds back by itself: nothing has to be made anew");
}

#[tokio::test(flavor = "multi_thread")]
async fn consumers_of_a_broker_that_was_away_go_on() {
    let own = OwnBroker::start();
    let (fence, mut outages) = begin(&own, 2, "&session_timeout=60s").await;
    fence.set(Cluster::Away);
    for outage in &mut outages {
        outage.degraded().await;
    }
    tokio::time::sleep(LONG).await;
    fence.set(Cluster::Whole);
    assert!(outages.iter().all(|outage| !outage.revoked));
    assert_eq!(end(outages).await, 0, "a consumer was made anew");
}
