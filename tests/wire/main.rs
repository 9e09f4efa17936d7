//! Bytes: HTTP/1 edge cases as tables on real sockets against a running proxy, and the codec against another reader.

mod differential;
mod edge;
mod harness;
mod limits;
mod paths;
mod requests;
mod responses;
