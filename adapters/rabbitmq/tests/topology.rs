//! Declaring, verifying, refusing, and mending what goes missing.

mod support;

use std::time::Duration;

use lapin::BasicProperties;
use lapin::options::{
    BasicGetOptions, BasicPublishOptions, ConfirmSelectOptions, ExchangeDeleteOptions, QueueDeclareOptions,
    QueueDeleteOptions,
};
use lapin::types::{AMQPValue, FieldTable};
use postrider_contract::{
    Broker, ErrorKind, Event, Order, Outgoing, Problem, Settled, Settlement, Sharing, Spec, Start, Topology,
    Verdict, names,
};
use support::own::OwnBroker;
use support::{PATIENCE, connect, connect_to, lapin, lapin_to, message, open, publish, spec, unique};

async fn problems(broker: &std::sync::Arc<dyn Broker>, spec: &Spec, mode: Topology) -> Vec<Problem> {
    let planned = broker.plan(std::slice::from_ref(spec), mode).await;
    planned.err().unwrap_or_default()
}

/// A queue that is there with other arguments: both sides are told, and it is left as it is.
#[tokio::test]
async fn a_mismatch_tells_both_sides() {
    let topic = unique("mismatch");
    let queue = format!("{topic}.g");
    let channel = lapin().await;
    let options = QueueDeclareOptions {
        durable: true,
        ..QueueDeclareOptions::default()
    };
    channel
        .queue_declare(queue.as_str().into(), options, FieldTable::default())
        .await
        .unwrap();
    let broker = connect().await;
    for mode in [Topology::Declare, Topology::Verify] {
        let found = problems(&broker, &spec(&topic, "g"), mode).await;
        let text = found.iter().map(ToString::to_string).collect::<String>();
        for part in [
            queue.as_str(),
            "received the value",
            "but current is none",
            "x-queue-type=quorum",
        ] {
            assert!(text.contains(part), "{part} is missing in {text:?}");
        }
    }
}

#[tokio::test]
async fn what_rabbitmq_cannot_do_is_refused() {
    let broker = connect().await;
    let topic = unique("refused");
    let refuse = async |change: &dyn Fn(&mut Spec)| {
        let mut wishes = spec(&topic, "g");
        change(&mut wishes);
        let found = problems(&broker, &wishes, Topology::Declare).await;
        assert!(!found.is_empty(), "{wishes:?} is accepted");
        assert_eq!(&*found[0].listener, "listener");
        found[0].to_string()
    };
    let text = refuse(&|spec| spec.start = Start::Earliest).await;
    assert!(text.contains("start"), "{text}");
    let text = refuse(&|spec| spec.max_delay = Some(Duration::from_secs(48 * 3600))).await;
    assert!(text.contains("delay"), "{text}");
    let text = refuse(&|spec| spec.group = "dlq".into()).await;
    assert!(text.contains("internal"), "{text}");
    let long = format!("{topic}.{}", "x".repeat(195 - topic.len()));
    let text = refuse(&|spec| {
        spec.source = postrider_contract::Source::Topic(long.as_str().into());
        spec.group = "y".repeat(60).into();
    })
    .await;
    assert!(text.contains("213"), "{text}");
}

/// Without a ladder or a queue, verify says so and makes nothing; on a broker of its own, where nothing is yet.
#[tokio::test]
async fn verify_lists_everything_that_is_missing() {
    let own = OwnBroker::start();
    let broker = connect_to(&own.url()).await;
    let found = problems(&broker, &spec("t", "g"), Topology::Verify).await;
    let text = found
        .iter()
        .map(|problem| problem.to_string() + "\n")
        .collect::<String>();
    for part in [
        "exchange `postrider`",
        "exchange `postrider.inbox`",
        "queue `postrider.delay.00`",
        "queue `postrider.delay.19`",
        "queue `t.g`",
        "queue `t.g.dlq`",
    ] {
        assert!(text.contains(part), "{part} is missing in {text}");
    }
    let queues = own.rabbitmqctl(&["list_queues", "-p", "postrider", "name", "--quiet"]);
    assert!(
        !queues.contains("postrider.delay") && !queues.contains("t.g"),
        "{queues}"
    );
    // In verify mode a publish makes nothing either.
    let answers = broker.publish(vec![Outgoing::to_topic("t", message("m"))]).await;
    assert!(answers[0].is_err());
    let exchanges = own.rabbitmqctl(&["list_exchanges", "-p", "postrider", "name", "--quiet"]);
    assert!(!exchanges.contains("postrider"), "{exchanges}");
}

/// The queue is deleted while its listener runs: it is declared again, and messages flow.
#[tokio::test]
async fn a_deleted_queue_is_declared_again() {
    let topic = unique("deleted");
    let broker = connect().await;
    let mut sub = open(&broker, spec(&topic, "g")).await;
    publish(&broker, &topic, message("before")).await;
    let held = sub.one().await;
    let queue = format!("{topic}.g");
    lapin()
        .await
        .queue_delete(queue.as_str().into(), QueueDeleteOptions::default())
        .await
        .unwrap();
    // Nothing of it may be started any more: the broker gives it to whoever is next.
    let held_lane = [held.token.lane];
    let revoked = |event: &Event| matches!(event, Event::Revoked { lanes, .. } if *lanes == held_lane);
    sub.until(revoked).await;
    sub.until(|event| matches!(event, Event::Degraded(_))).await;
    sub.until(|event| matches!(event, Event::Ready)).await;
    let late = sub.settle(&held, postrider_contract::Verdict::ACK).await;
    assert!(matches!(late, Settled::Stale), "{late:?}");
    publish(&broker, &topic, message("after")).await;
    let came = sub.one().await;
    assert_eq!(came.message.headers.get_str(names::MESSAGE_ID), Some("after"));
    sub.ack(&came).await;
}

/// In verify mode it is not made again: the listener says that it is degraded until somebody makes it.
#[tokio::test]
async fn a_deleted_queue_is_waited_for_in_verify_mode() {
    let topic = unique("waited");
    let broker = connect().await;
    let wishes = spec(&topic, "g");
    broker
        .plan(std::slice::from_ref(&wishes), Topology::Declare)
        .await
        .unwrap();
    let verifying = connect().await;
    verifying
        .plan(std::slice::from_ref(&wishes), Topology::Verify)
        .await
        .unwrap();
    let mut opened = verifying.open(vec![wishes.clone()]).await.unwrap().remove(0);
    let mut into = Vec::new();
    assert!(matches!(
        opened.receiver.next(1, &mut into).await.unwrap(),
        Event::Ready
    ));
    let queue = format!("{topic}.g");
    let channel = lapin().await;
    channel
        .queue_delete(queue.as_str().into(), QueueDeleteOptions::default())
        .await
        .unwrap();
    let event = opened.receiver.next(1, &mut into).await.unwrap();
    assert!(matches!(event, Event::Revoked { .. }), "{event:?}");
    for _ in 0..3 {
        let event = opened.receiver.next(1, &mut into).await.unwrap();
        assert!(matches!(event, Event::Degraded(_)), "{event:?}");
    }
    broker
        .plan(std::slice::from_ref(&wishes), Topology::Declare)
        .await
        .unwrap();
    loop {
        let next = tokio::time::timeout(PATIENCE, opened.receiver.next(1, &mut into));
        if matches!(next.await.expect("it comes back").unwrap(), Event::Ready) {
            break;
        }
    }
    publish(&broker, &topic, message("after")).await;
    assert!(matches!(
        opened.receiver.next(1, &mut into).await.unwrap(),
        Event::Deliveries
    ));
}

/// The topic exchange is deleted while everything runs: the publisher declares it again, and the listener binds again.
#[tokio::test]
async fn a_deleted_exchange_is_declared_and_bound_again() {
    let own = OwnBroker::start();
    for (topic, sharing) in [("shared", Sharing::Group), ("copied", Sharing::Broadcast)] {
        let broker = connect_to(&own.url()).await;
        let mut wishes = spec(topic, "g");
        wishes.sharing = sharing;
        let mut sub = open(&broker, wishes).await;
        publish(&broker, topic, message("before")).await;
        let before = sub.one().await;
        sub.ack(&before).await;
        delete_exchange(&own, "postrider").await;
        let started = tokio::time::Instant::now();
        loop {
            let outgoing = Outgoing::to_topic(topic, message("after"));
            match broker.publish(vec![outgoing]).await.remove(0) {
                Ok(receipt) if receipt.received => break,
                Ok(_) => {}
                Err(error) => assert!(error.is_retryable(), "{error}"),
            }
            assert!(
                started.elapsed() < Duration::from_secs(45),
                "the listener binds again"
            );
            tokio::time::sleep(Duration::from_millis(200)).await;
        }
        println!("bound again after {:?}", started.elapsed());
        let came = sub.one().await;
        assert_eq!(came.message.headers.get_str(names::MESSAGE_ID), Some("after"));
        broker.close(PATIENCE).await.unwrap();
    }
}

/// Nobody publishes by Postrider: whoever consumes declares the exchange again.
#[tokio::test]
async fn a_deleted_exchange_is_declared_again_by_those_who_consume() {
    let own = OwnBroker::start();
    let retry = format!("{}i.retried.g", "0.".repeat(20));
    for (topic, sharing, exchange, key) in [
        ("retried", Sharing::Group, "postrider.delay.out", retry.as_str()),
        ("shared", Sharing::Group, "postrider", "shared"),
        ("copied", Sharing::Broadcast, "postrider", "copied"),
    ] {
        let broker = connect_to(&own.url()).await;
        let mut wishes = spec(topic, "g");
        wishes.sharing = sharing;
        let mut sub = open(&broker, wishes).await;
        delete_exchange(&own, exchange).await;
        let raw = lapin_to(&own.url_text()).await;
        let deadline = tokio::time::Instant::now() + 2 * PATIENCE;
        loop {
            // As long as there is no exchange this ends the channel.
            let channel = raw.create_channel().await.unwrap();
            let options = BasicPublishOptions::default();
            let properties = BasicProperties::default();
            let sent = channel.basic_publish(exchange.into(), key.into(), options, b"m", properties);
            sent.await.unwrap();
            if sub.within(Duration::from_secs(1)).await.is_some() {
                break;
            }
            let now = tokio::time::Instant::now();
            assert!(now < deadline, "`{exchange}` comes back to `{topic}`");
        }
        broker.close(PATIENCE).await.unwrap();
    }
}

async fn delete_exchange(own: &OwnBroker, exchange: &str) {
    let channel = lapin_to(&own.url_text()).await.create_channel().await.unwrap();
    channel
        .exchange_delete(exchange.into(), ExchangeDeleteOptions::default())
        .await
        .unwrap();
}

/// What an instance looks through it has in its hands, and others that look then see nothing of theirs for ten seconds.
static UNROUTED: tokio::sync::Mutex<()> = tokio::sync::Mutex::const_new(());

/// A retry comes due while its group's queue is gone: it waits aside, and comes when the group is declared again.
#[tokio::test]
async fn a_retry_outlives_its_queue() {
    let _alone = UNROUTED.lock().await;
    let topic = unique("outlives");
    let broker = connect().await;
    let wishes = spec(&topic, "g");
    let mut sub = open(&broker, wishes.clone()).await;
    publish(&broker, &topic, message("m")).await;
    let came = sub.one().await;
    let due = std::time::SystemTime::now() + Duration::from_millis(600);
    let retry = Outgoing::to_inbox(topic.as_str(), "g", came.message.clone()).not_before(due);
    assert!(matches!(sub.emit(&came, vec![retry]).await, Settled::Done));
    broker.close(PATIENCE).await.unwrap();
    let queue = format!("{topic}.g");
    lapin()
        .await
        .queue_delete(queue.as_str().into(), QueueDeleteOptions::default())
        .await
        .unwrap();
    tokio::time::sleep(Duration::from_millis(1_500)).await;
    // As other groups look for theirs.
    for _ in 0..21 {
        let channel = lapin().await;
        let options = BasicGetOptions::default();
        while let Some(_of_another) = channel
            .basic_get("postrider.unrouted".into(), options)
            .await
            .unwrap()
        {}
        channel.close(200, "OK".into()).await.unwrap();
    }
    let broker = connect().await;
    let mut sub = open(&broker, wishes).await;
    let came = sub.one().await;
    assert_eq!(came.message.headers.get_str(names::MESSAGE_ID), Some("m"));
    assert_eq!(came.redeliveries, Some(0), "by its own queue");
    assert!(matches!(
        came.origin,
        postrider_contract::Origin::ReturnPath { .. }
    ));
    assert!(
        came.message
            .headers
            .iter()
            .all(|(name, _)| !name.contains("death"))
    );
    sub.ack(&came).await;
}

/// Each listener looks for its own, and what one has in its hands the others do not see.
#[tokio::test]
async fn retries_of_several_listeners_outlive_their_queues() {
    const EACH: usize = 20;
    let _alone = UNROUTED.lock().await;
    let wishes = ["one", "two"].map(|name| spec(&unique(name), "g"));
    let broker = connect().await;
    for wish in &wishes {
        let mut sub = open(&broker, wish.clone()).await;
        publish(&broker, wish.topic(), message("m")).await;
        let came = sub.one().await;
        let due = std::time::SystemTime::now() + Duration::from_millis(600);
        let retry = Outgoing::to_inbox(wish.topic().clone(), "g", came.message.clone());
        let retries = vec![retry.not_before(due); EACH];
        assert!(matches!(sub.emit(&came, retries).await, Settled::Done));
    }
    broker.close(PATIENCE).await.unwrap();
    for wish in &wishes {
        let queue = format!("{}.g", wish.topic());
        let deleted = lapin()
            .await
            .queue_delete(queue.as_str().into(), QueueDeleteOptions::default())
            .await;
        deleted.unwrap();
    }
    tokio::time::sleep(Duration::from_millis(1_500)).await;
    let broker = connect().await;
    broker.plan(&wishes, Topology::Declare).await.unwrap();
    for mut opened in broker.open(wishes.to_vec()).await.unwrap() {
        let mut came = Vec::new();
        while came.len() < EACH {
            let next = opened.receiver.next(EACH, &mut came);
            tokio::time::timeout(PATIENCE, next)
                .await
                .expect("they come")
                .unwrap();
        }
        assert_eq!(came.len(), EACH);
    }
}

/// More than are brought back together; on a broker of its own, since others would have so many in their hands for long.
#[tokio::test]
async fn a_great_many_retries_outlive_their_queue() {
    const MANY: usize = 1_200;
    let own = OwnBroker::start();
    let broker = connect_to(&own.url()).await;
    broker
        .plan(&[spec("other", "g")], Topology::Declare)
        .await
        .unwrap();
    // As they come out of the ladder.
    let key = format!("{}i.t.g", "0.".repeat(20));
    let connection = lapin_to(&own.url_text()).await;
    let channel = connection.create_channel().await.unwrap();
    channel
        .confirm_select(ConfirmSelectOptions::default())
        .await
        .unwrap();
    for _ in 0..MANY {
        let published = channel.basic_publish(
            "postrider.delay.out".into(),
            key.as_str().into(),
            BasicPublishOptions::default(),
            b"payload",
            BasicProperties::default(),
        );
        published.await.unwrap();
    }
    channel.wait_for_confirms().await.unwrap();
    let wishes = spec("t", "g");
    broker
        .plan(std::slice::from_ref(&wishes), Topology::Declare)
        .await
        .unwrap();
    let mut opened = broker.open(vec![wishes]).await.unwrap().remove(0);
    let mut count = 0;
    // Once they come, sooner than they are looked for again.
    let mut patience = PATIENCE;
    while count < MANY {
        let mut came = Vec::new();
        let next = opened.receiver.next(100, &mut came);
        let event = tokio::time::timeout(patience, next).await.expect("they come");
        if let Event::Deliveries = event.unwrap() {
            patience = Duration::from_secs(5);
        }
        let mut batch: Vec<_> = came
            .iter()
            .map(|delivery| Settlement {
                token: delivery.token,
                verdict: Verdict::ACK,
            })
            .collect();
        opened.settler.settle(&mut batch, &mut Vec::new()).await;
        count += came.len();
    }
    assert_eq!(count, MANY);
}

/// A dead-letter copy finds its stream gone: the stream is declared again and takes it.
#[tokio::test]
async fn a_deleted_dead_letter_topic_is_declared_again() {
    let topic = unique("stream");
    let broker = connect().await;
    let mut sub = open(&broker, spec(&topic, "g")).await;
    publish(&broker, &topic, message("m")).await;
    let came = sub.one().await;
    let stream = names::dead_letter_topic(&topic, "g");
    lapin()
        .await
        .queue_delete(stream.as_str().into(), QueueDeleteOptions::default())
        .await
        .unwrap();
    let died = support::dead(&came.message, &topic, "g");
    assert!(matches!(sub.emit(&came, vec![died]).await, Settled::Done));
    let mut letters = broker.dead_letters(&stream, &topic, "g");
    assert_eq!(letters.browse(None, 10).await.unwrap().len(), 1);
}

/// Switching `ordered` moves to another queue: not while the former has something, then without further ado.
#[tokio::test]
async fn switching_ordered_leaves_nothing_behind() {
    let topic = unique("switch");
    let broker = connect().await;
    let plain = spec(&topic, "g");
    let mut ordered = plain.clone();
    ordered.order = Order::ByKey;
    broker
        .plan(std::slice::from_ref(&plain), Topology::Declare)
        .await
        .unwrap();
    publish(&broker, &topic, message("left")).await;
    let found = problems(&broker, &ordered, Topology::Declare).await;
    let text = found.iter().map(ToString::to_string).collect::<String>();
    for part in ["switched on", "1 messages", "stop what publishes", "delete_queue"] {
        assert!(text.contains(part), "{part} is missing in {text:?}");
    }
    // The refused version leaves nothing behind that would keep the former one from starting again.
    publish(&broker, &topic, message("after")).await;
    let emptying = connect().await;
    let mut sub = open(&emptying, plain.clone()).await;
    for id in ["left", "after"] {
        let came = sub.one().await;
        assert_eq!(came.message, message(id));
        sub.ack(&came).await;
    }
    emptying.close(PATIENCE).await.unwrap();
    tokio::time::sleep(Duration::from_millis(300)).await;
    let mut sub = open(&broker, ordered).await;
    publish(&broker, &topic, message("moved")).await;
    let came = sub.one().await;
    assert_eq!(came.message, message("moved"));
    sub.ack(&came).await;
    let channel = lapin().await;
    let options = QueueDeclareOptions {
        passive: true,
        ..QueueDeclareOptions::default()
    };
    let former = channel
        .queue_declare(
            format!("{topic}.g").as_str().into(),
            options,
            FieldTable::default(),
        )
        .await
        .unwrap();
    assert_eq!(
        former.message_count(),
        0,
        "the former queue receives nothing any more"
    );
}

/// The queue of a group beside its broadcast may be another program's, which misses nothing while it is away.
#[tokio::test]
async fn a_broadcast_takes_nothing_from_the_queue_of_its_group() {
    let broker = connect().await;
    for order in [Order::None, Order::ByKey] {
        let topic = unique("copies");
        let mut group = spec(&topic, "g");
        group.order = order;
        let mut copies = spec(&topic, "g");
        copies.sharing = Sharing::Broadcast;
        assert!(problems(&broker, &group, Topology::Declare).await.is_empty());
        let mut copy = open(&broker, copies).await;
        publish(&broker, &topic, message("for both")).await;
        copy.one().await;
        let mut sub = open(&broker, group).await;
        sub.one().await;
    }
}

/// What the broker itself gives up is among the group's dead letters too.
#[tokio::test]
async fn what_the_broker_gives_up_is_a_dead_letter() {
    let topic = unique("given-up");
    let usual = names::dead_letter_topic(&topic, "g");
    let published = Outgoing::to_topic(topic.as_str(), message("m"));
    what_the_broker_gives_up_is_in(&topic, published, &usual).await;
}

#[tokio::test]
async fn what_the_broker_gives_up_is_in_another_dead_letter_topic() {
    let topic = unique("given-up");
    let published = Outgoing::to_topic(topic.as_str(), message("m"));
    what_the_broker_gives_up_is_in(&topic, published, &unique("custom")).await;
}

/// A retry has passed through queues of the ladder, and each of them gave it up in its time.
#[tokio::test]
async fn a_retry_that_the_broker_gives_up_is_a_dead_letter() {
    let topic = unique("given-up");
    let usual = names::dead_letter_topic(&topic, "g");
    let due = std::time::SystemTime::now() + Duration::from_millis(400);
    let retry = Outgoing::to_inbox(topic.as_str(), "g", message("m")).not_before(due);
    what_the_broker_gives_up_is_in(&topic, retry, &usual).await;
}

/// A listener on a dead-letter topic gets what says of itself that it is a dead letter of another.
#[tokio::test]
async fn a_dead_letter_that_the_broker_gives_up_is_one_of_its_last_group() {
    let topic = unique("given-up");
    let usual = names::dead_letter_topic(&topic, "g");
    let published = support::dead(&message("m"), "another", "g").message;
    let published = Outgoing::to_topic(topic.as_str(), published);
    what_the_broker_gives_up_is_in(&topic, published, &usual).await;
}

async fn what_the_broker_gives_up_is_in(topic: &str, message: Outgoing, dead_letter: &str) {
    let mut wishes = spec(topic, "g");
    wishes.dead_letter = Some(dead_letter.into());
    let broker = connect().await;
    broker
        .plan(std::slice::from_ref(&wishes), Topology::Declare)
        .await
        .unwrap();
    broker.publish(vec![message]).await.remove(0).unwrap();
    let channel = lapin().await;
    let queue = format!("{topic}.g");
    let deadline = tokio::time::Instant::now() + PATIENCE;
    let got = loop {
        let options = BasicGetOptions::default();
        let got = channel.basic_get(queue.as_str().into(), options).await.unwrap();
        match got {
            Some(got) => break got,
            None => assert!(tokio::time::Instant::now() < deadline, "it comes"),
        }
        tokio::time::sleep(Duration::from_millis(50)).await;
    };
    got.acker
        .reject(lapin::options::BasicRejectOptions { requeue: false })
        .await
        .unwrap();
    let mut letters = broker.dead_letters(dead_letter, topic, "g");
    let deadline = tokio::time::Instant::now() + PATIENCE;
    let found = loop {
        let found = letters.browse(None, 10).await.unwrap();
        if !found.is_empty() {
            break found;
        }
        assert!(tokio::time::Instant::now() < deadline, "it is dead-lettered");
        tokio::time::sleep(Duration::from_millis(50)).await;
    };
    let mut sub = open(&broker, wishes).await;
    letters.replay(&[found[0].id.clone()]).await.remove(0).unwrap();
    let came = sub.one().await;
    assert_eq!(came.message.headers.get_str(names::MESSAGE_ID), Some("m"));
}

/// A queue that is no stream is not looked at: looking would consume.
#[tokio::test]
async fn dead_letters_in_a_plain_queue_are_refused() {
    let topic = unique("plain.dlq");
    let channel = lapin().await;
    let mut arguments = FieldTable::default();
    arguments.insert("x-queue-type".into(), AMQPValue::LongString("quorum".into()));
    channel
        .queue_declare(topic.as_str().into(), QueueDeclareOptions::durable(), arguments)
        .await
        .unwrap();
    let broker = connect().await;
    let error = broker
        .dead_letters(&topic, "t", "g")
        .browse(None, 10)
        .await
        .unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Topology, "{error}");
    // One that was never declared has none.
    assert!(
        broker
            .dead_letters("never.dlq", "t", "g")
            .browse(None, 10)
            .await
            .unwrap()
            .is_empty()
    );
}

/// A binding that is taken away comes back by itself.
#[tokio::test]
async fn a_lost_binding_comes_back() {
    let topic = unique("binding");
    let broker = connect().await;
    let mut sub = open(&broker, spec(&topic, "g")).await;
    lapin()
        .await
        .queue_unbind(
            format!("{topic}.g").as_str().into(),
            "postrider".into(),
            topic.as_str().into(),
            FieldTable::default(),
        )
        .await
        .unwrap();
    let started = tokio::time::Instant::now();
    loop {
        let outgoing = Outgoing::to_topic(topic.as_str(), message("m"));
        if broker.publish(vec![outgoing]).await.remove(0).unwrap().received {
            break;
        }
        assert!(
            started.elapsed() < Duration::from_secs(45),
            "the binding comes back"
        );
        tokio::time::sleep(Duration::from_millis(500)).await;
    }
    sub.one().await;
}
