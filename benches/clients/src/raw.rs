//! What somebody writes on the client library alone.

use postrider::async_trait;

use crate::probe::{Cost, Order, Probe};

/// What is published to, listened to, and what the group is called.
pub(crate) const TOPIC: &str = "bench.load";
pub(crate) const OUT: &str = "bench.out";
pub(crate) const GROUP: &str = "bench";
/// A second group of the same topic: the SDK's, where it runs beside the raw loops.
pub(crate) const BESIDE: &str = "beside";
/// Messages that may be unsettled, or unconfirmed.
pub(crate) const PREFETCH: usize = 256;
pub(crate) const UNCONFIRMED: usize = 2000;
/// As the SDK's are: nobody can ask for a message without one.
pub(crate) const MESSAGE_ID: &str = "0190a7f0-0000-7000-8000-000000000000";

/// Two loops of each kind: the one in the client library's own documentation, which settles and confirms one by one, and
/// the best that tuning by hand reaches.
#[async_trait]
pub(crate) trait Raw: Send + Sync {
    /// Handles until the probe has seen its last, and settles that.
    async fn consume(&self, tuned: bool, probe: &Probe);

    /// Publishes each message that it receives again, and settles it when that is confirmed.
    async fn forward(&self, tuned: bool, probe: &Probe);

    /// Publishes, all confirmed.
    async fn publish(&self, tuned: bool, order: &Order) -> Cost;

    /// Afterwards nothing waits for the groups.
    async fn empty(&self);

    /// Deletes what the benchmark made.
    async fn delete(&self);

    /// The broker's version and what is set, on both sides.
    async fn about(&self) -> String;
}
