//! The dead letters of this run, asked of the broker.

use std::time::Duration;

use postrider::{Error, ErrorKind, Running, prelude::*};

use crate::run::{RUN_ID, RunId};

/// How many are asked for at once.
const PAGE: usize = 500;
/// How long the broker may take to answer.
const PATIENCE: Duration = Duration::from_secs(30);

/// The payloads that a listener has given up in this run, each with why. Looking at them changes nothing: those of
/// earlier runs are still there, and are passed over.
pub(crate) async fn of_run(
    running: &Running,
    listener: &str,
    run: &RunId,
) -> Result<Vec<(Bytes, DeadLetter)>, Error> {
    let mut found = Vec::new();
    let Some(mut letters) = running.dead_letters(listener) else {
        return Ok(found);
    };
    let mut after = None;
    loop {
        let page = tokio::time::timeout(PATIENCE, letters.browse(after.as_ref(), PAGE)).await;
        let page = page.map_err(|_| Error::new(ErrorKind::Unavailable, "the broker does not answer"))??;
        let Some(last) = page.last() else {
            return Ok(found);
        };
        after = Some(last.id.clone());
        let ours = page
            .into_iter()
            .filter(|letter| letter.message.headers.get_str(RUN_ID) == Some(run.as_str()));
        found.extend(ours.filter_map(|letter| {
            let why = DeadLetter::from_message(&letter.message)?;
            Some((letter.message.payload.unwrap_or_default(), why))
        }));
    }
}
