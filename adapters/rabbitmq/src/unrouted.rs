//! Retries that came due while their group's queue was missing wait in a queue of their own, out of the ladder's way. When
//! the group is declared again they are brought back.

use std::sync::Arc;

use lapin::options::{BasicAckOptions, BasicGetOptions};
use postrider_contract::{Error, Spec};

use crate::declare::Declarer;
use crate::fault;
use crate::ladder::{Destination, destination};
use crate::layout::UNROUTED;
use crate::line::{answer, open_channel};
use crate::link::Live;
use crate::outgoing::rerouted;
use crate::subscription::Shared;

/// Brings back what waits for this group. A failure is only logged: it stays where it is.
pub(crate) async fn bring_back(shared: &Arc<Shared>, live: &Live, spec: &Spec) {
    let inbox = shared.topology.layout().inbox(spec.topic(), &spec.group);
    match try_to(shared, live, &inbox).await {
        Ok(0) => {}
        Ok(count) => tracing::info!(count, %inbox, "retries that had lost their queue were brought back"),
        Err(error) => tracing::warn!(%error, %inbox, "unrouted retries were not brought back"),
    }
}

async fn try_to(shared: &Arc<Shared>, live: &Live, inbox: &str) -> Result<usize, Error> {
    let mut declarer = Declarer::new(live, postrider_contract::Topology::Verify);
    let waiting = declarer
        .look(UNROUTED)
        .await?
        .map_or(0, |queue| queue.message_count());
    if waiting == 0 {
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
