//! What stands around a handler: guard, breaker, duplicates, suspects, retry, dead letter, a file each, plus the user's own.

mod breaker;
mod dead_letter;
mod dedup;
mod guard;
mod retry;
mod suspects;

use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;

pub(crate) use breaker::{Breaker, Change};
pub(crate) use dedup::{Claim, Dedup, Look, PATIENCE, silent};
pub(crate) use guard::{caught, guarded};
pub(crate) use retry::{Admission, Clock, Decision, Hold, MOST_HOPS, Policy};
pub(crate) use suspects::Suspects;

use crate::contract::async_trait;
use crate::listener::{Context, Outcome};

/// Wraps every handler of an app that takes one message: [`App::middleware`](crate::App::middleware). Batch listeners are not
/// wrapped, which the log says at start-up: what must hold for them too, such as a check of who sent a message, belongs in an
/// extractor ([`Extract`](crate::Extract)).
///
/// It may look at the delivery, leave values for extractors ([`Context::insert`]), refuse without calling the handler,
/// and change the outcome. Panics and timeouts of what it wraps pass it by: they are caught outside of it.
///
/// ```
/// use postrider::prelude::*;
///
/// struct Timed;
///
/// #[postrider::async_trait]
/// impl Middleware for Timed {
///     async fn handle(&self, cx: &Context, next: Next<'_>) -> Outcome {
///         let begin = std::time::Instant::now();
///         let outcome = next.run(cx).await;
///         println!("{} took {:?}", cx.listener(), begin.elapsed());
///         outcome
///     }
/// }
/// ```
#[async_trait]
pub trait Middleware: Send + Sync + 'static {
    /// Handles a delivery, usually by running `next`.
    async fn handle(&self, cx: &Context, next: Next<'_>) -> Outcome;
}

/// The rest of the way to the handler.
pub struct Next<'a> {
    rest: &'a [Arc<dyn Middleware>],
    handler: &'a Handler<'a>,
}

/// The handler at the end of the way, its type erased.
type Handler<'a> =
    dyn for<'b> Fn(&'b Context) -> Pin<Box<dyn Future<Output = Outcome> + Send + 'b>> + Send + Sync + 'a;

impl<'a> Next<'a> {
    pub(crate) fn new(rest: &'a [Arc<dyn Middleware>], handler: &'a Handler<'a>) -> Self {
        Self { rest, handler }
    }

    /// Runs what is further in.
    pub async fn run(self, cx: &Context) -> Outcome {
        match self.rest.split_first() {
            Some((first, rest)) => {
                first
                    .handle(
                        cx,
                        Next {
                            rest,
                            handler: self.handler,
                        },
                    )
                    .await
            }
            None => (self.handler)(cx).await,
        }
    }
}

impl std::fmt::Debug for Next<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Next")
            .field("middleware", &self.rest.len())
            .finish_non_exhaustive()
    }
}
