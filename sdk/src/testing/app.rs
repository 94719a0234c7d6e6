use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use postrider_memory::Memory;
use serde::Serialize;
use serde::de::DeserializeOwned;

use super::{Attempted, Tap};
use crate::app::{App, Running};
use crate::contract::{Client, Message as RawMessage, Outgoing, Receipt};
use crate::dead_letters::{DeadLetter, Filter};
use crate::publisher::Publisher;
use crate::{Message, publisher};

/// The clock's smallest step. It passes only when nothing else is left to do.
const STEP: Duration = Duration::from_millis(1);
/// Of the waits between attempts. Any will do.
const SEED: u64 = 7;
/// How many dead letters are looked at.
const MOST: usize = 10_000;
/// How many messages may wait for a group.
const CAPACITY: usize = 1_000_000;
/// How many messages of each topic are kept, so that a listener may start at the earliest.
const RETAIN: usize = 10_000;

/// Listeners in a test: on an embedded broker of their own and a virtual clock. See the [module](crate::testing).
///
/// Every method panics, as a test may, where something is not as it says, and prints what was seen.
pub struct TestApp {
    running: Running,
    tap: Arc<Tap>,
}

impl TestApp {
    /// Starts what `build` makes of an empty app: state, middleware, listeners.
    ///
    /// # Panics
    /// The app does not start, or the clock is not paused: write `#[tokio::test(start_paused = true)]`.
    pub async fn start(build: impl FnOnce(App) -> App) -> Self {
        // Not by how long something takes: a thread may be held up while the clock stands.
        let before = tokio::time::Instant::now();
        std::thread::sleep(STEP);
        assert!(
            before == tokio::time::Instant::now(),
            "the clock is not paused: write `#[tokio::test(start_paused = true)]`, with tokio's feature `test-util`"
        );
        // What is random in a wait is the same in every run: the runtime of a paused clock has one thread.
        fastrand::seed(SEED);
        let client = Client {
            application: "test".into(),
            instance: "test".into(),
        };
        let tap = Arc::new(Tap::new());
        let app = App::on(Memory::new(CAPACITY, RETAIN).connect(client))
            .name("test")
            .metrics(false);
        let running = match build(app).tapped(tap.clone()).start().await {
            Ok(running) => running,
            Err(error) => panic!("the app does not start: {error}"),
        };
        if let Err(error) = running.ready().await {
            panic!("the app does not start: {error}");
        }
        Self { running, tap }
    }

    /// Publishes a message to its type's topic, and goes on until nothing is left to do but to wait.
    ///
    /// # Panics
    /// Nobody receives it.
    pub async fn deliver<M: Message + Serialize>(&self, message: &M) {
        self.deliver_to(M::TOPIC, encode(message)).await;
    }

    /// The same with any message, such as one that does not decode, or has headers of its own.
    pub async fn deliver_to(&self, topic: &str, message: RawMessage) {
        self.send(topic, vec![message]).await;
    }

    /// The same with many messages at once: a batch for a listener that takes batches.
    pub async fn deliver_all<'a, M: Message + Serialize + 'a>(
        &self,
        messages: impl IntoIterator<Item = &'a M>,
    ) {
        self.send(M::TOPIC, messages.into_iter().map(encode).collect())
            .await;
    }

    async fn send(&self, topic: &str, messages: Vec<RawMessage>) {
        let outgoing = |message| Outgoing::to_topic(topic, message);
        let batch = messages.into_iter().map(outgoing).collect();
        let answers = self.running.publisher().untapped().publish(batch).await;
        self.settle().await;
        for answer in answers {
            match answer {
                Ok(Receipt { received: true }) => (),
                Ok(_) => panic!(
                    "not delivered: nobody receives `{topic}`; the listeners are on: {}\n\n{self}",
                    self.running.topics().join(", ")
                ),
                Err(error) => panic!("not delivered: {error}\n\n{self}"),
            }
        }
    }

    /// Goes on until nothing is left to do but to wait: for a retry's time, for a handler that sleeps. Takes a millisecond
    /// of the virtual clock.
    pub async fn settle(&self) {
        tokio::time::sleep(STEP).await;
    }

    /// Lets this much time pass, and does all that is due meanwhile, at its time.
    pub async fn advance(&self, time: Duration) {
        tokio::time::sleep(time).await;
        self.settle().await;
    }

    /// How much time has passed since the start.
    pub fn elapsed(&self) -> Duration {
        self.tap.elapsed()
    }

    /// Every attempt of a listener, in order.
    ///
    /// # Panics
    /// There is no such listener.
    #[track_caller]
    pub fn attempts(&self, listener: &str) -> Vec<Attempted> {
        self.must_exist(listener);
        let seen = self.tap.seen();
        let own = seen
            .attempts
            .iter()
            .filter(|attempted| attempted.listener == listener);
        own.cloned().collect()
    }

    /// Asserts how the attempts of a listener ended, in order: `handled`, `released`, `duplicate`, or the reason and the error as in
    /// `error: the warehouse is closed`.
    ///
    /// # Panics
    /// They ended otherwise.
    #[track_caller]
    pub fn assert_outcomes<S: AsRef<str>>(&self, listener: &str, expected: impl IntoIterator<Item = S>) {
        let seen: Vec<String> = self
            .attempts(listener)
            .iter()
            .map(|attempted| attempted.ended.to_string())
            .collect();
        let expected: Vec<String> = expected
            .into_iter()
            .map(|text| text.as_ref().to_owned())
            .collect();
        assert!(
            seen == expected,
            "the outcomes of `{listener}` are not as expected\n  expected: {expected:?}\n      seen: {seen:?}\n\n{self}"
        );
    }

    /// What was published to a type's topic by handlers and taken by the broker, decoded, in order; not what the test itself
    /// delivered.
    ///
    /// # Panics
    /// Something there does not decode.
    #[track_caller]
    pub fn published<M: Message + DeserializeOwned>(&self) -> Vec<M> {
        let decode = |message: RawMessage| {
            let payload = message.payload.unwrap_or_default();
            serde_json::from_slice(&payload).unwrap_or_else(|error| {
                panic!(
                    "a message to `{}` does not decode: {error}: {}\n\n{self}",
                    M::TOPIC,
                    String::from_utf8_lossy(&payload)
                )
            })
        };
        self.published_to(M::TOPIC).into_iter().map(decode).collect()
    }

    /// What was published to a topic by handlers, as it travels, in order.
    pub fn published_to(&self, topic: &str) -> Vec<RawMessage> {
        let seen = self.tap.seen();
        let there = seen.published.iter().filter(|(to, ..)| to == topic);
        there.map(|(_, message, _)| message.clone()).collect()
    }

    /// What a listener has given up, in order, as the broker has it.
    ///
    /// # Panics
    /// There is no such listener.
    pub async fn dead_letters(&self, listener: &str) -> Vec<DeadLetter> {
        self.must_exist(listener);
        let Some(mut letters) = self.running.dead_letters(listener) else {
            return Vec::new();
        };
        match letters.list(&Filter::all().limit(MOST)).await {
            Ok(letters) => letters.into_iter().map(|letter| letter.dead).collect(),
            Err(error) => panic!("the dead letters of `{listener}` cannot be read: {error}"),
        }
    }

    /// Everything else that an app can do: pause, status, publish.
    pub fn running(&self) -> &Running {
        &self.running
    }

    /// Drains and ends the app.
    pub async fn stop(self) {
        if let Err(error) = self.running.shutdown().await {
            panic!("the app does not end: {error}");
        }
    }

    #[track_caller]
    fn must_exist(&self, listener: &str) {
        let names: Vec<String> = self
            .running
            .status()
            .into_iter()
            .map(|status| status.name)
            .collect();
        assert!(
            names.iter().any(|name| name == listener),
            "there is no listener `{listener}`; listeners: {}",
            names.join(", ")
        );
    }
}

fn encode<M: Message + Serialize>(message: &M) -> RawMessage {
    match publisher::encode(message, publisher::now()) {
        Ok(raw) => raw,
        Err(error) => panic!("not delivered: {error}"),
    }
}

/// What was seen, in order of time.
impl fmt::Display for TestApp {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let seen = self.tap.seen();
        let mut lines: Vec<(Duration, String)> = Vec::new();
        for attempted in &seen.attempts {
            let Attempted {
                listener,
                topic,
                message_id,
                attempt,
                ended,
                at,
            } = attempted;
            lines.push((
                *at,
                format!("`{listener}` attempt {attempt} at {message_id} of {topic}: {ended}"),
            ));
        }
        for (topic, message, at) in &seen.published {
            let payload = message.payload.as_deref().unwrap_or_default();
            let payload = String::from_utf8_lossy(payload);
            let short: String = payload.chars().take(120).collect();
            lines.push((*at, format!("published to {topic}: {short}")));
        }
        lines.sort_by_key(|(at, _)| *at);
        writeln!(
            f,
            "seen in {} on the virtual clock:",
            humantime::format_duration(whole(self.elapsed()))
        )?;
        for (at, line) in &lines {
            writeln!(
                f,
                "  {:>12}  {line}",
                humantime::format_duration(whole(*at)).to_string()
            )?;
        }
        for status in self.running.status() {
            let counts = status.counts;
            writeln!(
                f,
                "  `{}`: {} handled, {} retried, {} dead-lettered, {} released, {} in flight, {:?}",
                status.name,
                counts.handled,
                counts.retried,
                counts.dead_lettered,
                counts.released,
                status.in_flight,
                status.state
            )?;
        }
        Ok(())
    }
}

impl fmt::Debug for TestApp {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

fn whole(time: Duration) -> Duration {
    Duration::from_millis(time.as_millis() as u64)
}

impl Publisher {
    /// Whose messages are the test's own.
    fn untapped(mut self) -> Self {
        self.set_tap(None);
        self
    }
}
