//! Retries that came due while their group's queue was missing wait in a queue of their own, out of the ladder's way. When
//! the group is declared again they are brought back.

use std::sync::Arc;
use std::time::Duration;

use lapin::Channel;
use lapin::options::{BasicAckOptions, BasicGetOptions};
use postrider_contract::{Error, Spec};
use tokio::time::{Instant, sleep};

use crate::declare::Declarer;
use crate::fault;
use crate::ladder::{Destination, destination};
use crate::layout::UNROUTED;
use crate::line::{answer, open_channel};
use crate::link::Live;
use crate::outgoing::{Parcel, rerouted};
use crate::subscription::Shared;

/// How often is looked for them: another process may have had them in its hands at the last look.
const LOOK: Duration = Duration::from_secs(10);
/// How often all that waits is gone through though it has not become more or less.
const THOROUGH: Duration = Duration::from_secs(600);

/// So many messages are in memory at most, and so many bytes of them but for the last: what a queue lost in an outage has no
/// bound.
const ROUND: (usize, usize) = (1_000, 8 << 20);

/// What is brought back together.
#[derive(Default)]
struct Round {
    tags: Vec<u64>,
    parcels: Vec<Parcel>,
    bytes: usize,
}

impl Round {
    fn add(&mut self, tag: u64, parcel: Parcel) {
        self.bytes += parcel.payload.len();
        self.tags.push(tag);
        self.parcels.push(parcel);
    }

    fn is_full(&self) -> bool {
        self.tags.len() >= ROUND.0 || self.bytes >= ROUND.1
    }
}

/// Brings back what waits for this group, again and again. A failure is only logged: it stays where it is. Never ends.
///
/// On the connection that looks, never on the one that receives: what cannot be parsed there would end that too.
pub(crate) async fn bring_back(shared: &Arc<Shared>, spec: &Spec) {
    let inbox = shared.topology.layout().inbox(spec.topic(), &spec.group);
    let mut others = None;
    loop {
        let looked = async {
            // What one takes to look at is hidden from the others: one at a time.
            let _alone = shared.unrouted.lock().await;
            let live = shared.lookout.get().await?;
            try_to(shared, &live, &inbox, &mut others).await
        };
        match looked.await {
            Ok(0) => {}
            Ok(count) => tracing::info!(count, %inbox, "retries that had lost their queue were brought back"),
            Err(error) => tracing::warn!(%error, %inbox, "unrouted retries were not brought back"),
        }
        sleep(LOOK).await;
    }
}

/// `others`: how many waited when nothing of this group was among them, and when that was.
async fn try_to(
    shared: &Arc<Shared>,
    live: &Live,
    inbox: &str,
    others: &mut Option<(u32, Instant)>,
) -> Result<usize, Error> {
    let mut declarer = Declarer::new(live, postrider_contract::Topology::Verify);
    let waiting = declarer
        .look(UNROUTED)
        .await?
        .map_or(0, |queue| queue.message_count());
    let known = |&(count, since): &(u32, Instant)| count == waiting && since.elapsed() < THOROUGH;
    if waiting == 0 || others.as_ref().is_some_and(known) {
        return Ok(0);
    }
    let channel = open_channel(live).await.map_err(failed)?;
    let mut round = Round::default();
    let (mut brought, mut ours) = (0, 0);
    // Those of other groups stay unsettled, so that each is seen once, and go back when the channel closes.
    for _ in 0..waiting {
        let got = answer(
            &channel,
            channel.basic_get(UNROUTED.into(), BasicGetOptions::default()),
        );
        let Some(message) = got.await.map_err(failed)? else {
            break;
        };
        let delivery = message.delivery;
        if destination(delivery.routing_key.as_str()) != Some(Destination::Inbox(inbox)) {
            continue;
        }
        ours += 1;
        round.add(
            delivery.delivery_tag,
            rerouted(inbox, delivery.properties, delivery.data),
        );
        if round.is_full() {
            let full = std::mem::take(&mut round);
            let count = full.tags.len();
            let sent = send(shared, &channel, full).await?;
            brought += sent;
            if sent < count {
                break;
            }
        }
    }
    brought += send(shared, &channel, round).await?;
    *others = (ours == 0).then(|| (waiting, Instant::now()));
    let _ = answer(&channel, channel.close(200, "OK".into())).await;
    Ok(brought)
}

/// Sends a round, and acknowledges what was confirmed of it: how many that are.
async fn send(shared: &Shared, channel: &Channel, round: Round) -> Result<usize, Error> {
    let mut sent = 0;
    for (tag, answered) in round
        .tags
        .into_iter()
        .zip(shared.publisher.send(round.parcels).await)
    {
        match answered {
            Ok(_) => {
                let acked = channel.basic_ack(tag, BasicAckOptions::default());
                answer(channel, acked).await.map_err(failed)?;
                sent += 1;
            }
            Err(error) => tracing::warn!(%error, "an unrouted retry stays where it is"),
        }
    }
    Ok(sent)
}

#[allow(clippy::needless_pass_by_value, reason = "for map_err")]
fn failed(error: lapin::Error) -> Error {
    fault::error("reading unrouted retries", &error)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn full_after(payload: usize) -> usize {
        let mut round = Round::default();
        let mut count = 0;
        while !round.is_full() {
            let properties = lapin::BasicProperties::default();
            round.add(count, rerouted("t.g", properties, vec![0; payload]));
            count += 1;
        }
        round.tags.len()
    }

    #[test]
    fn a_round_is_bounded_in_messages_and_bytes() {
        assert_eq!(full_after(10), 1_000);
        assert_eq!(full_after(1 << 20), 8);
        assert_eq!(full_after(9 << 20), 1);
    }
}
