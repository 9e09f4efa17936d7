//! The path of a request, in the order it meets the files.

pub mod cluster;
pub mod filter;
pub mod http;
pub mod http1;
pub mod route;
