//! Model to tokens.
//!
//! Every path is absolute, as any name may be taken where the function stands. What can fail to type-check has the span
//! of what the user wrote, so that rustc's error points there.

use proc_macro2::{Ident, Literal, Span, TokenStream, TokenTree};
use quote::{ToTokens, quote, quote_spanned};
use syn::ext::IdentExt;
use syn::spanned::Spanned;
use syn::{Attribute, FnArg, ReturnType, Type};

use super::model::{Ack, Function, Options, Parameter, Start};
use crate::problems::Problems;

/// The listener.
pub(crate) fn listener(options: &Options, function: &Function) -> TokenStream {
    let root = Root::of(options);
    let name = &function.signature.ident;
    let settings = settings(options, function, &root);
    let check = check(function, &root);
    let (call, kind) = match &options.batch {
        None => (single(options, function, &root), quote!(single)),
        Some(_) => (many(function, &root), quote!(many)),
    };
    let ackers = ackers(options, function, &root);
    let head = head(function);
    let declaration = declaration(function);
    let body = &function.tokens;
    quote! {
        #[allow(clippy::unused_async)]
        #body
        #declaration
        #head
        const _: () = {
            #[automatically_derived]
            impl #root::Listener for #name {
                const SETTINGS: #root::Settings = #settings;
                #check
            }
            #call
            #[automatically_derived]
            impl #root::Register for #name {
                fn register(self) -> #root::Registration {
                    #root::Registration::#kind::<Self>()
                }
            }
            #ackers
        };
    }
}

/// The function as it came, what is wrong with it, and as much of a listener as keeps `listeners![…]` from failing too.
pub(crate) fn stub(options: &Options, function: &Function, problems: Problems) -> TokenStream {
    let body = &function.tokens;
    let problems = problems.into_tokens();
    let is_method = matches!(function.signature.inputs.first(), Some(FnArg::Receiver(_)));
    let is_twice = function.attributes.iter().any(is_listener);
    if is_method || is_twice {
        return quote!(#body #problems);
    }
    let root = Root::of(options);
    let name = &function.signature.ident;
    let head = head(function);
    let declaration = declaration(function);
    quote! {
        #[allow(dead_code)]
        #body
        #problems
        #[allow(dead_code)]
        #declaration
        #head
        const _: () = {
            #[automatically_derived]
            impl #root::Register for #name {
                fn register(self) -> #root::Registration {
                    loop {}
                }
            }
        };
    }
}

/// Whether it is this macro again.
pub(crate) fn is_listener(attribute: &Attribute) -> bool {
    attribute
        .path()
        .segments
        .last()
        .is_some_and(|last| last.ident == "listener")
}

/// The module that all paths begin with.
struct Root(TokenStream);

impl Root {
    fn of(options: &Options) -> Self {
        Self(match &options.root {
            Some(path) => quote!(#path::__private),
            None => quote!(::postrider::__private),
        })
    }

    /// The same as if it stood at this span: an error about a path is shown at the user's tokens only if all of its
    /// tokens are there. What a name means stays as it was (`$crate`).
    fn at(&self, span: Span) -> TokenStream {
        let moved = self.0.clone().into_iter().map(|mut token| {
            token.set_span(match &token {
                TokenTree::Ident(ident) if *ident == "$crate" => span.resolved_at(token.span()),
                _ => span,
            });
            token
        });
        moved.collect()
    }
}

impl ToTokens for Root {
    fn to_tokens(&self, tokens: &mut TokenStream) {
        tokens.extend(self.0.clone());
    }
}

/// The user's type as an implementer, in the place where it was written.
fn implementer(ty: &Type, root: &Root, of: &str) -> TokenStream {
    let span = ty.span();
    let (root, of) = (root.at(span), Ident::new(of, span));
    quote_spanned!(span=> <#ty as #root::#of>)
}

fn member(ty: &Type, root: &Root, of: &str, name: &str) -> TokenStream {
    let (ty_as, name) = (implementer(ty, root, of), Ident::new(name, ty.span()));
    quote_spanned!(ty.span()=> #ty_as::#name)
}

/// What holds for the function holds for what is made of it: the conditions under which it exists, and what it allows.
fn head(function: &Function) -> TokenStream {
    let conditions = function.conditions();
    let allowed = function
        .attributes
        .iter()
        .filter(|attribute| attribute.path().is_ident("allow"));
    let deprecated = function
        .attributes
        .iter()
        .any(|attribute| attribute.path().is_ident("deprecated"));
    let deprecated = deprecated.then(|| quote!(#[allow(deprecated)]));
    quote!(#(#conditions)* #(#allowed)* #deprecated)
}

/// The brace struct, which lives in another namespace than the function.
fn declaration(function: &Function) -> TokenStream {
    let head = head(function);
    let visibility = &function.visibility;
    let name = &function.signature.ident;
    let item = quote_spanned!(name.span()=> #visibility struct #name {});
    // Both are dead where the listener is never listed.
    let expected = function
        .attributes
        .iter()
        .find(|attribute| is_expected_dead(attribute));
    let expected = expected.map(|_| quote!(#[expect(dead_code)]));
    quote! {
        #head
        #[doc(hidden)]
        #expected
        #[allow(non_camel_case_types, unreachable_pub, missing_debug_implementations, missing_copy_implementations)]
        #item
    }
}

fn is_expected_dead(attribute: &Attribute) -> bool {
    let listed = |list: &syn::MetaList| {
        list.tokens
            .clone()
            .into_iter()
            .any(|token| matches!(token, TokenTree::Ident(lint) if lint == "dead_code"))
    };
    attribute.path().is_ident("expect") && attribute.meta.require_list().is_ok_and(listed)
}

fn settings(options: &Options, function: &Function, root: &Root) -> TokenStream {
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
        let backoff = given.value.backoff.map(|(base, cap)| {
            let (base, cap) = (duration(base), duration(cap));
            quote!(backoff: #root::Backoff::new(#base, #cap),)
        });
        let rest = (attempts.is_none() || backoff.is_none()).then(|| quote!(..#root::Retry::DEFAULT));
        field("retry", quote!(#root::Retry { #attempts #backoff #rest }));
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
    if let Some(given) = &options.max_size {
        let size = Literal::u64_unsuffixed(given.value);
        field("max_size", quote!(::core::option::Option::Some(#size)));
    }
    if let Some(given) = &options.enabled {
        field("enabled", given.value.to_token_stream());
    }
    quote!(#root::Settings { #fields ..#root::Settings::DEFAULT })
}

/// Asks every parameter but the payload whether it can work in this app.
fn check(function: &Function, root: &Root) -> TokenStream {
    let site = Span::mixed_site();
    let parameters = function.parameters();
    let checks = parameters.iter().skip(1).map(|Parameter { conditions, ty }| {
        let check = member(ty, root, "Extract", "check");
        quote_spanned! {site=>
            #(#conditions)*
            if let ::core::result::Result::Err(__problem) = #check(__state) {
                __problems.push(__problem);
            }
        }
    });
    quote_spanned! {site=>
        #[allow(unused_variables)]
        fn check(__state: &#root::StateMap, __problems: &mut ::std::vec::Vec<::std::string::String>) {
            #(#checks)*
        }
    }
}

/// The parameters after the payload: how each is extracted into a variable, and the variables as arguments.
fn extracted(function: &Function, root: &Root, refuse: &TokenStream) -> (TokenStream, TokenStream) {
    let site = Span::mixed_site();
    let (mut lets, mut arguments) = (TokenStream::new(), TokenStream::new());
    for (number, Parameter { conditions, ty }) in function.parameters().into_iter().enumerate().skip(1) {
        let variable = Ident::new(&format!("__parameter_{number}"), site);
        let extract = member(ty, root, "Extract", "extract");
        lets.extend(quote_spanned! {site=>
            #(#conditions)*
            let #variable = match #extract(__cx) {
                ::core::result::Result::Ok(__value) => __value,
                ::core::result::Result::Err(__error) => return #refuse,
            };
        });
        arguments.extend(quote_spanned!(site=> #(#conditions)* #variable,));
    }
    (lets, arguments)
}

fn single(options: &Options, function: &Function, root: &Root) -> TokenStream {
    let site = Span::mixed_site();
    let name = &function.signature.ident;
    let Some(payload) = function.parameters().into_iter().next() else {
        return TokenStream::new();
    };
    let from_payload = member(payload.ty, root, "FromPayload", "from_payload");
    let refuse = quote_spanned!(site=> #root::Outcome::Failed(__error));
    let (lets, arguments) = extracted(function, root, &refuse);
    let (method, more) = match &options.publish {
        None => (
            output(function, root, "IntoOutcome", "into_outcome"),
            TokenStream::new(),
        ),
        Some(publish) => {
            let topic = &publish.value;
            (
                output(function, root, "IntoReply", "into_reply"),
                quote_spanned!(site=> , #topic, __cx),
            )
        }
    };
    let outcome = quote_spanned!(site=> #root::Outcome);
    let inner = quote_spanned! {site=>
        async fn #name(__cx: &#root::Context) -> #outcome {
            let __payload = match #from_payload(__cx) {
                ::core::result::Result::Ok(__value) => __value,
                ::core::result::Result::Err(__error) => return #refuse,
            };
            #lets
            #method(#name(__payload, #arguments).await #more)
        }
    };
    let parameters = quote_spanned!(site=> __cx: &#root::Context);
    let call = call(function, &parameters, &outcome, &quote_spanned!(site=> __cx));
    quote_spanned! {site=>
        #[automatically_derived]
        impl #name { #inner }
        #[automatically_derived]
        impl #root::Single for #name { #call }
    }
}

fn many(function: &Function, root: &Root) -> TokenStream {
    let site = Span::mixed_site();
    let name = &function.signature.ident;
    let Some(payload) = function.parameters().into_iter().next() else {
        return TokenStream::new();
    };
    let items = payload.ty;
    let outcomes = quote_spanned!(site=> ::std::vec::Vec<#root::Outcome>);
    let refuse = quote_spanned! {site=>
        #root::IntoBatchOutcome::into_outcomes(
            ::core::result::Result::<(), #root::HandlerError>::Err(__error),
            __count,
        )
    };
    let (lets, arguments) = extracted(function, root, &refuse);
    let method = output(function, root, "IntoBatchOutcome", "into_outcomes");
    let parameters =
        quote_spanned!(site=> __cx: &#root::Context, __items: #items, __count: ::core::primitive::usize);
    let call = call(
        function,
        &parameters,
        &outcomes,
        &quote_spanned!(site=> __cx, __items, __count),
    );
    quote_spanned! {site=>
        #[automatically_derived]
        impl #name {
            async fn #name(#parameters) -> #outcomes {
                #lets
                #method(#name(__items, #arguments).await, __count)
            }
        }
        #[automatically_derived]
        impl #root::Many for #name {
            type Items = #items;
            #call
        }
    }
}

/// The trait's function, which only hands on to one with the user's name: where the future is not `Send`, rustc then says
/// so at that name and of that name.
fn call(
    function: &Function,
    parameters: &TokenStream,
    output: &TokenStream,
    arguments: &TokenStream,
) -> TokenStream {
    let name = &function.signature.ident;
    let future = quote_spanned! {name.span()=>
        impl ::core::future::Future<Output = #output> + ::core::marker::Send
    };
    let inner = quote_spanned!(name.span()=> Self::#name(#arguments));
    quote!(fn call(#parameters) -> #future { #inner })
}

/// The method of this trait that takes what the function returns, with the span of the return type.
fn output(function: &Function, root: &Root, of: &str, method: &str) -> TokenStream {
    match &function.signature.output {
        // Nothing was written: the name stands for it.
        ReturnType::Default => {
            let span = function.signature.ident.span();
            let (root, of, method) = (root.at(span), Ident::new(of, span), Ident::new(method, span));
            quote_spanned!(span=> <() as #root::#of>::#method)
        }
        // `impl Trait` has no name to call it by.
        ReturnType::Type(_, ty) if is_opaque(ty) => {
            let span = ty.span();
            let (root, of, method) = (root.at(span), Ident::new(of, span), Ident::new(method, span));
            quote_spanned!(span=> #root::#of::#method)
        }
        ReturnType::Type(_, ty) => member(ty, root, of, method),
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

/// Checks by its type, whatever its name, that the right parameters are an `Acker`.
fn ackers(options: &Options, function: &Function, root: &Root) -> TokenStream {
    let parameters = function.parameters();
    let parameters = parameters.iter().skip(1);
    match options.ack.as_ref().filter(|_| options.is_manual()) {
        Some(manual) => {
            let seen = parameters.map(|Parameter { conditions, ty }| {
                let is_acker = member(ty, root, "Extract", "IS_ACKER");
                let twice = refusal(ty.span(), "a listener has one `Acker`: leave out this one");
                quote!(#(#conditions)* if #is_acker { if __seen { #twice } __seen = true; })
            });
            let none = refusal(
                manual.key.span(),
                "`ack = manual` needs an `Acker`: add a parameter `ack: Acker`, or leave out `ack = manual`",
            );
            quote! {
                const _: () = {
                    let mut __seen = false;
                    #(#seen)*
                    if !__seen { #none }
                };
            }
        }
        None => {
            let text = if options.batch.is_some() {
                "a batch listener has no `Acker`: it settles by what it returns, such as `Vec<Result<(), HandlerError>>`"
            } else {
                "an `Acker` needs `ack = manual`: add it to the attribute, or leave out this parameter"
            };
            let each = parameters.map(|Parameter { conditions, ty }| {
                let is_acker = member(ty, root, "Extract", "IS_ACKER");
                let refusal = refusal(ty.span(), text);
                quote!(#(#conditions)* const _: () = if #is_acker { #refusal };)
            });
            quote!(#(#each)*)
        }
    }
}

fn refusal(span: Span, text: &str) -> TokenStream {
    quote_spanned!(span=> ::core::panic!(#text))
}
