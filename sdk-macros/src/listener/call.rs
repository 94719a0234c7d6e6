//! How the runtime calls the function: extract, call, take what it returns.

use proc_macro2::{Ident, Span, TokenStream};
use quote::quote;
use quote::quote_spanned;
use syn::ReturnType;
use syn::spanned::Spanned;

use super::model::{Function, Options, Parameter};
use super::root::{Root, member};

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

/// A handler of one message.
pub(super) fn single(options: &Options, function: &Function, root: &Root) -> TokenStream {
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
        impl __Handler { #inner }
        #[automatically_derived]
        impl #root::Single for __Handler { #call }
    }
}

/// A handler of a batch.
pub(super) fn many(function: &Function, root: &Root) -> TokenStream {
    let site = Span::mixed_site();
    let name = &function.signature.ident;
    let Some(payload) = function.parameters().into_iter().next() else {
        return TokenStream::new();
    };
    let items = payload.ty;
    let outcomes = quote_spanned!(site=> ::std::vec::Vec<#root::Outcome>);
    let refuse = quote_spanned! {site=>
        #root::IntoBatchOutcome::into_outcomes(
            ::core::result::Result::<(), #root::HandlerError>::Err(#root::not_now(__error)),
            __count,
        )
    };
    let (lets, arguments) = extracted(function, root, &refuse);
    let admits = admits(function, root);
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
        impl __Handler {
            async fn #name(#parameters) -> #outcomes {
                #lets
                #method(#name(__items, #arguments).await, __count)
            }
        }
        #[automatically_derived]
        impl #root::Many for __Handler {
            type Items = #items;
            #admits
            #call
        }
    }
}

/// Asks the parameters after the payload whether they can be taken from a delivery.
fn admits(function: &Function, root: &Root) -> TokenStream {
    let site = Span::mixed_site();
    let each = function.parameters().into_iter().skip(1);
    let each = each.map(|Parameter { conditions, ty }| {
        let extract = member(ty, root, "Extract", "extract");
        quote_spanned! {site=>
            #(#conditions)*
            if let ::core::result::Result::Err(__error) = #extract(__cx) {
                return ::core::result::Result::Err(__error);
            }
        }
    });
    quote_spanned! {site=>
        #[allow(unused_variables)]
        fn admit(__cx: &#root::Context) -> ::core::result::Result<(), #root::HandlerError> {
            #(#each)*
            ::core::result::Result::Ok(())
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
    match (function.returned(), &function.signature.output) {
        (Some(ty), _) => member(ty, root, of, method),
        (None, ReturnType::Type(_, ty)) => {
            let span = ty.span();
            let (root, of, method) = (root.at(span), Ident::new(of, span), Ident::new(method, span));
            quote_spanned!(span=> #root::#of::#method)
        }
        // Nothing was written: the name stands for it.
        (None, ReturnType::Default) => {
            let span = function.signature.ident.span();
            let (root, of, method) = (root.at(span), Ident::new(of, span), Ident::new(method, span));
            quote_spanned!(span=> <() as #root::#of>::#method)
        }
    }
}
