//! What the options mean together, and whether the function can be a listener.

use syn::visit::{self, Visit};
use syn::{FnArg, GenericParam, ReturnType, Safety, Type};

use super::model::{Function, Options, is_listener};
use crate::entries::Given;
use crate::problems::Problems;

/// Reports options that exclude one another.
pub(crate) fn options(options: &Options, problems: &mut Problems) {
    let topic = options.topic.as_ref();
    for other in [&options.dead_letter, &options.publish].into_iter().flatten() {
        if topic.is_some_and(|topic| topic.value == other.value) {
            let what = format!(
                "`{}` is the topic that the listener receives: messages would go round",
                other.key
            );
            problems.span(other.key.span(), what, "write another topic");
        }
    }
    let ordered = ("ordered", options.ordered.as_ref().map(Given::key));
    let broadcast = ("broadcast", options.broadcast.as_ref().map(Given::key));
    let batch = ("batch", options.batch.as_ref().map(Given::key));
    let publish = ("publish", options.publish.as_ref().map(Given::key));
    let manual = (
        "ack = manual",
        options
            .ack
            .as_ref()
            .map(Given::key)
            .filter(|_| options.is_manual()),
    );
    let at_least_once = (
        "delivery = at_least_once",
        options.delivery.as_ref().map(Given::key),
    );
    let start = ("start", options.start.as_ref().map(Given::key));
    let dead_letter = ("dead_letter", options.dead_letter.as_ref().map(Given::key));
    let dedup = ("dedup", options.dedup.as_ref().map(Given::key));
    let reply = "a reply is published before the acknowledgement, which the handler gives itself";
    let conflicts = [
        (
            ordered,
            broadcast,
            "instances that have a copy each keep no order among them",
        ),
        (
            ordered,
            batch,
            "one failed item would hold up the keys of all others",
        ),
        (
            broadcast,
            at_least_once,
            "a broadcast reaches only the instances that are running",
        ),
        (broadcast, start, "a broadcast begins when the instance does"),
        (
            broadcast,
            dead_letter,
            "the dead letters of a broadcast cannot be sent elsewhere",
        ),
        (
            batch,
            manual,
            "a batch is settled by what the handler returns for each item",
        ),
        (batch, publish, "a batch has no single reply"),
        (publish, manual, reply),
        (
            dedup,
            manual,
            "a message is marked before the acknowledgement, which the handler gives itself",
        ),
        (
            dedup,
            batch,
            "the messages of a batch are handled together, and one of them cannot be left out by its mark",
        ),
        (
            dedup,
            broadcast,
            "instances that have a copy each would take each other's for duplicates",
        ),
    ];
    for (first, second, why) in conflicts {
        if let ((first, Some(_)), (second, Some(at))) = (first, second) {
            let what = format!("`{first}` and `{second}` exclude each other: {why}");
            problems.span(at.span(), what, format!("leave out `{first}` or `{second}`"));
        }
    }
    if let Some(retry) = &options.retry
        && retry.value.attempts == Some(1)
        && retry.value.max_age.is_some()
    {
        let what = "`max_age` says nothing with `attempts = 1`: there is no retry";
        problems.span(
            retry.key.span(),
            what,
            "leave out `max_age`, or write more `attempts`",
        );
    }
    if let (Some(batch), Some(prefetch)) = (&options.batch, &options.prefetch)
        && batch.value.size > prefetch.value
    {
        let what = format!(
            "a batch of {} never fills with `prefetch = {}`",
            batch.value.size, prefetch.value
        );
        let help = format!(
            "write `prefetch = {}` or more, or a smaller `size`",
            batch.value.size
        );
        problems.span(prefetch.key.span(), what, help);
    }
}

/// Reports what keeps the function from being a listener.
pub(crate) fn function(function: &Function, problems: &mut Problems) {
    let signature = &function.signature;
    let name = &signature.ident;
    if signature.asyncness.is_none() {
        problems.at(
            signature.fn_token,
            "a listener is asynchronous",
            format!("write `async fn {name}(…)`"),
        );
    }
    if let Safety::Unsafe(token) = &signature.safety {
        problems.at(
            token,
            "a listener cannot be `unsafe`",
            "keep the unsafe part in a block in its body",
        );
    }
    if let Some(abi) = &signature.abi {
        problems.at(abi, "a listener is called from Rust alone", "leave out `extern`");
    }
    if let Some(token) = &signature.constness {
        problems.at(token, "a listener cannot be `const`", "leave out `const`");
    }
    if let Some(variadic) = &signature.variadic {
        problems.at(
            variadic,
            "a listener has a fixed list of parameters",
            "leave out `...`",
        );
    }
    if !signature.generics.params.is_empty() {
        for parameter in &signature.generics.params {
            generic(parameter, problems);
        }
    }
    parameters(function, problems);
    if let ReturnType::Type(_, ty) = &signature.output
        && matches!(**ty, Type::Never(_))
    {
        problems.at(
            ty,
            "a listener returns: what it never returns from is never settled",
            "leave out `-> !`",
        );
    }
    for attribute in function
        .attributes
        .iter()
        .filter(|attribute| is_listener(attribute))
    {
        let help = "to receive two topics, write two functions that call a third";
        problems.at(attribute, "a function is one listener", help);
    }
}

fn generic(parameter: &GenericParam, problems: &mut Problems) {
    let what = "a listener cannot be generic: nobody calls it with a type";
    match parameter {
        GenericParam::Lifetime(_) => {
            problems.at(
                parameter,
                "a listener cannot borrow: it is called with what it owns",
                "leave out the lifetime",
            );
        }
        GenericParam::Type(_) => problems.at(parameter, what, "write the type itself in the parameters"),
        GenericParam::Const(_) => problems.at(parameter, what, "write a constant outside of it"),
    }
}

fn parameters(function: &Function, problems: &mut Problems) {
    let signature = &function.signature;
    let name = &signature.ident;
    for input in &signature.inputs {
        match input {
            FnArg::Receiver(receiver) => {
                let help = "write a free function, and take what it needs as `State(…): State<…>`";
                problems.at(receiver, "a listener cannot be a method", help);
            }
            FnArg::Typed(typed) => {
                let mut borrowed = Borrowed { problems };
                borrowed.visit_type(&typed.ty);
            }
        }
    }
    if signature.inputs.is_empty() {
        let help =
            format!("write the payload as the first parameter: `async fn {name}(order: OrderCreated)`");
        problems.at(name, "a listener takes at least a payload", help);
    }
    if let Some(FnArg::Typed(payload)) = signature.inputs.first()
        && let Some(condition) = payload
            .attrs
            .iter()
            .find(|attribute| attribute.path().is_ident("cfg"))
    {
        problems.at(
            condition,
            "the payload cannot be conditional",
            "write `#[cfg(…)]` on the whole function",
        );
    }
}

/// Finds `&T` and `impl Trait` in the type of a parameter.
struct Borrowed<'a> {
    problems: &'a mut Problems,
}

impl<'ast> Visit<'ast> for Borrowed<'_> {
    fn visit_type(&mut self, ty: &'ast Type) {
        match ty {
            Type::Reference(reference) => {
                if reference
                    .lifetime
                    .as_ref()
                    .is_some_and(|lifetime| lifetime.ident == "static")
                {
                    return visit::visit_type(self, ty);
                }
                let owned = &reference.elem;
                let help = match &**owned {
                    Type::Path(path) if path.path.is_ident("str") => "take a `String`".to_owned(),
                    Type::Slice(_) => "take a `Vec` or `Bytes`".to_owned(),
                    _ => format!("take it by value: `{}`", quote::quote!(#owned)),
                };
                self.problems
                    .at(ty, "a listener cannot borrow its parameters", help);
            }
            Type::ImplTrait(_) => {
                let help = "write the type itself";
                self.problems.at(
                    ty,
                    "a listener cannot be generic: nobody calls it with a type",
                    help,
                );
            }
            // Whatever a function pointer takes is its own affair.
            Type::FnPtr(_) => {}
            _ => visit::visit_type(self, ty),
        }
    }
}
