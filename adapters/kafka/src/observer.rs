//! What every client of librdkafka does with its log and its errors.

use std::sync::Mutex;

use postrider_contract::{Error, ErrorKind};
use rdkafka::client::ClientContext;
use rdkafka::config::RDKafkaLogLevel;
use rdkafka::consumer::ConsumerContext;
use rdkafka::error::{KafkaError, RDKafkaErrorCode as Code};

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
        // Says less than why, which is told before.
        if failure::code(&error) == Some(Code::AllBrokersDown) {
            return;
        }
        let error = reported(&error, reason);
        let mut last = lock(&self.last);
        if last.as_ref().is_none_or(|last| last.kind() != ErrorKind::Denied) {
            *last = Some(error);
        }
    }
}

impl ConsumerContext for Observer {}

/// An error event: the code decides what it is, the reason says it.
pub(crate) fn reported(error: &KafkaError, reason: &str) -> Error {
    let kind = match failure::code(error) {
        _ if is_unknown(reason) => ErrorKind::Denied,
        Some(code) if is_cut(code, reason) => ErrorKind::Unavailable,
        Some(code) => failure::kind(code),
        None => ErrorKind::Internal,
    };
    let hint = if is_unknown(reason) {
        ": the broker wants another certificate of this client, see the options `certificate` and `key`"
    } else if reason.contains("certificate verify failed") {
        ": the broker's certificate is of an authority that the option `ca` does not name, of another host, or not valid now"
    } else {
        ""
    };
    Error::new(kind, format!("Kafka: {}{hint}", one_line(reason)))
}

/// Whether the broker refused our certificate, or that there is none: in TLS 1.3 after the handshake, which librdkafka
/// takes for a connection that broke.
fn is_unknown(reason: &str) -> bool {
    let alert = reason.split_once(" alert ").map(|(_, alert)| alert);
    alert.is_some_and(|alert| alert.contains("certificate") || alert.contains("unknown ca"))
}

/// Whether a connection broke before the broker had an opinion on us: librdkafka gives that the codes of a refusal. The
/// broker's is an authentication error, or a handshake that failed for a reason of its own: `Broker: …`, not `Local: …`.
fn is_cut(code: Code, reason: &str) -> bool {
    match code {
        Code::Authentication => {
            let refusals = ["SASL authentication error: ", " handshake failed: Broker: "];
            !refusals.iter().any(|refusal| reason.contains(refusal))
        }
        Code::SSL => reason.contains("SSL transport error: "),
        _ => false,
    }
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_connection_that_breaks_is_no_refusal() {
        for (code, reason, kind) in [
            (
                Code::Authentication,
                "SASL PLAIN mechanism handshake failed: Local: Broker transport failure: broker's supported mechanisms: (n/a)",
                ErrorKind::Unavailable,
            ),
            (
                Code::Authentication,
                "SASL PLAIN mechanism handshake failed: Broker: Unsupported SASL mechanism: broker's supported mechanisms: X",
                ErrorKind::Denied,
            ),
            (
                Code::Authentication,
                "SASL authentication error: Authentication failed: Invalid username or password",
                ErrorKind::Denied,
            ),
            (
                Code::Authentication,
                "Disconnected: hung up from peer in state AUTH_LEGACY",
                ErrorKind::Unavailable,
            ),
            (
                Code::Authentication,
                "SASL authentication failure: Local: Broker transport failure",
                ErrorKind::Unavailable,
            ),
            (
                Code::SSL,
                "SSL handshake failed: SSL transport error: Connection timed out",
                ErrorKind::Unavailable,
            ),
            (
                Code::BrokerTransportFailure,
                "Receive failed: error:0A000412:SSL routines::sslv3 alert bad certificate: SSL alert number 42",
                ErrorKind::Denied,
            ),
            (
                Code::SSL,
                "Failed to verify broker certificate: certificate has expired",
                ErrorKind::Denied,
            ),
        ] {
            let told = reported(&KafkaError::Global(code), reason);
            assert_eq!(told.kind(), kind, "{told}");
        }
    }
}
