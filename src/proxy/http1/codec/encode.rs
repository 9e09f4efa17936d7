//! Writing heads, chunks and trailers.

use super::Framing;
use crate::proxy::http::head::{Fields, Known, RequestHead, ResponseHead};

/// Behind the bytes of a chunk.
pub const CHUNK_END: &[u8] = b"\r\n";

/// Ends a chunked body that has no trailers.
pub const LAST_CHUNK: &[u8] = b"0\r\n\r\n";

/// What a response says about its connection.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Persistence {
    /// The connection stays, and HTTP/1.1 need not say so.
    KeepAlive,
    /// It stays, and the HTTP/1.0 client that asked for it must be told.
    KeepAliveExplicit,
    /// It ends after this message.
    Close,
}

/// Writes a request's head in HTTP/1.1: the origin form of its target, and its fields as they are, but for those about
/// framing and the connection, which come from the arguments. `Host` always says [`RequestHead::authority`].
pub fn encode_request(head: &RequestHead, framing: &Framing, out: &mut Vec<u8>) {
    out.extend_from_slice(head.method.as_bytes());
    out.push(b' ');
    out.extend_from_slice(head.path_and_query());
    out.extend_from_slice(b" HTTP/1.1\r\n");
    let keeps_host = head.fields.contains(Known::Host) && !head.has_own_authority();
    if !keeps_host {
        out.extend_from_slice(b"Host: ");
        out.extend_from_slice(head.authority());
        out.extend_from_slice(b"\r\n");
    }
    write_connection(&head.fields, None, out);
    write_fields(&head.fields, framing, !keeps_host, out);
    out.extend_from_slice(b"\r\n");
}

/// Writes a response's head in HTTP/1.1. With [`Framing::None`] a `Content-Length` or `Transfer-Encoding` that came with
/// an answer to HEAD, or with a 304, stays; with [`Framing::UntilClose`] the connection is said to close in any case.
///
/// The head of a 2xx to CONNECT must have lost its framing fields before (RFC 9110, 9.3.6).
pub fn encode_response(
    head: &ResponseHead,
    framing: &Framing,
    persistence: Persistence,
    out: &mut Vec<u8>,
) {
    out.extend_from_slice(b"HTTP/1.1 ");
    out.extend_from_slice(itoa::Buffer::new().format(head.status).as_bytes());
    out.push(b' ');
    out.extend_from_slice(head.reason());
    out.extend_from_slice(b"\r\n");
    let announced = match (framing, persistence) {
        _ if head.is_interim() => None,
        (Framing::UntilClose, _) | (_, Persistence::Close) => Some("close"),
        (_, Persistence::KeepAliveExplicit) => Some("keep-alive"),
        (_, Persistence::KeepAlive) => None,
    };
    write_connection(&head.fields, announced, out);
    let described_only = *framing == Framing::None && head.status >= 200 && head.status != 204;
    if described_only {
        head.fields.write_except(&CONNECTION, out);
    } else {
        write_fields(&head.fields, framing, false, out);
    }
    out.extend_from_slice(b"\r\n");
}

const CONNECTION: [Known; 3] = [Known::Connection, Known::KeepAlive, Known::ProxyConnection];

/// Names what this message means for this hop only: a close, an upgrade, the TE field.
#[inline]
fn write_connection(fields: &Fields, announced: Option<&str>, out: &mut Vec<u8>) {
    if announced.is_none() && !fields.contains_any(&[Known::Upgrade, Known::Te]) {
        return;
    }
    out.extend_from_slice(b"Connection: ");
    let mut separator = "";
    for token in [
        announced,
        fields.contains(Known::Upgrade).then_some("Upgrade"),
        fields.contains(Known::Te).then_some("TE"),
    ]
    .into_iter()
    .flatten()
    {
        out.extend_from_slice(separator.as_bytes());
        out.extend_from_slice(token.as_bytes());
        separator = ", ";
    }
    out.extend_from_slice(b"\r\n");
}

/// The fields and the framing. A framing field that already says the right thing stays where it is.
#[inline]
fn write_fields(fields: &Fields, framing: &Framing, without_host: bool, out: &mut Vec<u8>) {
    let mut number = itoa::Buffer::new();
    let (known, name, value) = match framing {
        Framing::Length(length) => (
            Known::ContentLength,
            "Content-Length: ",
            number.format(*length),
        ),
        Framing::Chunked => (Known::TransferEncoding, "Transfer-Encoding: ", "chunked"),
        Framing::None | Framing::UntilClose => (Known::Other, "", ""),
    };
    let mut skipped = [Known::Connection; 6];
    skipped[1] = Known::KeepAlive;
    skipped[2] = Known::ProxyConnection;
    if without_host {
        skipped[3] = Known::Host;
    }
    let stays = known != Known::Other && says_exactly(fields, known, value.as_bytes());
    if !(stays && known == Known::ContentLength) {
        skipped[4] = Known::ContentLength;
    }
    if !(stays && known == Known::TransferEncoding) {
        skipped[5] = Known::TransferEncoding;
    }
    fields.write_except(&skipped, out);
    if known != Known::Other && !stays {
        out.extend_from_slice(name.as_bytes());
        out.extend_from_slice(value.as_bytes());
        out.extend_from_slice(b"\r\n");
    }
}

fn says_exactly(fields: &Fields, known: Known, wanted: &[u8]) -> bool {
    if !fields.contains(known) {
        return false;
    }
    let mut values = fields.get_all(known);
    values.next() == Some(wanted) && values.next().is_none()
}

/// The line before a chunk of `len` bytes. A chunk of none would end the body, so none is written.
pub fn encode_chunk_head(len: usize, out: &mut Vec<u8>) {
    debug_assert!(len > 0, "an empty chunk ends the body");
    if len == 0 {
        return;
    }
    const HEX: &[u8; 16] = b"0123456789abcdef";
    let digits = (usize::BITS - len.leading_zeros()).div_ceil(4);
    for digit in (0..digits).rev() {
        out.push(HEX[(len >> (digit * 4)) & 0xf]);
    }
    out.extend_from_slice(CHUNK_END);
}

/// Ends a chunked body with these trailers.
pub fn encode_trailers(trailers: &Fields, out: &mut Vec<u8>) {
    out.extend_from_slice(b"0\r\n");
    trailers.write_except(&[], out);
    out.extend_from_slice(b"\r\n");
}
