//! HTTP/1 on our own engine: the codec is pure, the connections are around it.

pub mod codec;
pub mod conn;
pub mod server;
