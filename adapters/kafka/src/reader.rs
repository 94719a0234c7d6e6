//! Reads a range of one partition, without a group and without leaving a trace.

use std::ops::{ControlFlow, Range};
use std::time::{Duration, Instant};

use postrider_contract::{Error, ErrorKind, Message};
use rdkafka::TopicPartitionList;
use rdkafka::config::FromClientConfigAndContext;
use rdkafka::consumer::{BaseConsumer, Consumer};
use rdkafka::error::KafkaError;
use rdkafka::message::Message as _;
use rdkafka::topic_partition_list::Offset;

use crate::failure::failure;
use crate::observer::Observer;
use crate::options::Settings;
use crate::record::{Arena, inbound};

/// How long nothing may come although something is there.
const PATIENCE: Duration = Duration::from_secs(15);

/// Shows every record of `range` that is still there to `visit`, in order, until it has seen enough. Blocks.
pub(crate) fn read(
    settings: &Settings,
    topic: &str,
    partition: i32,
    range: Range<i64>,
    mut visit: impl FnMut(i64, Message) -> ControlFlow<()>,
) -> Result<(), Error> {
    if range.is_empty() {
        return Ok(());
    }
    let failed = |error: &KafkaError| failure(&format!("reading topic `{topic}`"), error);
    let consumer: BaseConsumer<Observer> =
        BaseConsumer::from_config_and_context(&settings.reader(), Observer::default())
            .map_err(|e| failed(&e))?;
    let mut assignment = TopicPartitionList::new();
    assignment
        .add_partition_offset(topic, partition, Offset::Offset(range.start))
        .map_err(|e| failed(&e))?;
    consumer.assign(&assignment).map_err(|e| failed(&e))?;

    let mut arena = Arena::default();
    let mut last_heard = Instant::now();
    while last_heard.elapsed() < PATIENCE {
        match consumer.poll(Duration::from_millis(100)) {
            Some(Ok(record)) => {
                last_heard = Instant::now();
                let offset = record.offset();
                if offset >= range.end
                    || visit(offset, inbound(&record, &mut arena, false).message).is_break()
                {
                    return Ok(());
                }
                if offset + 1 >= range.end {
                    return Ok(());
                }
            }
            Some(Err(KafkaError::PartitionEOF(_))) => return Ok(()),
            Some(Err(error)) => {
                let told = failed(&error);
                if !told.is_retryable() {
                    return Err(told);
                }
            }
            None => {}
        }
    }
    let last = consumer.context().take();
    let error = Error::new(
        ErrorKind::Unavailable,
        format!("topic `{topic}` could not be read within {PATIENCE:?}"),
    );
    Err(match last {
        Some(last) => error.with_source(last),
        None => error,
    })
}
