//! The `Settings` that the attribute stands for.

use proc_macro2::{Ident, Literal, Span, TokenStream};
use quote::{ToTokens, quote};
use syn::ext::IdentExt;

use super::model::{Ack, Function, Options, Start};
use super::root::{Root, member};

/// Only what was given: the rest is as by default.
pub(super) fn settings(options: &Options, function: &Function, root: &Root) -> TokenStream {
    let name = function.signature.ident.unraw().to_string();
    let text = |value: &String| quote!(::core::option::Option::Some(#value));
    let number = |value: &u32| quote!(::core::option::Option::Some(#value));
    let duration = |value: std::time::Duration| {
        let seconds = Literal::u64_suffixed(value.as_secs());
        let nanoseconds = Literal::u32_suffixed(value.subsec_nanos());
        quote!(#root::Duration::new(#seconds, #nanoseconds))
    };
    let mut fields = TokenStream::new();
    let mut field = |field: &str, value: TokenStream| {
        let field = Ident::new(field, Span::mixed_site());
        fields.extend(quote!(#field: #value,));
    };
    field("name", name.into_token_stream());
    field("module", quote!(::core::module_path!()));
    if let Some(given) = &options.topic {
        field("topic", given.value.to_token_stream());
    }
    if let Some(payload) = function.parameters().first() {
        let topic = match &options.batch {
            None => member(payload.ty, root, "FromPayload", "MESSAGE_TOPIC"),
            // Not asked of the type, which rustc would complain of twice.
            Some(_) => quote!(#root::topic_of_items::<Self>()),
        };
        field("message_topic", topic);
    }
    if options.publish.is_some()
        && let Some(returned) = function.returned()
    {
        field("reply_topic", member(returned, root, "IntoReply", "REPLY_TOPIC"));
    }
    let texts = [
        ("group", &options.group),
        ("broker", &options.broker),
        ("dead_letter", &options.dead_letter),
        ("publish", &options.publish),
    ];
    for (name, given) in texts {
        if let Some(given) = given {
            field(name, text(&given.value));
        }
    }
    if let Some(given) = &options.concurrency {
        field("concurrency", given.value.to_token_stream());
    }
    if let Some(given) = &options.prefetch {
        field("prefetch", number(&given.value));
    }
    if let Some(given) = &options.retry {
        let attempts = given.value.attempts.map(|attempts| quote!(attempts: #attempts,));
        let backoff = given.value.backoff.map(|backoff| {
            let (base, cap) = (duration(backoff.base), duration(backoff.cap));
            let make = if backoff.is_linear {
                quote!(linear)
            } else {
                quote!(new)
            };
            quote!(backoff: #root::Backoff::#make(#base, #cap),)
        });
        let max_age = given.value.max_age.map(|age| {
            let age = duration(age);
            quote!(max_age: ::core::option::Option::Some(#age),)
        });
        let all = attempts.is_some() && backoff.is_some() && max_age.is_some();
        let rest = (!all).then(|| quote!(..#root::Retry::DEFAULT));
        field(
            "retry",
            quote!(#root::Retry { #attempts #backoff #max_age #rest }),
        );
    }
    if let Some(given) = &options.timeout {
        let timeout = duration(given.value);
        field("timeout", quote!(::core::option::Option::Some(#timeout)));
    }
    if let Some(given) = &options.ack {
        let mode = match given.value {
            Ack::Auto => quote!(Auto),
            Ack::Manual => quote!(Manual),
        };
        field("ack", quote!(#root::AckMode::#mode));
    }
    let flags = [
        ("ordered", &options.ordered),
        ("broadcast", &options.broadcast),
        ("at_least_once", &options.delivery),
    ];
    for (name, given) in flags {
        if given.is_some() {
            field(name, quote!(true));
        }
    }
    if let Some(given) = &options.start {
        let start = match given.value {
            Start::New => quote!(New),
            Start::Earliest => quote!(Earliest),
        };
        field("start", quote!(#root::Start::#start));
    }
    if let Some(given) = &options.batch {
        let (size, wait) = (given.value.size, duration(given.value.wait));
        field(
            "batch",
            quote!(::core::option::Option::Some(#root::Batch { size: #size, wait: #wait })),
        );
    }
    if let Some(given) = &options.rate {
        let (count, per) = (given.value.0, duration(given.value.1));
        field(
            "rate",
            quote!(::core::option::Option::Some(#root::Rate { count: #count, per: #per })),
        );
    }
    if let Some(given) = &options.breaker {
        let (failures, pause) = (given.value.failures, duration(given.value.pause));
        field(
            "breaker",
            quote!(::core::option::Option::Some(#root::Breaker { failures: #failures, pause: #pause })),
        );
    }
    if let Some(given) = &options.dedup {
        let window = duration(given.value.window);
        let key = match &given.value.key {
            Some(key) => text(key),
            None => quote!(::core::option::Option::None),
        };
        field(
            "dedup",
            quote!(::core::option::Option::Some(#root::Dedup { window: #window, key: #key })),
        );
    }
    if let Some(given) = &options.max_size {
        let size = Literal::u64_unsuffixed(given.value);
        field("max_size", quote!(::core::option::Option::Some(#size)));
    }
    if let Some(given) = &options.enabled {
        field("enabled", given.value.to_token_stream());
    }
    quote!(#root::Settings { #fields ..#root::Settings::DEFAULT })
}
