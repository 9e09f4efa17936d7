//! Bytes: edge cases of HTTP/1 as tables and the abuse of HTTP/2, on real sockets against a running proxy, and the codec
//! against another reader.

mod deadlines;
mod differential;
mod edge;
mod frames;
mod harness;
mod http2;
mod limits;
mod paths;
mod requests;
mod responses;
mod retries;
