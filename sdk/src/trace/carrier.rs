//! Headers as OpenTelemetry reads and writes them.

use opentelemetry::Context;
use opentelemetry::propagation::{Extractor, Injector, TextMapPropagator};
use opentelemetry::trace::TraceContextExt;
use opentelemetry_sdk::propagation::TraceContextPropagator;

use crate::contract::{Headers, Value};

struct Read<'a>(&'a Headers);

impl Extractor for Read<'_> {
    fn get(&self, key: &str) -> Option<&str> {
        self.0.get_str(key)
    }

    fn keys(&self) -> Vec<&str> {
        self.0.iter().map(|(name, _)| name).collect()
    }
}

struct Write<'a>(&'a mut Headers);

impl Injector for Write<'_> {
    fn set(&mut self, key: &str, value: String) {
        // An empty tracestate says nothing.
        if !value.is_empty() {
            self.0.set(key, Value::from(value));
        }
    }
}

/// The trace that headers carry; `None` where they carry none, or nothing that is one.
pub(super) fn extract(headers: &Headers) -> Option<Context> {
    headers.get(crate::contract::names::TRACEPARENT)?;
    let context = TraceContextPropagator::new().extract_with_context(&Context::new(), &Read(headers));
    context.span().span_context().is_valid().then_some(context)
}

pub(super) fn inject(context: &Context, headers: &mut Headers) {
    if context.span().span_context().is_valid() {
        TraceContextPropagator::new().inject_context(context, &mut Write(headers));
    }
}
