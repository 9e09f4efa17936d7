//! The HTTP/1 codec: pure functions over byte slices. The caller owns sockets, buffers and time.
//!
//! It is strict where two readers could disagree about where a message ends or whom it is for, because that is what
//! request smuggling lives on: bare LF, obs-fold, spaces around names, two framings, two hosts. In all else it keeps the
//! bytes that came. Every refusal ends the connection it came on.
//!
//! Reading is stateless for heads (the whole head must lie in the buffer; any split of the same bytes gives the same
//! result) and a small state machine for bodies ([`BodyDecoder`]).
//!
//! Left out: HTTP/0.9, and transfer codings other than `chunked`.

mod body;
mod encode;
mod fields;
mod framing;
mod hop;
mod request;
mod response;
#[cfg(test)]
mod tests;

pub use body::{BodyDecoder, BodyError, Piece};
pub use encode::{
    CHUNK_END, LAST_CHUNK, Persistence, encode_chunk_head, encode_request, encode_response,
    encode_trailers,
};
pub use framing::{Framing, request_framing, response_framing};
pub use hop::{Hop, expects_continue, has_token, keep_alive, strip_hop_by_hop};
pub use request::parse_request;
pub use response::parse_response;

pub use crate::proxy::http::head::{valid_authority, valid_name, valid_value};

/// How much of a message is read before it is refused.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Limits {
    /// The first line and all fields, in bytes.
    pub head_bytes_max: usize,
    /// Lines of one head, or of trailers.
    pub fields_max: usize,
    /// The request target, in bytes.
    pub target_bytes_max: usize,
    /// All trailer lines of one body, in bytes.
    pub trailer_bytes_max: usize,
    /// The line before a chunk, extensions included, in bytes.
    pub chunk_line_max: usize,
    /// The extensions of all chunks of one body together, in bytes.
    pub chunk_extensions_max: usize,
}

impl Limits {
    pub const DEFAULT: Limits = Limits {
        head_bytes_max: 64 * 1024,
        fields_max: 128,
        target_bytes_max: 32 * 1024,
        trailer_bytes_max: 16 * 1024,
        chunk_line_max: 4 * 1024,
        chunk_extensions_max: 16 * 1024,
    };
}

impl Default for Limits {
    fn default() -> Self {
        Self::DEFAULT
    }
}

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Parsed {
    /// Nothing is wrong so far; call again with more bytes behind the same ones.
    Partial,
    /// The head is read, and took this many bytes of the buffer.
    Complete(usize),
}

/// Why a request is not served, and with which status; the connection it came on must end.
#[derive(Clone, Copy, PartialEq, Eq, Debug, thiserror::Error)]
#[error("{reason}")]
pub struct Refusal {
    pub status: u16,
    /// A whole sentence's beginning, fit for the answer and the log.
    pub reason: &'static str,
}

impl Refusal {
    pub const fn new(status: u16, reason: &'static str) -> Self {
        Self { status, reason }
    }

    pub const fn bad_request(reason: &'static str) -> Self {
        Self::new(400, reason)
    }
}

/// Why an upstream's answer cannot be passed on; its connection must end, and the client gets 502.
#[derive(Clone, Copy, PartialEq, Eq, Debug, thiserror::Error)]
#[error("{reason}")]
pub struct BadResponse {
    pub reason: &'static str,
}

impl BadResponse {
    pub const fn new(reason: &'static str) -> Self {
        Self { reason }
    }
}

impl From<Refusal> for BadResponse {
    fn from(refusal: Refusal) -> Self {
        Self::new(refusal.reason)
    }
}
