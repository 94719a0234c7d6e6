//! The embedded broker of Postrider: a real broker in this process.
