//! RabbitMQ for Postrider, through lapin. For RabbitMQ 3.10 and later, 4.x included.
//!
//! # URL
//!
//! `amqp://user:password@host:port,host2:port/vhost?option=value`, or `amqps://` with TLS (cargo feature `tls`). Hosts are
//! tried in turn. No user is `guest`/`guest`; no virtual host, or an empty one, is `/`, and one that begins with a slash is
//! written `%2Fname`.
//!
//! | option | default | meaning |
//! |---|---|---|
//! | `exchange` | `postrider` | the topic exchange; under another name queues are called `<exchange>/…` |
//! | `connect_timeout` | `10s` | how long connecting may take before it fails; several hosts share it |
//! | `publish_timeout` | `30s` | how long a publish may wait for its confirm |
//! | `max_payload` | `1000000` | the largest payload in bytes; dead-letter topics and inboxes take any |
//! | `heartbeat` | `10s` | after about twice this a silent connection is given up; whole seconds |
//! | `consumer_timeout` | `30m` | what the server's `consumer_timeout` is: how long a delivery may stay unsettled |
//! | `auth` | `plain` | `external`: the client certificate is the login |
//! | `ca_file` | | `amqps` only: authorities trusted beside the system's, as a PEM file |
//! | `cert_file`, `key_file` | | `amqps` only: the client's certificate and key, as PEM files |
//!
//! # What is where
//!
//! | of Postrider | in RabbitMQ |
//! |---|---|
//! | topic | a routing key on the durable topic exchange `postrider` |
//! | group | the durable quorum queue `<topic>.<group>`; `<topic>.<group>:ordered` with single active consumer |
//! | broadcast | an exclusive queue of each connection, gone with it, which counts in `postrider.lost` |
//! | inbox | the direct exchange `postrider.inbox`, routing key `<topic>.<group>` |
//! | delay | the ladder `postrider.delay.00` to `.19`: quorum queues of 100 ms × 2^n, together up to 29 h |
//! | dead-letter topic | a stream of its name, bound to the topic exchange |
//! | replayed, purged | marks in that stream, through the direct exchange `postrider.marks` |
//!
//! Retries that come due while their group's queue is missing wait in `postrider.unrouted` and are brought back when the
//! group is declared again. Messages published for later to a topic that nobody receives by then end in
//! `postrider.discarded`, which keeps nothing.
//!
//! A group's queue dead-letters what the *broker* gives up (200 redeliveries, or an operator's policy) under
//! `<topic>.<group>.dlq` by itself, at least once; the listener's own dead-letter topic gets it, whatever its name. Under
//! another `exchange`, its name and a slash count among the 213 bytes that a topic and a group have together.
//!
//! A scheduled message reaches Postrider's groups. A queue that somebody else bound to the topic exchange does not get it,
//! since it leaves the ladder under another routing key.
//!
//! # What other programs see
//!
//! | of Postrider | in AMQP |
//! |---|---|
//! | `message-id`, `content-type`, `correlation-id`, `reply-to` | the property of that name |
//! | `content-encoding`, `type`, `app-id` | the property of that name |
//! | `timestamp`, in milliseconds | the property, in seconds; the header `timestamp_in_ms` has it in full |
//! | the partition key | the header `partition-key` |
//! | every other header | the header of that name, with its type |
//! | further values of a name | the list `postrider-repeated`: name, value, name, value… |
//!
//! - A text that does not fit its property, which takes 255 bytes, is a header. So is `amq.rabbitmq.reply-to` as `reply-to`.
//! - A header that would steer the broker, such as `CC` or `x-delay`, or is itself called `partition-key`, travels as
//!   `postrider-original-<name>`.
//! - A queue of another program that is bound to the exchange `postrider` by a wildcard (`#`) receives dead letters as well:
//!   their routing key is their topic, which ends in `.dlq` unless the listener names another.
//! - A message that another program sends with an `expiration` becomes a dead letter where it expires in a group's queue.
//!
//! # What to know
//!
//! - **Streams keep everything.** A replayed or purged dead letter is hidden, not deleted; its disk space comes back when
//!   the stream is deleted, or by a policy with `max-age`. Each look at the dead letters adds one small mark.
//! - **Switching `broadcast`** on leaves the group's queue, which goes on filling and is told at start-up: delete it.
//! - **Switching `ordered`** leaves a group's queue. Starting is refused while the former one has messages
//!   or consumers; then its bindings are taken away. It receives until then, so stop what publishes to the topic until the
//!   former version has emptied it and has stopped. Or give the listener another `group` and start it beside the former
//!   version; once that has handled what is older, stop it and delete its queue. What came meanwhile both have handled.
//! - **Priorities** are not sent: a header `priority` is content, as on other brokers. From RabbitMQ 4.0 on queues deliver by
//!   the property of that name, so what other programs send with it comes out of order. It arrives as a header, and retries
//!   have it as that alone.
//! - **A group that is renamed** leaves its queue bound: it fills until somebody deletes it, `rabbitmqctl delete_queue`.
//! - **`topology = verify`** finds what is missing and what differs. AMQP does not tell bindings, so these are taken on
//!   trust.
//! - **Depths.** What waits is exact; dead letters lag some seconds; what is unsettled or in the ladder AMQP does not tell
//!   by group.
//! - **Returned messages.** The client library logs each publish that nobody receives, payload included, as a warning of
//!   the target `lapin::returned_messages`: set that target to `error` where topics without receivers are usual.
//! - **Hostile producers.** A name or property that is not UTF-8 ends the client library's connection. The adapter goes on
//!   with one connection for each listener, so that only the listener of that message is held up, for about half a
//!   minute, until the broker gives the message up. An `ordered` listener takes one message at a time for a minute then. Header values nested some hundred levels deep overflow the stack of
//!   the client library's thread, which ends the process (lapin 4.12.3): where strangers can publish, run with
//!   `RUST_MIN_STACK=268435456`, which is enough for the deepest that fits a frame, also unoptimised. It is address space,
//!   not memory.
//! - **Retries while the server restarts.** What waits in the ladder then comes up to three minutes late: so long the
//!   server waits for its own confirms (`dead_letter_worker_publisher_confirm_timeout`, 180 s; seen on 3.10). Nothing is
//!   lost. With `[{rabbit, [{dead_letter_worker_publisher_confirm_timeout, 5000}]}].` in its `advanced.config` it is
//!   seconds.
//! - **No limit of length.** No policy with `max-length` or `max-length-bytes` may match the queue of a group or of the
//!   ladder. A full queue refuses also the retries that come due for it. The broker holds 32 of these at most for each level
//!   of the ladder, and sends them again after three minutes: as long as they are refused, no listener in the virtual host
//!   gets a retry that has to leave that level (seen on 3.10). Nothing is lost.
//! - **A broker that is killed just after a first deployment.** RabbitMQ 3.10 writes down some half a second late that it has
//!   a new quorum queue or its first stream. Killed before that, it never answers about that queue again, to no client: the
//!   listener stays degraded and says so. `rabbitmqctl delete_queue` and a restart of the listener mend it; nothing
//!   confirmed can be lost by it but what was confirmed in that half second.
//! - **A dead-letter stream out of reach** does not stop its listener after a reconnect. What would become a dead letter
//!   stays in its queue until it can, and a warning says so.
//! - **Deliveries unsettled for too long.** The server closes the channel and counts a redelivery of everything fetched. The
//!   adapter then fetches half as much, and more again when twice as much would be settled in time.
//! - **Log lines of the client library.** Its target `lapin` logs errors for what the adapter expects and deals with, such
//!   as looking whether a queue exists: set it to `off` where that disturbs.
//! - **Retries in great numbers.** The broker moves dead letters from queue to queue 32 at a time: thousands of retries due
//!   in the same moment come some seconds late.

mod broker;
mod confirms;
mod dead_index;
mod dead_letters;
mod declare;
mod fate;
mod fault;
mod held;
mod keeper;
mod ladder;
mod layout;
mod line;
mod link;
mod options;
mod outgoing;
mod own_queue;
mod prefetch;
mod properties;
mod publish_loop;
mod publisher;
mod quarantine;
mod receiver;
mod session;
mod settler;
mod status;
mod stream;
mod subscription;
mod tls;
mod topology;
mod unrouted;
mod values;
mod window;

use std::sync::Arc;

use postrider_contract::{Broker, BrokerUrl, Client, Error};

/// The URL schemes of this adapter.
pub const SCHEMES: &[&str] = &["amqp", "amqps"];

/// The usual local address.
pub const LOCAL: &str = "amqp://127.0.0.1:5672";

/// Connects to RabbitMQ, or fails within the URL's `connect_timeout`.
///
/// ```no_run
/// # async fn example() -> Result<(), postrider_contract::Error> {
/// use postrider_contract::Client;
///
/// let client = Client { application: "shop".into(), instance: "shop-1".into() };
/// let broker = postrider_rabbitmq::connect(&postrider_rabbitmq::LOCAL.parse()?, client).await?;
/// assert_eq!(broker.capabilities().system, "rabbitmq");
/// # Ok(())
/// # }
/// ```
///
/// # Errors
/// Wrong options ([`Config`](postrider_contract::ErrorKind::Config)) before any socket is opened; wrong credentials, a virtual
/// host that is missing, or a certificate that is not trusted ([`Denied`](postrider_contract::ErrorKind::Denied)) at once; a
/// broker that cannot be reached ([`Unavailable`](postrider_contract::ErrorKind::Unavailable)).
pub async fn connect(url: &BrokerUrl, client: Client) -> Result<Arc<dyn Broker>, Error> {
    Ok(Arc::new(broker::RabbitBroker::connect(url, client).await?))
}
