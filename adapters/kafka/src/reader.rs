//! Reads ranges of partitions, without a group and without leaving a trace.

use std::ops::{ControlFlow, Range};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use postrider_contract::{Error, ErrorKind, Message};
use rdkafka::TopicPartitionList;
use rdkafka::config::FromClientConfigAndContext;
use rdkafka::consumer::{BaseConsumer, Consumer};
use rdkafka::error::{KafkaError, RDKafkaErrorCode as Code};
use rdkafka::message::Message as _;
use rdkafka::topic_partition_list::Offset;

use crate::failure::{code, failure};
use crate::lock::lock;
use crate::observer::Observer;
use crate::options::Settings;
use crate::record::{Arena, inbound};

/// How long nothing may come although something is there.
const PATIENCE: Duration = Duration::from_secs(15);

/// Looking up a topic.
const LOOK: Duration = Duration::from_secs(1);

/// A client that is kept for a while after it has read: to make one and connect it takes longer than most ranges.
#[derive(Clone)]
pub(crate) struct Reader {
    settings: Arc<Settings>,
    idle: Arc<Mutex<Option<Idle>>>,
}

struct Idle {
    client: BaseConsumer<Observer>,
    since: Instant,
}

impl Reader {
    pub(crate) fn new(settings: &Arc<Settings>) -> Self {
        Self {
            settings: settings.clone(),
            idle: Arc::default(),
        }
    }

    /// Shows every record of `range` that is still there to `visit`, in order, until it has seen enough. Blocks.
    pub(crate) fn read(
        &self,
        topic: &str,
        partition: i32,
        range: Range<i64>,
        visit: impl FnMut(i64, Message) -> ControlFlow<()>,
    ) -> Result<(), Error> {
        if range.is_empty() {
            return Ok(());
        }
        let failed = |error: &KafkaError| failure(&format!("reading topic `{topic}`"), error);
        let kept = lock(&self.idle).take();
        let client = match kept {
            Some(idle) => idle.client,
            None => BaseConsumer::from_config_and_context(&self.settings.reader(), Observer::default())
                .map_err(|e| failed(&e))?,
        };
        // A topic that it meets for the first time is looked up once a second otherwise. Where this fails reading tells.
        let _ = client.fetch_metadata(Some(topic), LOOK);
        read(&client, topic, partition, range, visit)?;
        // One that failed is not trusted again.
        client.unassign().map_err(|e| failed(&e))?;
        let since = Instant::now();
        let other = lock(&self.idle).replace(Idle { client, since });
        drop(other);
        Ok(())
    }

    /// Lets go of a client that has not been used for so long. Blocks.
    pub(crate) fn rest(&self, unused: Duration) {
        let idle = lock(&self.idle).take_if(|idle| idle.since.elapsed() >= unused);
        drop(idle);
    }
}

fn read(
    consumer: &BaseConsumer<Observer>,
    topic: &str,
    partition: i32,
    range: Range<i64>,
    mut visit: impl FnMut(i64, Message) -> ControlFlow<()>,
) -> Result<(), Error> {
    let failed = |error: &KafkaError| failure(&format!("reading topic `{topic}`"), error);
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
            Some(Err(KafkaError::PartitionEOF(which))) if which == partition => return Ok(()),
            // librdkafka looks for a coordinator unbidden; nothing is asked of the group.
            Some(Err(error)) if code(&error) == Some(Code::GroupAuthorizationFailed) => {}
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
