//! The tour: ten thousand orders on their way through a shop.
//!
//! ```text
//!                   order.created     inventory.decreased    payment.completed    shipment.arranged
//! orders.ndjson ──────> inventory ─────────> payment ──────────> shipping ────────────> …
//!                           ^                   │
//!                           └── payment.failed ─┘ declined: the stock is released
//!
//! audit and notification see every topic.
//! ```
//!
//! ```text
//! cargo run --release --example order_flow
//! ```
//!
//! runs it in this process alone; with `BROKER_URL`, and the broker's cargo feature, on that broker. Some orders are no
//! valid JSON, some name an unknown article, some meet a payment gateway that fails, some are declined: see
//! `data/generate.rs`. At the end, the effects are checked, and the exit code is 0 only if every one of them is right.
//! With `ORDER_FLOW_STAY=1` it stays up before that, until Ctrl-C, so that its operations endpoint can be looked at.
//!
//! Begin with `inventory.rs`: it is a whole service.

mod audit;
mod catalogue;
mod dead_letters;
mod inventory;
mod ledger;
mod messages;
mod notification;
mod orders;
mod payment;
mod progress;
mod report;
mod run;
mod shipping;
mod shop;
mod verdict;
mod watch;

use std::process::ExitCode;

use postrider::Error;
use tracing_subscriber::EnvFilter;

use report::grouped;
use shop::Shop;
use watch::Watched;

/// What is logged unless `RUST_LOG` says otherwise: the start-up table, and what Postrider and its adapters warn of, which
/// includes what the client libraries below them report as errors; but not each of the many failures that this example provokes.
const LOG: &str = "postrider=warn,order_flow=warn,postrider::app=info,postrider::middleware::retry=off";

#[tokio::main]
async fn main() -> ExitCode {
    let filter = EnvFilter::try_from_default_env().unwrap_or_else(|_| EnvFilter::new(LOG));
    tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_writer(std::io::stderr)
        .init();
    run().await.unwrap_or_else(|error| {
        eprintln!("order_flow: {error}");
        ExitCode::FAILURE
    })
}

async fn run() -> Result<ExitCode, Error> {
    let shop = Shop::new();
    let lines = orders::read();
    let app = shop.app()?;
    let mut running = tokio::select! {
        started = app.start() => started?,
        () = watch::interrupted() => return Ok(interrupted()),
    };
    let status = running.status();
    let system = status.first().map_or("nothing", |listener| listener.system);
    println!(
        "{} orders, {} listeners on {system}",
        grouped(lines.len() as u64),
        status.len()
    );

    let watched = watch::until_done(&mut running, &shop, &lines).await;
    if matches!(watched, Ok(Watched::Done(..))) && std::env::var_os("ORDER_FLOW_STAY").is_some() {
        println!("staying up until Ctrl-C");
        watch::interrupted().await;
    }
    let status = running.status();
    let foreign = shop.this_run.foreign();
    // A second signal does not wait for the drain.
    let drained = tokio::select! {
        drained = running.shutdown() => drained,
        () = watch::interrupted() => return Ok(interrupted()),
    };
    let (verdict, took) = match watched? {
        Watched::Interrupted => {
            println!(
                "interrupted with {} of {} orders through",
                shop.through(),
                lines.len()
            );
            return Ok(interrupted());
        }
        Watched::Stuck(verdict, took) => {
            println!("nothing has happened for {} s", watch::PATIENCE.as_secs());
            (verdict, took)
        }
        Watched::Done(verdict, took) => (verdict, took),
    };
    println!("\n{}", report::table(&status, &foreign));
    println!("{}", report::rate(lines.len(), &status, took));
    let others: u64 = foreign.values().sum();
    if others > 0 {
        println!(
            "{} messages of other runs were acknowledged without effect",
            grouped(others)
        );
    }
    println!("\n{verdict}");
    drained?;
    Ok(if verdict.is_good() {
        ExitCode::SUCCESS
    } else {
        ExitCode::FAILURE
    })
}

/// What shells report of a program that Ctrl-C has ended.
fn interrupted() -> ExitCode {
    ExitCode::from(130)
}
