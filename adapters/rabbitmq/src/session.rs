//! What is published on: a channel in confirm mode, and one publish on it.

use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use futures_util::stream::{BoxStream, StreamExt};
use lapin::options::{BasicPublishOptions, ConfirmSelectOptions};
use lapin::types::ShortString;
use lapin::{Channel, Confirmation};
use postrider_contract::Error;
use tokio::sync::Notify;

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
    pub(crate) unwritten: Arc<Unwritten>,
}

/// What the client library was given and has not written to the connection. It keeps copies of all of it, so beyond some
/// it only costs memory.
#[derive(Default)]
pub(crate) struct Unwritten {
    bytes: AtomicUsize,
    less: Notify,
}

impl Unwritten {
    const MOST: usize = 1 << 20;

    /// Whether it may be given more.
    pub(crate) fn has_room(&self) -> bool {
        self.bytes.load(Ordering::Relaxed) < Self::MOST
    }

    /// Waits until much of it is written.
    pub(crate) async fn room(&self) {
        self.less.notified().await;
    }

    pub(crate) fn add(self: &Arc<Self>, bytes: usize) -> Writing {
        self.bytes.fetch_add(bytes, Ordering::Relaxed);
        Writing {
            of: self.clone(),
            bytes,
        }
    }
}

/// One publish that is not written yet.
pub(crate) struct Writing {
    of: Arc<Unwritten>,
    bytes: usize,
}

impl Drop for Writing {
    fn drop(&mut self) {
        let before = self.of.bytes.fetch_sub(self.bytes, Ordering::Relaxed);
        let low = Unwritten::MOST / 2;
        if before >= low && before - self.bytes < low {
            self.of.less.notify_one();
        }
    }
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
        unwritten: Arc::default(),
    })
}

/// Publishes, and waits for the confirm.
pub(crate) async fn fly(
    channel: Channel,
    parcel: Parcel,
    writing: Writing,
    flight: u64,
) -> (u64, lapin::Result<Confirmation>) {
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
    drop((payload, writing));
    let result = match sent {
        Ok(confirm) => confirm.await,
        Err(error) => Err(error),
    };
    (flight, result)
}
