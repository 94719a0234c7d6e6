//! Other attributes hold, before and after, on the function and on its parameters.
#![deny(warnings, dead_code)]

use postrider::prelude::*;

/// Documented.
#[listener(topic = "order.created")]
#[tracing::instrument(skip_all)]
#[allow(unused_variables)]
async fn traced(order: Bytes, key: Key) -> Result<(), HandlerError> {
    Ok(())
}

#[tracing::instrument(skip_all)]
#[listener(topic = "order.created")]
async fn traced_outside(_order: Bytes) {}

#[cfg(any())]
#[listener(topic = "order.created")]
async fn absent(_order: Nothing) {}

#[listener(topic = "order.created")]
#[cfg(any())]
async fn absent_too(_order: Nothing) {}

#[listener(topic = "order.created")]
async fn conditional(
    #[allow(unused_variables)] order: Bytes,
    #[cfg(any())] _nothing: Nothing,
    #[cfg(not(any()))] _key: Key,
    #[cfg(any())] _last: Nothing,
) {
}

#[listener(topic = "order.created", ack = manual)]
async fn conditional_acker(_order: Bytes, #[cfg(any())] _first: Acker, #[cfg(not(any()))] _second: Acker) {}

#[listener(topic = "order.created")]
#[deprecated = "use another"]
async fn old(_order: Bytes) {}

#[allow(dead_code)]
#[listener(topic = "order.created")]
async fn never_listed(_order: Bytes) {}

#[expect(dead_code, reason = "not yet")]
#[listener(topic = "order.created")]
async fn not_yet_listed(_order: Bytes) {}

#[listener(topic = "order.created")]
#[must_use]
async fn kept(_order: Bytes) -> Outcome {
    Outcome::ACK
}

#[allow(deprecated)]
fn main() {
    let all = listeners![traced, traced_outside, conditional, conditional_acker, old, kept];
    assert_eq!(all.len(), 6);
}
