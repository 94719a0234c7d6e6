//! What a subscription tells at a moment that no real broker can be brought to: by a broker that follows a script.

use std::collections::VecDeque;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use postrider::contract::{
    Broker, Capabilities, Client, DeadLetters, Delivery, Error, ErrorKind, Event, Outgoing, Problem, Receipt,
    Receiver, Settled, Settlement, Settler, Spec, Status, Subscription, Token, Topology, Verdict,
};
use postrider::prelude::*;
use postrider::{ListenerState, async_trait};
use tokio::sync::mpsc;
use tokio::time::{sleep, timeout};

const LANE: u32 = 7;

/// Told one after the other, each so long after the one before.
type Script = VecDeque<(Duration, Result<Event, Error>)>;

/// The embedded broker, but for what the subscription tells.
struct Scripted {
    embedded: Arc<dyn Broker>,
    can: Capabilities,
    script: Mutex<Script>,
    released: mpsc::UnboundedSender<u32>,
    pauses: mpsc::UnboundedSender<bool>,
}

impl Scripted {
    fn new(script: impl Into<Script>) -> (Arc<Self>, mpsc::UnboundedReceiver<u32>) {
        let (this, released, _) = Self::with_pauses(script);
        (this, released)
    }

    /// The same with what it is told of pauses.
    fn with_pauses(
        script: impl Into<Script>,
    ) -> (
        Arc<Self>,
        mpsc::UnboundedReceiver<u32>,
        mpsc::UnboundedReceiver<bool>,
    ) {
        let client = Client {
            application: "scripted".into(),
            instance: "1".into(),
        };
        let (released, seen) = mpsc::unbounded_channel();
        let (pauses, paused) = mpsc::unbounded_channel();
        let embedded = postrider_memory::isolated(client);
        let this = Self {
            can: embedded.capabilities().clone(),
            embedded,
            script: Mutex::new(script.into()),
            released,
            pauses,
        };
        (Arc::new(this), seen, paused)
    }
}

#[async_trait]
impl Broker for Scripted {
    fn capabilities(&self) -> &Capabilities {
        &self.can
    }

    async fn plan(&self, all: &[Spec], mode: Topology) -> Result<(), Vec<Problem>> {
        self.embedded.plan(all, mode).await
    }

    async fn open(&self, _: Vec<Spec>) -> Result<Vec<Subscription>, Error> {
        let subscription = Subscription {
            receiver: Box::new(Told {
                script: std::mem::take(&mut self.script.lock().unwrap()),
                pauses: self.pauses.clone(),
            }),
            settler: Arc::new(Forgets(self.released.clone(), Mutex::new(0))),
        };
        Ok(vec![subscription])
    }

    async fn publish(&self, batch: Vec<Outgoing>) -> Vec<Result<Receipt, Error>> {
        self.embedded.publish(batch).await
    }

    fn dead_letters(&self, dead_letter_topic: &str, source: &str, group: &str) -> Box<dyn DeadLetters> {
        self.embedded.dead_letters(dead_letter_topic, source, group)
    }

    async fn status(&self, all: &[Spec]) -> Result<Vec<Status>, Error> {
        self.embedded.status(all).await
    }

    async fn close(&self, deadline: Duration) -> Result<(), Error> {
        self.embedded.close(deadline).await
    }
}

/// A receiver with the rest of its script.
struct Told {
    script: Script,
    pauses: mpsc::UnboundedSender<bool>,
}

#[async_trait]
impl Receiver for Told {
    async fn next(&mut self, _: usize, into: &mut Vec<Delivery>) -> Result<Event, Error> {
        let Some((after, _)) = self.script.front() else {
            return std::future::pending().await;
        };
        sleep(*after).await;
        let (_, told) = self.script.pop_front().unwrap();
        if matches!(told, Ok(Event::Deliveries)) {
            into.push(Delivery {
                token: Token {
                    lane: LANE,
                    epoch: 1,
                    seq: 0,
                },
                origin: postrider::contract::Origin::Topic,
                redeliveries: None,
                topic: "t".into(),
                position: postrider::contract::Position::default(),
                message: postrider::contract::Message::new("x"),
            });
        }
        told
    }

    /// As slow as a broker's answer may be.
    async fn pause(&mut self, paused: bool) {
        sleep(SOON).await;
        let _ = self.pauses.send(paused);
    }
}

/// A settler that cannot publish at first, and to which everything is stale.
struct Forgets(mpsc::UnboundedSender<u32>, Mutex<u32>);

#[async_trait]
impl Settler for Forgets {
    async fn settle(&self, batch: &mut Vec<Settlement>, out: &mut Vec<Settled>) {
        for settlement in batch.drain(..) {
            let emits = matches!(&settlement.verdict, Verdict::Ack { emit } if !emit.is_empty());
            let mut refused = self.1.lock().unwrap();
            out.push(if emits && *refused < 3 {
                *refused += 1;
                Settled::Failed(settlement, Error::new(ErrorKind::Unavailable, "not now"))
            } else {
                Settled::Stale
            });
        }
    }

    async fn extend(&self, _: &[Token]) {}

    async fn released(&self, lanes: &[u32]) {
        for &lane in lanes {
            self.0.send(lane).unwrap();
        }
    }
}

const SOON: Duration = Duration::from_millis(100);

type Seen = Arc<Mutex<u32>>;

#[listener(topic = "t", group = "g", batch(size = 3, wait = "1s"))]
async fn gathers(_items: Vec<Bytes>, State(seen): State<Seen>) {
    *seen.lock().unwrap() += 1;
}

#[listener(topic = "t", group = "g", rate = "2/s")]
async fn seldom(_item: Bytes, State(seen): State<Seen>) {
    *seen.lock().unwrap() += 1;
}

/// What was taken and not started when its lane is taken away is the next owner's alone.
async fn what_is_revoked_before_it_starts_is_dropped(listeners: Vec<postrider::Registration>, before: u32) {
    let script = [
        (SOON, Ok(Event::Ready)),
        (SOON, Ok(Event::Deliveries)),
        (SOON, Ok(Event::Deliveries)),
        (
            SOON,
            Ok(Event::Revoked {
                lanes: vec![LANE],
                deadline: Duration::ZERO,
            }),
        ),
    ];
    let (broker, mut released) = Scripted::new(script);
    let seen = Seen::default();
    let app = postrider::App::on(broker).state(seen.clone()).listen(listeners);
    let running = app.start().await.unwrap();
    let empty = timeout(Duration::from_secs(20), released.recv()).await;
    assert_eq!(empty, Ok(Some(LANE)));
    assert_eq!(*seen.lock().unwrap(), before);
    running.shutdown().await.unwrap();
}

#[tokio::test(start_paused = true)]
async fn a_batch_that_is_gathered_drops_what_is_revoked() {
    what_is_revoked_before_it_starts_is_dropped(listeners![gathers], 0).await;
}

/// The rate goes by the machine's clock.
#[tokio::test]
async fn what_waits_for_the_rate_is_dropped_when_it_is_revoked() {
    what_is_revoked_before_it_starts_is_dropped(listeners![seldom], 1).await;
}

#[listener(
    topic = "t",
    group = "g",
    rate = "2/s",
    breaker(failures = 1, pause = "50ms"),
    retry(attempts = 1)
)]
async fn fails_once(_item: Bytes, State(seen): State<Seen>) -> Result<(), HandlerError> {
    let mut seen = seen.lock().unwrap();
    *seen += 1;
    if *seen == 1 {
        return Err("down".into());
    }
    Ok(())
}

/// The one that an open circuit breaker lets through may be taken away before it starts: then another is tried.
#[tokio::test]
async fn a_breaker_is_not_left_waiting_for_what_is_revoked() {
    let revoked = Event::Revoked {
        lanes: vec![LANE],
        deadline: Duration::ZERO,
    };
    let script = [
        (SOON, Ok(Event::Ready)),
        (SOON, Ok(Event::Deliveries)),
        (SOON, Ok(Event::Deliveries)),
        (SOON, Ok(revoked)),
        (8 * SOON, Ok(Event::Deliveries)),
    ];
    let (broker, mut released) = Scripted::new(script);
    let seen = Seen::default();
    let app = postrider::App::on(broker).state(seen.clone());
    let running = app.listen(listeners![fails_once]).start().await.unwrap();
    let empty = timeout(Duration::from_secs(20), released.recv()).await;
    assert_eq!((empty, *seen.lock().unwrap()), (Ok(Some(LANE)), 1));
    let again = async {
        while *seen.lock().unwrap() < 2 {
            sleep(SOON).await;
        }
    };
    timeout(Duration::from_secs(20), again).await.expect("it goes on");
    running.shutdown().await.unwrap();
}

#[tokio::test(start_paused = true)]
async fn a_pause_and_its_end_reach_the_receiver_whenever_they_come() {
    let (broker, _released, mut pauses) = Scripted::with_pauses([(SOON, Ok(Event::Ready))]);
    let app = postrider::App::on(broker).state(Seen::default());
    let running = app.listen(listeners![gathers]).start().await.unwrap();
    // Before its task has run.
    running.pause("gathers");
    sleep(SOON / 2).await;
    // While the receiver is at it.
    running.resume("gathers");
    for expected in [true, false] {
        let told = timeout(Duration::from_secs(5), pauses.recv()).await;
        assert_eq!(told, Ok(Some(expected)));
    }
    running.shutdown().await.unwrap();
}

/// A verdict that could not be carried out and then is stale tells nothing of the connection.
#[tokio::test(start_paused = true)]
async fn what_is_settled_at_last_does_not_hide_that_nothing_is_received() {
    let down = Error::new(ErrorKind::Unavailable, "no connection");
    let script = [
        (SOON, Ok(Event::Ready)),
        (SOON, Ok(Event::Deliveries)),
        (SOON, Ok(Event::Degraded(down))),
    ];
    let (broker, _released) = Scripted::new(script);
    let app = postrider::App::on(broker).state(Seen::default());
    let running = app.listen(listeners![fails_always]).start().await.unwrap();
    sleep(Duration::from_secs(5)).await;
    let state = running.status().remove(0).state;
    assert!(
        matches!(&state, ListenerState::Degraded(why) if why.contains("no connection")),
        "{state:?}"
    );
    assert_eq!(running.status()[0].in_flight, 0);
    running.shutdown().await.unwrap();
}

#[listener(topic = "t", group = "g")]
async fn fails_always(_item: Bytes) -> Result<(), HandlerError> {
    Err("down".into())
}

#[listener(topic = "t", group = "g")]
async fn hangs(_item: Bytes) {
    std::future::pending::<()>().await;
}

#[tokio::test(start_paused = true)]
async fn a_subscription_that_ends_ends_the_app_whatever_its_handlers_do() {
    let script = [
        (SOON, Ok(Event::Ready)),
        (SOON, Ok(Event::Deliveries)),
        (SOON, Err(Error::new(ErrorKind::Denied, "not any more"))),
    ];
    let (broker, _released) = Scripted::new(script);
    let app = postrider::App::on(broker).drain_deadline(Duration::from_secs(20));
    let mut running = app.listen(listeners![hangs]).start().await.unwrap();
    running.ready().await.unwrap();
    sleep(Duration::from_secs(1)).await;
    assert_eq!(
        running.status()[0].state,
        ListenerState::Stopped(Some("not any more".into()))
    );
    let ended = timeout(Duration::from_secs(30), running.ended()).await;
    assert_eq!(ended.expect("it ends").kind(), ErrorKind::Denied);
}

#[listener(topic = "t", group = "g", timeout = "10m")]
async fn slow(_: Bytes) {}

/// What was logged.
#[derive(Clone, Default)]
struct Log(Arc<Mutex<Vec<u8>>>);

impl std::io::Write for Log {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        self.0.lock().unwrap().write(bytes)
    }

    fn flush(&mut self) -> std::io::Result<()> {
        Ok(())
    }
}

impl Log {
    /// Of this thread, until the guard is dropped.
    fn begin() -> (Self, tracing::subscriber::DefaultGuard) {
        let log = Self::default();
        let writer = log.clone();
        let subscriber = tracing_subscriber::fmt()
            .with_ansi(false)
            .with_writer(move || writer.clone())
            .finish();
        (log, tracing::subscriber::set_default(subscriber))
    }

    fn take(&self) -> String {
        String::from_utf8(std::mem::take(&mut *self.0.lock().unwrap())).unwrap()
    }
}

#[tokio::test(start_paused = true)]
async fn what_may_stay_unsettled_for_too_long_is_logged_and_starts() {
    let (log, _guard) = Log::begin();
    for (limit, expected) in [(30, 1), (12 * 60, 0)] {
        let (mut broker, _released) = Scripted::new([]);
        Arc::get_mut(&mut broker).unwrap().can.max_hold = Some(Duration::from_secs(limit * 60));
        log.take();
        let app = postrider::App::on(broker).listen(listeners![slow]);
        app.start().await.unwrap().shutdown().await.unwrap();
        let text = log.take();
        let told = text.matches("listener `slow`: if handlers take as long").count();
        assert_eq!(told, expected, "{text}");
    }
}

#[listener(topic = "t", group = "g", retry(backoff = "1s"))]
async fn puts_off(_: Bytes) -> Result<(), HandlerError> {
    Err(HandlerError::retry_after(
        Duration::from_secs(7200),
        "too many requests",
    ))
}

#[tokio::test(start_paused = true)]
async fn a_wait_that_is_cut_is_logged() {
    let (log, _guard) = Log::begin();
    for (hours, expected) in [(1, 1), (2, 0)] {
        let script = [(SOON, Ok(Event::Ready)), (SOON, Ok(Event::Deliveries))];
        let (mut broker, _released) = Scripted::new(script);
        Arc::get_mut(&mut broker).unwrap().can.max_delay = Duration::from_secs(hours * 3600);
        log.take();
        let app = postrider::App::on(broker).listen(listeners![puts_off]);
        let running = app.start().await.unwrap();
        let mut text = String::new();
        for _ in 0..100 {
            if text.contains("will be tried again") {
                break;
            }
            sleep(SOON).await;
            text.push_str(&log.take());
        }
        running.shutdown().await.unwrap();
        assert_eq!(text.matches("it is cut").count(), expected, "{text}");
        assert!(text.contains(&format!("wait={}s", hours * 3600)), "{text}");
    }
}
