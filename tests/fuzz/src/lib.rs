//! What must hold for any bytes: a module per target, with the oracle beside the reading. The targets only call them.

pub mod codec_body;
pub mod codec_request;
pub mod codec_response;
pub mod config;
pub mod dns_query;
pub mod watch_frames;

mod pieces;
