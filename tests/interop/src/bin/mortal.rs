//! A service whose messages may end it: see `tests/crash_loop.rs`. It is started as `service` is.

use postrider::prelude::*;
use postrider_interop::{Effects, in_order, together, work};

#[tokio::main]
async fn main() -> Result<(), postrider::Error> {
    let effects = Effects::new(std::env::var_os("EFFECTS").unwrap_or_else(|| "effects".into()));
    App::from_env()?
        .state(effects)
        .listen(listeners![work, in_order, together])
        .run()
        .await
}
