//! Dead letters listed, filtered, replayed and purged, by users' means.

use std::collections::BTreeMap;
use std::time::{Duration, SystemTime};

use postrider::dead_letters::Filter;
use postrider::prelude::*;
use postrider::{DeadLetters, ErrorKind, Running};

use crate::kit::{Seen, Target, eventually, status};
use crate::on_every_broker;

#[derive(Message, Serialize, Deserialize)]
#[message(topic = "contract.given_up", key = id)]
struct Order {
    id: u32,
}

/// Whether what was broken is mended, and how many were handled since.
#[derive(Clone)]
struct Mended(tokio::sync::watch::Sender<Option<u32>>);

impl Default for Mended {
    fn default() -> Self {
        Self(tokio::sync::watch::Sender::new(None))
    }
}

impl Mended {
    fn mend(&self) {
        self.0.send_replace(Some(0));
    }

    fn check(&self) -> Result<(), HandlerError> {
        let mended = self.0.send_if_modified(|count| {
            *count = count.map(|count| count + 1);
            count.is_some()
        });
        if mended {
            return Ok(());
        }
        Err("the gateway is down".into())
    }

    async fn handled(&self, count: u32) {
        let mut counts = self.0.subscribe();
        counts.wait_for(|now| now.unwrap_or(0) >= count).await.unwrap();
    }
}

/// Listeners of one attempt, on a topic of its own for each test. Multiples of 10 are wrong for ever.
macro_rules! one_attempt {
    ($($name:ident on $topic:literal to $dead:literal)*) => {$(
        #[listener(topic = $topic, dead_letter = $dead, retry(attempts = 1), concurrency = 2)]
        async fn $name(
            order: Order,
            attempt: Attempt,
            State(seen): State<Seen>,
            State(mended): State<Mended>,
        ) -> Result<(), HandlerError> {
            if order.id.is_multiple_of(10) {
                return Err(HandlerError::permanent("no such article"));
            }
            mended.check()?;
            seen.add(format!("{} attempt {}", order.id, attempt.0));
            Ok(())
        }
    )*};
}
one_attempt! {
    mendable on "contract.given_up" to "contract.given_up.dead"
    untouched on "contract.given_up.untouched" to "contract.given_up.untouched.dead"
    apart on "contract.given_up.apart" to "contract.given_up.apart.dead"
    broken_off on "contract.given_up.broken_off" to "contract.given_up.broken_off.dead"
    killed on "contract.given_up.killed" to "contract.given_up.killed.dead"
}

#[listener(topic = "contract.given_up")]
async fn bystander(order: Order, State(seen): State<Seen>) {
    seen.add(format!("bystander {}", order.id));
}

/// On the dead-letter topic, while it is looked at.
#[listener(topic = "contract.given_up.dead")]
async fn alarm(order: Order, dead: DeadLetter, cx: Group, State(seen): State<Seen>) {
    if cx.0.starts_with(&dead.group) {
        seen.add(format!("alarm {} {}", order.id, dead.reason));
    }
}

struct Group(String);

impl Extract for Group {
    fn extract(cx: &Context) -> Result<Self, HandlerError> {
        Ok(Self(cx.group().to_owned()))
    }
}

async fn started(
    target: &Target,
    seen: &Seen,
    mended: &Mended,
    listeners: Vec<postrider::Registration>,
) -> Running {
    let app = target.app().state(seen.clone()).state(mended.clone());
    let running = app.listen(listeners).start().await.unwrap();
    running.ready().await.unwrap();
    running
}

async fn publish(running: &Running, topic: &str, ids: impl IntoIterator<Item = u32>) {
    let publisher = running.publisher();
    for id in ids {
        publisher.topic(topic).send(&Order { id }).await.unwrap();
    }
}

async fn ids(letters: &mut DeadLetters, filter: Filter) -> Vec<String> {
    let listed = letters.list(&filter).await.unwrap();
    let payload = |bytes: Option<&Bytes>| String::from_utf8_lossy(bytes.unwrap()).into_owned();
    let mut ids: Vec<String> = listed
        .iter()
        .map(|letter| payload(letter.original.payload.as_ref()))
        .collect();
    ids.sort();
    ids
}

async fn what_matches_is_replayed_and_purged_and_nothing_else(target: Target) {
    let (seen, alarmed) = (Seen::default(), Seen::default());
    let mended = Mended::default();
    let running = started(&target, &seen, &mended, listeners![mendable]).await;
    let other = target.other().start(&alarmed, listeners![bystander, alarm]).await;
    let begin = SystemTime::now() - Duration::from_secs(1);
    publish(&running, "contract.given_up", [1, 2, 3, 10, 20]).await;
    status(&running, |status| status.counts.dead_lettered == 5).await;
    alarmed.count(10).await;

    let all = Filter::all;
    let mut letters = running.dead_letters("mendable").unwrap();
    for _ in 0..3 {
        assert_eq!(letters.list(&all()).await.unwrap().len(), 5);
    }
    assert_eq!(
        ids(&mut letters, all().reason("error")).await,
        [r#"{"id":1}"#, r#"{"id":2}"#, r#"{"id":3}"#]
    );
    assert_eq!(
        ids(&mut letters, all().error("such art")).await,
        [r#"{"id":10}"#, r#"{"id":20}"#]
    );
    assert_eq!(ids(&mut letters, all().key("20")).await, [r#"{"id":20}"#]);
    assert_eq!(ids(&mut letters, all().since(begin)).await.len(), 5);
    assert_eq!(ids(&mut letters, all().until(begin)).await.len(), 0);
    assert_eq!(ids(&mut letters, all().limit(2)).await.len(), 2);
    let letter = &letters.list(&all().key("2")).await.unwrap()[0];
    assert_eq!(
        (letter.attempts, letter.hops, letter.error.as_str()),
        (1, 1, "the gateway is down")
    );
    assert_eq!(
        (letter.topic.as_str(), letter.group.as_str()),
        ("contract.given_up", target.name.as_str())
    );
    let left: Vec<&str> = letter.original.headers.iter().map(|(name, _)| name).collect();
    assert!(
        !left.iter().any(|name| name.starts_with("postrider-")),
        "{left:?}"
    );

    let dry = letters.replay(all().reason("error")).dry_run().await.unwrap();
    assert_eq!((dry.looked_at, dry.matched, dry.done), (5, 3, 0));
    assert_eq!(letters.list(&all()).await.unwrap().len(), 5);
    assert_eq!(seen.all(), Vec::<String>::new());

    // What fails again meanwhile is a new dead letter, and not replayed again and again.
    let again = letters.replay(all().key("1")).await.unwrap();
    assert_eq!((again.matched, again.done), (1, 1));
    status(&running, |status| status.counts.dead_lettered == 6).await;
    let letter = letters.list(&all().key("1")).await.unwrap().pop().unwrap();
    assert_eq!((letter.replays, letter.attempts), (1, 1));

    mended.mend();
    let mut told = Vec::new();
    let replay = letters
        .replay(all().reason("error"))
        .rate(20, Duration::from_secs(1));
    let summary = replay
        .on_progress(|progress| told.push((progress.done, progress.matched)))
        .await
        .unwrap();
    assert_eq!((summary.matched, summary.done, summary.failed.len()), (3, 3, 0));
    assert_eq!(told, [(1, 3), (2, 3), (3, 3)]);
    status(&running, |status| status.counts.handled == 3).await;
    assert_eq!(
        seen.sorted(),
        ["1 attempt 1", "2 attempt 1", "3 attempt 1"],
        "at attempt 1"
    );

    let purged = letters.purge(all()).await.unwrap();
    assert_eq!((purged.matched, purged.done), (2, 2));
    assert_eq!(letters.list(&all()).await.unwrap().len(), 0);
    let mut fresh = running.dead_letters("mendable").unwrap();
    assert_eq!(fresh.list(&all()).await.unwrap().len(), 0);

    // The others saw what was published and what was given up, once each, and no replay.
    alarmed.count(11).await;
    running.shutdown().await.unwrap();
    other.shutdown().await.unwrap();
    let expected = [
        "alarm 1 error",
        "alarm 1 error",
        "alarm 10 permanent",
        "alarm 2 error",
        "alarm 20 permanent",
        "alarm 3 error",
        "bystander 1",
        "bystander 10",
        "bystander 2",
        "bystander 20",
        "bystander 3",
    ];
    assert_eq!(alarmed.sorted(), expected);
}

async fn dead_letters_are_reached_without_running(target: Target) {
    let (seen, mended) = (Seen::default(), Mended::default());
    let keep_alive = target.publisher().await;
    let running = started(&target, &seen, &mended, listeners![apart]).await;
    publish(&running, "contract.given_up.apart", [1, 2]).await;
    status(&running, |status| status.counts.dead_lettered == 2).await;
    running.shutdown().await.unwrap();

    let app = target.app().listen(listeners![apart, untouched]);
    let mut none = app.dead_letters("untouched").await.unwrap();
    assert_eq!(ids(&mut none, Filter::all()).await, Vec::<String>::new());
    assert_eq!(none.replay(Filter::all()).await.unwrap().matched, 0);
    let error = app.dead_letters("a_part").await.unwrap_err();
    assert!(
        error.to_string().contains("listeners: apart, untouched"),
        "{error}"
    );
    let mut letters = app.dead_letters("apart").await.unwrap();
    assert_eq!(
        (letters.topic(), letters.source(), letters.group()),
        (
            "contract.given_up.apart.dead",
            "contract.given_up.apart",
            target.name.as_str()
        )
    );
    assert_eq!(
        ids(&mut letters, Filter::all()).await,
        [r#"{"id":1}"#, r#"{"id":2}"#]
    );
    let picked = letters
        .list(&Filter::all().key("2"))
        .await
        .unwrap()
        .pop()
        .unwrap();
    let picked = Filter::all().ids([picked.id]);
    assert_eq!(letters.replay(picked.clone()).await.unwrap().done, 1);
    assert_eq!(letters.replay(picked).await.unwrap().matched, 0);
    letters.close(Duration::from_secs(5)).await.unwrap();

    mended.mend();
    let running = started(&target, &seen, &mended, listeners![apart]).await;
    status(&running, |status| status.counts.handled == 1).await;
    assert_eq!(seen.all(), ["2 attempt 1"]);
    running.shutdown().await.unwrap();
    drop(keep_alive);
}

const MANY: u32 = 25;

/// How often each was handled, once the rest is replayed too.
async fn handled(running: &Running, listener: &str, seen: &Seen) -> BTreeMap<String, u32> {
    let mut letters = running.dead_letters(listener).unwrap();
    letters.replay(Filter::all()).at_once(10).await.unwrap();
    assert_eq!(letters.list(&Filter::all()).await.unwrap().len(), 0);
    let times = || {
        let mut times: BTreeMap<String, u32> = BTreeMap::new();
        for one in seen.all() {
            *times.entry(one).or_default() += 1;
        }
        times
    };
    eventually(|| format!("{:?}", times()), || times().len() == MANY as usize).await;
    // Nothing tells that no more will come.
    tokio::time::sleep(Duration::from_millis(500)).await;
    times()
}

async fn a_replay_that_is_dropped_half_way_goes_on_where_it_was(target: Target) {
    let (seen, mended) = (Seen::default(), Mended::default());
    let running = started(&target, &seen, &mended, listeners![broken_off]).await;
    let ids = (0..MANY).map(|n| n * 10 + 1);
    publish(&running, "contract.given_up.broken_off", ids).await;
    status(&running, |status| status.counts.dead_lettered == u64::from(MANY)).await;
    mended.mend();
    let mut letters = running.dead_letters("broken_off").unwrap();
    // The rate keeps the second step a while away, also where a step takes no time at all.
    let replay = letters.replay(Filter::all()).at_once(20);
    let replay = replay.rate(20, Duration::from_secs(1));
    // In the middle of the step: the first has come, and it is not noted yet that it is replayed.
    tokio::select! {
        biased;
        () = mended.handled(1) => {}
        summary = replay.into_future() => panic!("not broken off: {summary:?}"),
    }
    let times = handled(&running, "broken_off", &seen).await;
    assert_eq!(times.len(), MANY as usize, "none is lost: {times:?}");
    assert!(times.values().all(|&times| times == 1), "none twice: {times:?}");
    running.shutdown().await.unwrap();
}

async fn a_replay_whose_process_is_killed_doubles_no_more_than_one(target: Target) {
    let (seen, mended) = (Seen::default(), Mended::default());
    let running = started(&target, &seen, &mended, listeners![killed]).await;
    let ids = (0..MANY).map(|n| n * 10 + 1);
    publish(&running, "contract.given_up.killed", ids).await;
    status(&running, |status| status.counts.dead_lettered == u64::from(MANY)).await;
    mended.mend();
    // A runtime of its own stands for the process: when it goes, so do its tasks and connections, wherever they are.
    let process = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(1)
        .enable_all()
        .build()
        .unwrap();
    let (half_way, mut reached) = tokio::sync::mpsc::unbounded_channel();
    let app = target.app().listen(listeners![killed]);
    process.spawn(async move {
        let mut letters = app.dead_letters("killed").await.unwrap();
        let replay = letters.replay(Filter::all());
        let replay = replay.on_progress(move |progress| half_way.send(progress.done).unwrap_or(()));
        replay.await.unwrap();
    });
    while reached.recv().await.unwrap() < 7 {}
    process.shutdown_background();
    let times = handled(&running, "killed", &seen).await;
    assert_eq!(times.len(), MANY as usize, "none is lost: {times:?}");
    let doubled = times.values().map(|times| times - 1).sum::<u32>();
    assert!(doubled <= 1, "at most the one in flight: {times:?}");
    running.shutdown().await.unwrap();
}

#[listener(topic = "contract.copies", broadcast)]
async fn refuses(_: Bytes) -> Result<(), HandlerError> {
    Err(HandlerError::permanent("not this one"))
}

async fn dead_letters_of_a_broadcast_stay_where_they_are(target: Target) {
    let running = target.start(&Seen::default(), listeners![refuses]).await;
    publish(&running, "contract.copies", [1]).await;
    status(&running, |status| status.counts.dead_lettered == 1).await;
    let mut letters = running.dead_letters("refuses").unwrap();
    let error = letters.replay(Filter::all()).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Unsupported, "{error}");
    assert_eq!(letters.list(&Filter::all()).await.unwrap().len(), 1);
    running.shutdown().await.unwrap();
}

on_every_broker! {
    dead_letters_of_a_broadcast_stay_where_they_are
    what_matches_is_replayed_and_purged_and_nothing_else
    dead_letters_are_reached_without_running
    a_replay_that_is_dropped_half_way_goes_on_where_it_was
    a_replay_whose_process_is_killed_doubles_no_more_than_one
}
