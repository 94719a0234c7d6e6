//! What the other parameters may be, in any order.
use postrider::prelude::*;

#[derive(Clone)]
struct Stock {
    left: u64,
}

struct Tenant(String);

impl Extract for Tenant {
    fn extract(cx: &Context) -> Result<Self, HandlerError> {
        let tenant = cx.headers().get_str("tenant");
        tenant.map(|tenant| Tenant(tenant.to_owned())).ok_or_else(|| HandlerError::permanent("no tenant"))
    }
}

#[listener(topic = "order.created")]
async fn all(
    _payload: Bytes,
    topic: Topic,
    State(Stock { left }): State<Stock>,
    Extension(tenant): Extension<&'static str>,
    headers: Headers,
    Key(key): Key,
    Attempt(attempt): Attempt,
    id: Option<MessageId>,
    publisher: Publisher,
    mut own: Tenant,
    State(callback): State<fn(&str) -> usize>,
) {
    own.0.push_str(tenant);
    let _ = (topic, left, headers, key, attempt, id, publisher, callback(&own.0));
}

type Settle = Acker;

#[listener(topic = "order.created", ack = manual)]
async fn manual(_payload: Bytes, MessageId(_id): MessageId, ack: Settle) -> Result<(), HandlerError> {
    ack.ack().await?;
    Ok(())
}

#[listener(topic = "order.created", batch(size = 10, wait = "1s"))]
async fn many(_payloads: Vec<Bytes>, State(_stock): State<Stock>, _own: Option<Tenant>) {}

fn main() {
    assert_eq!(listeners![all, manual, many,].len(), 3);
    let _ = Stock { left: 1 };
}
