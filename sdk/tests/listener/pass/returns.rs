//! What a listener may return.
use postrider::prelude::*;

#[derive(Message, Serialize)]
#[message(topic = "stock.reserved")]
struct Reserved;

#[derive(Debug)]
struct Broken;

impl std::fmt::Display for Broken {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("broken")
    }
}

impl std::error::Error for Broken {}

type Done = Result<(), HandlerError>;

#[listener(topic = "order.created")]
async fn nothing(_order: Bytes) {}
#[listener(topic = "order.created")]
async fn unit(_order: Bytes) -> () {}
#[listener(topic = "order.created")]
async fn renamed(_order: Bytes) -> Done {
    Ok(())
}
#[listener(topic = "order.created")]
async fn own_error(_order: Bytes) -> Result<(), Broken> {
    Err(Broken)
}
#[listener(topic = "order.created")]
async fn text(_order: Bytes) -> Result<(), String> {
    Err("no".to_owned())
}
#[listener(topic = "order.created")]
async fn boxed(_order: Bytes) -> Result<(), Box<dyn std::error::Error + Send + Sync>> {
    Ok(std::fs::metadata("/").map(drop)?)
}
#[listener(topic = "order.created")]
async fn outcome(_order: Bytes) -> Outcome {
    Outcome::Release
}
#[listener(topic = "order.created")]
async fn result_of_outcome(_order: Bytes) -> Result<Outcome, HandlerError> {
    Ok(Outcome::ACK)
}
#[listener(topic = "order.created")]
async fn opaque(_order: Bytes) -> impl postrider::IntoOutcome {}
#[listener(topic = "order.created", publish = "stock.reserved")]
async fn reply(_order: Bytes) -> Reserved {
    Reserved
}
#[listener(topic = "order.created", publish = "stock.reserved")]
async fn perhaps(_order: Bytes) -> Result<Option<Reserved>, HandlerError> {
    Ok(None)
}
#[listener(topic = "order.created", batch(size = 100, wait = "50ms"))]
async fn all(_orders: Vec<Bytes>) -> Result<(), HandlerError> {
    Ok(())
}
#[listener(topic = "order.created", batch(size = 100, wait = "50ms"))]
async fn each(orders: Vec<Bytes>) -> Vec<Result<(), Broken>> {
    orders.into_iter().map(|_| Ok(())).collect()
}
#[listener(topic = "order.created", batch(size = 100, wait = "50ms"))]
async fn outcomes(orders: Vec<Bytes>, _publisher: Publisher) -> Vec<Outcome> {
    orders.into_iter().map(|_| Outcome::ACK).collect()
}

fn main() {
    let single = listeners![nothing, unit, renamed, own_error, text, boxed, outcome, result_of_outcome, opaque];
    let others = listeners![reply, perhaps, all, each, outcomes];
    assert_eq!(single.len() + others.len(), 14);
}
