//! HTTP/2, both sides, on the `h2` crate.

pub mod body;
pub mod budgets;
pub mod client;
pub mod head;
mod keepalive;
pub mod server;
