//! `#[listener]`: tokens to model, to checks, to tokens.

mod expand;
mod model;
mod parse;
mod validate;

use proc_macro2::TokenStream;

pub(crate) use parse::root;

use crate::problems::Problems;

/// What the attribute makes of a function.
pub(crate) fn listener(attribute: TokenStream, item: TokenStream) -> TokenStream {
    let mut problems = Problems::default();
    let options = parse::options(attribute, &mut problems);
    validate::options(&options, &mut problems);
    let Some(function) = parse::function(item.clone(), &mut problems) else {
        return [item, problems.into_tokens()].into_iter().collect();
    };
    validate::function(&function, &mut problems);
    if problems.is_empty() {
        expand::listener(&options, &function)
    } else {
        expand::stub(&options, &function, problems)
    }
}
