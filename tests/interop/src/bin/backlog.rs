//! A service that has much to catch up with: `BROKER_URL` picks the broker, `EFFECTS` names the file for its effects.

use postrider::prelude::*;
use postrider_interop::{Effects, catch_up};

#[tokio::main]
async fn main() -> Result<(), postrider::Error> {
    let effects = Effects::new(std::env::var_os("EFFECTS").unwrap_or_else(|| "effects".into()));
    App::from_env()?
        .state(effects)
        .listen(listeners![catch_up])
        .run()
        .await
}
