//! Tests of a listener, without a broker and without waiting: `cargo test --example testing`.
//!
//! On the virtual clock, time jumps to whatever is due next as soon as nothing else is left to do: retries that are
//! minutes apart take milliseconds. `cargo run --example testing` shows that.

use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::{Duration, Instant};

use postrider::prelude::*;
use postrider::testing::TestApp;

#[derive(Message, Serialize, Deserialize)]
#[message(topic = "order.created", key = order_id)]
struct OrderCreated {
    order_id: u64,
    quantity: u32,
}

#[derive(Message, Serialize, Deserialize, Debug, PartialEq)]
#[message(topic = "stock.reserved", key = order_id)]
struct StockReserved {
    order_id: u64,
}

/// A warehouse that is closed for the first requests.
#[derive(Default)]
struct Warehouse {
    closed_for: AtomicU32,
    reserved: AtomicU32,
}

impl Warehouse {
    fn closed_for(requests: u32) -> Arc<Self> {
        Arc::new(Self {
            closed_for: requests.into(),
            ..Self::default()
        })
    }
}

#[listener(
    topic = "order.created",
    group = "inventory",
    publish = "stock.reserved",
    retry(attempts = 4, backoff = "1m"),
    timeout = "10s"
)]
async fn reserve_stock(
    order: OrderCreated,
    State(warehouse): State<Arc<Warehouse>>,
) -> Result<StockReserved, HandlerError> {
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
    Ok(StockReserved {
        order_id: order.order_id,
    })
}

async fn start(warehouse: &Arc<Warehouse>) -> TestApp {
    TestApp::start(|app| app.state(warehouse.clone()).listen(listeners![reserve_stock])).await
}

const ORDER: OrderCreated = OrderCreated {
    order_id: 1,
    quantity: 2,
};

#[tokio::main(flavor = "current_thread", start_paused = true)]
async fn main() {
    let begin = Instant::now();
    let app = start(&Warehouse::closed_for(3)).await;
    app.deliver(&ORDER).await;
    app.advance(Duration::from_secs(5 * 60)).await;
    print!("{app}");
    println!("{} ms on the wall", begin.elapsed().as_millis());
    app.stop().await;
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A handler is a function: it can be called without any of the rest.
    #[tokio::test]
    async fn an_order_is_reserved() {
        let warehouse = Arc::new(Warehouse::default());
        let reserved = reserve_stock(ORDER, State(warehouse.clone())).await.unwrap();
        assert_eq!(reserved, StockReserved { order_id: 1 });
        assert_eq!(warehouse.reserved.load(Ordering::Relaxed), 2);
    }

    #[tokio::test(start_paused = true)]
    async fn it_waits_for_a_closed_warehouse() {
        let warehouse = Warehouse::closed_for(3);
        let app = start(&warehouse).await;
        app.deliver(&ORDER).await;
        app.assert_outcomes("reserve_stock", ["error: the warehouse is closed"]);
        assert_eq!(app.published::<StockReserved>(), []);

        app.advance(Duration::from_secs(3 * 60)).await;
        let closed = "error: the warehouse is closed";
        app.assert_outcomes("reserve_stock", [closed, closed, closed, "handled"]);
        assert_eq!(app.published::<StockReserved>(), [StockReserved { order_id: 1 }]);
        assert_eq!(warehouse.reserved.load(Ordering::Relaxed), 2);
        app.stop().await;
    }

    #[tokio::test(start_paused = true)]
    async fn it_gives_up_an_order_of_nothing() {
        let app = start(&Arc::default()).await;
        app.deliver(&OrderCreated {
            order_id: 1,
            quantity: 0,
        })
        .await;
        let dead = app.dead_letters("reserve_stock").await;
        assert_eq!(dead.len(), 1, "{app}");
        assert_eq!((dead[0].reason.as_str(), dead[0].attempts), ("permanent", 1));
        assert_eq!(dead[0].error, "nothing is ordered");
        app.stop().await;
    }

    #[tokio::test(start_paused = true)]
    #[should_panic(expected = "seen: [\"error: the warehouse is closed\"]")]
    async fn what_fails_prints_what_was_seen() {
        let app = start(&Warehouse::closed_for(3)).await;
        app.deliver(&ORDER).await;
        app.assert_outcomes("reserve_stock", ["handled"]);
    }
}
