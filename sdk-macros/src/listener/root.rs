//! Paths into the crate, and where errors about them are shown.

use proc_macro2::{Ident, Span, TokenStream, TokenTree};
use quote::{ToTokens, quote, quote_spanned};
use syn::Type;
use syn::spanned::Spanned;

use super::model::Options;

/// The module that all paths begin with.
pub(super) struct Root(TokenStream);

impl Root {
    pub(super) fn of(options: &Options) -> Self {
        Self(match &options.root {
            Some(path) => quote!(#path::__private),
            None => quote!(::postrider::__private),
        })
    }

    /// The same as if it stood at this span: an error about a path is shown at the user's tokens only if all of its
    /// tokens are there. What a name means stays as it was (`$crate`).
    pub(super) fn at(&self, span: Span) -> TokenStream {
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

/// A member of a trait of this type, in the place where the type was written.
pub(super) fn member(ty: &Type, root: &Root, of: &str, name: &str) -> TokenStream {
    let (ty_as, name) = (implementer(ty, root, of), Ident::new(name, ty.span()));
    quote_spanned!(ty.span()=> #ty_as::#name)
}
