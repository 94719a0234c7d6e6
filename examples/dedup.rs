//! What was handled is not handled again: `cargo run --example dedup`.

use postrider::prelude::*;
use tokio::sync::mpsc::{UnboundedSender, unbounded_channel};

#[derive(Message, Serialize, Deserialize)]
#[message(topic = "dedup.payment.requested", key = order)]
struct PaymentRequested {
    order: String,
    cents: u64,
}

/// Whoever asks twice to pay an order pays once, also where the first attempt fails.
#[listener(
    topic = "dedup.payment.requested",
    group = "payments",
    dedup(window = "24h", key = "order"),
    retry(attempts = 3, backoff = "200ms")
)]
async fn pay(
    payment: PaymentRequested,
    attempt: Attempt,
    State(paid): State<UnboundedSender<String>>,
) -> Result<(), HandlerError> {
    let PaymentRequested { order, cents } = payment;
    if order.ends_with('b') && attempt.0 == 1 {
        println!("order {order}: the bank does not answer");
        return Err("no answer".into());
    }
    println!("order {order}: paid {cents} cents");
    paid.send(order)?;
    Ok(())
}

#[tokio::main]
async fn main() -> Result<(), postrider::Error> {
    // Marks are kept in Redis where that is the broker, and otherwise in this process's memory; `.dedup_url("redis://…")` or
    // POSTRIDER__APP__DEDUP_URL keeps them in a Redis beside any broker.
    let (paid, mut payments) = unbounded_channel::<String>();
    let app = App::from_env()?.state(paid).listen(listeners![pay]);
    let running = app.start().await?;
    running.ready().await?;
    // Unlike those of any earlier run.
    let run = std::process::id();
    for order in ["a", "b", "a", "b", "c"] {
        let order = format!("{run}-{order}");
        let payment = PaymentRequested { order, cents: 1999 };
        running.publisher().send(&payment).await?;
    }
    for _ in 0..3 {
        payments.recv().await;
    }
    // Both second requests come to their end beside the third order.
    while running.status()[0].counts.duplicates < 2 {
        tokio::time::sleep(std::time::Duration::from_millis(10)).await;
    }
    println!(
        "three orders paid, {} requests were duplicates",
        running.status()[0].counts.duplicates
    );
    running.shutdown().await
}
