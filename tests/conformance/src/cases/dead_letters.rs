//! Dead letters: kept whole, looked at without harm, put back for their group.

use std::sync::Arc;
use std::time::Duration;

use postrider_contract::{Bytes, DeadLetter, DeadLetters, Message, Origin, Outgoing, Spec, names};

use crate::Run;
use crate::kit::{
    Instance, Subscribed, assert_each_once, assert_same_content, count_ids, dead, id, numbered, spec,
};

/// Publishes numbered messages and gives each up.
async fn give_up(instance: &Instance, sub: &mut Subscribed, spec: &Spec, count: usize) {
    instance.publish_numbered(spec.topic(), 0..count).await;
    let letters = spec.dead_letter.as_deref().unwrap_or_default();
    let mut deliveries = sub.take(count).await;
    deliveries.sort_by_key(|it| id(&it.message));
    for delivery in deliveries {
        sub.emit(&delivery, vec![dead(&delivery, &spec.group, letters)])
            .await;
    }
}

fn letters_of(instance: &Instance, spec: &Spec) -> Box<dyn DeadLetters> {
    let topic = spec.dead_letter.as_deref().unwrap_or_default();
    instance.broker.dead_letters(topic, spec.topic(), &spec.group)
}

async fn browse(letters: &mut Box<dyn DeadLetters>) -> Vec<DeadLetter> {
    letters.browse(None, 1000).await.expect("browse")
}

fn ids(letters: &[DeadLetter]) -> Vec<String> {
    letters.iter().map(|letter| id(&letter.message)).collect()
}

fn keys(letters: &[DeadLetter]) -> Vec<Bytes> {
    letters.iter().map(|letter| letter.id.clone()).collect()
}

fn all_ok(results: Vec<Result<(), postrider_contract::Error>>, count: usize) {
    assert_eq!(results.len(), count, "an answer for each id");
    for result in results {
        result.expect("done, or done before");
    }
}

/// Bytes, key and headers of a dead letter are those of the message, beside what was added.
pub async fn dead_letters_keep_everything(run: Run) {
    let topic = run.topic("t");
    let wishes = spec(&topic, "g");
    let instance = run.connect().await;
    let [mut sub] = instance.open([wishes.clone()]).await;
    let message = Message::new(vec![0, 159, 146, 150, 10, 13])
        .with_key("key")
        .with_header(names::MESSAGE_ID, "id-0")
        .with_header(names::CONTENT_TYPE, "application/x-test")
        .with_header("x-raw", Bytes::from_static(&[0xff, 0, 0xfe]))
        .with_header("x-text", "text");
    instance
        .publish(vec![Outgoing::to_topic(topic, message.clone())])
        .await;
    let delivery = sub.one().await;
    let copy = dead(&delivery, "g", wishes.dead_letter.as_deref().unwrap_or_default());
    sub.emit(&delivery, vec![copy.clone()]).await;
    let there = browse(&mut letters_of(&instance, &wishes)).await;
    assert_eq!(there.len(), 1);
    assert_same_content(&there[0].message, &message);
    assert_same_content(&there[0].message, &copy.message);
    sub.quiet().await;
    instance.close().await;
}

/// Looking twice shows the same, and a listener on the dead-letter topic gets each letter once, whoever looks.
pub async fn browsing_disturbs_nobody(run: Run) {
    let topic = run.topic("t");
    let wishes = spec(&topic, "g");
    let dead_topic: Arc<str> = wishes.dead_letter.clone().unwrap_or_else(|| "".into());
    let instance = run.connect().await;
    let mut watch = spec(&dead_topic, "watch");
    watch.dead_letter = None;
    watch.in_flight = 2;
    let [mut sub, mut watcher] = instance.open([wishes.clone(), watch]).await;
    give_up(&instance, &mut sub, &wishes, 5).await;
    let mut letters = letters_of(&instance, &wishes);
    let first = browse(&mut letters).await;
    let held = watcher.take(2).await;
    let second = browse(&mut letters).await;
    assert_eq!(
        ids(&first),
        ["id-0", "id-1", "id-2", "id-3", "id-4"],
        "oldest first"
    );
    assert_eq!((keys(&first), ids(&first)), (keys(&second), ids(&second)));
    watcher.ack(&held).await;
    let mut watched = watcher.handle(3).await;
    watched.extend(held);
    assert_each_once(&watched, 0..5);
    assert!(
        watched
            .iter()
            .all(|it| it.origin == Origin::Topic && it.topic == dead_topic)
    );
    let third = browse(&mut letters_of(&instance, &wishes)).await;
    assert_eq!(
        keys(&first),
        keys(&third),
        "a listener's acknowledgement takes none away"
    );
    watcher.quiet().await;
    instance.close().await;
}

/// A page after another is everything, in order.
pub async fn browsing_goes_page_by_page(run: Run) {
    let topic = run.topic("t");
    let wishes = spec(&topic, "g");
    let instance = run.connect().await;
    let [mut sub] = instance.open([wishes.clone()]).await;
    let mut letters = letters_of(&instance, &wishes);
    assert!(browse(&mut letters).await.is_empty(), "no letters yet");
    give_up(&instance, &mut sub, &wishes, 7).await;
    let (mut paged, mut after) = (Vec::new(), None::<Bytes>);
    loop {
        let page = letters.browse(after.as_ref(), 3).await.expect("browse");
        let Some(last) = page.last() else { break };
        assert!(page.len() <= 3, "a page of three has {}", page.len());
        assert!(paged.len() <= 7, "the pages never end");
        after = Some(last.id.clone());
        paged.extend(page);
    }
    let all = browse(&mut letters).await;
    assert_eq!((keys(&paged), paged.len()), (keys(&all), 7));
    instance.close().await;
}

/// A replay reaches its own group alone, as a first attempt without the dead letter's headers, and leaves the others.
pub async fn replay_goes_to_its_group_only(run: Run) {
    let topic = run.topic("t");
    let wishes = spec(&topic, "g");
    let instance = run.connect().await;
    let [mut sub, mut other] = instance.open([wishes.clone(), spec(&topic, "other")]).await;
    give_up(&instance, &mut sub, &wishes, 3).await;
    other.handle(3).await;
    let mut letters = letters_of(&instance, &wishes);
    let there = browse(&mut letters).await;
    all_ok(letters.replay(&keys(&there[1..2])).await, 1);
    let again = sub.one().await;
    assert_eq!(
        again.origin,
        Origin::ReturnPath {
            attempt: 1,
            replays: 1
        }
    );
    assert_eq!(id(&again.message), "id-1");
    assert_eq!(again.message.payload, numbered(1).payload);
    let left_over = again
        .message
        .headers
        .iter()
        .find(|(name, _)| name.starts_with(names::DEAD_PREFIX));
    assert_eq!(left_over, None);
    sub.ack(&[again]).await;
    assert_eq!(ids(&browse(&mut letters).await), ["id-0", "id-2"]);
    sub.quiet().await;
    other.quiet().await;
    instance.close().await;
}

/// Replaying again what was replayed does nothing.
pub async fn replay_is_idempotent(run: Run) {
    let topic = run.topic("t");
    let wishes = spec(&topic, "g");
    let instance = run.connect().await;
    let [mut sub] = instance.open([wishes.clone()]).await;
    give_up(&instance, &mut sub, &wishes, 4).await;
    let mut letters = letters_of(&instance, &wishes);
    let all = keys(&browse(&mut letters).await);
    all_ok(letters.replay(&all).await, 4);
    all_ok(letters.replay(&all).await, 4);
    all_ok(letters_of(&instance, &wishes).replay(&all).await, 4);
    assert_each_once(&sub.handle(4).await, 0..4);
    sub.quiet().await;
    assert!(browse(&mut letters).await.is_empty(), "replayed is taken out");
    instance.close().await;
}

/// Given up, replayed, given up and replayed again: the second replay is counted as such.
pub async fn replays_are_counted(run: Run) {
    let topic = run.topic("t");
    let wishes = spec(&topic, "g");
    let instance = run.connect().await;
    let [mut sub] = instance.open([wishes.clone()]).await;
    give_up(&instance, &mut sub, &wishes, 1).await;
    let mut letters = letters_of(&instance, &wishes);
    for round in 1..4u16 {
        let there = keys(&browse(&mut letters).await);
        assert_eq!(there.len(), 1);
        all_ok(letters.replay(&there).await, 1);
        let again = sub.one().await;
        let expected = Origin::ReturnPath {
            attempt: 1,
            replays: round,
        };
        assert_eq!(again.origin, expected);
        let mut copy = dead(&again, "g", wishes.dead_letter.as_deref().unwrap_or_default());
        copy.message.headers.set(names::DEAD_REPLAYS, i64::from(round));
        // The original of this attempt lies elsewhere than that of the one before.
        copy.message
            .headers
            .set(names::DEAD_POSITION, format!("round {round}"));
        sub.emit(&again, vec![copy]).await;
    }
    instance.close().await;
}

/// Purged letters are gone, for good and alone; unknown ids are no error.
pub async fn purged_is_gone(run: Run) {
    let topic = run.topic("t");
    let wishes = spec(&topic, "g");
    let instance = run.connect().await;
    let [mut sub] = instance.open([wishes.clone()]).await;
    give_up(&instance, &mut sub, &wishes, 4).await;
    let mut letters = letters_of(&instance, &wishes);
    let gone = keys(&browse(&mut letters).await[1..3]);
    all_ok(letters.purge(&gone).await, 2);
    all_ok(letters.purge(&gone).await, 2);
    all_ok(letters.replay(&gone).await, 2);
    assert_eq!(ids(&browse(&mut letters).await), ["id-0", "id-3"]);
    assert_eq!(
        ids(&browse(&mut letters_of(&instance, &wishes)).await),
        ["id-0", "id-3"]
    );
    sub.quiet().await;
    instance.close().await;
}

/// Two groups that give up to one topic each see, replay and purge their own.
pub async fn groups_share_a_dead_letter_topic(run: Run) {
    let (topic, common) = (run.topic("t"), run.topic("common"));
    let [one, two] = ["one", "two"].map(|group| {
        let mut wishes = spec(&topic, group);
        wishes.dead_letter = Some(common.clone());
        wishes
    });
    let instance = run.connect().await;
    let [mut first, mut second] = instance.open([one.clone(), two.clone()]).await;
    instance.publish_numbered(&topic, 0..3).await;
    for (sub, group) in [(&mut first, "one"), (&mut second, "two")] {
        for delivery in sub.take(3).await {
            sub.emit(&delivery, vec![dead(&delivery, group, &common)]).await;
        }
    }
    let (mut ones, mut twos) = (letters_of(&instance, &one), letters_of(&instance, &two));
    let (of_one, of_two) = (browse(&mut ones).await, browse(&mut twos).await);
    for (letters, group) in [(&of_one, "one"), (&of_two, "two")] {
        assert_eq!(letters.len(), 3, "letters of group {group}");
        let by = |letter: &DeadLetter| letter.message.headers.get_str(names::DEAD_GROUP) == Some(group);
        assert!(letters.iter().all(by));
    }
    all_ok(ones.replay(&keys(&of_one)).await, 3);
    assert_eq!(count_ids(&first.handle(3).await).len(), 3);
    second.quiet_for(Duration::from_millis(300)).await;
    assert_eq!(browse(&mut twos).await.len(), 3, "the other group's letters stay");
    instance.close().await;
}
