//! Traces: which spans there are, and how a trace goes on in what a handler publishes.
//!
//! The spans are of the `tracing` crate, so that log lines within a handler carry its topic, group, message id and attempt.
//! With the feature `otel` they are OpenTelemetry's messaging spans too. Without it the trace of a message still goes on in
//! what its handler publishes, as W3C Trace Context asks of those who take no part.

#[cfg(feature = "otel")]
mod carrier;
#[cfg(feature = "otel")]
mod links;
#[cfg(feature = "otel")]
mod spans;

#[cfg(feature = "otel")]
pub(crate) use links::Links;

use tracing::Span;

use crate::contract::{Delivery, Headers, Outgoing, Value, names};
use crate::listener::{Context, Outcome};

/// What `RUST_LOG` names these spans by, such as in `postrider::message=off`.
const TARGET: &str = "postrider::message";
/// Goes with `traceparent`.
const TRACESTATE: &str = "tracestate";

/// The trace that a message came with.
#[derive(Debug, Clone)]
pub(crate) struct Carried {
    parent: Value,
    state: Option<Value>,
}

impl Carried {
    /// What these headers carry.
    pub(crate) fn of(headers: &Headers) -> Option<Self> {
        Some(Self {
            parent: headers.get(names::TRACEPARENT)?.clone(),
            state: headers.get(TRACESTATE).cloned(),
        })
    }

    fn give(&self, headers: &mut Headers) {
        if headers.get(names::TRACEPARENT).is_none() {
            headers.append(names::TRACEPARENT, self.parent.clone());
            if let Some(state) = &self.state {
                headers.append(TRACESTATE, state.clone());
            }
        }
    }
}

/// Around a handler. Disabled where nobody wants it.
#[inline]
pub(crate) fn process(cx: &Context) -> Span {
    #[cfg(feature = "otel")]
    return spans::process(cx);
    #[cfg(not(feature = "otel"))]
    tracing::info_span!(
        target: TARGET, "process", listener = cx.listener(), topic = cx.topic(), group = cx.group(),
        message_id = cx.message_id(), attempt = cx.attempt(),
    )
}

/// Around the handler of a batch, which continues no single trace.
pub(crate) fn process_many(first: &Context, contexts: &[Context]) -> Span {
    #[cfg(feature = "otel")]
    return spans::process_many(first, contexts);
    #[cfg(not(feature = "otel"))]
    tracing::info_span!(
        target: TARGET, "process", listener = first.listener(), topic = first.topic(), group = first.group(),
        batch = contexts.len(),
    )
}

/// Around the publishing of a batch. What has no trace yet is given that of this span, or the one that was `carried` here.
pub(crate) fn send(system: &'static str, batch: &mut [Outgoing], carried: Option<&Carried>) -> Span {
    #[cfg(feature = "otel")]
    let span = spans::send(system, batch, carried);
    #[cfg(not(feature = "otel"))]
    let span = {
        let _ = system;
        Span::none()
    };
    if let Some(carried) = carried {
        for outgoing in batch {
            carried.give(&mut outgoing.message.headers);
        }
    }
    span
}

/// How a handler ended: what it publishes with its acknowledgement is given its trace.
#[inline]
pub(crate) fn ended(span: &Span, delivery: &Delivery, outcome: &mut Outcome) {
    #[cfg(feature = "otel")]
    spans::ended(span, outcome);
    let _ = span;
    if let Outcome::Ack { emit } = outcome
        && !emit.is_empty()
    {
        carry(&delivery.message.headers, emit);
    }
}

/// Gives what is emitted the trace that a message came with.
fn carry(headers: &Headers, emit: &mut [Outgoing]) {
    if let Some(carried) = Carried::of(headers) {
        for outgoing in emit {
            carried.give(&mut outgoing.message.headers);
        }
    }
}

/// Deliveries have come.
#[inline]
pub(crate) fn received(system: &'static str, topic: &str, group: &str, deliveries: &[Delivery]) {
    #[cfg(feature = "otel")]
    spans::received(system, topic, group, deliveries);
    #[cfg(not(feature = "otel"))]
    let _ = (system, topic, group, deliveries);
}
