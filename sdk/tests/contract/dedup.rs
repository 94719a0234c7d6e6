//! Listeners with `dedup`: what was handled is acknowledged without the handler, wherever its marks are.

use std::sync::Arc;
use std::time::Duration;

use postrider::contract::ByteString;
use postrider::dead_letters::Filter;
use postrider::dedup::{DedupScope, DedupStore, MemoryStore};
use postrider::prelude::*;
use postrider::{Error, ListenerStatus, Running};
use tokio::sync::mpsc::{UnboundedSender, unbounded_channel};

use crate::kit::{Seen, Target, eventually};
use crate::on_every_broker;

/// The topics are shared with other runs: each takes its own messages only.
#[derive(Message, Serialize, Deserialize)]
#[message(topic = "contract.dedup", key = run)]
struct Parcel {
    run: String,
    number: String,
}

/// The application's name, and so the run.
struct Run(String);

impl Extract for Run {
    fn extract(cx: &Context) -> Result<Self, HandlerError> {
        Ok(Self(cx.group().to_owned()))
    }
}

/// Listeners that fail as the parcel's number says, each on a topic of its own.
macro_rules! desks {
    ($($name:ident on $topic:literal by [$($dedup:tt)*])*) => {$(
        #[listener(
            topic = $topic,
            concurrency = 4,
            retry(attempts = 2, backoff = "50ms"),
            $($dedup)*
        )]
        async fn $name(
            parcel: Parcel,
            run: Run,
            attempt: Attempt,
            State(seen): State<Seen>,
        ) -> Result<(), HandlerError> {
            if parcel.run != run.0 {
                return Ok(());
            }
            seen.add(format!("{} attempt {}", parcel.number, attempt.0));
            if parcel.number == "late" && attempt.0 == 1 {
                return Err("not yet".into());
            }
            if parcel.number == "wrong" && seen.all().len() < 2 {
                return Err(HandlerError::permanent("not like this"));
            }
            Ok(())
        }
    )*};
}
desks! {
    by_id on "contract.dedup.id" by [dedup(window = "1h")]
    by_key on "contract.dedup.key" by [dedup(window = "1h", key = "number")]
    that_fails on "contract.dedup.fails" by [dedup(window = "1h")]
    that_is_cut_off on "contract.dedup.cut_off" by [dedup(window = "1h")]
    that_gives_up on "contract.dedup.given_up" by [dedup(window = "1h")]
}

async fn publish(running: &Running, topic: &str, id: &str, number: &str) {
    let run = running.status()[0].group.clone();
    let id = ByteString::from(format!("{run}-{id}"));
    let number = number.to_owned();
    let publisher = running.publisher();
    let draft = publisher.topic(topic.to_owned()).id(id);
    draft.send(&Parcel { run, number }).await.unwrap();
}

/// Waits until so many of these apps' deliveries were told to be duplicates.
async fn duplicates(apps: &[&Running], count: u64) {
    let all = || {
        apps.iter()
            .map(|app| app.status()[0].counts.duplicates)
            .sum::<u64>()
    };
    let what = || format!("{:#?}", apps.iter().map(|app| app.status()).collect::<Vec<_>>());
    eventually(what, || all() >= count).await;
}

/// Waits until what was received is settled: acknowledged, and not left to come again.
async fn idle(apps: &[&Running]) {
    let all = || apps.iter().map(|app| app.status().remove(0));
    let is_settled = |status: ListenerStatus| {
        let counts = status.counts;
        let settled = counts.handled + counts.retried + counts.dead_lettered + counts.duplicates;
        status.in_flight == 0 && settled + counts.released + counts.stale == counts.received
    };
    let what = || format!("{:#?}", all().collect::<Vec<_>>());
    eventually(what, || all().all(is_settled)).await;
}

async fn what_was_handled_is_acknowledged_without_the_handler(target: Target) {
    let seen = Seen::default();
    let running = target.start(&seen, listeners![by_id]).await;
    for id in ["a", "a", "b", "a"] {
        publish(&running, "contract.dedup.id", id, id).await;
    }
    duplicates(&[&running], 2).await;
    seen.count(2).await;
    assert_eq!(seen.sorted(), ["a attempt 1", "b attempt 1"]);
    idle(&[&running]).await;
    running.shutdown().await.unwrap();
}

async fn a_field_of_the_payload_tells_messages_too(target: Target) {
    let seen = Seen::default();
    let running = target.start(&seen, listeners![by_key]).await;
    let number = |n: u32| format!("{}-{n}", target.name);
    for (id, n) in [("a", 1), ("b", 1), ("a", 2)] {
        publish(&running, "contract.dedup.key", id, &number(n)).await;
    }
    duplicates(&[&running], 1).await;
    seen.count(2).await;
    assert_eq!(seen.sorted(), [1, 2].map(|n| format!("{} attempt 1", number(n))));
    running.shutdown().await.unwrap();
}

async fn a_retry_is_no_duplicate_of_what_failed(target: Target) {
    let seen = Seen::default();
    let running = target.start(&seen, listeners![that_fails]).await;
    publish(&running, "contract.dedup.fails", "a", "late").await;
    seen.count(2).await;
    // The mark follows the handler.
    idle(&[&running]).await;
    publish(&running, "contract.dedup.fails", "a", "late").await;
    duplicates(&[&running], 1).await;
    assert_eq!(seen.all(), ["late attempt 1", "late attempt 2"]);
    running.shutdown().await.unwrap();
}

async fn a_replayed_dead_letter_is_no_duplicate(target: Target) {
    let seen = Seen::default();
    let running = target.start(&seen, listeners![that_gives_up]).await;
    publish(&running, "contract.dedup.given_up", "a", "wrong").await;
    let given_up = || running.status()[0].counts.dead_lettered == 1;
    eventually(|| format!("{:#?}", running.status()), given_up).await;
    let mut letters = running.dead_letters("that_gives_up").unwrap();
    assert_eq!(letters.replay(Filter::all()).await.unwrap().done, 1);
    seen.count(2).await;
    publish(&running, "contract.dedup.given_up", "a", "wrong").await;
    duplicates(&[&running], 1).await;
    assert_eq!(seen.all(), ["wrong attempt 1", "wrong attempt 1"]);
    running.shutdown().await.unwrap();
}

/// Sets a mark and does not say so.
struct Silent {
    marks: Arc<MemoryStore>,
    marked: UnboundedSender<Vec<u8>>,
}

#[postrider::async_trait]
impl DedupStore for Silent {
    async fn seen(&self, scope: DedupScope<'_>, id: &[u8]) -> Result<bool, Error> {
        self.marks.seen(scope, id).await
    }

    async fn mark(&self, scope: DedupScope<'_>, id: &[u8], window: Duration) -> Result<(), Error> {
        self.marks.mark(scope, id, window).await?;
        self.marked.send(id.to_vec()).unwrap();
        std::future::pending().await
    }

    fn describe(&self) -> String {
        self.marks.describe()
    }
}

async fn what_was_marked_and_not_acknowledged_is_not_handled_again(mut target: Target) {
    if target.broker.starts_with("redis") {
        target.url += "?lease=1s";
    }
    let (seen, marks) = (Seen::default(), Arc::new(MemoryStore::new()));
    let publisher = target.publisher().await;
    // A runtime of its own stands for the process: when it goes, so do its tasks and connections, wherever they are.
    let process = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(1)
        .enable_all()
        .build()
        .unwrap();
    let (marked, mut is_marked) = unbounded_channel();
    let (ready, mut is_ready) = unbounded_channel();
    let silent = Silent {
        marks: marks.clone(),
        marked,
    };
    let app = target.app().state(seen.clone()).dedup_store(Arc::new(silent));
    process.spawn(async move {
        let running = app.listen(listeners![that_is_cut_off]).start().await.unwrap();
        running.ready().await.unwrap();
        ready.send(()).unwrap();
        std::future::pending::<()>().await;
    });
    is_ready.recv().await.unwrap();
    let parcel = Parcel {
        run: target.name.clone(),
        number: "a".to_owned(),
    };
    let draft = publisher.topic("contract.dedup.cut_off").id(target.name.clone());
    draft.send(&parcel).await.unwrap();
    seen.count(1).await;
    while is_marked.recv().await.unwrap() != target.name.as_bytes() {}
    process.shutdown_background();

    let app = target.app().state(seen.clone()).dedup_store(marks);
    let running = app.listen(listeners![that_is_cut_off]).start().await.unwrap();
    duplicates(&[&running], 1).await;
    assert_eq!(seen.all(), ["a attempt 1"]);
    running.shutdown().await.unwrap();
}

on_every_broker! {
    what_was_handled_is_acknowledged_without_the_handler
    what_was_marked_and_not_acknowledged_is_not_handled_again
    a_field_of_the_payload_tells_messages_too
    a_retry_is_no_duplicate_of_what_failed
    a_replayed_dead_letter_is_no_duplicate
}

#[cfg(feature = "redis")]
mod shared {
    use super::*;

    desks! { by_key_of_two on "contract.dedup.shared" by [dedup(window = "1h", key = "number")] }

    async fn instances_share_the_marks_in_redis(target: Target) {
        let Some(redis) = Target::find("redis") else {
            return;
        };
        let seen = Seen::default();
        let start = async |target: &Target| {
            let mut app = target.app().state(seen.clone()).listen(listeners![by_key_of_two]);
            if !target.broker.starts_with("redis") {
                app = app.dedup_url(&redis.url);
            }
            let running = app.start().await.unwrap();
            running.ready().await.unwrap();
            running
        };
        let (one, other) = (start(&target).await, start(&target).await);
        let number = format!("{}-1", target.name);
        publish(&one, "contract.dedup.shared", "first", &number).await;
        seen.count(1).await;
        idle(&[&one, &other]).await;
        for id in 0..20 {
            publish(&one, "contract.dedup.shared", &id.to_string(), &number).await;
        }
        duplicates(&[&one, &other], 20).await;
        one.shutdown().await.unwrap();
        other.shutdown().await.unwrap();

        let restarted = start(&target).await;
        publish(&restarted, "contract.dedup.shared", "again", &number).await;
        duplicates(&[&restarted], 1).await;
        assert_eq!(seen.all(), [format!("{number} attempt 1")]);

        // Another group has handled nothing of it.
        let beside = start(&target.other()).await;
        publish(&beside, "contract.dedup.shared", "other", &number).await;
        seen.count(2).await;
        beside.shutdown().await.unwrap();
        restarted.shutdown().await.unwrap();
    }

    on_every_broker! { instances_share_the_marks_in_redis }
}

#[cfg(feature = "redis")]
mod killed {
    use postrider::{App, ErrorKind, ListenerState};
    use postrider_own_broker::{OwnBroker, Server};

    use super::*;

    /// Where the marks are and the messages are not.
    #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
    async fn a_store_that_is_killed_is_waited_for() {
        let redis = OwnBroker::start(Server::Redis);
        let url = format!("memory://{}", uuid::Uuid::now_v7().simple());
        let seen = Seen::default();
        let app = || {
            let app = App::new(&url).unwrap().name("shop").state(seen.clone());
            app.dedup_url(redis.verb("url")).listen(listeners![by_id])
        };
        let running = app().start().await.unwrap();
        running.ready().await.unwrap();
        publish(&running, "contract.dedup.id", "a", "a").await;
        seen.count(1).await;
        let status = || running.status().remove(0);
        eventually(|| format!("{:#?}", status()), || status().counts.handled == 1).await;

        redis.verb("kill");
        for id in ["a", "b"] {
            publish(&running, "contract.dedup.id", id, id).await;
        }
        let degraded = || matches!(status().state, ListenerState::Degraded(reason) if reason.contains("duplicates cannot be told"));
        eventually(|| format!("{:#?}", status()), degraded).await;
        // No condition to wait for: nothing happens.
        tokio::time::sleep(Duration::from_secs(2)).await;
        assert_eq!(seen.all(), ["a attempt 1"], "not handled blindly");
        assert_eq!(status().in_flight, 2, "not lost");
        let error = app().start().await.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Unavailable, "{error}");

        redis.up();
        let done = || status().counts.duplicates == 1 && status().counts.handled == 2;
        eventually(|| format!("{:#?}", status()), done).await;
        assert_eq!(seen.all(), ["a attempt 1", "b attempt 1"]);
        let counts = status().counts;
        assert_eq!(
            (status().state, counts.retried, counts.released),
            (ListenerState::Ready, 0, 0)
        );
        running.shutdown().await.unwrap();
    }

    #[tokio::test]
    async fn what_keeps_no_marks_is_refused() {
        let Some(redis) = Target::find("redis") else {
            return;
        };
        let denied = redis.url.replacen("redis://", "redis://mallory:hunter2@", 1);
        for (url, kind, part) in [
            (
                "redis://127.0.0.1:1?connect_timeout=500ms",
                ErrorKind::Unavailable,
                "127.0.0.1:1",
            ),
            (&*denied, ErrorKind::Denied, "user or password"),
            ("pigeon://h", ErrorKind::Config, "`pigeon` is unknown"),
        ] {
            let app = redis.app().state(Seen::default()).dedup_url(url);
            let error = app.listen(listeners![by_id]).start().await.unwrap_err();
            assert_eq!(error.kind(), kind, "{error}");
            let text = format!("{error} {error:?}");
            assert!(text.contains(part) && !text.contains("hunter2"), "{text}");
        }
        #[cfg(feature = "rabbitmq")]
        if let Some(rabbitmq) = Target::find("rabbitmq") {
            let app = redis.app().state(Seen::default()).dedup_url(&rabbitmq.url);
            let error = app.listen(listeners![by_id]).start().await.unwrap_err();
            assert_eq!(error.kind(), ErrorKind::Unsupported, "{error}");
        }
    }
}
