//! What `#[listener(…)]` and the function under it say, as read.

use std::time::Duration;

use proc_macro2::TokenStream;
use syn::{Attribute, Path, Signature, Type, Visibility};

use crate::entries::Given;
use crate::values::Backoff;

/// The attribute. What is absent was not given, or was wrong and is reported.
#[derive(Default)]
pub(crate) struct Options {
    pub(crate) topic: Option<Given<String>>,
    pub(crate) group: Option<Given<String>>,
    pub(crate) broker: Option<Given<String>>,
    pub(crate) concurrency: Option<Given<u32>>,
    pub(crate) prefetch: Option<Given<u32>>,
    pub(crate) retry: Option<Given<Retry>>,
    pub(crate) timeout: Option<Given<Duration>>,
    pub(crate) ack: Option<Given<Ack>>,
    pub(crate) ordered: Option<Given<()>>,
    pub(crate) broadcast: Option<Given<()>>,
    pub(crate) start: Option<Given<Start>>,
    pub(crate) delivery: Option<Given<()>>,
    pub(crate) dead_letter: Option<Given<String>>,
    pub(crate) publish: Option<Given<String>>,
    pub(crate) batch: Option<Given<Batch>>,
    pub(crate) rate: Option<Given<(u32, Duration)>>,
    pub(crate) breaker: Option<Given<Breaker>>,
    pub(crate) dedup: Option<Given<Dedup>>,
    pub(crate) max_size: Option<Given<u64>>,
    pub(crate) enabled: Option<Given<bool>>,
    /// Where the crate `postrider` is, if not at `::postrider`.
    pub(crate) root: Option<Path>,
}

/// `retry(…)`. What is absent is as by default.
#[derive(Clone, Copy)]
pub(crate) struct Retry {
    pub(crate) attempts: Option<u32>,
    pub(crate) backoff: Option<Backoff>,
    pub(crate) max_age: Option<Duration>,
}

/// `ack = …`
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Ack {
    Auto,
    Manual,
}

/// `start = …`
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Start {
    New,
    Earliest,
}

/// `batch(…)`
#[derive(Clone, Copy)]
pub(crate) struct Batch {
    pub(crate) size: u32,
    pub(crate) wait: Duration,
}

/// `breaker(…)`
#[derive(Clone, Copy)]
pub(crate) struct Breaker {
    pub(crate) failures: u32,
    pub(crate) pause: Duration,
}

/// `dedup(…)`
#[derive(Clone)]
pub(crate) struct Dedup {
    pub(crate) window: Duration,
    /// A field of the payload; absent: the message id.
    pub(crate) key: Option<String>,
}

/// The function. Its body is never looked at.
pub(crate) struct Function {
    pub(crate) attributes: Vec<Attribute>,
    pub(crate) visibility: Visibility,
    pub(crate) signature: Signature,
    /// All of it, to be emitted as it came.
    pub(crate) tokens: TokenStream,
}

/// A parameter, with the conditions under which it exists.
pub(crate) struct Parameter<'a> {
    pub(crate) conditions: Vec<&'a Attribute>,
    pub(crate) ty: &'a Type,
}

impl Options {
    /// Whether the handler settles.
    pub(crate) fn is_manual(&self) -> bool {
        self.ack.as_ref().is_some_and(|ack| ack.value == Ack::Manual)
    }
}

impl Function {
    /// Its parameters; the first is the payload.
    pub(crate) fn parameters(&self) -> Vec<Parameter<'_>> {
        let typed = self.signature.inputs.iter().filter_map(|input| match input {
            syn::FnArg::Typed(typed) => Some(typed),
            syn::FnArg::Receiver(_) => None,
        });
        typed
            .map(|typed| Parameter {
                conditions: conditions(&typed.attrs),
                ty: &typed.ty,
            })
            .collect()
    }

    /// The type that it says it returns; `None` where nothing was written, or `impl Trait`, which has no name to call it by.
    pub(crate) fn returned(&self) -> Option<&Type> {
        match &self.signature.output {
            syn::ReturnType::Type(_, ty) if !is_opaque(ty) => Some(ty),
            _ => None,
        }
    }

    /// The conditions under which it exists.
    pub(crate) fn conditions(&self) -> Vec<&Attribute> {
        conditions(&self.attributes)
    }
}

fn is_opaque(ty: &Type) -> bool {
    struct Opaque(bool);
    impl syn::visit::Visit<'_> for Opaque {
        fn visit_type_impl_trait(&mut self, _: &syn::TypeImplTrait) {
            self.0 = true;
        }
    }
    let mut opaque = Opaque(false);
    syn::visit::Visit::visit_type(&mut opaque, ty);
    opaque.0
}

fn conditions(attributes: &[Attribute]) -> Vec<&Attribute> {
    attributes
        .iter()
        .filter(|attribute| attribute.path().is_ident("cfg"))
        .collect()
}

/// Whether it is this macro again.
pub(crate) fn is_listener(attribute: &Attribute) -> bool {
    attribute
        .path()
        .segments
        .last()
        .is_some_and(|last| last.ident == "listener")
}
