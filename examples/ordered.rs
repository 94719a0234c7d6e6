//! Messages of one key in order, different keys side by side: `cargo run --example ordered`.

use std::time::Duration;

use postrider::prelude::*;
use tokio::sync::mpsc::{UnboundedSender, unbounded_channel};

#[derive(Message, Serialize, Deserialize)]
#[message(topic = "ordered.account.changed", key = account)]
struct AccountChanged {
    account: String,
    change: u32,
}

/// A change that fails holds back the later changes of its account until it succeeds, and nobody else's.
#[listener(
    topic = "ordered.account.changed",
    group = "ledger",
    ordered,
    concurrency = 4,
    retry(attempts = 5, backoff = "300ms")
)]
async fn apply(
    changed: AccountChanged,
    attempt: Attempt,
    State(applied): State<UnboundedSender<(String, u32)>>,
) -> Result<(), HandlerError> {
    let AccountChanged { account, change } = changed;
    tokio::time::sleep(Duration::from_millis(20)).await;
    if account == "ada" && change == 2 && attempt.0 < 3 {
        println!("{account}: change {change} fails at attempt {}", attempt.0);
        return Err("the account is locked".into());
    }
    println!("{account}: change {change} applied");
    applied.send((account, change))?;
    Ok(())
}

#[tokio::main]
async fn main() -> Result<(), postrider::Error> {
    let (applied, mut changes) = unbounded_channel::<(String, u32)>();
    let running = App::from_env()?
        .state(applied)
        .listen(listeners![apply])
        .start()
        .await?;
    running.ready().await?;
    for change in 1..=4 {
        for account in ["ada", "bob", "eve"] {
            let account = account.to_owned();
            running
                .publisher()
                .send(&AccountChanged { account, change })
                .await?;
        }
    }
    let mut of_ada = Vec::new();
    for _ in 0..12 {
        if let Some((account, change)) = changes.recv().await
            && account == "ada"
        {
            of_ada.push(change);
        }
    }
    println!("ada's changes in the order in which they were applied: {of_ada:?}");
    running.shutdown().await
}
