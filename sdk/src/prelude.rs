//! Everything that a file with listeners needs: `use postrider::prelude::*;`

pub use serde::{Deserialize, Serialize};

pub use crate::{
    Acker, App, Attempt, Bytes, Context, DeadLetter, Extension, Extract, HandlerError, Headers, Json, Key,
    Message, MessageId, Middleware, Next, Outcome, Publisher, State, Topic, listener, listeners,
};
