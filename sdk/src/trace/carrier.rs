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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::contract::names::TRACEPARENT;

    /// Whatever the headers say: a trace that goes on as it is, or none.
    #[test]
    fn any_traceparent_is_a_trace_or_none() {
        const WORDS: [&str; 10] = [
            "00",
            "01",
            "ff",
            "-",
            "-",
            "4bf92f3577b34da6a3ce929d0e0e4736",
            "00f067aa0ba902b7",
            "0",
            "A",
            "\u{e4}",
        ];
        bolero::check!()
            .with_type::<(Vec<u8>, Vec<u8>, bool)>()
            .for_each(|(words, state, usual)| {
                let words = words.iter().map(|&word| WORDS[usize::from(word) % WORDS.len()]);
                let begin = if *usual {
                    "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-"
                } else {
                    ""
                };
                let mut headers = Headers::new();
                headers.append(TRACEPARENT, [begin].into_iter().chain(words).collect::<String>());
                headers.append("tracestate", state.clone());
                let Some(context) = extract(&headers) else { return };
                let mut again = Headers::new();
                inject(&context, &mut again);
                let back = extract(&again).map(|context| context.span().span_context().clone());
                assert_eq!(back.as_ref(), Some(context.span().span_context()));
            });
    }
}
