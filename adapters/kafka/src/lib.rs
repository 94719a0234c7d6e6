//! Apache Kafka for Postrider, through rdkafka.
//!
//! # The URL
//!
//! `kafka://user:password@host:9092,host2:9092?option=value`, or `kafkas://…` with TLS (cargo feature `tls`; `kafka-tls` in
//! the `postrider` crate). The port is 9092 if it is left out. With a user, SASL is spoken.
//!
//! | option | default | meaning |
//! |---|---|---|
//! | `connect_timeout` | `10s` | how long connecting tries |
//! | `publish_timeout` | `30s` | how long a publish waits for its confirmation |
//! | `max_payload` | `1000000` | bytes; larger publishes are refused |
//! | `partitions` | `6` | of topics that are created for applications |
//! | `retry_partitions` | `6` | of each group's retry topic, at least 3 |
//! | `replication` | the broker's | replication factor of topics that are created |
//! | `session_timeout` | `15s` | a member that is silent for so long loses its partitions |
//! | `revoke_timeout` | `5s` | how long running handlers may finish when partitions move to another instance |
//! | `commit_interval` | `100ms` | how often settled messages are committed |
//! | `prefetch` | `4194304` | bytes fetched ahead for each listener |
//! | `isolation` | `read_committed` | or `read_uncommitted`: what of other programs' transactions is seen |
//! | `group_protocol` | `classic` | or `consumer`: KIP-848, from Kafka 4.0 on |
//! | `linger` | `1ms` | how long a publish waits for company |
//! | `compression` | `none` | or `gzip`, `snappy`, `lz4`, `zstd` |
//! | `sasl` | `plain` | or `scram-sha-256`, `scram-sha-512` (these need the feature `tls`) |
//! | `ca` | the system's | file with the certificates that the broker's is checked against (`kafkas://`) |
//! | `certificate`, `key` | none | files with our own certificate and its key (`kafkas://`) |
//!
//! # How the contract maps to Kafka
//!
//! A *group* is a consumer group; all listeners of one group in a process share one consumer, polled by its own thread
//! whatever the handlers do. A *lane* is a partition. Messages are settled in any order: what is committed is the offset
//! below which everything is done, and what is done above it rides in the commit's metadata, so that a restart repeats as
//! little as possible. The same metadata counts how often the first unsettled message was started without a verdict.
//!
//! The *inbox* of a group is the topic `<topic>.<group>.retry`, read by the group's own consumer. Each message carries its
//! due time; a third of the partitions is for delays up to 10 s, a third for up to 10 min, the rest for longer ones. Each is
//! read ahead and waits in memory until it is due, uncommitted. Finished ones are deleted.
//!
//! *Dead letters* lie in one partition of their topic and are never moved: replayed and purged ones are marked in
//! `<dead-letter topic>.resolved.inbox`. A replay that is cut off between the copy and the mark is repeated by the next one.
//!
//! A group that is declared for the first time gets its position committed at once, so that nothing published afterwards
//! is missed. Topics that are published to and do not exist are created.
//!
//! # What is known not to work
//!
//! - A record header whose name is not UTF-8 loses name and value (rdkafka cannot read it); it shows as
//!   `postrider-original-unreadable-header-<n>`. With `panic = "abort"` it ends the process.
//! - Depths count offsets: transaction markers of other programs count as messages that wait.

mod broker;
mod dead_letters;
mod failure;
mod group;
mod inspector;
mod lock;
mod naming;
mod observer;
mod options;
mod outbox;
mod plan;
mod progress;
mod publisher;
mod reader;
mod record;
mod start;
mod status;
mod topics;
mod tracker;

pub use broker::connect;

/// The schemes of its URLs.
pub const SCHEMES: &[&str] = &["kafka", "kafkas"];

/// Where a broker on this machine usually listens.
pub const LOCAL: &str = "kafka://127.0.0.1:9092";
