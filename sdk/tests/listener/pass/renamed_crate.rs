//! The crate may be found elsewhere, through a dependency that exports it again, also from that crate's own macros.
mod framework {
    pub use postrider as messaging;

    #[macro_export]
    macro_rules! on_order {
        ($name:ident) => {
            #[$crate::framework::messaging::listener(
                topic = "order.created",
                crate = $crate::framework::messaging
            )]
            async fn $name(_order: $crate::framework::messaging::Bytes) {}
        };
    }
}

// Whoever writes `postrider` here means this.
mod postrider {}

mod orders {
    use crate::framework::messaging::{self as bus, Key, Message, listener};
    use bus::prelude::Serialize;

    #[derive(Message, Serialize)]
    #[message(topic = "stock.reserved", key = id, version = 2, crate = bus)]
    pub struct Reserved {
        pub id: u64,
    }

    #[listener(topic = "order.created", publish = "stock.reserved", crate = crate::framework::messaging)]
    pub async fn reserve(_order: bus::Bytes, _key: Key) -> Reserved {
        Reserved { id: 1 }
    }

    #[listener(topic = "order.created", batch(size = 1, wait = "1s"), crate = bus)]
    pub async fn many(_orders: Vec<bus::Bytes>) {}
}

on_order!(count);

fn main() {
    use framework::messaging::{Message, listeners};
    assert_eq!(listeners![orders::reserve, orders::many, count].len(), 3);
    assert_eq!(orders::Reserved::VERSION, Some(2));
}
