//! Everything may come from another macro: name, topic, numbers, types.
use postrider::prelude::*;

macro_rules! count {
    ($name:ident, $topic:literal, $payload:ty, $concurrency:expr) => {
        #[listener(topic = $topic, concurrency = $concurrency, retry(attempts = 1))]
        async fn $name(_payload: $payload, State(_state): State<u64>) -> Result<(), HandlerError> {
            Ok(())
        }
    };
}

/// Through two macros, with everything that is not an identifier.
macro_rules! again {
    ($name:ident, $($topic:literal)?, $enabled:expr, $crate_path:path, $mode:ident, $wait:literal) => {
        inner_again!($name, $($topic)?, $enabled, $crate_path, $mode, $wait);
    };
}

macro_rules! inner_again {
    ($name:ident, $topic:expr, $enabled:expr, $crate_path:path, $mode:ident, $wait:expr) => {
        #[listener(topic = $topic, enabled = $enabled, crate = $crate_path, ack = $mode, timeout = $wait)]
        async fn $name(_payload: Bytes) {}
    };
}

macro_rules! message {
    ($name:ident, $topic:literal, $key:ident : $ty:ty) => {
        #[derive(Message, Serialize, Deserialize)]
        #[message(topic = $topic, key = $key)]
        struct $name {
            $key: $ty,
        }
    };
}

macro_rules! fixed_name {
    () => {
        #[listener(topic = "order.created")]
        async fn fixed(_payload: Bytes) {}
    };
}

message!(Order, "order.created", id: u64);
count!(orders, "order.created", Order, 8);
count!(payments, "payment.settled", Json<Vec<(String, u64)>>, 1);
fixed_name!();
again!(twice, "order.created", false, ::postrider, auto, "1s");

fn main() {
    let all = listeners![orders, payments, fixed, twice];
    let names: Vec<_> = all.iter().map(|listener| listener.name()).collect();
    assert_eq!(names, ["orders", "payments", "fixed", "twice"]);
    assert_eq!(Order { id: 7 }.key().unwrap(), "7");
}
