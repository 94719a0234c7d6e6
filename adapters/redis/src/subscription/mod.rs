//! A live subscription: a reader that fills a table, a receiver that hands out from it, a settler that empties it.

pub(crate) mod broadcast;
pub(crate) mod claims;
pub(crate) mod entry;
pub(crate) mod leader;
pub(crate) mod lease;
pub(crate) mod moves;
pub(crate) mod page;
pub(crate) mod reader;
pub(crate) mod receiver;
pub(crate) mod settler;
pub(crate) mod source;
pub(crate) mod stand;
pub(crate) mod table;
