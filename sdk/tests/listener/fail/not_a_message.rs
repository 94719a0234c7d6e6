use postrider::prelude::*;

#[derive(Serialize)]
struct StockReserved;

async fn reserve(publisher: Publisher) -> Result<(), HandlerError> {
    publisher.send(&StockReserved).await?;
    Ok(())
}

fn main() {}
