use std::any::type_name;
use std::ops::Deref;
use std::sync::Arc;

use super::{Context, HandlerError, Reason, StateMap};
use crate::Publisher;
use crate::contract::{self, Bytes, names};
use crate::trace::Carried;

/// A parameter of a listener after the payload.
///
/// Implement it for your own types; a refusal is an error like the handler's own.
///
/// Beside a batch it is asked for every message, and what it refuses is given up or tried again alone. The handler is given
/// what it takes from the first message of the batch: where messages differ, as a tenant does, take it from the payload.
///
/// ```
/// use postrider::prelude::*;
///
/// struct Tenant(String);
///
/// impl Extract for Tenant {
///     fn extract(cx: &Context) -> Result<Self, HandlerError> {
///         match cx.headers().get_str("tenant") {
///             Some(tenant) => Ok(Tenant(tenant.to_owned())),
///             None => Err(HandlerError::permanent("the message has no `tenant` header")),
///         }
///     }
/// }
///
/// #[listener(topic = "order.created")]
/// async fn count(order: Json<serde_json::Value>, tenant: Tenant) {
///     println!("{} ordered {:?}", tenant.0, order.0);
/// }
/// ```
#[diagnostic::on_unimplemented(
    message = "`{Self}` is no extractor",
    label = "a listener cannot take this as a parameter",
    note = "the first parameter is the payload; the others are `State<T>`, `Headers`, `Key`, `MessageId`, `Attempt`, `Topic`, `Acker`, `Publisher`, `Extension<T>` or a type of yours that implements `Extract`"
)]
pub trait Extract: Sized + Send {
    /// Whether it settles by hand: true of [`Acker`](crate::Acker) alone.
    #[doc(hidden)]
    const IS_ACKER: bool = false;

    /// Whether middleware must have left it: true of [`Extension`].
    #[doc(hidden)]
    const IS_EXTENSION: bool = false;

    /// Takes the value out of a delivery.
    ///
    /// # Errors
    /// What the handler's own error would be: retryable or permanent.
    fn extract(cx: &Context) -> Result<Self, HandlerError>;

    /// Whether it can work in this app at all, asked once at start-up.
    ///
    /// # Errors
    /// What is missing and how to give it, in one line.
    fn check(state: &StateMap) -> Result<(), String> {
        let _ = state;
        Ok(())
    }
}

/// A clone of the value that the app was given with `.state(…)`.
#[derive(Debug, Clone, Copy)]
pub struct State<T>(pub T);

impl<T: Clone + Send + Sync + 'static> Extract for State<T> {
    fn extract(cx: &Context) -> Result<Self, HandlerError> {
        cx.state().map(Self).ok_or_else(|| rejected(missing_state::<T>()))
    }

    fn check(state: &StateMap) -> Result<(), String> {
        state.get::<T>().map(drop).ok_or_else(missing_state::<T>)
    }
}

fn missing_state<T>() -> String {
    let name = type_name::<T>();
    format!("no state of type `{name}`: give it to the app with `.state(…)`")
}

/// A clone of a value that middleware left with [`Context::insert`]. A batch listener has none.
#[derive(Debug, Clone, Copy)]
pub struct Extension<T>(pub T);

impl<T: Clone + Send + Sync + 'static> Extract for Extension<T> {
    const IS_EXTENSION: bool = true;

    fn extract(cx: &Context) -> Result<Self, HandlerError> {
        let missing = || {
            rejected(format!(
                "no extension of type `{}`: no middleware inserted it",
                type_name::<T>()
            ))
        };
        cx.extension().map(Self).ok_or_else(missing)
    }
}

/// All headers of the message.
#[derive(Debug, Clone, Default)]
pub struct Headers(pub contract::Headers);

impl Deref for Headers {
    type Target = contract::Headers;

    fn deref(&self) -> &Self::Target {
        &self.0
    }
}

impl Extract for Headers {
    fn extract(cx: &Context) -> Result<Self, HandlerError> {
        Ok(Self(cx.headers().clone()))
    }
}

/// The partition key, where the message has one.
#[derive(Debug, Clone)]
pub struct Key(pub Option<Bytes>);

impl Extract for Key {
    fn extract(cx: &Context) -> Result<Self, HandlerError> {
        Ok(Self(cx.message().key.clone()))
    }
}

/// The message id. A message without one is dead-lettered; take `Option<MessageId>` to accept it.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct MessageId(pub String);

impl Extract for MessageId {
    fn extract(cx: &Context) -> Result<Self, HandlerError> {
        let missing = || {
            rejected(format!(
                "the message has no `{}`; take `Option<MessageId>`",
                names::MESSAGE_ID
            ))
        };
        cx.message_id().map(|id| Self(id.to_owned())).ok_or_else(missing)
    }
}

/// `None` where the extractor refuses.
impl<T: Extract> Extract for Option<T> {
    const IS_EXTENSION: bool = T::IS_EXTENSION;

    fn extract(cx: &Context) -> Result<Self, HandlerError> {
        Ok(T::extract(cx).ok())
    }
}

/// Which attempt this is, from 1.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Attempt(pub u32);

impl Extract for Attempt {
    fn extract(cx: &Context) -> Result<Self, HandlerError> {
        Ok(Self(cx.attempt()))
    }
}

/// The topic the message was published to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Topic(pub Arc<str>);

impl Extract for Topic {
    fn extract(cx: &Context) -> Result<Self, HandlerError> {
        Ok(Self(cx.delivery.topic.clone()))
    }
}

impl Extract for Publisher {
    fn extract(cx: &Context) -> Result<Self, HandlerError> {
        Ok(cx.publisher().clone().carrying(Carried::of(cx.headers())))
    }
}

fn rejected(text: String) -> HandlerError {
    HandlerError::with_reason(Reason::Rejected, text)
}
