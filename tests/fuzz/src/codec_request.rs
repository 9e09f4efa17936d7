//! A request's head reads the same however it is split, and what is written for it means the same when it is read again.

use pillion::proxy::http::head::{Known, RequestHead};
use pillion::proxy::http1::codec::{
    Framing, Limits, Parsed, encode_request, parse_request, request_framing, strip_hop_by_hop,
};

use crate::pieces::{ends, list, steps_and_bytes};

const LIMITS: Limits = Limits {
    head_bytes_max: 1500,
    fields_max: 12,
    target_bytes_max: 200,
    ..Limits::DEFAULT
};

pub fn check(data: &[u8]) {
    let Some((steps, bytes)) = steps_and_bytes(data) else {
        return;
    };
    let whole = read(bytes);
    let split = ends(steps, bytes.len())
        .map(|end| read(&bytes[..end]))
        .find(|read| !matches!(read, Read::Partial));
    assert_eq!(split.unwrap_or(Read::Partial), whole);
    if let Read::Complete(consumed) = whole {
        check_written(&bytes[..consumed]);
    }
}

#[derive(PartialEq, Eq, Debug)]
enum Read {
    Partial,
    Complete(usize),
    Refused,
}

fn read(bytes: &[u8]) -> Read {
    let mut head = RequestHead::new();
    let parsed = parse_request(bytes, &LIMITS, &mut head);
    // What was refused is logged all the same.
    let _ = (head.authority(), list(&head.fields));
    match parsed {
        Ok(Parsed::Partial) => Read::Partial,
        Ok(Parsed::Complete(consumed)) => Read::Complete(consumed),
        Err(_) => Read::Refused,
    }
}

fn check_written(bytes: &[u8]) {
    let Some((head, framing)) = read_for_forwarding(bytes) else {
        return;
    };
    let mut written = Vec::new();
    encode_request(&head, &framing, &mut written);
    let (again, framing_again) =
        read_for_forwarding(&written).expect("what we write is what we accept");
    assert_eq!(framing_again, framing);
    assert_eq!(again.method, head.method);
    assert_eq!(again.path_and_query(), head.path_and_query());
    assert_eq!(again.authority(), head.authority());
    assert_eq!(rest(again), rest(head));
}

/// As a proxy reads it: only requests that may be forwarded.
fn read_for_forwarding(bytes: &[u8]) -> Option<(RequestHead, Framing)> {
    let mut head = RequestHead::new();
    let parsed = parse_request(bytes, &Limits::DEFAULT, &mut head).ok()?;
    assert_eq!(parsed, Parsed::Complete(bytes.len()));
    let framing = request_framing(&head).ok()?;
    strip_hop_by_hop(&mut head.fields).ok()?;
    Some((head, framing))
}

/// The fields whose place and form writing does not change.
fn rest(mut head: RequestHead) -> Vec<(Vec<u8>, Vec<u8>)> {
    head.fields
        .remove_all(&[Known::Host, Known::ContentLength, Known::TransferEncoding]);
    list(&head.fields)
}
