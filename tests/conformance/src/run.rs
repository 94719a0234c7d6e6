//! Running one case.

use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use crate::record::{Notes, Outcome};
use crate::{Harness, Run};

/// After this a case has failed, wherever it hangs.
pub const HARD_LIMIT: Duration = Duration::from_secs(60);

/// A case under way.
pub type CaseFuture = Pin<Box<dyn Future<Output = ()> + Send>>;

/// Runs one case on a runtime of its own, or prints why it is not possible on this broker.
///
/// # Panics
/// The case failed, or ran past [`HARD_LIMIT`].
pub fn run(harness: impl Harness, case: &'static str, body: impl FnOnce(Run) -> CaseFuture) {
    if let Some(reason) = harness.not_possible(case) {
        println!("{case} on {}: not possible: {reason}", harness.name());
        let outcome = Outcome::NotPossible(reason.to_owned());
        return Notes::default().record(harness.name(), case, outcome);
    }
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(2)
        .enable_all()
        .build()
        .expect("a runtime starts");
    let name = harness.name();
    let run = Run::new(Arc::new(harness), case);
    let notes = run.notes.clone();
    let body = body(run);
    let outcome = runtime.block_on(async { tokio::time::timeout(HARD_LIMIT, tokio::spawn(body)).await });
    // A case that hangs may hold a thread: it is not waited for.
    runtime.shutdown_background();
    let ended = if matches!(outcome, Ok(Ok(()))) {
        Outcome::Passed
    } else {
        Outcome::Failed
    };
    notes.record(name, case, ended);
    match outcome {
        Ok(Ok(())) => (),
        Ok(Err(failed)) => std::panic::resume_unwind(failed.into_panic()),
        Err(tokio::time::error::Elapsed { .. }) => {
            panic!("{case} on {name}: not finished after {HARD_LIMIT:?}")
        }
    }
}
