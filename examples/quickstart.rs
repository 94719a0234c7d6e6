//! A message, a listener that fails once, and a publisher: `cargo run --example quickstart`.

use postrider::prelude::*;
use tokio::sync::mpsc::{UnboundedSender, unbounded_channel};

#[derive(Message, Serialize, Deserialize)]
#[message(topic = "quickstart.order.created", key = order_id)]
struct OrderCreated {
    order_id: u64,
    article: String,
}

#[listener(
    topic = "quickstart.order.created",
    group = "inventory",
    concurrency = 4,
    retry(attempts = 5, backoff = "200ms..30s"),
    timeout = "10s"
)]
async fn reserve_stock(
    order: OrderCreated,
    attempt: Attempt,
    State(done): State<UnboundedSender<u64>>,
) -> Result<(), HandlerError> {
    println!(
        "order {} of a {}, attempt {}",
        order.order_id, order.article, attempt.0
    );
    if order.article == "lamp" && attempt.0 == 1 {
        return Err("the lamps are locked away".into()); // tried again after the backoff
    }
    done.send(order.order_id)?;
    Ok(()) // acknowledged
}

#[tokio::main]
async fn main() -> Result<(), postrider::Error> {
    tracing_subscriber::fmt().init(); // what Postrider tells: the start-up table, retries, dead letters
    let (done, mut reserved) = unbounded_channel::<u64>();
    // A service would end with `.run().await`, which goes on until SIGTERM or SIGINT.
    let running = App::from_env()? // BROKER_URL picks the broker
        .state(done)
        .listen(listeners![reserve_stock])
        .start()
        .await?;
    running.ready().await?;

    for (order_id, article) in [(1, "chair"), (2, "lamp"), (3, "table")] {
        let article = article.to_owned();
        running
            .publisher()
            .send(&OrderCreated { order_id, article })
            .await?; // the broker has it
    }
    for _ in 0..3 {
        let order_id = reserved.recv().await;
        println!("order {} is reserved", order_id.unwrap_or_default());
    }
    running.shutdown().await
}
