//! Retries that came due while their group's queue was missing wait in a queue of their own, out of the ladder's way. When
//! the group is declared again they are brought back.

use std::sync::Arc;
use std::time::Duration;

use lapin::options::{BasicAckOptions, BasicGetOptions};
use postrider_contract::{Error, Spec};
use tokio::time::{Instant, sleep};

use crate::declare::Declarer;
use crate::fault;
use crate::ladder::{Destination, destination};
use crate::layout::UNROUTED;
use crate::line::{answer, open_channel};
use crate::link::Live;
use crate::outgoing::rerouted;
use crate::subscription::Shared;

/// How often is looked for them: another process may have had them in its hands at the last look.
const LOOK: Duration = Duration::from_secs(10);
/// How often all that waits is gone through though it has not become more or less.
const THOROUGH: Duration = Duration::from_secs(600);

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
    let failed = |error: lapin::Error| fault::error("reading unrouted retries", &error);
    let channel = open_channel(live).await.map_err(failed)?;
    let mut parcels = Vec::new();
    let mut tags = Vec::new();
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
        tags.push(delivery.delivery_tag);
        parcels.push(rerouted(inbox, delivery.properties, delivery.data));
    }
    *others = tags.is_empty().then(|| (waiting, Instant::now()));
    let mut brought = 0;
    for (tag, answered) in tags.into_iter().zip(shared.publisher.send(parcels).await) {
        match answered {
            Ok(_) => {
                let acked = channel.basic_ack(tag, BasicAckOptions::default());
                answer(&channel, acked).await.map_err(failed)?;
                brought += 1;
            }
            Err(error) => tracing::warn!(%error, "an unrouted retry stays where it is"),
        }
    }
    let _ = answer(&channel, channel.close(200, "OK".into())).await;
    Ok(brought)
}
