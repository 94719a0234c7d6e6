//! What the tests have in common.
#![allow(dead_code, unreachable_pub, reason = "each test file uses a part")]

pub mod own;

use std::sync::atomic::{AtomicU32, Ordering};
use std::time::SystemTime;

use postrider_contract::{BrokerUrl, Client};

/// The broker's address from the environment.
pub fn url_text() -> String {
    std::env::var("POSTRIDER_TEST_RABBITMQ_URL").expect(
        "POSTRIDER_TEST_RABBITMQ_URL is not set: start the broker (tests/brokers/ctl start rabbitmq) and set what \
         `tests/brokers/ctl env rabbitmq` prints",
    )
}

pub fn url() -> BrokerUrl {
    url_text().parse().expect("POSTRIDER_TEST_RABBITMQ_URL is a URL")
}

/// Another instance of an application with every call.
pub fn client(application: &str) -> Client {
    Client {
        application: application.into(),
        instance: unique("instance").into(),
    }
}

/// A name that no other test or run uses.
pub fn unique(stem: &str) -> String {
    static COUNT: AtomicU32 = AtomicU32::new(0);
    let now = SystemTime::now()
        .duration_since(SystemTime::UNIX_EPOCH)
        .expect("the clock is right");
    format!(
        "{stem}-{:x}-{}-{}",
        now.as_micros(),
        std::process::id(),
        COUNT.fetch_add(1, Ordering::Relaxed)
    )
}
