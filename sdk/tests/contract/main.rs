//! The failure contract, seen from handlers: the same listeners on every broker that the tests are given.
//!
//! Each test runs once for each broker. A broker that is required (`POSTRIDER_TEST_BROKERS`) and has no URL
//! (`POSTRIDER_TEST_KAFKA_URL`…) fails its tests; it is never skipped in silence.

mod circles;
mod dedup;
mod delivery;
mod drain;
mod failure;
mod kit;
mod replay;
mod startup;
#[cfg(feature = "redis")]
mod too_late;

/// One `#[tokio::test]` for each broker and each of the functions.
macro_rules! on_every_broker {
    ($($test:ident)*) => {
        #[cfg(feature = "memory")]
        on_every_broker! { @broker memory $($test)* }
        #[cfg(feature = "kafka")]
        on_every_broker! { @broker kafka $($test)* }
        #[cfg(feature = "rabbitmq")]
        on_every_broker! { @broker rabbitmq $($test)* }
        #[cfg(feature = "redis")]
        on_every_broker! { @broker redis $($test)* }
        #[cfg(feature = "redis")]
        on_every_broker! { @broker redis_pubsub $($test)* }
    };
    (@broker $broker:ident $($test:ident)*) => {
        mod $broker {
            $(
                #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
                async fn $test() {
                    let Some(target) = $crate::kit::Target::find(stringify!($broker)) else { return };
                    let limit = std::time::Duration::from_secs(90);
                    let result = tokio::time::timeout(limit, super::$test(target)).await;
                    assert!(result.is_ok(), "not done after {limit:?}");
                }
            )*
        }
    };
}
pub(crate) use on_every_broker;
