//! The attribute and derive macros of Postrider, which the crate `postrider` exports.
//!
//! `#[listener]` goes through four rooms: `parse` reads tokens, `model` is what was read, `validate` checks what it means
//! together, `expand` writes code. All mistakes are collected on the way and reported in one pass, each where it is.

mod entries;
mod listener;
mod message;
mod problems;
mod suggest;
mod values;

use proc_macro::TokenStream;

/// Makes a listener of an `async fn`: a handler with its topic and its policy.
///
/// ```
/// use postrider::prelude::*;
///
/// #[derive(Message, Serialize, Deserialize)]
/// #[message(topic = "order.created", key = order_id)]
/// struct OrderCreated { order_id: u64 }
///
/// #[derive(Clone)]
/// struct Stock;
///
/// #[listener(topic = "order.created", group = "inventory", concurrency = 8,
///            retry(attempts = 5, backoff = "200ms..30s"), timeout = "10s")]
/// async fn reserve(order: OrderCreated, State(stock): State<Stock>) -> Result<(), HandlerError> {
///     # let _ = (order.order_id, stock);
///     Ok(())
/// }
///
/// let listeners = listeners![reserve];
/// # assert_eq!(listeners[0].name(), "reserve");
/// ```
///
/// The function stays as it is and can be called, in a test for instance. Beside it comes a hidden struct of the same name,
/// by which `listeners!` finds it; a private listener that is never listed is dead code, and rustc says so. A module of that name
/// cannot stand beside it, nor `mod reserve; pub use reserve::reserve;`: list `reserve::reserve`.
///
/// # Options
///
/// | option | what it says | if absent |
/// |---|---|---|
/// | `topic = "order.created"` | The topic it receives: 1 to 200 of `A-Z a-z 0-9 . _ -`, no empty part between dots, not `amq.…`; 196 with the group and a dot, 213 where `dead_letter` is given. Dead letters (`….dlq`) may be received too. | required |
/// | `group = "inventory"` | The consumer group: every group sees every message, its instances share them. 1 to 100 of `A-Z a-z 0-9 _ -`, not `dlq`, `retry` or `inbox`. | the application's name |
/// | `broker = "audit"` | The named broker. | the one in `BROKER_URL` |
/// | `concurrency = 8` | How many handlers run at once. | 1 |
/// | `prefetch = 64` | How many deliveries may be unsettled at once. | 4 for each handler that runs at once, or a batch for each and one more; at least 64 |
/// | `retry(attempts = 5, backoff = "200ms..30s")` | How often a message is tried in all, and the shortest and the longest wait between: exponential with jitter, or `"linear 1s..30s"` with jitter of one second. One wait, `"5s"`, is a fixed one; `attempts = 1` is no retry. | as on the left |
/// | `retry(max_age = "1h")` | A message that fails so long after its first failure is dead-lettered as `too_old`, whatever attempts are left. | no limit |
/// | `timeout = "10s"` | How long a handler may take; then it failed. | no limit |
/// | `ack = manual` | The handler settles through its `Acker`. | `auto`: by what it returns |
/// | `ordered` | Messages of one partition key are handled in order. | side by side |
/// | `broadcast` | Every instance has its own copy; nothing is kept for one that is not running. | instances share |
/// | `start = earliest` | A new group begins with the oldest message that is retained. | `new` |
/// | `delivery = at_least_once` | Refuse to start where at-least-once delivery cannot be kept. | start all the same |
/// | `dead_letter = "order.failed"` | Where messages are given up to. | `<topic>.<group>.dlq` |
/// | `publish = "stock.reserved"` | What the handler returns is published there, and confirmed before the acknowledgement. | |
/// | `batch(size = 100, wait = "50ms")` | The handler takes a `Vec` of at most so many, gathered for at most so long. | one at a time |
/// | `rate = "500/s"` | How many messages handlers may be given in a second, minute (`/m`) or hour (`/h`). | no limit |
/// | `breaker(failures = 10, pause = "30s")` | After so many retryable failures in a row nothing is started for so long; then one message is tried, and its success ends the rest. | no rest |
/// | `dedup(window = "24h", key = "order_id")` | A message that this group has handled within so long is acknowledged without calling the function. Told by its message id, or by a field of its JSON payload that is a text or a number. | every delivery is handled |
/// | `max_size = "64KiB"` | The largest payload that reaches the handler, in `B`, `kB`, `KiB`, `MB`, `MiB`, `GB`, `GiB` or as a number of bytes; a larger one is dead-lettered. | no limit |
/// | `enabled = false` | It is not started. | `true` |
/// | `crate = path` | Where the crate `postrider` is found, for crates that export it again. | `::postrider` |
///
/// Where a listener is `ordered`, messages without a key keep no order with one another when they are retried, and share one
/// lane, on Kafka one for each partition: set a key, by `#[message(key = …)]` or `.key(…)`.
///
/// Times are written in `ms`, `s`, `m` and `h`. The operational ones may be changed without a rebuild, in `postrider.toml`
/// and the environment.
///
/// What excludes each other is refused: `ordered` with `broadcast` or `batch`; `broadcast` with `delivery`, `start` or
/// `dead_letter`; `batch` or `publish` with `ack = manual`; `batch` with `publish`, or with a smaller `prefetch`; `dedup` with
/// `ack = manual`, `batch` or `broadcast`.
///
/// # Parameters
///
/// The first is the payload: a type with `#[derive(Message, Deserialize)]`, `Json<T>`, `Bytes`, an `Option` of these to
/// accept tombstones, or with `batch` a `Vec` of these. The others are extractors, in any order: every type that implements
/// `Extract`. All are owned: a listener borrows nothing and is not generic.
///
/// # Returns
///
/// `()`, `Result<(), E>` with any error, or `Outcome`; with `publish` a message, an `Option` of one or a `Result` with one;
/// with `batch` `()`, `Result<(), E>` for all or a `Vec` with one of these for each item.
///
/// ```
/// use postrider::prelude::*;
///
/// #[derive(Message, Serialize, Deserialize)]
/// #[message(topic = "payment.settled")]
/// struct Payment { amount: u64 }
///
/// #[listener(topic = "payment.settled", ack = manual)]
/// async fn book(payment: Payment, ack: Acker) -> Result<(), HandlerError> {
///     ack.ack().await?;
///     Ok(())
/// }
///
/// #[listener(topic = "payment.settled", group = "statistics", batch(size = 100, wait = "50ms"))]
/// async fn count(payments: Vec<Payment>) -> Vec<Result<(), HandlerError>> {
///     payments.iter().map(|payment| match payment.amount {
///         0 => Err(HandlerError::permanent("nothing was paid")),
///         _ => Ok(()),
///     }).collect()
/// }
/// # assert_eq!(listeners![book, count].len(), 2);
/// ```
#[proc_macro_attribute]
pub fn listener(attribute: TokenStream, item: TokenStream) -> TokenStream {
    listener::listener(attribute.into(), item.into()).into()
}

/// Makes a message of a struct or an enum: a type that knows its topic.
///
/// ```
/// use postrider::prelude::*;
///
/// #[derive(Message, Serialize, Deserialize)]
/// #[message(topic = "order.created", key = customer.id, version = 2)]
/// struct OrderCreated { order_id: u64, customer: Customer }
///
/// #[derive(Serialize, Deserialize)]
/// struct Customer { id: u64 }
///
/// let order = OrderCreated { order_id: 1, customer: Customer { id: 7 } };
/// assert_eq!(OrderCreated::TOPIC, "order.created");
/// assert_eq!(OrderCreated::VERSION, Some(2));
/// assert_eq!(order.key().unwrap(), "7");
/// ```
///
/// | option | what it says | if absent |
/// |---|---|---|
/// | `topic = "order.created"` | Where it is published to: 1 to 200 of `A-Z a-z 0-9 . _ -`, no empty part between dots, not `amq.…`, `….dlq`, `….retry` or `….inbox`. | required |
/// | `key = order_id` | The field whose text is the partition key, also one inside another (`customer.id`) or of a tuple struct (`0`); any type with `Display`. Structs alone. | no key |
/// | `version = 1` | The version of its schema, sent as `schema-version`. | none |
/// | `crate = path` | Where the crate `postrider` is found, for crates that export it again. | `::postrider` |
#[proc_macro_derive(Message, attributes(message))]
pub fn message(item: TokenStream) -> TokenStream {
    message::message(item.into()).into()
}
