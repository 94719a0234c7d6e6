//! The function is as it was: it can be called, passed on and tested.
use postrider::prelude::*;

#[listener(topic = "order.created")]
async fn double(order: Json<u64>, State(sum): State<u64>) -> Result<(), HandlerError> {
    if order.0 + sum == 3 { Ok(()) } else { Err(HandlerError::permanent("not three")) }
}

fn main() {
    let future = double(Json(1), State(2));
    let mut future = std::pin::pin!(future);
    let mut cx = std::task::Context::from_waker(std::task::Waker::noop());
    assert!(matches!(future.as_mut().poll(&mut cx), std::task::Poll::Ready(Ok(()))));
    assert_eq!(listeners![double].len(), 1);
    let none: Vec<postrider::Registration> = listeners![];
    assert_eq!(none.len(), 0);
}
