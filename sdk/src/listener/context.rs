use std::any::{Any, TypeId};
use std::collections::HashMap;
use std::fmt;
use std::sync::{Arc, Mutex, PoisonError};

use super::Acker;
use crate::Publisher;
use crate::contract::{Delivery, Headers, Message, Origin, Position, names};

/// One delivery on its way through middleware and extractors to the handler.
pub struct Context {
    pub(crate) delivery: Delivery,
    /// The attempt that this is, which for retries held in process is ahead of what the delivery says.
    pub(crate) attempt: u32,
    pub(crate) acker: Option<Acker>,
    scope: Arc<Scope>,
    extensions: Mutex<Extensions>,
}

/// What all deliveries of one listener share.
pub(crate) struct Scope {
    pub(crate) listener: Arc<str>,
    pub(crate) group: Arc<str>,
    pub(crate) application: Arc<str>,
    pub(crate) state: Arc<StateMap>,
    pub(crate) publisher: Publisher,
}

/// Few enough to look through; empty, it owns nothing.
type Extensions = Vec<(TypeId, Arc<dyn Any + Send + Sync>)>;

/// The values that an app was given with `.state(…)`, by their type.
#[derive(Default)]
pub struct StateMap(HashMap<TypeId, Arc<dyn Any + Send + Sync>>);

impl StateMap {
    /// Replaces the value of this type.
    pub(crate) fn insert<T: Clone + Send + Sync + 'static>(&mut self, value: T) {
        self.0.insert(TypeId::of::<T>(), Arc::new(value));
    }

    /// The value of this type.
    pub fn get<T: Clone + Send + Sync + 'static>(&self) -> Option<T> {
        self.0.get(&TypeId::of::<T>())?.downcast_ref::<T>().cloned()
    }
}

impl Context {
    pub(crate) fn new(delivery: Delivery, attempt: u32, scope: Arc<Scope>) -> Self {
        Self {
            delivery,
            attempt,
            acker: None,
            scope,
            extensions: Mutex::default(),
        }
    }

    /// The context of the next delivery, in the place of the one before it: what is the same for all stays.
    #[expect(clippy::inline_always, reason = "a call copies the delivery twice more")]
    #[inline(always)]
    pub(crate) fn renewed<'a>(
        place: &'a mut Option<Self>,
        delivery: Delivery,
        attempt: u32,
        scope: &Arc<Scope>,
    ) -> &'a mut Self {
        let Some(cx) = place else {
            return place.insert(Self::new(delivery, attempt, scope.clone()));
        };
        cx.delivery = delivery;
        cx.attempt = attempt;
        cx.acker = None;
        let extensions = cx.extensions.get_mut().unwrap_or_else(PoisonError::into_inner);
        extensions.clear();
        cx
    }

    /// The message as it came.
    pub fn message(&self) -> &Message {
        &self.delivery.message
    }

    /// Its headers.
    pub fn headers(&self) -> &Headers {
        &self.delivery.message.headers
    }

    /// Its message id, where it has one. Messages of other programs may have none.
    pub fn message_id(&self) -> Option<&str> {
        self.headers().get_str(names::MESSAGE_ID)
    }

    /// The topic it was published to.
    pub fn topic(&self) -> &str {
        &self.delivery.topic
    }

    /// The listener's consumer group.
    pub fn group(&self) -> &str {
        &self.scope.group
    }

    /// The listener's name.
    pub fn listener(&self) -> &str {
        &self.scope.listener
    }

    /// The application's name.
    pub fn application(&self) -> &str {
        &self.scope.application
    }

    /// Which attempt this is, from 1. Counts verdicts of handlers and survives restarts.
    pub fn attempt(&self) -> u32 {
        self.attempt
    }

    /// How often the message was replayed from the dead letters.
    pub fn replays(&self) -> u16 {
        match self.delivery.origin {
            Origin::Topic => 0,
            Origin::ReturnPath { replays, .. } => replays,
        }
    }

    /// Where it lies in the broker.
    pub fn position(&self) -> Position {
        self.delivery.position
    }

    /// A publisher on the listener's broker.
    pub fn publisher(&self) -> &Publisher {
        &self.scope.publisher
    }

    /// A value given to the app with `.state(…)`.
    pub fn state<T: Clone + Send + Sync + 'static>(&self) -> Option<T> {
        self.scope.state.get()
    }

    /// Leaves a value for extractors and middleware further in.
    pub fn insert<T: Clone + Send + Sync + 'static>(&self, value: T) {
        let mut extensions = self.extensions.lock().unwrap_or_else(PoisonError::into_inner);
        extensions.retain(|(id, _)| *id != TypeId::of::<T>());
        extensions.push((TypeId::of::<T>(), Arc::new(value)));
    }

    /// A value that middleware left with [`Context::insert`].
    pub fn extension<T: Clone + Send + Sync + 'static>(&self) -> Option<T> {
        let extensions = self.extensions.lock().unwrap_or_else(PoisonError::into_inner);
        let (_, value) = extensions.iter().find(|(id, _)| *id == TypeId::of::<T>())?;
        value.downcast_ref::<T>().cloned()
    }
}

impl fmt::Debug for Context {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Context")
            .field("listener", &self.scope.listener)
            .field("topic", &self.delivery.topic)
            .field("group", &self.scope.group)
            .field("message_id", &self.message_id())
            .field("attempt", &self.attempt)
            .finish_non_exhaustive()
    }
}
