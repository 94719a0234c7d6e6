//! What every client of librdkafka does with its log and its errors.

use std::sync::Mutex;

use postrider_contract::{Error, ErrorKind};
use rdkafka::client::ClientContext;
use rdkafka::config::RDKafkaLogLevel;
use rdkafka::consumer::ConsumerContext;
use rdkafka::error::KafkaError;

use crate::failure;
use crate::lock::lock;

/// Passes the log on to `tracing` and remembers the last error, for calls that only say that they timed out.
#[derive(Default)]
pub(crate) struct Observer {
    last: Mutex<Option<Error>>,
}

impl Observer {
    /// The last error since this was asked before.
    pub(crate) fn take(&self) -> Option<Error> {
        lock(&self.last).take()
    }
}

impl ClientContext for Observer {
    fn log(&self, level: RDKafkaLogLevel, facility: &str, text: &str) {
        log(level, facility, text);
    }

    fn error(&self, error: KafkaError, reason: &str) {
        let error = reported(&error, reason);
        let mut last = lock(&self.last);
        // That all brokers are down says less than why one of them refused.
        if last.as_ref().is_none_or(|last| last.kind() != ErrorKind::Denied) {
            *last = Some(error);
        }
    }
}

impl ConsumerContext for Observer {}

/// An error event: the code decides what it is, the reason says it.
pub(crate) fn reported(error: &KafkaError, reason: &str) -> Error {
    let kind = failure::code(error).map_or(ErrorKind::Internal, failure::kind);
    Error::new(kind, format!("Kafka: {}", one_line(reason)))
}

/// Log lines of librdkafka: what a human must act on reaches them as an error or an event, so most of it is detail.
pub(crate) fn log(level: RDKafkaLogLevel, facility: &str, text: &str) {
    match level {
        RDKafkaLogLevel::Emerg | RDKafkaLogLevel::Alert | RDKafkaLogLevel::Critical => {
            tracing::error!(target: "postrider::kafka", facility, "{text}");
        }
        RDKafkaLogLevel::Error | RDKafkaLogLevel::Warning => {
            tracing::warn!(target: "postrider::kafka", facility, "{text}");
        }
        _ => tracing::debug!(target: "postrider::kafka", facility, "{text}"),
    }
}

fn one_line(text: &str) -> String {
    text.split_whitespace().collect::<Vec<_>>().join(" ")
}
