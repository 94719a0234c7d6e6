#![doc = include_str!("../docs/testing.md")]

mod app;
mod tap;

pub use app::TestApp;
pub(crate) use tap::Tap;
pub use tap::{Attempted, Ended};
