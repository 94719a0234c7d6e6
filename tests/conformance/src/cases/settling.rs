//! Verdicts, and what becomes of deliveries without one.

use std::sync::Arc;
use std::time::Duration;

use postrider_contract::{Delivery, Origin, Outgoing, Settled, Settlement, Verdict};
use tokio::time::{Instant, sleep};

use crate::Run;
use crate::kit::{Instance, Subscribed, all_done, assert_each_once, count_ids, id, spec};

/// What was acknowledged does not come again, not even after a reconnect.
pub async fn acknowledged_is_final(run: Run) {
    let topic = run.topic("t");
    let instance = run.connect().await;
    let [mut sub] = instance.open([spec(&topic, "g")]).await;
    instance.publish_numbered(&topic, 0..50).await;
    sub.handle(50).await;
    instance.close().await;
    drop((sub, instance));
    let instance = run.connect().await;
    let [mut sub] = instance.open([spec(&topic, "g")]).await;
    sub.quiet_for(Duration::from_secs(2)).await;
    instance.close().await;
}

/// Acknowledged from the last to the first, all but one: that one comes again, and what came before it does not.
pub async fn out_of_order_acknowledgements(run: Run) {
    let topic = run.topic("t");
    let instance = run.connect().await;
    let [mut sub] = instance.open([spec(&topic, "g")]).await;
    instance.publish_numbered(&topic, 0..20).await;
    let deliveries = sub.take(20).await;
    let kept = deliveries[8].clone();
    for delivery in deliveries.iter().rev().filter(|it| it.token != kept.token) {
        sub.ack(std::slice::from_ref(delivery)).await;
    }
    instance.close().await;
    drop((sub, instance));
    let instance = run.connect().await;
    let [mut sub] = instance.open([spec(&topic, "g")]).await;
    let first = sub.one().await;
    assert_eq!(
        id(&first.message),
        id(&kept.message),
        "the one that was not acknowledged"
    );
    sub.ack(&[first]).await;
    // At least once: what lay behind the gap may come again, and is then counted.
    let until = Instant::now() + Duration::from_secs(2);
    let mut again = Vec::new();
    while let Ok(some) = tokio::time::timeout_at(until, sub.some(100)).await {
        sub.ack(&some).await;
        again.extend(some);
    }
    if !again.is_empty() {
        println!("handled again behind the gap: {:?}", count_ids(&again));
    }
    let before: Vec<_> = deliveries[..8].iter().map(|it| id(&it.message)).collect();
    assert!(
        !again.iter().any(|it| before.contains(&id(&it.message))),
        "before the gap"
    );
    instance.close().await;
}

/// What emits has a call of its own, beside the one that acknowledges the rest: neither undoes the other.
pub async fn calls_side_by_side(run: Run) {
    let (topic, copies) = (run.topic("t"), run.topic("copies"));
    let instance = run.connect().await;
    let [mut sub, mut copied] = instance.open([spec(&topic, "g"), spec(&copies, "g")]).await;
    instance.publish_numbered(&topic, 0..60).await;
    let deliveries = sub.take(60).await;
    let (mut emitting, mut plain) = (Vec::new(), Vec::new());
    for (n, Delivery { token, message, .. }) in deliveries.into_iter().enumerate() {
        if n % 3 == 0 {
            let emit = vec![Outgoing::to_topic(copies.clone(), message)];
            let verdict = Verdict::Ack { emit };
            emitting.push(Settlement { token, verdict });
        } else {
            let verdict = Verdict::ACK;
            plain.push(Settlement { token, verdict });
        }
    }
    let (mut first, mut second) = (Vec::new(), Vec::new());
    tokio::join!(
        sub.settler.settle(&mut emitting, &mut first),
        sub.settler.settle(&mut plain, &mut second),
    );
    assert_eq!(
        (first.len(), second.len()),
        (20, 40),
        "an answer for each settlement"
    );
    all_done(&first);
    all_done(&second);
    assert_eq!(count_ids(&copied.handle(20).await).len(), 20);
    instance.close().await;
    drop((sub, copied, instance));
    let instance = run.connect().await;
    let [mut sub, mut copied] = instance.open([spec(&topic, "g"), spec(&copies, "g")]).await;
    sub.quiet_for(Duration::from_secs(2)).await;
    copied.quiet().await;
    instance.close().await;
}

/// An orderly close gives back what is unsettled, and a peer that is running gets it.
pub async fn what_a_closed_instance_held_goes_to_a_peer(run: Run) {
    let topic = run.topic("t");
    let [(one, first), (two, mut second)] = hold_together(&run, &topic, 40).await;
    one.close().await;
    second.hold(40).await;
    drop(first);
    two.close().await;
}

/// Handles that are simply dropped, as in a crash: the peer gets what they held.
pub async fn what_a_lost_instance_held_goes_to_a_peer(run: Run) {
    let topic = run.topic("t");
    let [lost, (two, mut second)] = hold_together(&run, &topic, 40).await;
    drop(lost);
    second.hold(40).await;
    two.close().await;
}

/// A subscription that is dropped while its instance lives on, as where a program drops its app and keeps a publisher: the peer
/// gets what it held, and all that comes.
pub async fn what_a_dropped_subscription_held_goes_to_a_peer(run: Run) {
    let topic = run.topic("t");
    let [(one, dropped), (two, mut second)] = hold_together(&run, &topic, 40).await;
    drop(dropped);
    second.hold(40).await;
    one.publish_numbered(&topic, 40..60).await;
    second.hold(60).await;
    one.close().await;
    two.close().await;
}

/// Two instances that hold this many together. The first of them holds at least half, so that losing it matters.
async fn hold_together(run: &Run, topic: &Arc<str>, count: usize) -> [(Instance, Subscribed); 2] {
    let [(one, mut first), (two, mut second)] = run.two(&spec(topic, "g")).await;
    one.publish_numbered(topic, 0..count).await;
    let all = async {
        while first.held() + second.held() < count {
            let (most, most_too) = (first.room().min(10), second.room().min(10));
            tokio::select! {
                _ = first.step(most) => (),
                _ = second.step(most_too) => (),
            }
        }
    };
    let taken = tokio::time::timeout(Duration::from_secs(20), all).await;
    taken.expect("the two instances get everything");
    let swap = first.held() < second.held();
    let both = [(one, first), (two, second)];
    if swap {
        let [one, two] = both;
        return [two, one];
    }
    both
}

/// A release brings the same message again, the attempt not used up.
pub async fn released_comes_again(run: Run) {
    let topic = run.topic("t");
    let instance = run.connect().await;
    let [mut sub] = instance.open([spec(&topic, "g")]).await;
    instance.publish_numbered(&topic, 0..5).await;
    let deliveries = sub.take(5).await;
    sub.ack(&deliveries[..2]).await;
    sub.release(&deliveries[2..]).await;
    let again = sub.take(3).await;
    let expected: Vec<_> = deliveries[2..].iter().map(|it| id(&it.message)).collect();
    for delivery in &again {
        assert_eq!(delivery.origin, Origin::Topic, "no verdict, no attempt");
        assert!(expected.contains(&id(&delivery.message)));
    }
    assert_eq!(count_ids(&again).len(), 3, "each of the three");
    sub.ack(&again).await;
    sub.quiet().await;
    instance.close().await;
}

/// No broker-side limit drops or diverts what is released often.
pub async fn released_thirty_times_is_not_lost(run: Run) {
    let topic = run.topic("t");
    let instance = run.connect().await;
    let [mut sub] = instance.open([spec(&topic, "g")]).await;
    instance.publish_numbered(&topic, 0..1).await;
    for _ in 0..30 {
        let delivery = sub.one().await;
        assert_eq!(delivery.origin, Origin::Topic);
        sub.release(&[delivery]).await;
    }
    sub.handle(1).await;
    sub.quiet().await;
    instance.close().await;
}

/// The settler of a closed connection settles nothing, neither then nor after somebody else has the message.
pub async fn a_stale_token_touches_nothing(run: Run) {
    let topic = run.topic("t");
    let one = run.connect().await;
    let [mut first] = one.open([spec(&topic, "g")]).await;
    one.publish_numbered(&topic, 0..3).await;
    let old = first.take(3).await;
    one.close().await;
    let two = run.connect().await;
    let [mut second] = two.open([spec(&topic, "g")]).await;
    let held = second.take(3).await;
    assert_each_once(&held, 0..3);
    let late = old.iter().map(|delivery| (delivery.token, Verdict::ACK));
    for settled in first.settle(late).await {
        assert!(
            matches!(settled, Settled::Stale),
            "a late settlement is {settled:?}"
        );
    }
    two.close().await;
    drop((first, second, one, two));
    still_there(&run.connect().await, &run, 3).await;
}

/// Settling twice is harmless: it does not reach a message that came later.
pub async fn settling_twice_touches_nothing(run: Run) {
    let topic = run.topic("t");
    let instance = run.connect().await;
    let [mut sub] = instance.open([spec(&topic, "g")]).await;
    instance.publish_numbered(&topic, 100..104).await;
    let done = sub.take(4).await;
    sub.ack(&done).await;
    instance.publish_numbered(&topic, 0..4).await;
    let held = sub.take(4).await;
    assert_each_once(&held, 0..4);
    for verdict in [Verdict::ACK, Verdict::Release] {
        let again = done.iter().map(|delivery| Settlement {
            token: delivery.token,
            verdict: verdict.clone(),
        });
        let (mut batch, mut out) = (again.collect(), Vec::new());
        sub.settler.settle(&mut batch, &mut out).await;
        assert_eq!(out.len(), 4);
        for settled in out {
            let harmless = matches!(settled, Settled::Done | Settled::Stale);
            assert!(harmless, "settled again it is {settled:?}");
        }
    }
    sub.quiet().await;
    instance.close().await;
    drop((sub, instance));
    still_there(&run.connect().await, &run, 4).await;
}

/// The first messages are unsettled still.
async fn still_there(instance: &Instance, run: &Run, count: usize) {
    let [mut sub] = instance.open([spec(&run.topic("t"), "g")]).await;
    assert_each_once(&sub.handle(count).await, 0..count);
    sub.quiet().await;
    instance.close().await;
}

/// A handler that takes long keeps its delivery, past its lease too: no peer gets it meanwhile.
pub async fn a_held_delivery_stays_ours(run: Run) {
    let topic = run.topic("t");
    let [(one, mut first), (two, mut second)] = run.two(&spec(&topic, "g")).await;
    one.publish_numbered(&topic, 0..1).await;
    let (mine, other) = tokio::select! {
        mine = first.one() => (mine, false),
        mine = second.one() => (mine, true),
    };
    let (holder, peer) = if other {
        (&mut second, &mut first)
    } else {
        (&mut first, &mut second)
    };
    let lease = one.broker.capabilities().lease;
    let (hold, beat) = match lease {
        Some(lease) => ((lease * 5 / 2).min(Duration::from_secs(40)), lease / 3),
        None => (Duration::from_secs(3), Duration::from_secs(1)),
    };
    let settler = holder.settler.clone();
    let extending = async {
        loop {
            sleep(beat).await;
            settler.extend(&[mine.token]).await;
        }
    };
    tokio::select! {
        () = extending => (),
        () = async { tokio::join!(peer.quiet_for(hold), holder.quiet_for(hold)); } => (),
    }
    holder.ack(&[mine]).await;
    tokio::join!(first.quiet(), second.quiet());
    one.close().await;
    two.close().await;
}
