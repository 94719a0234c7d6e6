//! Dead letters: looked at, replayed once the cause is mended, and purged. `cargo run --example dead_letters`.
//!
//! A program beside a running service does the same with `App::dead_letters` instead of `Running::dead_letters`.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use postrider::dead_letters::Filter;
use postrider::prelude::*;

#[derive(Message, Serialize, Deserialize)]
#[message(topic = "parcel.packed", key = parcel)]
struct ParcelPacked {
    parcel: u32,
}

#[derive(Clone, Default)]
struct Carrier(Arc<AtomicBool>);

#[listener(topic = "parcel.packed", retry(attempts = 1))]
async fn ship(packed: ParcelPacked, State(carrier): State<Carrier>) -> Result<(), HandlerError> {
    if packed.parcel.is_multiple_of(4) {
        return Err(HandlerError::permanent("the parcel has no address"));
    }
    if !carrier.0.load(Ordering::Relaxed) {
        return Err("the carrier is on strike".into());
    }
    println!("parcel {} is on its way", packed.parcel);
    Ok(())
}

#[tokio::main]
async fn main() -> Result<(), postrider::Error> {
    let carrier = Carrier::default();
    let running = App::from_env()?
        .name("dead_letters")
        .state(carrier.clone())
        .listen(listeners![ship])
        .start()
        .await?;
    running.ready().await?;
    let parcels: Vec<_> = (1..=8).map(|parcel| ParcelPacked { parcel }).collect();
    for answer in running.publisher().send_all(&parcels).await {
        answer?;
    }
    while running.status()[0].counts.dead_lettered < 8 {
        tokio::time::sleep(Duration::from_millis(10)).await;
    }

    let Some(mut letters) = running.dead_letters("ship") else {
        return Ok(());
    };
    for letter in letters.list(&Filter::all().limit(20)).await? {
        let payload = letter.original.payload.clone().unwrap_or_default();
        println!(
            "{}: {}: {}",
            String::from_utf8_lossy(&payload),
            letter.reason,
            letter.error
        );
    }

    carrier.0.store(true, Ordering::Relaxed);
    let strike = Filter::all().error("on strike");
    let would = letters.replay(strike.clone()).dry_run().await?;
    println!("{} of {} would be replayed", would.matched, would.looked_at);
    let replay = letters.replay(strike).rate(20, Duration::from_secs(1));
    replay
        .on_progress(|progress| println!("{} of {} replayed", progress.done, progress.matched))
        .await?;
    let purged = letters.purge(Filter::all().reason("permanent")).await?;
    println!("{} purged", purged.done);
    running.shutdown().await
}
