//! The attribute and derive macros of Postrider.

mod entries;
mod listener;
mod message;
mod problems;
mod values;

use proc_macro::TokenStream;

/// Makes a listener of an `async fn`.
#[proc_macro_attribute]
pub fn listener(attribute: TokenStream, item: TokenStream) -> TokenStream {
    listener::listener(attribute.into(), item.into()).into()
}

/// Makes a message of a struct or an enum.
#[proc_macro_derive(Message, attributes(message))]
pub fn message(item: TokenStream) -> TokenStream {
    message::message(item.into()).into()
}
