//! What happens when the server is gone, full, frozen or refuses: each on a server of its own.

mod common;

use std::sync::Mutex;
use std::time::{Duration, SystemTime};

use common::own::Own;
use common::*;
use postrider_conformance::{Harness, async_trait};
use postrider_contract::{
    Error, ErrorKind, Event, Guarantee, Message, Order, Outgoing, Settled, Settlement, Sharing, Spec,
    Verdict, names,
};
use tokio::time::{Instant, sleep, timeout_at};

struct Restarted(Mutex<Own>);

#[async_trait]
impl Harness for Restarted {
    fn name(&self) -> &'static str {
        "redis"
    }

    async fn connect(
        &self,
        application: &str,
    ) -> Result<std::sync::Arc<dyn postrider_contract::Broker>, Error> {
        let url = self.0.lock().unwrap().streams("?lease=5s");
        try_connect_as(&url, application, &unique("instance")).await
    }

    async fn restart(&self) -> bool {
        let own = self.0.lock().unwrap();
        own.kill();
        own.up();
        true
    }
}

postrider_conformance::some_cases!(Restarted(Mutex::new(Own::start(&[]))); lifecycle: broker_restart);

#[tokio::test]
async fn what_is_waiting_survives_the_server_being_killed() {
    let own = Own::start(&[]);
    let topic = unique("killed");
    let broker = connect(&own.streams(""), "a").await;
    let mut open = open(&broker, spec(&topic, "g")).await;
    publish(&broker, &topic, ["retried".into(), "held".into()]).await;
    let got = open.receive(2).await;
    let due = SystemTime::now() + Duration::from_millis(1_500);
    open.emit(
        &got[0],
        Outgoing::to_inbox(topic.clone(), "g", got[0].message.clone()).not_before(due),
    )
    .await;
    own.kill();
    // Nothing is told twice, however often it is tried.
    sleep(Duration::from_secs(1)).await;
    own.up();
    let again = open.receive(1).await.remove(0);
    assert_eq!(text(&again), "retried");
    assert!(SystemTime::now() >= due);
    // An acknowledgement after the connection was made again still counts: what is held here stays held here.
    open.ack(&got[1]).await;
    open.ack(&again).await;
    let status = broker.status(&[spec(&topic, "g")]).await.unwrap()[0];
    assert_eq!(
        (status.waiting, status.unsettled, status.retrying),
        (Some(0), Some(0), Some(0))
    );
    let degraded = open
        .news
        .iter()
        .filter(|news| news.starts_with("Degraded"))
        .count();
    let ready = open.news.iter().filter(|news| *news == "Ready").count();
    assert_eq!((degraded, ready), (1, 2), "{:?}", open.news);
    broker.close(SOON).await.unwrap();
}

/// Nobody could renew a lease meanwhile: whoever is back first must not take what the others are working on.
#[tokio::test]
async fn an_outage_takes_nothing_from_who_lives() {
    let own = Own::start(&["--appendfsync", "always"]);
    let topic = unique("outage");
    let url = own.streams("?lease=2s");
    let (one, two) = (connect(&url, "one").await, connect(&url, "two").await);
    let mut first = open(&one, spec(&topic, "g")).await;
    publish(&one, &topic, ["slow".into(), "given back".into()]).await;
    let held = first.receive(2).await;
    let mut second = open(&two, spec(&topic, "g")).await;
    // With the thread held up, too, it is about to look for what is idle when the server goes.
    std::thread::sleep(Duration::from_millis(700));
    own.kill();
    sleep(Duration::from_secs(3)).await;
    own.up();
    second.ready().await;
    for _ in 0..8 {
        second.silent(Duration::from_millis(300)).await;
        first
            .subscription
            .settler
            .extend(&[held[0].token, held[1].token])
            .await;
    }
    assert!(matches!(
        first.settle(&held[1], Verdict::Release).await,
        Settled::Done
    ));
    first.ack(&held[0]).await;
    // What is given back, and what nobody renews any more, is another's as ever.
    first.subscription.receiver.pause(true).await;
    assert_eq!(texts(&second.receive(1).await), ["given back"]);
}

/// Nor one that has not seen the outage.
#[tokio::test]
async fn who_starts_after_an_outage_takes_nothing_from_who_lives() {
    let own = Own::start(&[]);
    let topic = unique("outage");
    let url = own.streams("?lease=2s");
    let one = connect(&url, "one").await;
    let mut first = open(&one, spec(&topic, "g")).await;
    publish(&one, &topic, ["slow".into()]).await;
    let held = first.receive(1).await.remove(0);
    own.kill();
    sleep(Duration::from_secs(6)).await;
    own.up();
    let two = connect(&url, "two").await;
    let mut second = open(&two, spec(&topic, "g")).await;
    second.silent(Duration::from_secs(1)).await;
    first.ready().await;
    for _ in 0..8 {
        second.silent(Duration::from_millis(300)).await;
        first.subscription.settler.extend(&[held.token]).await;
    }
    first.ack(&held).await;
}

#[tokio::test]
async fn publishing_waits_for_the_server_and_says_what_it_knows() {
    let own = Own::start(&[]);
    let topic = unique("down");
    let broker = connect(&own.streams("?publish_timeout=1s"), "a").await;
    publish(&broker, &topic, ["x".into()]).await;
    let one = || vec![Outgoing::to_topic(topic.clone(), Message::new("y"))];
    own.pause();
    let begun = Instant::now();
    let error = broker.publish(one()).await.remove(0).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Unconfirmed, "{error}");
    assert!(begun.elapsed() < Duration::from_secs(3));
    own.resume();
    publish(&broker, &topic, ["z".into()]).await;
    own.kill();
    let kinds = [
        broker.publish(one()).await.remove(0),
        broker.publish(one()).await.remove(0),
    ]
    .map(|answer| answer.unwrap_err().kind());
    assert_eq!(kinds[1], ErrorKind::Unavailable, "{kinds:?}");
    assert!(kinds[0].is_retryable());
    // One that waits gets through as soon as it can.
    let patient = connect_later(&own, &topic).await;
    own.up();
    patient.await.unwrap();
}

/// A publish that begins while the server is down.
async fn connect_later(own: &Own, topic: &std::sync::Arc<str>) -> tokio::task::JoinHandle<()> {
    let (url, topic) = (own.streams("?connect_timeout=20s"), topic.clone());
    let task = tokio::spawn(async move {
        let broker = connect(&url, "patient").await;
        publish(&broker, &topic, ["late".into()]).await;
    });
    sleep(Duration::from_millis(500)).await;
    assert!(!task.is_finished());
    task
}

#[tokio::test]
async fn a_frozen_server_is_noticed_and_left() {
    let own = Own::start(&[]);
    let topic = unique("frozen");
    let broker = connect(&own.streams(""), "a").await;
    let mut open = open(&broker, spec(&topic, "g")).await;
    own.pause();
    let begun = Instant::now();
    assert!(matches!(open.event(1, &mut Vec::new()).await, Event::Degraded(error) if error.is_retryable()));
    assert!(begun.elapsed() < Duration::from_secs(8), "{:?}", begun.elapsed());
    own.resume();
    open.ready().await;
    publish(&broker, &topic, ["x".into()]).await;
    assert_eq!(texts(&open.receive(1).await), ["x"]);
}

#[tokio::test]
async fn unreachable_is_told_after_the_timeout() {
    let begun = Instant::now();
    let error = try_connect("redis://127.0.0.1:1?connect_timeout=500ms", "a")
        .await
        .err()
        .unwrap();
    assert_eq!(error.kind(), ErrorKind::Unavailable);
    assert!(error.to_string().contains("127.0.0.1:1"), "{error}");
    assert!(begun.elapsed() < Duration::from_secs(2));
}

#[tokio::test]
async fn wrong_credentials_are_refused_at_once() {
    let own = Own::start(&["--requirepass", "s3cret"]);
    for (credentials, scheme) in [
        (":wr0ng@", "redis"),
        ("", "redis"),
        ("nobody:s3cret@", "redis"),
        (":wr0ng@", "redis+pubsub"),
    ] {
        let begun = Instant::now();
        let error = try_connect(&own.url(scheme, credentials, ""), "a")
            .await
            .err()
            .unwrap();
        assert_eq!(error.kind(), ErrorKind::Denied, "{credentials}: {error}");
        assert!(begun.elapsed() < Duration::from_secs(2));
        assert!(!format!("{error} {error:?}").contains("wr0ng"));
    }
    for scheme in ["redis", "redis+pubsub"] {
        let broker = connect(&own.url(scheme, ":s3cret@", ""), "a").await;
        let topic = unique("secret");
        let mut open = open(&broker, spec(&topic, "g")).await;
        publish(&broker, &topic, ["x".into()]).await;
        assert_eq!(texts(&open.receive(1).await), ["x"]);
    }
    let own = Own::start(&[]);
    let error = try_connect(&own.url("redis", ":p@", ""), "a")
        .await
        .err()
        .unwrap();
    assert_eq!(error.kind(), ErrorKind::Denied, "{error}");
    let error = try_connect(&own.streams("/99"), "a").await.err().unwrap();
    assert_eq!(error.kind(), ErrorKind::Config, "{error}");
}

#[tokio::test]
async fn revoked_credentials_end_the_subscription() {
    for scheme in ["redis", "redis+pubsub"] {
        let own = Own::start(&[]);
        own.tell("ACL SETUSER app on >pw ~* &* +@all").await;
        let broker = connect(&own.url(scheme, "app:pw@", ""), "a").await;
        let topic = unique("revoked");
        let mut open = open(&broker, spec(&topic, "g")).await;
        own.tell("ACL DELUSER app").await;
        let error = loop {
            let next = tokio::time::timeout(SOON, open.subscription.receiver.next(1, &mut Vec::new())).await;
            match next.expect("it goes on for ever") {
                Ok(_) => {}
                Err(error) => break error,
            }
        };
        assert_eq!(error.kind(), ErrorKind::Denied, "{error}");
        // The first one may still have gone out over the connection that was cut.
        let one = || vec![Outgoing::to_topic(topic.clone(), Message::new("x"))];
        let answers = [
            broker.publish(one()).await.remove(0),
            broker.publish(one()).await.remove(0),
        ];
        assert_eq!(
            answers[1].as_ref().unwrap_err().kind(),
            ErrorKind::Denied,
            "{answers:?}"
        );
    }
}

#[tokio::test]
async fn a_full_server_takes_nothing_and_loses_nothing() {
    let own = Own::start(&["--maxmemory-policy", "noeviction"]);
    let topic = unique("full");
    let broker = connect(&own.streams(""), "a").await;
    let mut open = open(&broker, spec(&topic, "g")).await;
    publish(&broker, &topic, ["x".into()]).await;
    let got = open.receive(1).await.remove(0);
    own.tell("CONFIG SET maxmemory 1").await;
    let answer = broker
        .publish(vec![Outgoing::to_topic(topic.clone(), Message::new("y"))])
        .await
        .remove(0);
    let error = answer.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Unavailable);
    assert!(error.to_string().contains("maxmemory"), "{error}");
    // The retry copy cannot be kept, so the original is not acknowledged.
    let later = SystemTime::now() + Duration::from_millis(100);
    let retry = Outgoing::to_inbox(topic.clone(), "g", got.message.clone()).not_before(later);
    let dead = Outgoing::to_topic(names::dead_letter_topic(&topic, "g"), got.message.clone());
    for emit in [retry.clone(), dead] {
        let settled = open.settle(&got, Verdict::Ack { emit: vec![emit] }).await;
        assert!(
            matches!(&settled, Settled::Failed(_, error) if error.kind() == ErrorKind::Unavailable),
            "{settled:?}"
        );
    }
    assert_eq!(
        broker.status(&[spec(&topic, "g")]).await.unwrap()[0].unsettled,
        Some(1)
    );
    own.tell("CONFIG SET maxmemory 0").await;
    open.emit(&got, retry).await;
    assert_eq!(texts(&open.receive(1).await), ["x"]);
}

/// Only what has a time to live may be evicted under such a policy. Without its lease, a second instance would read.
#[tokio::test]
async fn a_full_server_evicts_no_lease() {
    let own = Own::start(&["--maxmemory-policy", "volatile-ttl"]);
    let topic = unique("evicted");
    let broker = connect(&own.streams(""), "a").await;
    let wishes = Spec {
        order: Order::ByKey,
        ..spec(&topic, "g")
    };
    let mut open = open(&broker, wishes).await;
    publish(&broker, &topic, ["x".into()]).await;
    let got = open.receive(1).await.remove(0);
    own.tell("SET passing 1 EX 3600").await;
    own.tell("CONFIG SET maxmemory 1").await;
    let until = Instant::now() + SOON;
    while own.tell("EXISTS passing").await == redis::Value::Int(1) {
        assert!(Instant::now() < until, "nothing is evicted");
        let mut raw = own.raw().await;
        let refused = redis::cmd("SET").arg("more").arg(1).exec_async(&mut raw).await;
        assert!(refused.is_err());
    }
    let lease = own.tell(&format!("EXISTS {{{topic}}}.g.leader")).await;
    assert_eq!(lease, redis::Value::Int(1));
    own.tell("CONFIG SET maxmemory 0").await;
    open.ack(&got).await;
}

#[tokio::test]
async fn pub_sub_keeps_what_it_received_until_a_full_server_takes_it() {
    let own = Own::start(&["--maxmemory-policy", "noeviction"]);
    let topic = unique("full");
    let broker = connect(&own.pub_sub(""), "a").await;
    let mut open = open(&broker, spec(&topic, "g")).await;
    own.tell("CONFIG SET maxmemory 1").await;
    // A server does not count what it only passes on.
    publish(&broker, &topic, ["x".into()]).await;
    let degraded = loop {
        if let Event::Degraded(error) = open.event(1, &mut Vec::new()).await {
            break error.to_string();
        }
    };
    assert!(degraded.contains("OOM"), "{degraded}");
    own.tell("CONFIG SET maxmemory 0").await;
    open.ready().await;
    assert_eq!(texts(&open.receive(1).await), ["x"]);
}

#[tokio::test]
async fn a_demoted_primary_is_waited_out() {
    let own = Own::start(&["--replica-serve-stale-data", "yes"]);
    let topic = unique("demoted");
    let broker = connect(&own.streams(""), "a").await;
    let mut open = open(&broker, spec(&topic, "g")).await;
    own.tell("REPLICAOF 127.0.0.1 1").await;
    let publishing = {
        let (broker, topic) = (broker.clone(), topic.clone());
        tokio::spawn(async move { publish(&broker, &topic, ["x".into()]).await })
    };
    sleep(Duration::from_millis(700)).await;
    assert!(!publishing.is_finished());
    own.tell("REPLICAOF NO ONE").await;
    publishing.await.unwrap();
    assert_eq!(texts(&open.receive(1).await), ["x"]);
}

/// It answers questions, so it is no use to connect again and again.
#[tokio::test]
async fn a_server_that_takes_no_writes_is_waited_out() {
    let own = Own::start(&[]);
    let topic = unique("refused");
    let broker = connect(&own.streams("?lease=2s"), "a").await;
    let ordered = Spec {
        order: Order::ByKey,
        ..spec(&topic, "ordered")
    };
    let mut raw = own.raw().await;
    let mut made = async || -> u64 {
        let stats: String = redis::cmd("INFO")
            .arg("stats")
            .query_async(&mut raw)
            .await
            .unwrap();
        let count = stats
            .lines()
            .find_map(|line| line.strip_prefix("total_connections_received:"));
        count.unwrap().parse().unwrap()
    };
    for wishes in [spec(&topic, "g"), ordered] {
        let mut open = open(&broker, wishes).await;
        own.tell("CONFIG SET min-replicas-to-write 1").await;
        while !matches!(open.event(1, &mut Vec::new()).await, Event::Degraded(_)) {}
        let before = made().await;
        open.silent(Duration::from_secs(5)).await;
        let connections = made().await - before;
        assert!(connections < 10, "{connections}");
        own.tell("CONFIG SET min-replicas-to-write 0").await;
        open.ready().await;
    }
}

#[tokio::test]
async fn a_failover_under_a_read_is_told_as_one() {
    let own = Own::start(&[]);
    let topic = unique("failover");
    let broker = connect(&own.streams(""), "a").await;
    let mut open = open(&broker, spec(&topic, "g")).await;
    let mut raw = own.raw().await;
    let until = Instant::now() + SOON;
    loop {
        let clients: String = redis::cmd("INFO")
            .arg("clients")
            .query_async(&mut raw)
            .await
            .unwrap();
        if clients.contains("blocked_clients:1") {
            break;
        }
        assert!(Instant::now() < until, "it does not wait for messages: {clients}");
    }
    own.tell("REPLICAOF 127.0.0.1 1").await;
    let Event::Degraded(error) = open.event(1, &mut Vec::new()).await else {
        panic!("{:?}", open.news);
    };
    assert_eq!(error.kind(), ErrorKind::Unavailable, "{error}");
    assert!(error.to_string().contains("UNBLOCKED"), "{error}");
    own.tell("REPLICAOF NO ONE").await;
    open.ready().await;
    publish(&broker, &topic, ["x".into()]).await;
    assert_eq!(texts(&open.receive(1).await), ["x"]);
}

#[tokio::test]
async fn guarantees_are_what_the_server_keeps() {
    let says = |guarantee: &Guarantee, what: &str| match guarantee {
        Guarantee::AtMostOnce(why) => assert!(why.contains(what), "{why}"),
        Guarantee::AtLeastOnce => panic!("at least once: {what}"),
    };
    let own = Own::start(&["--appendonly", "no"]);
    says(
        &connect(&own.streams(""), "a").await.capabilities().guarantee,
        "appendonly yes",
    );
    let broker = connect(&own.streams("?assume_durable=true"), "a").await;
    assert_eq!(broker.capabilities().guarantee, Guarantee::AtLeastOnce);
    let own = Own::start(&["--maxmemory", "100mb", "--maxmemory-policy", "allkeys-lru"]);
    says(
        &connect(&own.streams(""), "a").await.capabilities().guarantee,
        "noeviction",
    );
    own.tell("CONFIG SET maxmemory-policy noeviction").await;
    assert_eq!(
        connect(&own.streams(""), "a").await.capabilities().guarantee,
        Guarantee::AtLeastOnce
    );
    // Where CONFIG is not allowed, INFO tells; where neither is, nothing is assumed.
    own.tell("ACL SETUSER shy on >pw ~* &* +@all -config").await;
    let broker = connect(&own.url("redis", "shy:pw@", ""), "a").await;
    assert_eq!(broker.capabilities().guarantee, Guarantee::AtLeastOnce);
    own.tell("ACL SETUSER shy -info").await;
    says(
        &connect(&own.url("redis", "shy:pw@", ""), "a")
            .await
            .capabilities()
            .guarantee,
        "assume_durable",
    );
}

#[tokio::test]
async fn a_cluster_is_refused() {
    let own = Own::start(&["--cluster-enabled", "yes"]);
    let error = try_connect(&own.streams(""), "a").await.err().unwrap();
    assert_eq!(error.kind(), ErrorKind::Unsupported, "{error}");
}

#[tokio::test]
async fn no_room_for_clients_is_not_a_wrong_password() {
    let own = Own::start(&["--requirepass", "pw"]);
    let mut only = raw_at(&own.url("redis", ":pw@", "")).await;
    let mut limit = redis::cmd("CONFIG");
    limit
        .arg("SET")
        .arg("maxclients")
        .arg(1)
        .exec_async(&mut only)
        .await
        .unwrap();
    let error = try_connect(&own.url("redis", ":pw@", "?connect_timeout=500ms"), "a")
        .await
        .err()
        .unwrap();
    assert_eq!(error.kind(), ErrorKind::Unavailable, "{error}");
}

#[tokio::test]
async fn flushed_scripts_are_loaded_again() {
    let own = Own::start(&[]);
    let topic = unique("scripts");
    let broker = connect(&own.streams(""), "a").await;
    let mut open = open(&broker, spec(&topic, "g")).await;
    publish(&broker, &topic, ["x".into()]).await;
    let got = open.receive(1).await.remove(0);
    own.tell("SCRIPT FLUSH").await;
    open.emit(&got, Outgoing::to_inbox(topic.clone(), "g", got.message.clone()))
        .await;
    let again = open.receive(1).await.remove(0);
    own.tell("SCRIPT FLUSH").await;
    open.ack(&again).await;
}

#[tokio::test]
async fn replicas_are_waited_for() {
    let own = Own::start(&[]);
    let topic = unique("replicas");
    let broker = connect(&own.streams("?wait_replicas=1"), "a").await;
    let one = || vec![Outgoing::to_topic(topic.clone(), Message::new("x"))];
    let error = broker.publish(one()).await.remove(0).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Unconfirmed);
    assert!(error.to_string().contains("0 of 1 replicas"), "{error}");
    let replica = Own::start(&[]);
    replica.tell(&format!("REPLICAOF 127.0.0.1 {}", own.port)).await;
    let until = Instant::now() + SOON;
    while let Err(error) = broker.publish(one()).await.remove(0) {
        assert!(Instant::now() < until, "{error}");
    }
    // Of several hosts, the one that takes writes is used.
    let url = format!("redis://127.0.0.1:{},127.0.0.1:{}", replica.port, own.port);
    let broker = connect(&url, "b").await;
    publish(&broker, &topic, ["y".into()]).await;
}

/// `WAIT` holds up whatever comes behind it on its connection.
#[tokio::test]
async fn a_missing_replica_holds_up_publishing_alone() {
    let own = Own::start(&[]);
    let (topic, other) = (unique("handled"), unique("published"));
    let broker = connect(&own.streams("?wait_replicas=1&lease=3s"), "a").await;
    let ordered = Spec {
        order: Order::ByKey,
        ..spec(&topic, "g")
    };
    let mut open = open(&broker, ordered).await;
    let publishing = {
        let broker = broker.clone();
        tokio::spawn(async move {
            loop {
                let one = vec![Outgoing::to_topic(other.clone(), Message::new("x"))];
                let error = broker.publish(one).await.remove(0).unwrap_err();
                assert!(error.to_string().contains("0 of 1 replicas"), "{error}");
            }
        })
    };
    let direct = connect(&own.streams(""), "publisher").await;
    publish(&direct, &topic, (0..10).map(|number| number.to_string())).await;
    let begun = Instant::now();
    for number in 0..10 {
        let got = open.receive(1).await.remove(0);
        open.ack(&got).await;
        assert_eq!(text(&got), number.to_string());
    }
    assert!(begun.elapsed() < Duration::from_secs(5), "{:?}", begun.elapsed());
    assert!(!publishing.is_finished());
    publishing.abort();
    broker.close(SOON).await.unwrap();
}

/// A retry and a dead letter reach a replica together with the acknowledgement, or neither does.
#[tokio::test]
async fn a_missing_replica_multiplies_no_copies() {
    let own = Own::start(&[]);
    let topic = unique("copied");
    let broker = connect(&own.streams("?wait_replicas=1"), "a").await;
    let mut open = open(&broker, spec(&topic, "g")).await;
    let direct = connect(&own.streams(""), "publisher").await;
    publish(&direct, &topic, ["retried".into(), "dead".into()]).await;
    let got = open.receive(2).await;
    let later = SystemTime::now() + Duration::from_secs(60);
    let retry = Outgoing::to_inbox(topic.clone(), "g", got[0].message.clone()).not_before(later);
    let dead = Outgoing::to_topic(names::dead_letter_topic(&topic, "g"), got[1].message.clone());
    for (delivery, emit) in got.iter().zip([retry, dead]) {
        let mut verdict = Verdict::Ack { emit: vec![emit] };
        for _ in 0..3 {
            match open.settle(delivery, verdict).await {
                Settled::Failed(settlement, _) => verdict = settlement.verdict,
                _ => break,
            }
        }
    }
    let status = broker.status(&[spec(&topic, "g")]).await.unwrap()[0];
    assert_eq!(
        (status.retrying, status.dead, status.unsettled),
        (Some(1), Some(1), Some(0))
    );
}

/// What is emitted elsewhere waits for the replica; what is settled beside it does not.
#[tokio::test]
async fn a_missing_replica_holds_up_no_acknowledgement() {
    let own = Own::start(&[]);
    let topic = unique("beside");
    let broker = connect(&own.streams("?wait_replicas=1"), "a").await;
    let mut open = open(&broker, spec(&topic, "g")).await;
    let direct = connect(&own.streams(""), "publisher").await;
    publish(&direct, &topic, ["emits".into(), "done".into()]).await;
    let got = open.receive(2).await;
    let elsewhere = Outgoing::to_topic(unique("elsewhere"), Message::new("x"));
    let verdicts = [
        Verdict::Ack {
            emit: vec![elsewhere],
        },
        Verdict::ACK,
    ];
    let mut batch: Vec<Settlement> = got
        .iter()
        .zip(verdicts)
        .map(|(delivery, verdict)| Settlement {
            token: delivery.token,
            verdict,
        })
        .collect();
    let mut out = Vec::new();
    let settling = open.subscription.settler.settle(&mut batch, &mut out);
    let looking = async {
        sleep(Duration::from_secs(1)).await;
        broker.status(&[spec(&topic, "g")]).await.unwrap()[0].unsettled
    };
    let ((), unsettled) = tokio::join!(settling, looking);
    assert_eq!(unsettled, Some(1));
    assert!(matches!(out[..], [Settled::Failed(..), Settled::Done]), "{out:?}");
}

/// Each server has channels of its own. Nothing is cut here, so that nobody is told of the failover.
#[tokio::test]
async fn pub_sub_stays_with_the_primary() {
    let (first, second) = (Own::start(&[]), Own::start(&[]));
    second.tell(&format!("REPLICAOF 127.0.0.1 {}", first.port)).await;
    let url = format!(
        "redis+pubsub://127.0.0.1:{},127.0.0.1:{}",
        second.port, first.port
    );
    let (broker, publisher) = (connect(&url, "a").await, connect(&url, "p").await);
    let topic = unique("primary");
    let everyone = Spec {
        sharing: Sharing::Broadcast,
        dead_letter: None,
        ..spec(&topic, "g")
    };
    let mut open = open(&broker, everyone).await;
    let published = async |text: &'static str| {
        let outgoing = Outgoing::to_topic(topic.clone(), Message::new(text));
        publisher
            .publish(vec![outgoing])
            .await
            .remove(0)
            .unwrap()
            .received
    };
    assert!(published("before").await);
    assert_eq!(texts(&open.receive(1).await), ["before"]);
    second.tell("REPLICAOF NO ONE").await;
    first.tell(&format!("REPLICAOF 127.0.0.1 {}", second.port)).await;
    let until = Instant::now() + SOON;
    loop {
        let subscribed = second.tell(&format!("PUBSUB NUMSUB {topic}")).await;
        if matches!(&subscribed, redis::Value::Array(parts) if parts[1] == redis::Value::Int(1)) {
            break;
        }
        assert!(Instant::now() < until, "nobody subscribes there: {subscribed:?}");
        sleep(Duration::from_millis(50)).await;
    }
    assert!(published("after").await);
    assert_eq!(texts(&open.receive(1).await), ["after"]);
}

#[tokio::test]
async fn what_pub_sub_misses_is_counted() {
    let own = Own::start(&[]);
    let topic = unique("missed");
    let (broker, publisher) = (
        connect(&own.pub_sub(""), "a").await,
        connect(&own.pub_sub(""), "p").await,
    );
    let mut open = open(&broker, spec(&topic, "g")).await;
    publish(&publisher, &topic, ["first".into()]).await;
    let got = open.receive(1).await.remove(0);
    open.ack(&got).await;
    let mut missed = 0;
    while missed == 0 {
        // As the server does when a subscriber is too slow.
        own.tell("CLIENT KILL TYPE pubsub").await;
        for n in 0..50 {
            let outgoing = Outgoing::to_topic(topic.clone(), Message::new(n.to_string()));
            let receipt = publisher.publish(vec![outgoing]).await.remove(0).unwrap();
            missed += u64::from(!receipt.received);
        }
        open.ready().await;
    }
    publish(&publisher, &topic, ["last".into()]).await;
    let until = Instant::now() + Duration::from_secs(10);
    let mut texts = Vec::new();
    while open.gaps.iter().flatten().sum::<u64>() < missed && Instant::now() < until {
        let mut got = Vec::new();
        open.event(10, &mut got).await;
        texts.extend(got.iter().map(text));
    }
    assert_eq!(open.gaps.iter().flatten().sum::<u64>(), missed, "{:?}", open.gaps);
    assert!(
        open.news.iter().any(|news| news.starts_with("Degraded")),
        "{:?}",
        open.news
    );
    assert!(texts.contains(&"last".to_owned()));
}

/// A number that is spent on what was not sent would be missed by whoever listens.
#[tokio::test]
async fn what_pub_sub_does_not_send_is_not_missed() {
    let own = Own::start(&[]);
    let topic = unique("unsent");
    let (broker, publisher) = (
        connect(&own.pub_sub(""), "a").await,
        connect(&own.pub_sub("?publish_timeout=1s"), "p").await,
    );
    let mut open = open(&broker, spec(&topic, "g")).await;
    publish(&publisher, &topic, ["first".into()]).await;
    // The connection of a publisher that has nothing to say is cut.
    let clients: String = redis::from_redis_value(own.tell("CLIENT LIST").await).unwrap();
    let idle = clients.lines().find(|line| line.contains("name=tests:p "));
    let id = idle.unwrap().split(' ').next().unwrap().replace("id=", "");
    own.tell(&format!("CLIENT KILL ID {id}")).await;
    sleep(Duration::from_millis(5_500)).await;
    publish(&publisher, &topic, ["second".into()]).await;
    // And the server goes away.
    own.kill();
    sleep(Duration::from_secs(6)).await;
    for _ in 0..2 {
        let one = vec![Outgoing::to_topic(topic.clone(), Message::new("unsent"))];
        let error = publisher.publish(one).await.remove(0).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Unavailable, "{error}");
    }
    own.up();
    while !matches!(open.event(0, &mut Vec::new()).await, Event::Degraded(_)) {}
    open.ready().await;
    publish(&publisher, &topic, ["last".into()]).await;
    assert_eq!(texts(&open.receive(3).await), ["first", "second", "last"]);
    let until = Instant::now() + Duration::from_secs(3);
    while let Ok(event) = timeout_at(until, open.event(1, &mut Vec::new())).await {
        assert!(!matches!(event, Event::Gap { .. }), "{event:?}");
    }
}

#[tokio::test]
async fn pub_sub_comes_back_after_a_restart() {
    let own = Own::start(&[]);
    let topic = unique("restart");
    let broker = connect(&own.pub_sub(""), "a").await;
    let mut open = open(&broker, spec(&topic, "g")).await;
    publish(&broker, &topic, ["held".into()]).await;
    let held = open.receive(1).await.remove(0);
    own.kill();
    own.up();
    open.ready().await;
    open.ack(&held).await;
    publish(&broker, &topic, ["x".into()]).await;
    assert_eq!(texts(&open.receive(1).await), ["x"]);
}
