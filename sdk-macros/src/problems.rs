use std::fmt::Display;

use proc_macro2::{Span, TokenStream};
use quote::ToTokens;

/// Everything that is wrong with one use of a macro, so that all of it is reported in one pass.
#[derive(Default)]
pub(crate) struct Problems(Vec<syn::Error>);

impl Problems {
    /// Adds a mistake at these tokens: what is wrong, and what to write instead.
    pub(crate) fn at(&mut self, tokens: impl ToTokens, what: impl Display, help: impl Display) {
        self.0.push(syn::Error::new_spanned(tokens, text(what, help)));
    }

    /// Adds a mistake at this span.
    pub(crate) fn span(&mut self, span: Span, what: impl Display, help: impl Display) {
        self.0.push(syn::Error::new(span, text(what, help)));
    }

    /// Whether there is none.
    pub(crate) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// What was found, as text, for tests.
    #[cfg(test)]
    pub(crate) fn texts(&self) -> Vec<String> {
        self.0.iter().map(ToString::to_string).collect()
    }

    /// As invocations of `compile_error!`.
    pub(crate) fn into_tokens(self) -> TokenStream {
        self.0.iter().map(syn::Error::to_compile_error).collect()
    }
}

/// In the shape that rustc gives its own help: a procedural macro on stable Rust cannot attach it otherwise.
fn text(what: impl Display, help: impl Display) -> String {
    format!("{what}\n= help: {help}")
}
