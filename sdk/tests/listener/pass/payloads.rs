//! What the first parameter may be.
use postrider::prelude::*;

#[derive(Message, Serialize, Deserialize)]
#[message(topic = "order.created", key = id)]
struct Order {
    id: u64,
}

#[derive(Message, Serialize, Deserialize)]
#[message(topic = "page.filled", key = page.number)]
struct Page<T, const SIZE: usize>
where
    T: Clone,
{
    page: Number,
    rows: Vec<T>,
}

#[derive(Serialize, Deserialize)]
struct Number {
    number: u32,
}

#[derive(Message, Serialize, Deserialize)]
#[message(topic = "order.changed")]
enum Change {
    Created { id: u64 },
    Removed(u64),
}

#[derive(Message, Serialize, Deserialize)]
#[message(topic = "order.removed", key = 0)]
struct Removed(u64);

type Renamed = Json<Vec<String>>;

#[listener(topic = "order.created")]
async fn message(_payload: Order) {}
#[listener(topic = "page.filled")]
async fn generic(_payload: Page<String, 8>) {}
#[listener(topic = "order.changed")]
async fn enumeration(_payload: Change) {}
#[listener(topic = "order.removed")]
async fn tuple(Removed(_id): Removed) {}
#[listener(topic = "order.created")]
async fn json(Json(_payload): Json<std::collections::HashMap<String, u64>>) {}
#[listener(topic = "order.created")]
async fn renamed(_payload: Renamed) {}
#[listener(topic = "order.created")]
async fn raw(_payload: Bytes) {}
#[listener(topic = "order.created")]
async fn tombstone(_payload: Option<Order>) {}
#[listener(topic = "order.created", batch(size = 100, wait = "50ms"))]
async fn many(_payloads: Vec<Order>) {}
#[listener(topic = "order.created", batch(size = 100, wait = "50ms"))]
async fn many_tombstones(_payloads: Vec<Option<Json<Number>>>) {}
#[listener(topic = "order.created.inventory.dlq")]
async fn dead_letters(_payload: Bytes) {}

fn main() {
    let all = listeners![
        message, generic, enumeration, tuple, json, renamed, raw, tombstone, many, many_tombstones, dead_letters
    ];
    assert_eq!(all.len(), 11);
    let page = Page::<u8, 1> { page: Number { number: 3 }, rows: vec![] };
    assert_eq!(page.key().unwrap(), "3");
    assert_eq!(Removed(4).key().unwrap(), "4");
    assert_eq!(Order::TOPIC, "order.created");
    assert_eq!(Order::VERSION, None);
    assert!(Change::Removed(1).key().is_none());
    let _ = Change::Created { id: 1 };
}
