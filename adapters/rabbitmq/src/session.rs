//! What is published on: a channel in confirm mode, and one publish on it.

use std::pin::Pin;
use std::sync::Arc;

use futures_util::stream::{BoxStream, StreamExt};
use lapin::options::{BasicPublishOptions, ConfirmSelectOptions};
use lapin::types::ShortString;
use lapin::{Channel, Confirmation};
use postrider_contract::Error;

use crate::fault;
use crate::line::{answer, open_channel};
use crate::link::{Link, Live};
use crate::outgoing::Parcel;
use crate::topology::Topology;

/// A publish without a confirm yet, with the number that it was sent under.
pub(crate) type Flight = Pin<Box<dyn Future<Output = (u64, lapin::Result<Confirmation>)> + Send>>;

/// A channel in confirm mode, and what the broker says about its connection.
pub(crate) struct Session {
    pub(crate) live: Live,
    pub(crate) channel: Channel,
    pub(crate) events: BoxStream<'static, lapin::Event>,
}

impl Session {
    /// Whether something can be published on it.
    pub(crate) fn works(&self) -> bool {
        self.channel.status().connected() && self.live.connection.status().connected()
    }

    /// RabbitMQ reads nothing more from this connection for now: what is held back here never left.
    pub(crate) fn blocked(&self) -> bool {
        self.live.connection.status().blocked()
    }
}

/// Opens one.
pub(crate) async fn open_session(
    link: Arc<Link>,
    topology: Arc<Topology>,
    was_missing: bool,
) -> Result<Session, Error> {
    let live = link.get().await?;
    let events = live.connection.events_listener().boxed();
    if let Err(error) = topology.exchange(&live, was_missing).await {
        // It may be there all the same, only not ours to declare: publishing will tell.
        tracing::debug!(%error, "the topic exchange could not be declared");
    }
    let opening = |error: lapin::Error| fault::error("opening a channel to publish on", &error);
    let channel = open_channel(&live).await.map_err(opening)?;
    answer(&channel, channel.confirm_select(ConfirmSelectOptions::default()))
        .await
        .map_err(opening)?;
    Ok(Session {
        live,
        channel,
        events,
    })
}

/// Publishes, and waits for the confirm.
pub(crate) async fn fly(channel: Channel, parcel: Parcel, flight: u64) -> (u64, lapin::Result<Confirmation>) {
    let options = BasicPublishOptions {
        mandatory: true,
        ..BasicPublishOptions::default()
    };
    let Parcel {
        exchange,
        routing_key,
        properties,
        payload,
        ..
    } = parcel;
    // Both were measured when the parcel was made.
    let (exchange, routing_key) = (
        ShortString::try_new(&*exchange).unwrap_or_default(),
        ShortString::try_new(&*routing_key).unwrap_or_default(),
    );
    let sent = channel
        .basic_publish(exchange, routing_key, options, &payload, properties)
        .await;
    // A confirm may be long in coming.
    drop(payload);
    let result = match sent {
        Ok(confirm) => confirm.await,
        Err(error) => Err(error),
    };
    (flight, result)
}
