//! Tests of a listener, without a broker and without waiting: `cargo test --example testing`.
//!
//! With tokio's paused clock, time jumps to whatever is due next as soon as nothing else is left to do: retries that are
//! minutes apart take milliseconds. `cargo run --example testing` shows that.

use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use postrider::{Counts, Running, prelude::*};

#[derive(Message, Serialize, Deserialize)]
#[message(topic = "order.created", key = order_id)]
struct OrderCreated {
    order_id: u64,
    quantity: u32,
}

/// A warehouse that is closed for the first requests.
#[derive(Default)]
struct Warehouse {
    closed_for: AtomicU32,
    reserved: AtomicU32,
}

#[listener(
    topic = "order.created",
    group = "inventory",
    retry(attempts = 4, backoff = "1m"),
    timeout = "10s"
)]
async fn reserve_stock(
    order: OrderCreated,
    State(warehouse): State<Arc<Warehouse>>,
) -> Result<(), HandlerError> {
    if order.quantity == 0 {
        return Err(HandlerError::permanent("nothing is ordered"));
    }
    let open = warehouse
        .closed_for
        .fetch_update(Ordering::Relaxed, Ordering::Relaxed, |left| left.checked_sub(1));
    if open.is_ok() {
        return Err("the warehouse is closed".into());
    }
    warehouse.reserved.fetch_add(order.quantity, Ordering::Relaxed);
    Ok(())
}

/// The listener on an embedded broker of its own: tests do not see one another.
async fn start(warehouse: &Arc<Warehouse>) -> Result<Running, postrider::Error> {
    let url = format!("memory://{}", uuid::Uuid::now_v7().simple());
    let running = App::new(&url)?
        .state(warehouse.clone())
        .listen(listeners![reserve_stock])
        .start()
        .await?;
    running.ready().await?;
    Ok(running)
}

/// Waits, on the virtual clock, until one message is done with.
async fn settled(running: &Running) -> Counts {
    loop {
        let counts = running.status()[0].counts;
        if counts.handled + counts.dead_lettered > 0 {
            return counts;
        }
        tokio::time::sleep(Duration::from_secs(1)).await;
    }
}

#[tokio::main(flavor = "current_thread")]
async fn main() -> Result<(), postrider::Error> {
    tokio::time::pause();
    let (begin, virtual_begin) = (std::time::Instant::now(), tokio::time::Instant::now());
    let warehouse = Arc::new(Warehouse {
        closed_for: 3.into(),
        ..Warehouse::default()
    });
    let running = start(&warehouse).await?;
    running
        .publisher()
        .send(&OrderCreated {
            order_id: 1,
            quantity: 2,
        })
        .await?;
    let counts = settled(&running).await;
    println!(
        "{} reserved after {} retries: {} s on the virtual clock, {} ms on the wall",
        warehouse.reserved.load(Ordering::Relaxed),
        counts.retried,
        virtual_begin.elapsed().as_secs(),
        begin.elapsed().as_millis()
    );
    running.shutdown().await
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A handler is a function: it can be called without any of the rest.
    #[tokio::test]
    async fn an_order_is_reserved() {
        let warehouse = Arc::new(Warehouse::default());
        let order = OrderCreated {
            order_id: 1,
            quantity: 2,
        };
        reserve_stock(order, State(warehouse.clone())).await.unwrap();
        assert_eq!(warehouse.reserved.load(Ordering::Relaxed), 2);
    }

    #[tokio::test(start_paused = true)]
    async fn it_waits_for_a_closed_warehouse() {
        let warehouse = Arc::new(Warehouse {
            closed_for: 3.into(),
            ..Warehouse::default()
        });
        let running = start(&warehouse).await.unwrap();
        let begin = tokio::time::Instant::now();
        running
            .publisher()
            .send(&OrderCreated {
                order_id: 1,
                quantity: 2,
            })
            .await
            .unwrap();
        let counts = settled(&running).await;
        assert_eq!((counts.handled, counts.retried), (1, 3));
        assert!(begin.elapsed() >= Duration::from_secs(3 * 60));
        assert_eq!(warehouse.reserved.load(Ordering::Relaxed), 2);
        running.shutdown().await.unwrap();
    }

    #[tokio::test(start_paused = true)]
    async fn it_gives_up_an_order_of_nothing() {
        let running = start(&Arc::default()).await.unwrap();
        running
            .publisher()
            .send(&OrderCreated {
                order_id: 1,
                quantity: 0,
            })
            .await
            .unwrap();
        settled(&running).await;
        let letters = running
            .dead_letters("reserve_stock")
            .unwrap()
            .browse(None, 10)
            .await
            .unwrap();
        let why = DeadLetter::from_message(&letters[0].message).unwrap();
        assert_eq!((why.reason.as_str(), why.attempts), ("permanent", 1));
        assert_eq!(why.error, "nothing is ordered");
        running.shutdown().await.unwrap();
    }
}
