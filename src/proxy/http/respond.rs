//! Answers the proxy makes itself: never to be mistaken for the application's.

use std::future::poll_fn;

use super::body::Cut;
use super::body::Size;
use super::downstream::Downstream;
use super::exchange::Exchange;
use super::head::{Fields, Known, Method, RequestHead, ResponseHead};
use super::{admitted, undelivered};
use crate::proxy::failure::Failure;
use crate::proxy::session::Session;

/// Writes the answer for a failure, in the form the client asked for: gRPC, JSON or plain text, with what every answer in its
/// exchange is to tell.
pub async fn refuse(
    session: &Session,
    down: &mut impl Downstream,
    request: &RequestHead,
    failure: &Failure,
    exchange: Option<&mut Exchange>,
) -> Result<u64, Cut> {
    let answer = failure.answer();
    let mut head = ResponseHead::new(answer.status);
    if let Some(exchange) = exchange {
        exchange.tell(&mut head.fields);
    }
    if session.entry.role.is_inbound() {
        undelivered::say(failure, &mut head.fields);
        if let Failure::Shed {
            admits: Some(admits),
            ..
        } = failure
        {
            admitted::say(*admits, &mut head.fields);
        }
    }
    if let Some(seconds) = failure.retry_after() {
        head.fields
            .push(b"retry-after", seconds.to_string().as_bytes());
    }
    if let Some(reason) = failure.shed() {
        head.fields.push(b"x-mesh-shed", reason.as_str().as_bytes());
    }
    let proxy_status = format!(
        "pillion; error={}; details={}",
        answer.proxy_status,
        quoted(&answer.message)
    );
    if is_grpc(request) {
        head.status = 200;
        head.fields.push(b"content-type", b"application/grpc");
        head.fields
            .push(b"grpc-status", failure.grpc_status().to_string().as_bytes());
        head.fields
            .push(b"grpc-message", percent_encoded(&answer.message).as_bytes());
        head.fields.push(b"proxy-status", proxy_status.as_bytes());
        down.send_head(&head, Size::None)?;
        poll_fn(|cx| down.poll_finish(cx, None)).await?;
        return Ok(0);
    }
    let json = request
        .fields
        .get(Known::Accept)
        .is_some_and(|accept| memchr::memmem::find(accept, b"json").is_some());
    let body = if json {
        let body = serde_json::json!({
            "error": answer.message, "flag": answer.flag.as_str(), "from": "pillion", "next": answer.next,
        });
        format!("{body}\n")
    } else {
        format!(
            "pillion: {} ({})\n{}\n",
            answer.message,
            answer.flag.as_str(),
            answer.next
        )
    };
    let content_type: &[u8] = if json {
        b"application/json"
    } else {
        b"text/plain; charset=utf-8"
    };
    head.fields.push(b"content-type", content_type);
    head.fields.push(b"proxy-status", proxy_status.as_bytes());
    if answer.status == 405 {
        head.fields
            .push(b"allow", b"GET, HEAD, POST, PUT, PATCH, DELETE, OPTIONS");
    }
    let length = body.len().to_string();
    head.fields.push(b"content-length", length.as_bytes());
    self::answer(down, request, &head, body.as_bytes()).await
}

/// Writes an answer that is whole, with its length in the head. Says how many bytes the body has.
pub async fn answer(
    down: &mut impl Downstream,
    request: &RequestHead,
    head: &ResponseHead,
    body: &[u8],
) -> Result<u64, Cut> {
    let is_head_only = request.method == Method::Head || matches!(head.status, 204 | 304);
    let (size, mut rest) = match is_head_only {
        true => (Size::None, &[][..]),
        false => (Size::Exact(body.len() as u64), body),
    };
    down.send_head(head, size)?;
    while !rest.is_empty() {
        let count = poll_fn(|cx| down.poll_write(cx, rest)).await?;
        rest = &rest[count..];
    }
    poll_fn(|cx| down.poll_finish(cx, None)).await?;
    Ok(body.len() as u64)
}

/// Ends a gRPC answer that broke off with trailers that say so, where there is a way to send them.
pub async fn end_grpc(down: &mut impl Downstream, failure: &Failure) -> Result<(), Cut> {
    let mut trailers = Fields::new();
    trailers.push(b"grpc-status", failure.grpc_status().to_string().as_bytes());
    trailers.push(
        b"grpc-message",
        percent_encoded(&failure.to_string()).as_bytes(),
    );
    poll_fn(|cx| down.poll_finish(cx, Some(&trailers))).await
}

pub fn is_grpc(request: &RequestHead) -> bool {
    request
        .fields
        .get(Known::ContentType)
        .is_some_and(|value| value.starts_with(b"application/grpc"))
}

/// A string of RFC 8941, section 3.3.3: visible ASCII with `"` and `\` escaped.
pub fn quoted(text: &str) -> String {
    let mut quoted = String::with_capacity(text.len() + 2);
    quoted.push('"');
    for character in text.chars() {
        match character {
            '"' | '\\' => quoted.extend(['\\', character]),
            ' '..='~' => quoted.push(character),
            _ => quoted.push('?'),
        }
    }
    quoted.push('"');
    quoted
}

/// The form of `grpc-message` (gRPC over HTTP/2, "Responses").
fn percent_encoded(text: &str) -> String {
    const ESCAPED: &percent_encoding::AsciiSet = &percent_encoding::CONTROLS.add(b'%');
    percent_encoding::utf8_percent_encode(text, ESCAPED).to_string()
}
