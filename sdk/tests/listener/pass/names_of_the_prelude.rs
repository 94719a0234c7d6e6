//! Whatever names are taken where the function stands, also by itself.
#![no_implicit_prelude]
#![allow(non_snake_case, non_camel_case_types, non_upper_case_globals, dead_code)]

use ::postrider::{Bytes, Context, Extract, HandlerError, listener, listeners};

#[listener(topic = "a")]
async fn Ok(_payload: Bytes) {}
#[listener(topic = "a")]
async fn Err(_payload: Bytes) {}
#[listener(topic = "a")]
async fn Some(_payload: Bytes) {}
#[listener(topic = "a", batch(size = 1, wait = "1s"))]
async fn Vec(_payload: ::std::vec::Vec<Bytes>) {}
#[listener(topic = "a")]
async fn String(_payload: Bytes) {}
#[listener(topic = "a", timeout = "1s", group = "g", retry(backoff = "1s"))]
async fn Result(_payload: Bytes, _mine: payload) -> ::core::result::Result<(), HandlerError> {
    ::core::result::Result::Ok(())
}
#[listener(topic = "a")]
async fn drop(_payload: Bytes) {}
#[listener(topic = "a")]
async fn core(_payload: Bytes) {}
#[listener(topic = "a")]
async fn std(_payload: Bytes) {}
#[listener(topic = "a")]
async fn postrider(_payload: Bytes) {}
#[listener(topic = "a")]
async fn u32(_payload: Bytes) {}
#[listener(topic = "a")]
async fn usize(_payload: Bytes) {}
#[listener(topic = "a")]
async fn call(_payload: Bytes) {}
#[listener(topic = "a")]
async fn register(_payload: Bytes) {}
#[listener(topic = "a")]
async fn Self_(_payload: Bytes) {}
#[listener(topic = "a")]
async fn r#move(_payload: Bytes) {}

/// A pattern of one of these names would match it instead of making a variable.
struct payload;
struct cx;
struct items;
const count: i32 = 1;
static error: i32 = 1;

impl Extract for payload {
    fn extract(_: &Context) -> ::core::result::Result<Self, HandlerError> {
        ::core::result::Result::Ok(payload)
    }
}

fn main() {
    let all = listeners![
        Ok, Err, Some, Vec, String, Result, drop, core, std, postrider, u32, usize, call, register, Self_, r#move
    ];
    ::core::assert_eq!(all.len(), 16);
    ::core::assert_eq!(all[15].name(), "move");
}
