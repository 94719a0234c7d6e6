//! The failure contract of Postrider as a suite that any adapter can run.
//!
//! Every adapter answers the same cases on a real broker. An adapter's author writes a [`Harness`] that connects to that
//! broker and expands the suite in a test file of the adapter:
//!
//! ```
//! use std::sync::Arc;
//! use postrider_conformance::{Harness, async_trait};
//! use postrider_contract::{Broker, Client, Error};
//!
//! struct Embedded;
//!
//! #[async_trait]
//! impl Harness for Embedded {
//!     fn name(&self) -> &'static str {
//!         "embedded"
//!     }
//!
//!     async fn connect(&self, application: &str) -> Result<Arc<dyn Broker>, Error> {
//!         let client = Client { application: application.into(), instance: "1".into() };
//!         postrider_memory::connect(&"memory://".parse()?, client).await
//!     }
//! }
//!
//! postrider_conformance::cases!(Embedded);
//! # fn main() {}
//! ```
//!
//! Each case is one `#[test]`, runs on a tokio runtime of two threads, uses topics and groups of its own, and fails after
//! [`HARD_LIMIT`].
//!
//! # What an adapter may leave out
//!
//! - What its [`Capabilities`](postrider_contract::Capabilities) deny. The case then checks that it is *refused* at
//!   `plan`, by the listener's name: nothing is weakened in silence.
//! - What [`Harness::not_possible`] names, with the reason. That list is committed beside the adapter; a run never
//!   decides it. A broker that cannot be reached is a failure.
//!
//! Where `POSTRIDER_CONFORMANCE` names a folder, every case leaves there how it ended, in a file named after the first word
//! of [`Harness::name`]: [`record::Recorded`] reads it, and [`lines::LINES`] says which line of the contract a case holds.

pub mod cases;
pub mod kit;
pub mod lines;
pub mod record;
mod run;

use std::sync::Arc;
use std::time::Duration;

use postrider_contract::{Broker, Error};

pub use kit::Run;
pub use postrider_contract::async_trait;
pub use run::{CaseFuture, HARD_LIMIT, run};

/// How the suite reaches one broker.
#[async_trait]
pub trait Harness: Send + Sync + 'static {
    /// The adapter's name, for what is printed.
    fn name(&self) -> &'static str;

    /// Connects one more instance of this application. All of them reach the same broker.
    async fn connect(&self, application: &str) -> Result<Arc<dyn Broker>, Error>;

    /// How long the suite waits for what must happen; takeovers after a lost instance included, so leases and sessions
    /// are set shorter than this.
    fn patience(&self) -> Duration {
        Duration::from_secs(30)
    }

    /// Restarts the broker, keeping its data, if the harness can; answers when it takes connections again.
    async fn restart(&self) -> bool {
        false
    }

    /// Why this case cannot be passed on this broker: a committed reason, which is printed. `None`: it can.
    fn not_possible(&self, _case: &str) -> Option<&'static str> {
        None
    }
}

/// Expands to one `#[test]` for every case; the argument makes the [`Harness`].
#[macro_export]
macro_rules! cases {
    ($harness:expr $(,)?) => {
        $crate::every_case! { test_cases [$harness] }
    };
}

/// Expands to tests for a few cases of one group, such as `some_cases!(OwnBroker; lifecycle: broker_restart)`: for what
/// must not run beside the others.
#[macro_export]
macro_rules! some_cases {
    ($harness:expr; $group:ident: $($case:ident)*) => {
        $(
            #[test]
            fn $case() {
                $crate::run($harness, stringify!($case), |run| {
                    ::std::boxed::Box::pin($crate::cases::$group::$case(run))
                });
            }
        )*
    };
}
