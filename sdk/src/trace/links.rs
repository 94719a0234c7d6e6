//! Which spans a batch of settlements belongs to.

use std::collections::HashMap;
use std::sync::{Mutex, PoisonError};

use opentelemetry::trace::{SpanContext, TraceContextExt};
use tracing::Span;
use tracing_opentelemetry::OpenTelemetrySpanExt;

use crate::contract::Token;

/// The most that are remembered.
const MOST: usize = 10_000;
/// The most that one span is linked to.
const MOST_LINKS: usize = 128;

/// The spans of handlers that have ended and are not settled.
#[derive(Default)]
pub(crate) struct Links(Mutex<HashMap<Token, SpanContext>>);

impl Links {
    /// A handler has ended.
    pub(crate) fn add(&self, token: Token, span: &Span) {
        if span.is_disabled() {
            return;
        }
        let context = span.context().span().span_context().clone();
        let mut links = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if links.len() >= MOST {
            // Of lanes that were taken away: nobody will settle them.
            links.clear();
        }
        if context.is_valid() {
            links.insert(token, context);
        }
    }

    /// Around the settling of these.
    pub(crate) fn settle(&self, system: &'static str, topic: &str, group: &str, tokens: &[Token]) -> Span {
        let mut links = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if links.is_empty() {
            return Span::none();
        }
        let settled: Vec<_> = tokens.iter().filter_map(|token| links.remove(token)).collect();
        drop(links);
        let span = super::spans::batch("settle", "client", system, topic, group, tokens.len());
        for context in settled.into_iter().take(MOST_LINKS) {
            span.add_link(context);
        }
        span
    }
}
