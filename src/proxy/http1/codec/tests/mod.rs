//! The codec as tables: what is accepted, what is refused and how, and that no split of the bytes makes a difference.

mod bodies;
mod requests;
mod responses;
mod splits;
mod writing;

use super::*;
use crate::proxy::http::head::{Fields, Method, RequestHead, ResponseHead};

/// Names and values as text.
type Lines = Vec<(String, String)>;

/// A request's head and where it ended.
fn request(bytes: &[u8]) -> Result<(RequestHead, usize), Refusal> {
    request_within(bytes, &Limits::DEFAULT)
}

fn request_within(bytes: &[u8], limits: &Limits) -> Result<(RequestHead, usize), Refusal> {
    let mut head = RequestHead::new();
    let parsed = parse_request(bytes, limits, &mut head);
    // What was refused or is incomplete is logged all the same.
    let _ = (head.authority(), list(&head.fields));
    match parsed? {
        Parsed::Complete(consumed) => request_framing(&head).map(|_| (head, consumed)),
        Parsed::Partial => Ok((head, 0)),
    }
}

fn response(bytes: &[u8], method: &str) -> Result<(ResponseHead, Framing), BadResponse> {
    let mut head = ResponseHead::default();
    let parsed = parse_response(bytes, &Limits::DEFAULT, &mut head);
    let _ = list(&head.fields);
    match parsed? {
        Parsed::Complete(_) => {
            let framing = response_framing(&head, &Method::from_bytes(method.as_bytes()))?;
            Ok((head, framing))
        }
        Parsed::Partial => Err(BadResponse::new("partial")),
    }
}

fn text(bytes: &[u8]) -> String {
    bytes.escape_ascii().to_string()
}

fn list(fields: &Fields) -> Lines {
    fields
        .iter()
        .map(|field| (text(field.name), text(field.value)))
        .collect()
}
