//! `#[derive(Message)]`.

use proc_macro2::{Ident, TokenStream};
use quote::{ToTokens, quote, quote_spanned};
use syn::parse::{Parse, ParseStream};
use syn::punctuated::Punctuated;
use syn::spanned::Spanned;
use syn::{Data, DeriveInput, Fields, Member, Meta, Path, Token};

use crate::entries::{self, Entry, Place};
use crate::problems::Problems;
use crate::values::{self, Reserved};

const KEYS: [&str; 4] = ["topic", "key", "version", "crate"];
const EXAMPLE: &str = "write `#[message(topic = \"order.created\")]` above it";

/// What the attribute says.
#[derive(Default)]
struct Options {
    topic: Option<String>,
    key: Option<Punctuated<Member, Token![.]>>,
    version: Option<u32>,
    root: Option<Path>,
}

/// What the derive makes of a type.
pub(crate) fn message(item: TokenStream) -> TokenStream {
    let input: DeriveInput = match syn::parse2(item) {
        Ok(input) => input,
        Err(error) => return error.into_compile_error(),
    };
    let mut problems = Problems::default();
    let options = options(&input, &mut problems);
    if let Some(key) = &options.key {
        check_key(&input, key, &mut problems);
    }
    if let Data::Union(data) = &input.data {
        problems.at(
            data.union_token,
            "a union cannot be a message",
            "write a struct or an enum",
        );
    }
    let options = if problems.is_empty() {
        options
    } else {
        Options {
            root: options.root,
            ..Options::default()
        }
    };
    let implementation = implementation(&input, &options);
    let problems = problems.into_tokens();
    quote!(#implementation #problems)
}

/// With problems, nothing but a topic: so that no use of the type fails as well.
fn implementation(input: &DeriveInput, options: &Options) -> TokenStream {
    let root = match &options.root {
        Some(path) => quote!(#path::__private),
        None => quote!(::postrider::__private),
    };
    let name = &input.ident;
    let (parameters, arguments, conditions) = input.generics.split_for_impl();
    let topic = options.topic.as_deref().unwrap_or_default();
    let version = options.version.map(|version| {
        quote! {
            const VERSION: ::core::option::Option<::core::primitive::u32> = ::core::option::Option::Some(#version);
        }
    });
    let key = options.key.as_ref().and_then(|path| {
        let (first, rest) = (path.first()?, path.iter().skip(1));
        // All of it has the span of the field, so that rustc points there.
        let span = path.span();
        let field = Ident::new("__field", span);
        let text = match path.len() {
            1 => field.to_token_stream(),
            _ => quote_spanned!(span=> &#field #(.#rest)*),
        };
        Some(quote! {
            fn key(&self) -> ::core::option::Option<#root::Bytes> {
                let Self { #first: #field, .. } = self;
                ::core::option::Option::Some(#root::key(#text))
            }
        })
    });
    quote! {
        #[automatically_derived]
        impl #parameters #root::Message for #name #arguments #conditions {
            const TOPIC: &'static ::core::primitive::str = #topic;
            #version
            #key
        }
    }
}

fn options(input: &DeriveInput, problems: &mut Problems) -> Options {
    let mut tokens = TokenStream::new();
    let mut found = false;
    for attribute in input
        .attrs
        .iter()
        .filter(|attribute| attribute.path().is_ident("message"))
    {
        found = true;
        match &attribute.meta {
            Meta::List(list) => {
                tokens.extend(list.tokens.clone());
                tokens.extend(quote!(,));
            }
            other => problems.at(other, "`#[message]` takes its options in parentheses", EXAMPLE),
        }
    }
    let mut options = Options::default();
    if !found {
        problems.at(
            &input.ident,
            format!("the message `{}` has no topic", input.ident),
            EXAMPLE,
        );
        return options;
    }
    let place = Place {
        inside: None,
        keys: &KEYS,
    };
    let entries = entries::read(tokens, place, problems);
    for entry in &entries.good {
        match entry.name().as_str() {
            "topic" => options.topic = topic(entry, problems),
            "key" => {
                let parser = Members::parse;
                let parsed = entry.parse_with(parser, "the name of a field", "key = order_id", problems);
                options.key = parsed.map(|members| members.0);
            }
            "version" => options.version = entry.whole("version = 1", problems),
            "crate" => options.root = crate::listener::root(entry, problems),
            _ => {}
        }
    }
    if !entries.meant.iter().any(|name| name == "topic") && problems.is_empty() {
        problems.at(
            &input.ident,
            format!("the message `{}` has no topic", input.ident),
            EXAMPLE,
        );
    }
    options
}

fn topic(entry: &Entry, problems: &mut Problems) -> Option<String> {
    let literal = entry.text(
        "the name of a topic in quotes",
        "topic = \"order.created\"",
        problems,
    )?;
    values::check_topic(&literal, "topic", Reserved::None, problems)?;
    Some(literal.value())
}

/// `field.of.it`
struct Members(Punctuated<Member, Token![.]>);

impl Parse for Members {
    fn parse(input: ParseStream<'_>) -> syn::Result<Self> {
        Punctuated::parse_separated_nonempty(input).map(Members)
    }
}

fn check_key(input: &DeriveInput, key: &Punctuated<Member, Token![.]>, problems: &mut Problems) {
    let Data::Struct(data) = &input.data else {
        let help = "leave out `key`, or set it where you publish";
        problems.at(key, "only a struct has fields to take a `key` from", help);
        return;
    };
    let Some(first) = key.first() else { return };
    let names: Vec<String> = data
        .fields
        .members()
        .map(|member| member.to_token_stream().to_string())
        .collect();
    if names.contains(&first.to_token_stream().to_string()) {
        return;
    }
    let what = format!("`{}` has no field `{}`", input.ident, first.to_token_stream());
    let help = match (&data.fields, names.is_empty()) {
        (Fields::Unit, _) | (_, true) => "it has no fields: leave out `key`".to_owned(),
        _ => format!(
            "its fields are {}",
            names
                .iter()
                .map(|name| format!("`{name}`"))
                .collect::<Vec<_>>()
                .join(", ")
        ),
    };
    problems.at(first, what, help);
}
