//! Reads a dead-letter stream, which consumes nothing.

use std::sync::Arc;
use std::time::Duration;

use futures_util::{FutureExt, StreamExt};
use lapin::options::{BasicAckOptions, BasicConsumeOptions, BasicQosOptions};
use lapin::types::{AMQPValue, FieldTable, ShortString};
use lapin::{BasicProperties, Channel, Consumer};
use postrider_contract::{Error, ErrorKind};
use tokio::time::timeout;

use crate::fault;
use crate::layout::MARKS;
use crate::line::{answer, open_channel};
use crate::link::Link;
use crate::properties::{self, short};
use crate::quarantine::is_parse_error;

/// How far the broker reads ahead.
const PREFETCH: u16 = 200;
/// What is known to be there comes within this.
pub(crate) const PATIENCE: Duration = Duration::from_secs(10);

/// One entry of a stream.
pub(crate) struct Entry {
    pub(crate) offset: u64,
    /// It is a mark of ours: nothing published to a topic comes by that exchange.
    pub(crate) is_mark: bool,
    pub(crate) routing_key: ShortString,
    pub(crate) properties: BasicProperties,
    pub(crate) payload: Vec<u8>,
}

/// So many entries that cannot be parsed are passed over.
const UNPARSABLE: u32 = 100;

/// Reads entries in order.
pub(crate) struct StreamReader {
    link: Arc<Link>,
    channel: Channel,
    consumer: Consumer,
    stream: String,
    /// The offset that is expected next.
    next: u64,
    unparsable: u32,
}

impl StreamReader {
    /// Starts at an offset, or at the first entry that is kept if that is later.
    pub(crate) async fn open(link: &Arc<Link>, stream: &str, offset: u64) -> Result<Self, Error> {
        let (channel, consumer) = start(link, stream, offset).await?;
        Ok(Self {
            link: link.clone(),
            channel,
            consumer,
            stream: stream.to_owned(),
            next: offset,
            unparsable: 0,
        })
    }

    /// The next entry, which is known to be there.
    pub(crate) async fn next(&mut self) -> Result<Entry, Error> {
        match self.next_within(PATIENCE).await? {
            Some(entry) => Ok(entry),
            None => Err(Error::new(
                ErrorKind::Unavailable,
                format!("reading `{}`: no entry came within {PATIENCE:?}", self.stream),
            )),
        }
    }

    /// The next entry, if one comes in time.
    pub(crate) async fn next_within(&mut self, patience: Duration) -> Result<Option<Entry>, Error> {
        let delivery = loop {
            match timeout(patience, self.consumer.next()).await {
                Err(_) => return Ok(None),
                Ok(Some(Ok(delivery))) => break delivery,
                Ok(Some(Err(error))) if is_parse_error(&error) && self.unparsable < UNPARSABLE => {
                    self.pass_over().await?;
                }
                Ok(Some(Err(error))) => {
                    return Err(fault::error(&format!("reading `{}`", self.stream), &error));
                }
                Ok(None) => {
                    return Err(Error::new(
                        ErrorKind::Unavailable,
                        format!("reading `{}`: the broker ended it", self.stream),
                    ));
                }
            }
        };
        // Without an offset it is no stream, and acknowledging would consume.
        let Some(offset) = properties::stream_offset(&delivery.properties) else {
            return Err(Error::new(
                ErrorKind::Topology,
                format!(
                    "queue `{}` is no stream, so its messages cannot be looked at without consuming them; \
                     delete it once it is empty, and it is declared anew",
                    self.stream
                ),
            ));
        };
        // For a stream this only asks for more.
        let acked = self
            .channel
            .basic_ack(delivery.delivery_tag, BasicAckOptions::default());
        drop(acked.now_or_never());
        self.next = offset + 1;
        Ok(Some(Entry {
            offset,
            is_mark: delivery.exchange.as_str() == MARKS,
            routing_key: delivery.routing_key,
            properties: delivery.properties,
            payload: delivery.data,
        }))
    }

    /// An entry with a name or property that is not UTF-8: the client library drops the connection over it.
    async fn pass_over(&mut self) -> Result<(), Error> {
        tracing::warn!(
            stream = self.stream,
            offset = self.next,
            "an entry cannot be parsed and is passed over: a name or property in it is not UTF-8"
        );
        self.unparsable += 1;
        self.next += 1;
        (self.channel, self.consumer) = start(&self.link, &self.stream, self.next).await?;
        Ok(())
    }
}

async fn start(link: &Link, stream: &str, offset: u64) -> Result<(Channel, Consumer), Error> {
    let failed = |error: lapin::Error| fault::error(&format!("reading `{stream}`"), &error);
    let live = link.get().await?;
    let channel = open_channel(&live).await.map_err(failed)?;
    answer(&channel, channel.basic_qos(PREFETCH, BasicQosOptions::default()))
        .await
        .map_err(failed)?;
    let from = if offset == 0 {
        AMQPValue::LongString("first".into())
    } else {
        AMQPValue::LongLongInt(offset as i64)
    };
    let mut arguments = FieldTable::default();
    arguments.insert("x-stream-offset".into(), from);
    let consuming = channel.basic_consume(
        short(stream)?,
        ShortString::default(),
        BasicConsumeOptions::default(),
        arguments,
    );
    let consumer = answer(&channel, consuming).await.map_err(failed)?;
    Ok((channel, consumer))
}
