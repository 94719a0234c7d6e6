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
//! | `retry_partitions` | `2` | of a group's retry topic, for each of three classes of delay; at most the topic's own |
//! | `replication` | the broker's | replication factor of topics that are created |
//! | `session_timeout` | `15s` | a member that is silent for so long loses its partitions (`classic`) |
//! | `revoke_timeout` | `5s` | how long running handlers may finish when partitions move to another instance |
//! | `commit_interval` | `100ms` | how often settled messages are committed |
//! | `prefetch` | `4194304` | bytes fetched ahead for each listener, and of each partition of its retries |
//! | `isolation` | `read_committed` | or `read_uncommitted`: what of other programs' transactions is seen |
//! | `group_protocol` | `classic` | or `consumer`: KIP-848, from Kafka 4.0 on; the broker has the session timeout |
//! | `linger` | `1ms` | how long a publish waits for company |
//! | `compression` | `none` | or `gzip`, `snappy`, `lz4`, `zstd` |
//! | `sasl` | `plain` | or `scram-sha-256`, `scram-sha-512` (these need the feature `tls`) |
//! | `ca` | the system's | file with the certificates that the broker's is checked against (`kafkas://`) |
//! | `certificate`, `key` | none | files with our own certificate and its key (`kafkas://`) |
//!
//! # How the contract maps to Kafka
//!
//! A *group* on a topic is the consumer group `<topic>.<group>`, with one consumer in each process, polled by a thread of
//! its own whatever the handlers do; an instance of a broadcast is `<topic>.<group>@<instance>`. One for each topic, not one
//! for all topics of a group: cooperative-sticky balances the *sum* of partitions and moves them in the order of their names,
//! so that a second instance would get all of one topic and nothing of another; and so no listener waits for the rebalance
//! of another, or for its full mailbox.
//!
//! A *lane* is a partition. Messages are settled in any order: what is committed is the offset below which everything is
//! done, and what is done above it rides in the commit's metadata, so that a restart repeats as little as possible. The
//! same metadata counts how often messages were delivered without a verdict, tells how many are being handled, and by its id
//! which topic the offset belongs to: one that is deleted and made again is read from its beginning. Where the consumer before
//! ended without a goodbye, the first thousand are delivered only after a commit says so, 64 at a time: a process that ends at
//! once would leave nothing to count by.
//!
//! The *inbox* of a group is the topic `<topic>.<group>.retry`. It is not subscribed to: each of its partitions goes with one
//! of the topic's to whoever is assigned that one. Each message carries its due time; a third of the partitions is for
//! delays up to 10 s, a third for up to 10 min, the rest for longer ones. Up to 2,000 messages of a partition, or about
//! `prefetch` bytes of them, are read ahead and wait in memory until they are due, uncommitted; behind more than that the order
//! is that of arrival. So what is due sooner can come late behind large messages: of 10 KB each some 400 are read ahead.
//! Finished ones are deleted, and one that keeps thousands of finished ones from being committed is sent again, unchanged.
//!
//! *Dead letters* lie in one partition of their topic and are never moved: replayed and purged ones are marked in
//! `<dead-letter topic>.resolved.inbox`, and deleted from the beginning of the topic as far as every group that listens there
//! has got. A replay that is cut off between the copy and the mark is repeated by the next one.
//!
//! A group that is declared for the first time gets its position committed at once, so that nothing published afterwards
//! is missed. What retention deletes before the group has it is told as lost, with the number of its offsets (librdkafka goes
//! on with the oldest that is left). That its retry topic exists shows that it was declared before: if its positions are gone
//! then, they expired (Kafka forgets them after `offsets.retention.minutes`, a week, without a consumer), and it goes on with
//! the oldest message. Topics that are published to and do not exist are created.
//!
//! Topics are made with `max.message.bytes` for the largest payload and its headers. Retry and dead-letter topics keep
//! everything (`retention.ms=-1`) and take messages of 99 MB, as that setting is for what is compressed, and copies need not be.
//! One that somebody else made must take 64 KiB more than the topic that it is for; so does one in a cluster that allows no more.
//! Where one takes less than 99 MB, a warning at start-up says so.
//!
//! # What other programs see
//!
//! The partition key is the record's key, the `timestamp` the record's own. Every other header is a record header of its name,
//! whose value is bytes: a number is decimal text (`42`, `0.5`), a boolean `true` or `false`, null is a header without value.
//! They arrive as text; `Value::as_i64` reads whole numbers all the same.
//!
//! # What is known not to work
//!
//! - A record header whose name is not UTF-8 loses name and value (rdkafka cannot read it); it shows as
//!   `postrider-original-unreadable-header-<n>`. With `panic = "abort"` it ends the process.
//! - Depths count offsets: transaction markers of other programs count as messages that wait until the group has come to them.
//! - A message for later goes to a group's inbox only, not to a topic.
//! - Kafka takes no two topics whose names differ only in `.` and `_`: the second is refused at start-up.
//! - librdkafka forgets brokers that a cluster does not name for a moment. A client that asks while all of them are fenced at
//!   once, as the only broker is just after it was frozen for more than `broker.session.timeout.ms`, forgets them all and
//!   more often than not reaches none again (its issue 5301; `tests/cut_off.rs` brings it about). A client that has reached
//!   no broker for four seconds while another one of the connection did is made anew. For a listener that is a rebalance: what
//!   its handlers were at comes again, and it is degraded until the group has taken in the new consumer, which can take
//!   another `session_timeout`.
//! - Records that are damaged in the log hold up their partition, and the listener is degraded for as long as they do. To go
//!   on without them, stop the group and set its position behind them (`kafka-consumer-groups --reset-offsets`). Damage
//!   within a batch that is not compressed is not always seen: the partition can stand still without a word, or a payload
//!   come as it was damaged.
//! - Behind a message that stays unsettled, such as one of an `ordered` listener that waits for its retry, about 16,384 more of
//!   its partition are delivered, of whatever key. Then the partition waits for it, and the listener is degraded.
//! - With `group_protocol=consumer` an instance can be ready some seconds before it has partitions: the broker says that it has
//!   none also while others have yet to release them.
//! - Dead letters of a topic with several partitions (made by somebody else) are listed partition by partition.

mod broker;
mod dead_letters;
mod failure;
mod group;
mod incarnation;
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
mod side_by_side;
mod start;
mod status;
mod topics;
mod tracker;

pub use broker::connect;

/// The schemes of its URLs.
pub const SCHEMES: &[&str] = &["kafka", "kafkas"];

/// Where a broker on this machine usually listens.
pub const LOCAL: &str = "kafka://127.0.0.1:9092";
