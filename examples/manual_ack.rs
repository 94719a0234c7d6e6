//! A handler that settles by itself, at the moment it chooses: `cargo run --example manual_ack`.

use std::time::Duration;

use postrider::prelude::*;
use tokio::sync::mpsc::{UnboundedSender, unbounded_channel};

#[derive(Message, Serialize, Deserialize)]
#[message(topic = "manual.payment.settled", key = payment_id)]
struct PaymentSettled {
    payment_id: u64,
}

#[listener(
    topic = "manual.payment.settled",
    group = "ledger",
    ack = manual,
    concurrency = 4,
    retry(attempts = 3, backoff = "200ms..1s")
)]
async fn book(
    payment: PaymentSettled,
    attempt: Attempt,
    ack: Acker,
    State(booked): State<UnboundedSender<u64>>,
) -> Result<(), HandlerError> {
    let id = payment.payment_id;
    match (id, attempt.0) {
        (2, 1) => {
            println!("payment 2: the ledger is locked, not now");
            // As if the handler had returned this error: tried again after the backoff.
            return Ok(ack.fail("the ledger is locked").await?);
        }
        (3, 1) => {
            println!("payment 3: forgotten");
            // Ends without settling: that is a failure too, and it comes again.
            return Ok(());
        }
        _ => println!("payment {id}: booked at attempt {}", attempt.0),
    }
    // What follows may be lost in a crash, and must not make the message come again.
    ack.ack().await?;
    tokio::time::sleep(Duration::from_millis(100)).await;
    println!("payment {id}: statistics updated");
    booked.send(id)?;
    Ok(())
}

#[tokio::main]
async fn main() -> Result<(), postrider::Error> {
    let (booked, mut done) = unbounded_channel::<u64>();
    let running = App::from_env()?
        .state(booked)
        .listen(listeners![book])
        .start()
        .await?;
    running.ready().await?;
    for payment_id in 1..=3 {
        running.publisher().send(&PaymentSettled { payment_id }).await?;
    }
    for _ in 1..=3 {
        done.recv().await;
    }
    running.shutdown().await
}
