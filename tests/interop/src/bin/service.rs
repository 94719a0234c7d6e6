//! A service as anybody would write one: `BROKER_URL` picks the broker, `EFFECTS` names the file for its effects.

use postrider::prelude::*;
use postrider_interop::{Effects, work};

#[tokio::main]
async fn main() -> Result<(), postrider::Error> {
    let effects = Effects::new(std::env::var_os("EFFECTS").unwrap_or_else(|| "effects".into()));
    App::from_env()?
        .state(effects)
        .listen(listeners![work])
        .run()
        .await
}
