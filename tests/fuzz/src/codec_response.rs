//! A response's head reads the same however it is split, and what is written for it means the same when it is read again.

use pillion::proxy::http::head::{Known, Method, ResponseHead};
use pillion::proxy::http1::codec::{
    Framing, Limits, Parsed, Persistence, encode_response, parse_response, response_framing,
    strip_hop_by_hop,
};

use crate::pieces::{ends, list, steps_and_bytes};

const LIMITS: Limits = Limits {
    head_bytes_max: 1500,
    fields_max: 12,
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
        for method in [Method::Get, Method::Head] {
            check_written(&bytes[..consumed], &method);
        }
    }
}

#[derive(PartialEq, Eq, Debug)]
enum Read {
    Partial,
    Complete(usize),
    Refused,
}

fn read(bytes: &[u8]) -> Read {
    let mut head = ResponseHead::default();
    let parsed = parse_response(bytes, &LIMITS, &mut head);
    let _ = list(&head.fields);
    match parsed {
        Ok(Parsed::Partial) => Read::Partial,
        Ok(Parsed::Complete(consumed)) => Read::Complete(consumed),
        Err(_) => Read::Refused,
    }
}

fn check_written(bytes: &[u8], method: &Method) {
    let Some((head, framing)) = read_for_forwarding(bytes, method) else {
        return;
    };
    let mut written = Vec::new();
    encode_response(&head, &framing, Persistence::KeepAlive, &mut written);
    let (again, framing_again) =
        read_for_forwarding(&written, method).expect("what we write is what we accept");
    assert_eq!(framing_again, framing);
    assert_eq!(again.status, head.status);
    assert_eq!(rest(again), rest(head));
}

fn read_for_forwarding(bytes: &[u8], method: &Method) -> Option<(ResponseHead, Framing)> {
    let mut head = ResponseHead::default();
    let parsed = parse_response(bytes, &Limits::DEFAULT, &mut head).ok()?;
    assert_eq!(parsed, Parsed::Complete(bytes.len()));
    let framing = response_framing(&head, method).ok()?;
    strip_hop_by_hop(&mut head.fields).ok()?;
    Some((head, framing))
}

/// The fields whose place and form writing does not change.
fn rest(mut head: ResponseHead) -> Vec<(Vec<u8>, Vec<u8>)> {
    head.fields
        .remove_all(&[Known::ContentLength, Known::TransferEncoding]);
    list(&head.fields)
}
