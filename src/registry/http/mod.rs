//! The way in: one HTTP+JSON API under `/v1`, for sidecars, the command line and curl.
//!
//! `routes` is the one table of what there is: it dispatches, it names the query parameters that are allowed, and the OpenAPI
//! description is made from it. Everything is bounded; what is over a bound is refused with its name.

mod answer;
mod connection;
mod openapi;
mod operations;
mod query;
mod request;
mod routes;
mod security;
mod server;

pub use routes::{Operation, ROUTES, Route};
pub use security::{Security, SecurityError, Token};
pub use server::serve;
