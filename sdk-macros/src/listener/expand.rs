//! Model to tokens.
//!
//! Every path is absolute, as any name may be taken where the function stands. What can fail to type-check has the span
//! of what the user wrote, so that rustc's error points there.

use proc_macro2::{Span, TokenStream, TokenTree};
use quote::{quote, quote_spanned};
use syn::spanned::Spanned;
use syn::{Attribute, FnArg};

use super::call::{many, single};
use super::model::{Function, Options, Parameter, is_listener};
use super::root::{Root, member};
use super::settings::settings;
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
    let extensions = extensions(options, function, &root);
    let head = head(function);
    let declaration = declaration(function);
    let body = &function.tokens;
    quote! {
        #[allow(clippy::unused_async)]
        #body
        #declaration
        #head
        const _: () = {
            // Private, as the types that the function takes may be.
            struct __Handler;
            #[automatically_derived]
            impl #root::Listener for __Handler {
                const SETTINGS: #root::Settings = #settings;
                #check
            }
            #call
            #[automatically_derived]
            impl #root::Register for #name {
                fn register(self) -> #root::Registration {
                    #root::Registration::#kind::<__Handler>()
                }
            }
            #ackers
            #extensions
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

/// Checks by its type that no parameter of a batch listener is an `Extension`.
fn extensions(options: &Options, function: &Function, root: &Root) -> TokenStream {
    if options.batch.is_none() {
        return TokenStream::new();
    }
    let text = "a batch listener has no `Extension`: middleware wraps handlers of one message; leave out this parameter, or \
                write a type of yours that implements `Extract`";
    let parameters = function.parameters();
    let each = parameters.iter().skip(1).map(|Parameter { conditions, ty }| {
        let is_extension = member(ty, root, "Extract", "IS_EXTENSION");
        let refusal = refusal(ty.span(), text);
        quote!(#(#conditions)* const _: () = if #is_extension { #refusal };)
    });
    quote!(#(#each)*)
}

fn refusal(span: Span, text: &str) -> TokenStream {
    quote_spanned!(span=> ::core::panic!(#text))
}
