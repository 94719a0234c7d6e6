//! OpenTelemetry's messaging spans:
//! <https://opentelemetry.io/docs/specs/semconv/messaging/messaging-spans/>.

use opentelemetry::trace::{Status, TraceContextExt};
use tracing::Span;
use tracing_opentelemetry::OpenTelemetrySpanExt;

use super::{Carried, TARGET, carrier};
use crate::contract::{Address, Delivery, Headers, Outgoing};
use crate::listener::{Context, Outcome};
use crate::meter::labels;

/// The most that one span is linked to.
const MOST_LINKS: usize = 128;

pub(super) fn process(cx: &Context) -> Span {
    let span = tracing::info_span!(
        target: TARGET, "process", otel.kind = "consumer", listener = cx.listener(), topic = cx.topic(),
        group = cx.group(), message_id = cx.message_id(), attempt = cx.attempt(),
    );
    if span.is_disabled() {
        return span;
    }
    if let Some(parent) = carrier::extract(cx.headers()) {
        let _ = span.set_parent(parent);
    }
    describe(
        &span,
        "process",
        cx.publisher().system(),
        cx.topic(),
        Some(cx.group()),
    );
    if let Some(id) = cx.message_id() {
        span.set_attribute("messaging.message.id", id.to_owned());
    }
    span.set_attribute("postrider.attempt", i64::from(cx.attempt()));
    span
}

pub(super) fn process_many(first: &Context, contexts: &[Context]) -> Span {
    let (topic, group) = (first.topic(), first.group());
    let span = batch(
        "process",
        "consumer",
        first.publisher().system(),
        topic,
        group,
        contexts.len(),
    );
    link(&span, contexts.iter().map(Context::headers));
    span
}

pub(super) fn received(system: &'static str, topic: &str, group: &str, deliveries: &[Delivery]) {
    let span = batch("receive", "client", system, topic, group, deliveries.len());
    link(&span, deliveries.iter().map(|delivery| &delivery.message.headers));
}

pub(super) fn send(system: &'static str, sent: &mut [Outgoing], carried: Option<&Carried>) -> Span {
    let topic = match sent {
        [
            Outgoing {
                to: Address::Topic(topic),
                ..
            },
            ..,
        ] => topic.clone(),
        _ => "".into(),
    };
    let span = tracing::info_span!(target: TARGET, "send", otel.kind = "producer", topic = &*topic);
    if span.is_disabled() {
        return span;
    }
    // Within a handler, or whatever else has a span, that is the parent; otherwise the trace that came with a publisher.
    let has_parent = Span::current().context().span().span_context().is_valid();
    if let Some(carried) = carried.filter(|_| !has_parent) {
        let mut headers = Headers::new();
        carried.give(&mut headers);
        if let Some(parent) = carrier::extract(&headers) {
            let _ = span.set_parent(parent);
        }
    }
    describe(&span, "send", system, &topic, None);
    if sent.len() > 1 {
        span.set_attribute("messaging.batch.message_count", sent.len() as i64);
    }
    let context = span.context();
    for outgoing in sent {
        if outgoing
            .message
            .headers
            .get(crate::contract::names::TRACEPARENT)
            .is_none()
        {
            carrier::inject(&context, &mut outgoing.message.headers);
        }
    }
    span
}

pub(super) fn ended(span: &Span, outcome: &mut Outcome) {
    if span.is_disabled() {
        return;
    }
    match outcome {
        Outcome::Failed(error) => {
            span.set_attribute(labels::ERROR, error.reason().as_str());
            span.set_status(Status::error(error.to_string()));
        }
        Outcome::Ack { emit } => {
            let context = span.context();
            for outgoing in emit {
                carrier::inject(&context, &mut outgoing.message.headers);
            }
        }
        Outcome::Release => {}
    }
}

/// A span about many messages.
pub(super) fn batch(
    operation: &'static str,
    kind: &'static str,
    system: &'static str,
    topic: &str,
    group: &str,
    count: usize,
) -> Span {
    let span = match operation {
        "process" => {
            tracing::info_span!(target: TARGET, "process", otel.kind = kind, topic, group, batch = count)
        }
        "receive" => {
            tracing::info_span!(target: TARGET, parent: None, "receive", otel.kind = kind, topic, group, batch = count)
        }
        _ => {
            tracing::info_span!(target: TARGET, parent: None, "settle", otel.kind = kind, topic, group, batch = count)
        }
    };
    if !span.is_disabled() {
        describe(&span, operation, system, topic, Some(group));
        span.set_attribute("messaging.batch.message_count", count as i64);
    }
    span
}

fn describe(span: &Span, operation: &'static str, system: &'static str, topic: &str, group: Option<&str>) {
    span.set_attribute(labels::SYSTEM, system);
    span.set_attribute(labels::TOPIC, topic.to_owned());
    span.set_attribute(labels::OPERATION, operation);
    span.set_attribute("messaging.operation.type", operation);
    if let Some(group) = group {
        span.set_attribute(labels::GROUP, group.to_owned());
    }
}

fn link<'a>(span: &Span, all: impl Iterator<Item = &'a Headers>) {
    if span.is_disabled() {
        return;
    }
    for context in all.filter_map(carrier::extract).take(MOST_LINKS) {
        span.add_link(context.span().span_context().clone());
    }
}
