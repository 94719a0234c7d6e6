use crate::contract::Bytes;

/// A type that knows its topic: what [`Publisher::send`](crate::Publisher::send) sends and a listener's first parameter
/// receives.
///
/// Implemented by `#[derive(Message)]`:
///
/// ```
/// use postrider::prelude::*;
///
/// #[derive(Message, Serialize, Deserialize)]
/// #[message(topic = "order.created", key = order_id, version = 1)]
/// struct OrderCreated { order_id: u64, sku: String }
///
/// assert_eq!(OrderCreated::TOPIC, "order.created");
/// ```
#[diagnostic::on_unimplemented(
    message = "`{Self}` is not a message",
    label = "this type has no topic",
    note = "write `#[derive(Message)]` and `#[message(topic = \"…\")]` on it, or send it with `publisher.topic(\"…\").send_json(&value)`"
)]
pub trait Message {
    /// Where it is published to.
    const TOPIC: &'static str;
    /// The version of its schema, sent as the `schema-version` header.
    const VERSION: Option<u32> = None;

    /// The partition key: messages of one key keep their order.
    fn key(&self) -> Option<Bytes> {
        None
    }
}
