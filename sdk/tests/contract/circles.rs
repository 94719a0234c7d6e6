//! Listeners on dead-letter topics that give up themselves.

use std::time::Duration;

use postrider::ErrorKind;
use postrider::dead_letters::Filter;
use postrider::prelude::*;

use crate::kit::{Seen, Target, eventually, status};
use crate::on_every_broker;

/// The topics are shared with other runs: each takes its own messages only.
#[derive(Message, Serialize, Deserialize)]
#[message(topic = "contract.circle")]
struct Ball {
    run: String,
}

/// The application's name, and so the run.
struct Run(String);

impl Extract for Run {
    fn extract(cx: &Context) -> Result<Self, HandlerError> {
        Ok(Self(cx.group().trim_end_matches("-other").to_owned()))
    }
}

macro_rules! players {
    ($($name:ident on $topic:literal to $dead:literal)*) => {$(
        #[listener(topic = $topic, dead_letter = $dead, retry(attempts = 1))]
        async fn $name(
            ball: Ball,
            run: Run,
            dead: Option<DeadLetter>,
            attempt: Attempt,
            State(seen): State<Seen>,
        ) -> Result<(), HandlerError> {
            if ball.run != run.0 {
                return Ok(());
            }
            let hops = dead.map_or(0, |dead| dead.hops);
            seen.add(format!("{} {hops} {}", stringify!($name), attempt.0));
            Err(concat!("not by ", stringify!($name)).into())
        }
    )*};
}
players! {
    serve on "contract.circle" to "contract.circle.left.dlq"
    left on "contract.circle.left.dlq" to "contract.circle.right.dlq"
    right on "contract.circle.right.dlq" to "contract.circle.left.dlq"
}

async fn what_goes_round_between_apps_comes_to_rest(target: Target) {
    let seen = Seen::default();
    let one = target.start(&seen, listeners![left, serve]).await;
    let other = target.other().start(&seen, listeners![right]).await;
    let run = target.name.clone();
    one.publisher().send(&Ball { run }).await.unwrap();
    seen.count(17).await;
    // The last is parked where it is, by the listener that is at it then.
    status(&other, |status| status.counts.retried == 1).await;
    let player = |hop: u32| match hop {
        0 => "serve",
        _ if hop.is_multiple_of(2) => "right",
        _ => "left",
    };
    let expected: Vec<String> = (0..17).map(|hop| format!("{} {hop} 1", player(hop))).collect();
    assert_eq!(seen.all(), expected);
    let retrying = other.depths().await.unwrap()[0].retrying;
    assert!(retrying.is_none_or(|count| count == 1), "{retrying:?}");
    tokio::time::sleep(Duration::from_millis(500)).await;
    assert_eq!(seen.all().len(), 17, "at rest: {:?}", seen.all());
    let gave_up = |running: &postrider::Running| running.status()[0].counts.dead_lettered;
    // And one by `serve`: sixteen in all.
    assert_eq!((gave_up(&one), gave_up(&other)), (8, 7));
    one.shutdown().await.unwrap();
    other.shutdown().await.unwrap();
}

async fn a_circle_within_an_app_is_refused(target: Target) {
    let app = target
        .app()
        .state(Seen::default())
        .listen(listeners![left, right]);
    let error = app.start().await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Config);
    let way = "contract.circle.left.dlq -> contract.circle.right.dlq -> contract.circle.left.dlq";
    assert!(error.to_string().contains(way), "{error}");
}

#[listener(topic = "contract.second", dead_letter = "contract.second.dead")]
async fn first(ball: Ball, run: Run) -> Result<(), HandlerError> {
    if ball.run == run.0 {
        return Err(HandlerError::permanent("never by first"));
    }
    Ok(())
}

#[listener(
    topic = "contract.second.dead",
    dead_letter = "contract.second.dead.again",
    retry(attempts = 2, backoff = "50ms")
)]
async fn second(
    ball: Ball,
    run: Run,
    dead: DeadLetter,
    State(seen): State<Seen>,
) -> Result<(), HandlerError> {
    if ball.run != run.0 {
        return Ok(());
    }
    seen.add(format!("{} {} {}", dead.reason, dead.error, dead.hops));
    match seen.all().len() {
        1 | 2 => Err("not yet by second".into()),
        _ => Ok(()),
    }
}

async fn a_dead_letter_that_is_given_up_again_keeps_its_history(target: Target) {
    let seen = Seen::default();
    let running = target.start(&seen, listeners![first, second]).await;
    let publisher = running.publisher();
    let draft = publisher.topic("contract.second").header("tenant", "t-1");
    let run = target.name.clone();
    draft.send(&Ball { run }).await.unwrap();
    let again = || running.status()[1].counts.dead_lettered == 1;
    eventually(|| format!("{:#?}", running.status()), again).await;

    let mut letters = running.dead_letters("second").unwrap();
    let letter = letters.list(&Filter::all()).await.unwrap().pop().unwrap();
    let told = |dead: &DeadLetter| format!("{} {} {} {}", dead.topic, dead.reason, dead.attempts, dead.hops);
    assert_eq!(told(&letter), "contract.second.dead retries_exhausted 2 2");
    let before = letter.before.as_deref().unwrap();
    assert_eq!(told(before), "contract.second permanent 1 1");
    assert_eq!(before.before, None);
    assert_eq!(DeadLetter::from_message(&letter.original).as_ref(), Some(before));
    let tenant = before.original.headers.get_str("tenant");
    assert_eq!(tenant, Some("t-1"));
    let ours = |name: &str| name.starts_with("postrider-");
    assert!(!before.original.headers.iter().any(|(name, _)| ours(name)));

    assert_eq!(letters.replay(Filter::all()).await.unwrap().done, 1);
    seen.count(3).await;
    let same = "permanent never by first 1";
    assert_eq!(seen.all(), [same, same, same], "as it was when it came first");
    running.shutdown().await.unwrap();
}

on_every_broker! {
    what_goes_round_between_apps_comes_to_rest
    a_circle_within_an_app_is_refused
    a_dead_letter_that_is_given_up_again_keeps_its_history
}
