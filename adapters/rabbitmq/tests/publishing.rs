//! Confirms and returns, pipelined.

mod support;

use std::sync::Arc;
use std::time::Duration;

use futures_util::future::join_all;
use lapin::options::{QueueBindOptions, QueueDeclareOptions};
use lapin::types::{AMQPValue, FieldTable};
use postrider_contract::{Broker, Bytes, ErrorKind, Message, Outgoing, Settled, Topology};
use support::own::OwnBroker;
use support::{PATIENCE, connect, connect_to, lapin, message, open, publish, spec, unique};
use tokio::io::AsyncReadExt;
use tokio::net::{TcpListener, TcpStream};
use tokio::time::{Instant, timeout};

/// 2,000 publishes in several calls at once, one in ten to a topic that nobody receives: exactly those are told so. The
/// client library mixes some of them up, which is why every return is matched by the adapter.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn returns_are_told_of_their_own_message() {
    let topic = unique("heard");
    let nowhere = unique("unheard");
    let broker = connect().await;
    broker
        .plan(&[spec(&topic, "g")], Topology::Declare)
        .await
        .unwrap();
    for with_ids in [true, false] {
        let mut calls = Vec::new();
        for call in 0..20 {
            let (broker, topic, nowhere) = (broker.clone(), topic.clone(), nowhere.clone());
            calls.push(tokio::spawn(async move {
                let unheard = |n: usize| (n * 7 + call).is_multiple_of(10);
                let batch = (0..100).map(|n| {
                    let message = if with_ids {
                        // The same id in every call: place and order tell them apart.
                        message(&format!("id-{n}"))
                    } else {
                        Message::new("x")
                    };
                    Outgoing::to_topic(
                        if unheard(n) {
                            nowhere.as_str()
                        } else {
                            topic.as_str()
                        },
                        message,
                    )
                });
                let answers = broker.publish(batch.collect()).await;
                for (n, answer) in answers.into_iter().enumerate() {
                    assert_eq!(
                        answer.expect("confirmed").received,
                        !unheard(n),
                        "call {call}, message {n}"
                    );
                }
            }));
        }
        for call in calls {
            call.await.unwrap();
        }
    }
}

#[tokio::test]
async fn a_required_receiver_is_required() {
    let topic = unique("required");
    let broker = connect().await;
    // The exchanges are there from the first group on.
    let another = spec(&unique("heard"), "g");
    broker.plan(&[another], Topology::Declare).await.unwrap();
    let mut outgoing = Outgoing::to_topic(topic.as_str(), message("m"));
    outgoing.require_receiver = true;
    let error = broker.publish(vec![outgoing]).await.remove(0).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::NoReceiver, "{error}");
    assert_eq!(error.message_id(), Some("m"));
    let to_nobody = Outgoing::to_inbox(topic.as_str(), "g", message("m"));
    let error = broker.publish(vec![to_nobody]).await.remove(0).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::NoReceiver, "{error}");
}

/// One queue of several refuses what the others keep: it may be there, and whoever repeats it does so under its id.
#[tokio::test]
async fn what_one_queue_of_several_refuses_is_unconfirmed() {
    let topic = unique("refused");
    let broker = connect().await;
    let mut sub = open(&broker, spec(&topic, "g")).await;
    let channel = lapin().await;
    let full = unique("full");
    let mut limits = FieldTable::default();
    limits.insert("x-max-length".into(), 1.into());
    limits.insert(
        "x-overflow".into(),
        AMQPValue::LongString("reject-publish".into()),
    );
    let exclusive = QueueDeclareOptions {
        exclusive: true,
        ..QueueDeclareOptions::default()
    };
    let declared = channel.queue_declare(full.as_str().into(), exclusive, limits);
    declared.await.expect("declared");
    let binding = channel.queue_bind(
        full.as_str().into(),
        "postrider".into(),
        topic.as_str().into(),
        QueueBindOptions::default(),
        FieldTable::default(),
    );
    binding.await.expect("bound");
    publish(&broker, &topic, message("first")).await;
    let second = Outgoing::to_topic(topic.as_str(), message("second"));
    let error = broker.publish(vec![second]).await.remove(0).unwrap_err();
    for id in ["first", "second"] {
        let came = sub.one().await;
        assert_eq!(came.message.headers.get_str("message-id"), Some(id));
        sub.ack(&came).await;
    }
    assert_eq!(
        (error.kind(), error.message_id()),
        (ErrorKind::Unconfirmed, Some("second")),
        "{error}"
    );
}

async fn send(broker: &Arc<dyn Broker>, id: &str) -> Result<bool, (ErrorKind, String)> {
    let answer = broker
        .publish(vec![Outgoing::to_topic("t", message(id))])
        .await
        .remove(0);
    answer
        .map(|receipt| receipt.received)
        .map_err(|error| (error.kind(), error.to_string()))
}

/// Publishes where nobody receives until something is confirmed: to connect may take longer than a short `publish_timeout`.
async fn begin(broker: &Arc<dyn Broker>) {
    let deadline = Instant::now() + PATIENCE;
    let nowhere = || vec![Outgoing::to_topic("nowhere", message("x"))];
    while let Err(error) = broker.publish(nowhere()).await.remove(0) {
        assert!(Instant::now() < deadline, "publishing begins: {error}");
    }
}

/// Short of memory the broker takes nothing: what was sent is unconfirmed, what was held back was never sent. Settlements
/// go on meanwhile, and so do publishes when it is over.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_blocked_broker_holds_publishes_back_and_not_settlements() {
    let own = OwnBroker::start();
    let broker = connect_to(&own.url_with("?publish_timeout=2s")).await;
    let mut sub = open(&broker, spec("t", "g")).await;
    for n in 0..3 {
        publish(&broker, "t", message(&format!("before-{n}"))).await;
    }
    let held = sub.one().await;
    run_short_of_memory(&own);
    let (kind, text) = send(&broker, "first").await.unwrap_err();
    assert_eq!(kind, ErrorKind::Unconfirmed, "{text}");
    let started = Instant::now();
    let (kind, text) = send(&broker, "second").await.unwrap_err();
    assert_eq!(kind, ErrorKind::Unavailable, "{text}");
    assert!(text.contains("memory or disk"), "{text}");
    assert!(started.elapsed() < PATIENCE / 2, "{:?}", started.elapsed());
    sub.ack(&held).await;
    let next = sub.one().await;
    sub.ack(&next).await;
    own.rabbitmqctl(&["set_vm_memory_high_watermark", "0.4"]);
    let deadline = Instant::now() + PATIENCE;
    while send(&broker, "after").await != Ok(true) {
        assert!(Instant::now() < deadline, "publishing goes on");
    }
    broker.close(PATIENCE).await.unwrap();
}

/// Returns once the server knows.
fn run_short_of_memory(own: &OwnBroker) {
    own.rabbitmqctl(&["set_vm_memory_high_watermark", "0.00001"]);
    let deadline = Instant::now() + PATIENCE;
    while !own
        .rabbitmqctl(&["eval", "rabbit_alarm:get_alarms()."])
        .contains("memory")
    {
        assert!(Instant::now() < deadline, "it is short of memory");
    }
}

/// What nobody waits for any more, as after a timeout of the caller's, is not sent when the broker takes something again: it
/// would go before what somebody waits for, and once more beside the caller's next attempt. Nor does it take memory meanwhile.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_is_dropped_before_it_is_sent_is_not_sent() {
    let own = OwnBroker::start();
    let broker = connect_to(&own.url()).await;
    let mut sub = open(&broker, spec("t", "g")).await;
    publish(&broker, "t", message("before")).await;
    own.rabbitmqctl(&["set_vm_memory_high_watermark", "0.00001"]);
    let sending = |id: &'static str| {
        let broker = broker.clone();
        tokio::spawn(async move { send(&broker, id).await })
    };
    let sent = sending("sent");
    let deadline = Instant::now() + PATIENCE;
    while !own
        .rabbitmqctl(&["-q", "list_connections", "state"])
        .contains("blocked")
    {
        assert!(Instant::now() < deadline, "the connection is blocked");
    }
    let payload: Arc<[u8]> = Arc::from(*b"abandoned");
    for _ in 0..10 {
        let calls = (0..100).map(|_| {
            let abandoned = Message::new(Bytes::from_owner(payload.clone()));
            let call = broker.publish(vec![Outgoing::to_topic("t", abandoned)]);
            timeout(Duration::from_millis(100), call)
        });
        let ended = join_all(calls).await;
        assert!(ended.iter().all(Result::is_err), "blocked: {ended:?}");
    }
    let live = sending("live");
    let kept = Arc::strong_count(&payload) - 1;
    own.rabbitmqctl(&["set_vm_memory_high_watermark", "0.4"]);
    assert_eq!(sent.await.unwrap(), Ok(true));
    assert_eq!(live.await.unwrap(), Ok(true));
    assert_eq!(send(&broker, "after").await, Ok(true));
    for id in ["before", "sent", "live", "after"] {
        let came = sub.one().await;
        assert_eq!(came.message.headers.get_str("message-id"), Some(id));
        sub.ack(&came).await;
    }
    assert!(kept < 500, "{kept} of 1000 took memory");
    broker.close(PATIENCE).await.unwrap();
}

/// The broker reads nothing more from a connection that it blocks, so nobody waits for its goodbye.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_blocked_connection_is_closed_at_once() {
    let own = OwnBroker::start();
    let broker = connect_to(&own.url_with("?publish_timeout=1s")).await;
    let sub = open(&broker, spec("t", "g")).await;
    run_short_of_memory(&own);
    let deadline = Instant::now() + PATIENCE;
    loop {
        let (_, text) = send(&broker, "x").await.unwrap_err();
        if text.contains("memory or disk") {
            break;
        }
        assert!(Instant::now() < deadline, "{text}");
    }
    drop(sub);
    let started = Instant::now();
    broker.close(PATIENCE).await.unwrap();
    assert!(started.elapsed() < PATIENCE / 2, "{:?}", started.elapsed());
    // The others are told goodbye.
    let left = own.rabbitmqctl(&["-q", "list_connections", "client_properties"]);
    assert!(!left.contains("(receive)"), "{left}");
}

/// A frozen broker: the publish ends in time as unconfirmed, under its id; sent again after the broker is back, it is there.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_confirm_that_never_comes_is_unconfirmed() {
    let own = OwnBroker::start();
    let broker = connect_to(&own.url_with("?publish_timeout=1500ms&heartbeat=2s")).await;
    let mut sub = open(&broker, spec("t", "g")).await;
    publish(&broker, "t", message("before")).await;
    let before = sub.one().await;
    sub.ack(&before).await;
    own.verb("pause");
    let answers = broker
        .publish(vec![
            Outgoing::to_topic("t", message("one")),
            Outgoing::to_topic("t", message("two")),
        ])
        .await;
    for (answer, id) in answers.iter().zip(["one", "two"]) {
        let error = answer.as_ref().unwrap_err();
        assert_eq!(
            (error.kind(), error.message_id()),
            (ErrorKind::Unconfirmed, Some(id)),
            "{error}"
        );
        // Not because the connection was given up.
        assert!(error.to_string().contains("within `publish_timeout`"), "{error}");
    }
    // Longer than the heartbeats: both sides give the connection up.
    tokio::time::sleep(Duration::from_secs(8)).await;
    own.verb("resume");
    let deadline = Instant::now() + Duration::from_secs(40);
    while send(&broker, "one").await != Ok(true) {
        assert!(Instant::now() < deadline, "publishing goes on");
    }
    let came = sub.one().await;
    assert_eq!(came.message.headers.get_str("message-id"), Some("one"));
    broker.close(PATIENCE).await.unwrap();
}

/// A broker that reads nothing: what the client library would only keep is not given to it, and was never sent.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_the_broker_does_not_read_is_held_back() {
    let own = OwnBroker::start();
    let broker = connect_to(&own.url_with("?publish_timeout=2s")).await;
    let mut sub = open(&broker, spec("t", "g")).await;
    publish(&broker, "t", message("before")).await;
    let before = sub.one().await;
    sub.ack(&before).await;
    own.verb("pause");
    let batch = (0..1000).map(|_| Outgoing::to_topic("t", Message::new(vec![b'x'; 64_000])));
    let answers = broker.publish(batch.collect()).await;
    own.verb("resume");
    let kinds: Vec<ErrorKind> = answers
        .iter()
        .map(|answer| answer.as_ref().unwrap_err().kind())
        .collect();
    let sent = kinds.partition_point(|kind| *kind == ErrorKind::Unconfirmed);
    println!("{sent} were sent");
    assert!((1..1000).contains(&sent), "{sent}");
    assert!(kinds[sent..].iter().all(|kind| *kind == ErrorKind::Unavailable));
    let text = answers[sent].as_ref().unwrap_err().to_string();
    assert!(text.contains("does not read"), "{text}");
    let deadline = Instant::now() + PATIENCE;
    while send(&broker, "after").await != Ok(true) {
        assert!(Instant::now() < deadline, "publishing goes on");
    }
    // Nothing of what was held back comes after all.
    let mut came = 0;
    loop {
        let next = sub.one().await;
        sub.ack(&next).await;
        if next.message.headers.get_str("message-id") == Some("after") {
            break;
        }
        came += 1;
    }
    assert_eq!(came, sent);
    broker.close(PATIENCE).await.unwrap();
}

/// A way to the broker on which each connection is cut once so many bytes went to it.
async fn way_that_is_cut(to: u16, bytes: u64) -> u16 {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let port = listener.local_addr().unwrap().port();
    tokio::spawn(async move {
        while let Ok((client, _)) = listener.accept().await {
            tokio::spawn(async move {
                let server = TcpStream::connect(("127.0.0.1", to)).await.unwrap();
                let (from_client, mut to_client) = client.into_split();
                let (mut from_server, mut to_server) = server.into_split();
                let mut first = from_client.take(bytes);
                tokio::select! {
                    _ = tokio::io::copy(&mut first, &mut to_server) => {}
                    _ = tokio::io::copy(&mut from_server, &mut to_client) => {}
                }
            });
        }
    });
    port
}

/// The connection is lost in the middle of a batch: what follows its lost beginning is not sent on another, or sent again the
/// beginning would come behind.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn nothing_of_a_batch_follows_what_was_lost() {
    let own = OwnBroker::start();
    let port = way_that_is_cut(own.port(), 20_000_000).await;
    let url = format!("amqp://guest:guest@127.0.0.1:{port}/postrider?publish_timeout=30s");
    let broker = connect_to(&url.parse().unwrap()).await;
    broker.plan(&[spec("t", "g")], Topology::Declare).await.unwrap();
    let batch = (0..1000).map(|_| Outgoing::to_topic("t", Message::new(vec![b'x'; 64_000])));
    let answers = broker.publish(batch.collect()).await;
    let lost = answers
        .iter()
        .position(Result::is_err)
        .expect("its connection was cut");
    assert!(lost < 400, "{lost}");
    let behind = &answers[lost..];
    assert_eq!(
        behind.iter().filter(|answer| answer.is_ok()).count(),
        0,
        "behind {lost}"
    );
    let last = behind.last().unwrap().as_ref().unwrap_err();
    assert_eq!(last.kind(), ErrorKind::Unavailable, "{last}");
    assert_eq!(send(&broker, "after").await, Ok(true));
    broker.close(PATIENCE).await.unwrap();
}

/// A queue that has lost its majority: the broker confirms nothing and at last reads nothing. What is published again and
/// again must not fill the memory.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_is_never_confirmed_is_bounded() {
    const LARGE: usize = 20_000;
    let own = OwnBroker::start();
    let broker = connect_to(&own.url_with("?publish_timeout=500ms")).await;
    let mut sub = open(&broker, spec("t", "g")).await;
    let deadline = Instant::now() + PATIENCE;
    while send(&broker, "before").await != Ok(true) {
        assert!(Instant::now() < deadline, "publishing begins");
    }
    let before = sub.one().await;
    sub.ack(&before).await;
    let leader = |verb: &str| own.rabbitmqctl(&["eval", &format!("sys:{verb}('postrider_t.g').")]);
    leader("suspend");
    let mut taken = 0;
    let held_back = loop {
        assert!(taken < 3_000, "there is no end to what is taken");
        let large = |n: u32| Message::new(vec![b'x'; LARGE]).with_header("n", n);
        let batch = (0..100).map(|n| Outgoing::to_topic("t", large(n)));
        let error = broker.publish(batch.collect()).await.remove(0).unwrap_err();
        if error.kind() != ErrorKind::Unconfirmed {
            break error;
        }
        taken += 100;
    };
    println!("{taken} were taken, then: {held_back}");
    assert_eq!(held_back.kind(), ErrorKind::Unavailable, "{held_back}");
    leader("resume");
    let deadline = Instant::now() + PATIENCE;
    while send(&broker, "after").await != Ok(true) {
        assert!(Instant::now() < deadline, "publishing goes on");
    }
    broker.close(PATIENCE).await.unwrap();
}

/// A copy whose confirm did not come in time may arrive all the same, as when the queue has a majority again. However often
/// its original is settled meanwhile, no other is sent; but what else that emits is.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_copy_without_a_confirm_is_not_sent_again() {
    let own = OwnBroker::start();
    let broker = connect_to(&own.url_with("?publish_timeout=1s")).await;
    let mut sub = open(&broker, spec("t", "g")).await;
    begin(&broker).await;
    let mut held = Vec::new();
    for id in ["one", "two"] {
        publish(&broker, "t", message(id)).await;
        held.push(sub.one().await);
    }
    let copy = |id| vec![Outgoing::to_inbox("t", "g", message(id))];
    let leader = |verb: &str| own.rabbitmqctl(&["eval", &format!("sys:{verb}('postrider_t.g').")]);
    leader("suspend");
    let emitted = [
        "copy of one",
        "copy of one",
        "copy of one",
        "copy of one",
        "copy of one",
    ];
    let emitted = emitted.map(|id| (0, id)).into_iter();
    for (of, id) in emitted.chain([(1, "copy of two"), (1, "refusal of two")]) {
        let started = Instant::now();
        match sub.emit(&held[of], copy(id)).await {
            Settled::Failed(_, error) => assert_eq!(error.kind(), ErrorKind::Unconfirmed, "{error}"),
            other => panic!("{other:?}"),
        }
        assert!(
            started.elapsed() > Duration::from_millis(900),
            "a confirm is waited for"
        );
    }
    leader("resume");
    let deadline = Instant::now() + PATIENCE;
    for (delivery, id) in held.iter().zip(["copy of one", "refusal of two"]) {
        while !matches!(sub.emit(delivery, copy(id)).await, Settled::Done) {
            assert!(Instant::now() < deadline, "{id} is confirmed");
        }
    }
    publish(&broker, "t", message("after")).await;
    for id in ["copy of one", "copy of two", "refusal of two", "after"] {
        let came = sub.one().await;
        assert_eq!(came.message.headers.get_str("message-id"), Some(id));
        sub.ack(&came).await;
    }
    broker.close(PATIENCE).await.unwrap();
}

/// A confirm that cannot come any more is not waited for.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_copy_whose_connection_is_lost_is_sent_again() {
    let own = OwnBroker::start();
    let broker = connect_to(&own.url_with("?publish_timeout=1s")).await;
    let mut sub = open(&broker, spec("t", "g")).await;
    begin(&broker).await;
    publish(&broker, "t", message("one")).await;
    let held = sub.one().await;
    let copy = || vec![Outgoing::to_inbox("t", "g", message("copy"))];
    let leader = |verb: &str| own.rabbitmqctl(&["eval", &format!("sys:{verb}('postrider_t.g').")]);
    leader("suspend");
    let settled = sub.emit(&held, copy()).await;
    assert!(matches!(settled, Settled::Failed(..)), "{settled:?}");
    let connections = own.rabbitmqctl(&["-q", "list_connections", "pid", "client_properties"]);
    let publishing = connections.lines().find(|line| line.contains("(publish)"));
    let pid = publishing.and_then(|line| line.split_whitespace().next());
    own.rabbitmqctl(&["close_connection", pid.expect("it publishes"), "a test"]);
    leader("resume");
    let deadline = Instant::now() + PATIENCE;
    while !matches!(sub.emit(&held, copy()).await, Settled::Done) {
        assert!(Instant::now() < deadline, "the copy is confirmed");
    }
    let came = sub.one().await;
    assert_eq!(came.message.headers.get_str("message-id"), Some("copy"));
    sub.ack(&came).await;
    broker.close(PATIENCE).await.unwrap();
}

/// What the broker takes may be less than `max_payload`: the message that is too large for it is told so, and no other.
#[tokio::test]
async fn what_is_too_large_for_the_broker_is_told() {
    let own = OwnBroker::start();
    own.rabbitmqctl(&["eval", "application:set_env(rabbit, max_message_size, 2000)."]);
    let broker = connect_to(&own.url()).await;
    broker.plan(&[spec("t", "g")], Topology::Declare).await.unwrap();
    let sized = |bytes: usize| Outgoing::to_topic("t", Message::new(vec![b'x'; bytes]));
    let answers = broker.publish([2_000, 2_001, 10].map(sized).into()).await;
    let too_large: Vec<bool> = answers
        .iter()
        .map(|answer| matches!(answer, Err(error) if error.kind() == ErrorKind::TooLarge))
        .collect();
    assert_eq!(too_large, [false, true, false], "{answers:?}");
    let text = answers[1].as_ref().unwrap_err().to_string();
    assert!(text.contains("2001") && text.contains("2000"), "{text}");
    let answer = broker.publish(vec![sized(2_000)]).await.remove(0);
    assert!(answer.unwrap().received);
}
