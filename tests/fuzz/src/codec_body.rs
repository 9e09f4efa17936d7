//! A body reads the same however it is split, takes nothing of what follows, and reads the same again when it is written.

use pillion::proxy::http::head::Fields;
use pillion::proxy::http1::codec::{
    BodyDecoder, CHUNK_END, Framing, Limits, encode_chunk_head, encode_trailers,
};

use crate::pieces::{ends, list, steps_and_bytes};

const LIMITS: Limits = Limits {
    chunk_line_max: 24,
    chunk_extensions_max: 40,
    trailer_bytes_max: 120,
    fields_max: 5,
    ..Limits::DEFAULT
};

pub fn check(data: &[u8]) {
    let Some((steps, bytes)) = steps_and_bytes(data) else {
        return;
    };
    for framing in [Framing::Chunked, Framing::Length(20), Framing::UntilClose] {
        let whole = read(framing, bytes, std::iter::once(bytes.len()));
        let split = read(framing, bytes, ends(steps, bytes.len()));
        assert_eq!(split, whole, "{framing:?}");
        if let (Framing::Chunked, Ok(body)) = (framing, whole) {
            check_written(&body);
        }
    }
}

#[derive(PartialEq, Eq, Debug)]
struct Body {
    bytes: Vec<u8>,
    consumed: usize,
    trailers: Vec<(Vec<u8>, Vec<u8>)>,
}

/// The body, or whether it was cut short (and not wrong).
fn read(framing: Framing, bytes: &[u8], ends: impl Iterator<Item = usize>) -> Result<Body, bool> {
    let mut decoder = BodyDecoder::with_limits(framing, &LIMITS);
    let mut body = Vec::new();
    let mut consumed = 0;
    for end in ends {
        while consumed < end && !decoder.is_end() {
            let input = &bytes[consumed..end];
            let piece = decoder.decode(input).map_err(|error| error.truncated)?;
            assert!(piece.consumed > 0 && piece.data.end <= piece.consumed);
            body.extend_from_slice(&input[piece.data]);
            consumed += piece.consumed;
        }
    }
    decoder.eof().map_err(|error| error.truncated)?;
    Ok(Body {
        bytes: body,
        consumed,
        trailers: decoder.trailers().map(list).unwrap_or_default(),
    })
}

fn check_written(body: &Body) {
    let mut written = Vec::new();
    for chunk in body.bytes.chunks(7) {
        encode_chunk_head(chunk.len(), &mut written);
        written.extend_from_slice(chunk);
        written.extend_from_slice(CHUNK_END);
    }
    let mut trailers = Fields::new();
    for (name, value) in &body.trailers {
        trailers.push(name, value);
    }
    encode_trailers(&trailers, &mut written);
    let mut decoder = BodyDecoder::new(Framing::Chunked);
    let mut bytes = Vec::new();
    let mut rest = written.as_slice();
    while !decoder.is_end() {
        let piece = decoder
            .decode(rest)
            .expect("what we write is what we accept");
        bytes.extend_from_slice(&rest[piece.data]);
        rest = &rest[piece.consumed..];
    }
    assert!(rest.is_empty());
    assert_eq!(bytes, body.bytes);
    assert_eq!(
        decoder.trailers().map(list).unwrap_or_default(),
        body.trailers
    );
}
