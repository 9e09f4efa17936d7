//! Any split of the same bytes gives the same result, and bytes that are no HTTP panic nowhere.

use proptest::prelude::*;

use super::bodies::read_body;
use super::*;

/// Pieces of heads and bodies, right and wrong, that random strings would seldom hit.
const FRAGMENTS: &[&str] = &[
    "GET ",
    "POST ",
    "OPTIONS ",
    "CONNECT ",
    "/",
    "/a?b ",
    "http://h",
    "*",
    " HTTP/1.1\r\n",
    " HTTP/1.0\r\n",
    "HTTP/1.1 200 OK\r\n",
    "HTTP/1.0 304 \r\n",
    "Host: a\r\n",
    "host:b\r\n",
    "Content-Length: 5\r\n",
    "Content-Length: 99999999999999999999\r\n",
    "Transfer-Encoding: chunked\r\n",
    "Connection: close, x\r\n",
    "X: y\r\n",
    "x_forwarded_for: 1\r\n",
    "A:\t b \r\n",
    "Empty:\r\n",
    "\r\n",
    "\r\n\r\n",
    "\n",
    "\r",
    " ",
    "\t",
    ":",
    "\0",
    "\x7f",
    "5\r\nhello\r\n",
    "5;ext\r\nhello\r\n",
    "0\r\n",
    "a\r\n",
    "ffffffffffffffff",
    "hello",
    "\u{fc}",
    ";",
    "=",
];

fn soup() -> impl Strategy<Value = Vec<u8>> {
    let fragment = prop_oneof![
        8 => prop::sample::select(FRAGMENTS).prop_map(|fragment| fragment.as_bytes().to_vec()),
        1 => prop::collection::vec(any::<u8>(), 0..4),
    ];
    prop::collection::vec(fragment, 0..14).prop_map(|fragments| fragments.concat())
}

fn well_formed() -> impl Strategy<Value = Vec<u8>> {
    let name = "[A-Za-z][A-Za-z0-9_-]{0,20}";
    let value = "[ \t]{0,2}([!-~\u{80}-\u{ff}]([ -~\t]{0,30}[!-~])?)?[ \t]{0,2}";
    let field = (name, value).prop_map(|(name, value)| format!("{name}:{value}\r\n"));
    (
        "[A-Z]{1,8}",
        "/[!\\$-~]{0,30}",
        prop::collection::vec(field, 0..8),
    )
        .prop_map(|(method, target, fields)| {
            format!(
                "{method} {target} HTTP/1.1\r\nHost: a\r\n{}\r\nnext",
                fields.concat()
            )
            .into_bytes()
        })
}

/// What reading gives when the buffer grows by the given steps, again and again.
fn read_growing<T>(
    bytes: &[u8],
    steps: &[usize],
    mut read: impl FnMut(&[u8]) -> Option<T>,
) -> Option<T> {
    let mut end = 0;
    let mut steps = steps.iter().copied().cycle();
    while end < bytes.len() {
        end = (end + steps.next().unwrap_or(1).max(1)).min(bytes.len());
        if let Some(result) = read(&bytes[..end]) {
            return Some(result);
        }
    }
    None
}

type Outcome<T> = Option<Result<T, ()>>;

fn read_request(buf: &[u8]) -> Outcome<(usize, Vec<u8>, Lines)> {
    let mut head = RequestHead::new();
    match parse_request(buf, &Limits::DEFAULT, &mut head) {
        Ok(Parsed::Partial) => None,
        Ok(Parsed::Complete(end)) => Some(Ok((
            end,
            head.path_and_query().to_vec(),
            list(&head.fields),
        ))),
        Err(_) => Some(Err(())),
    }
}

fn read_response(buf: &[u8]) -> Outcome<(usize, u16, Lines)> {
    let mut head = ResponseHead::default();
    match parse_response(buf, &Limits::DEFAULT, &mut head) {
        Ok(Parsed::Partial) => None,
        Ok(Parsed::Complete(end)) => Some(Ok((end, head.status, list(&head.fields)))),
        Err(_) => Some(Err(())),
    }
}

fn cut<'a>(bytes: &'a [u8], steps: &[usize]) -> Vec<&'a [u8]> {
    let mut pieces = Vec::new();
    let mut rest = bytes;
    let mut steps = steps.iter().copied().cycle();
    while !rest.is_empty() {
        let (piece, behind) = rest.split_at(steps.next().unwrap_or(1).clamp(1, rest.len()));
        pieces.push(piece);
        rest = behind;
    }
    pieces
}

/// Found by fuzzing.
#[test]
fn what_is_refused_stays_refused_when_more_comes() {
    let line = b"HTTP/1.0 304ion\r";
    for end in 13..=line.len() {
        assert_eq!(read_response(&line[..end]), Some(Err(())), "{end}");
    }
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn requests(bytes in prop_oneof![soup(), well_formed()], steps in prop::collection::vec(1..9usize, 1..5)) {
        prop_assert_eq!(read_growing(&bytes, &steps, read_request), read_growing(&bytes, &[bytes.len()], read_request));
    }

    #[test]
    fn well_formed_requests_are_accepted(bytes in well_formed()) {
        let duplicates = bytes.to_ascii_lowercase().windows(7).filter(|window| window == b"\r\nhost:").count();
        let read = read_request(&bytes);
        prop_assert_eq!(read.map(|read| read.map(|read| read.0)), Some(if duplicates > 1 { Err(()) } else { Ok(bytes.len() - 4) }));
    }

    #[test]
    fn responses(mut bytes in soup(), starts_well in any::<bool>(), steps in prop::collection::vec(1..9usize, 1..5)) {
        if starts_well {
            bytes.splice(0..0, *b"HTTP/1.1 200 OK\r\n");
        }
        prop_assert_eq!(read_growing(&bytes, &steps, read_response), read_growing(&bytes, &[bytes.len()], read_response));
    }

    #[test]
    fn chunked_bodies(bytes in soup(), steps in prop::collection::vec(1..9usize, 1..5)) {
        let limits = Limits { trailer_bytes_max: 40, chunk_line_max: 12, ..Limits::DEFAULT };
        let whole = read_body(Framing::Chunked, &limits, &[&bytes]);
        let split = read_body(Framing::Chunked, &limits, &cut(&bytes, &steps));
        prop_assert_eq!(whole.map_err(|error| error.truncated), split.map_err(|error| error.truncated));
    }

    #[test]
    fn written_chunks_are_read_back(chunks in prop::collection::vec(prop::collection::vec(any::<u8>(), 1..40), 0..6), steps in prop::collection::vec(1..9usize, 1..5)) {
        let mut bytes = Vec::new();
        for chunk in &chunks {
            encode_chunk_head(chunk.len(), &mut bytes);
            bytes.extend_from_slice(chunk);
            bytes.extend_from_slice(CHUNK_END);
        }
        bytes.extend_from_slice(LAST_CHUNK);
        let read = read_body(Framing::Chunked, &Limits::DEFAULT, &cut(&bytes, &steps));
        prop_assert_eq!(read, Ok((chunks.concat(), bytes.len(), vec![])));
    }

    #[test]
    fn a_written_request_is_read_back(bytes in well_formed()) {
        let Some(Ok((_, target, fields))) = read_request(&bytes) else { return Ok(()) };
        let mut head = RequestHead::new();
        prop_assert!(parse_request(&bytes, &Limits::DEFAULT, &mut head).is_ok());
        let mut out = Vec::new();
        encode_request(&head, &Framing::None, &mut out);
        let kept: Vec<_> = fields.into_iter().filter(|(name, _)| {
            !["connection", "keep-alive", "proxy-connection", "content-length", "transfer-encoding", "te", "upgrade"].contains(&name.to_ascii_lowercase().as_str())
        }).collect();
        if head.fields.contains_any(&[crate::proxy::http::head::Known::Te, crate::proxy::http::head::Known::Upgrade]) { return Ok(()) }
        prop_assert_eq!(read_request(&out), Some(Ok((out.len(), target, kept))));
    }
}
