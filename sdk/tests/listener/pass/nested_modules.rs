//! Listeners of one name in several modules, in a block, and private ones listed by their own module.
use postrider::Registration;

mod stock {
    use postrider::prelude::*;

    pub mod inner {
        use super::*;

        #[listener(topic = "order.created")]
        pub async fn reserve(_order: Bytes) {}

        #[listener(topic = "order.created")]
        pub(in crate::stock) async fn restricted(_order: Bytes) {}
    }

    #[listener(topic = "order.changed")]
    async fn reserve(_order: Bytes) {}

    pub fn listeners() -> Vec<postrider::Registration> {
        listeners![reserve, inner::restricted, self::inner::reserve, crate::stock::inner::reserve]
    }
}

fn in_a_block() -> Vec<Registration> {
    use postrider::prelude::*;

    struct Local;

    impl Extract for Local {
        fn extract(_: &Context) -> Result<Self, HandlerError> {
            Ok(Local)
        }
    }

    #[listener(topic = "order.created")]
    async fn local(_order: Bytes, _local: Local) {}

    listeners![local]
}

fn main() {
    assert_eq!(stock::listeners().len(), 4);
    assert_eq!(in_a_block()[0].name(), "local");
}
