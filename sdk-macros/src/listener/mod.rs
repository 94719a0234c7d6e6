//! `#[listener]`: tokens to model, to checks, to tokens.

mod call;
mod expand;
mod model;
mod parse;
mod root;
mod settings;
mod validate;

use proc_macro2::{Span, TokenStream};

pub(crate) use parse::root;

use crate::problems::Problems;

/// What the attribute makes of a function.
pub(crate) fn listener(attribute: TokenStream, item: TokenStream) -> TokenStream {
    let mut problems = Problems::default();
    // At the attribute, but as if the user had written it: else rustc adds that a macro is to blame.
    let here = item
        .clone()
        .into_iter()
        .next()
        .map_or_else(Span::call_site, |token| token.span());
    let here = Span::call_site().resolved_at(here);
    let options = parse::options(attribute, here, &mut problems);
    validate::options(&options, &mut problems);
    let Some(function) = parse::function(item.clone(), here, &mut problems) else {
        return [item, problems.into_tokens()].into_iter().collect();
    };
    validate::function(&function, &mut problems);
    if problems.is_empty() {
        expand::listener(&options, &function)
    } else {
        expand::stub(&options, &function, problems)
    }
}
