//! One question to an endpoint, over a connection of its own.
//!
//! gRPC health checking is `grpc.health.v1` (<https://github.com/grpc/grpc/blob/master/doc/health-checking.md>); its two messages
//! have one field each, so they are read and written here (Protocol Buffers encoding:
//! <https://protobuf.dev/programming-guides/encoding/>).

use std::future::Future;
use std::pin::pin;

use bytes::{BufMut, Bytes, BytesMut};
use http::{HeaderMap, Request, Response, Version};
use http_body_util::{BodyExt, Full, Limited};
use hyper::body::Incoming;
use hyper::client::conn::{http1, http2};
use hyper_util::rt::{TokioExecutor, TokioIo};

use super::targets::Target;
use crate::base::net::{Liveness, Stream};
use crate::model::{HealthProbe, Protocol};
use crate::proxy::destination::Handshake;
use crate::proxy::upstream::connect;

/// An answer of `grpc.health.v1` is 7 bytes long; a longer one than this is none.
const GRPC_BYTES_MAX: usize = 4096;

const USER_AGENT: &str = concat!("pillion/", env!("CARGO_PKG_VERSION"));

/// Asks once, within the check's timeout; the error says what is wrong.
pub async fn probe(target: &Target, handshake: Option<Handshake>) -> Result<(), String> {
    let limit = target.check.timeout;
    let asked = tokio::time::timeout(limit, ask(target, handshake)).await;
    asked.unwrap_or_else(|_| Err(format!("no answer within {limit:?}")))
}

async fn ask(target: &Target, handshake: Option<Handshake>) -> Result<(), String> {
    let limit = target.check.timeout;
    let connected =
        connect::connect(target.address, None, handshake, limit, Liveness::new(limit)).await;
    let connected = connected.map_err(|error| error.to_string())?;
    let stream = connected.stream;
    match &target.check.probe {
        HealthProbe::Tcp => Ok(()),
        HealthProbe::Grpc { service } => grpc(stream, target, service).await,
        HealthProbe::Http {
            path,
            host,
            statuses,
        } => {
            let declared = matches!(target.protocol, Some(Protocol::Http2 | Protocol::Grpc));
            let http2 = connected.negotiated_http2.unwrap_or(declared);
            let written = target.written.to_string();
            let host = host.as_deref().unwrap_or(&written);
            let status = get(stream, http2, host, path).await?;
            match statuses.iter().any(|range| range.contains(&status)) {
                true => Ok(()),
                false => Err(format!("GET {path} was answered with {status}")),
            }
        }
    }
}

/// The status of the answer; its body is not waited for.
async fn get(stream: Stream, http2: bool, host: &str, path: &str) -> Result<u16, String> {
    let request = Request::get(match http2 {
        true => uri(&stream, host, path),
        false => path.to_owned(),
    });
    let request = match http2 {
        true => request.version(Version::HTTP_2),
        false => request
            .header(http::header::HOST, host)
            .header(http::header::CONNECTION, "close"),
    };
    let request = request.header(http::header::USER_AGENT, USER_AGENT);
    let request = request.body(Full::default()).map_err(said)?;
    exchange(stream, http2, request, async |answer| {
        Ok(answer.status().as_u16())
    })
    .await
}

/// Asks `grpc.health.v1.Health/Check`.
async fn grpc(stream: Stream, target: &Target, service: &str) -> Result<(), String> {
    let host = target.written.to_string();
    let request = Request::post(uri(&stream, &host, "/grpc.health.v1.Health/Check"))
        .version(Version::HTTP_2)
        .header(http::header::USER_AGENT, USER_AGENT)
        .header(http::header::CONTENT_TYPE, "application/grpc")
        .header(http::header::TE, "trailers")
        .body(Full::new(check_request(service)))
        .map_err(said)?;
    exchange(stream, true, request, grpc_answer).await
}

async fn grpc_answer(answer: Response<Incoming>) -> Result<(), String> {
    let (head, body) = answer.into_parts();
    if head.status != 200 {
        return Err(format!("the health service answered with {}", head.status));
    }
    let body = Limited::new(body, GRPC_BYTES_MAX).collect().await;
    let body = body.map_err(|error| error.to_string())?;
    // A call that fails at once says so in its head.
    let trailers = body.trailers().unwrap_or(&head.headers);
    match grpc_status(trailers).or_else(|| grpc_status(&head.headers)) {
        Some("0") => {}
        Some(status) => {
            return Err(format!(
                "the health service answered with gRPC status {status}"
            ));
        }
        None => return Err("the health service's answer broke off".to_owned()),
    }
    match serving_status(&body.to_bytes()) {
        Some(1) => Ok(()),
        Some(0) => Err("the health service answered UNKNOWN".to_owned()),
        Some(2) => Err("the health service answered NOT_SERVING".to_owned()),
        Some(3) => Err("the health service answered SERVICE_UNKNOWN".to_owned()),
        Some(_) | None => Err("the health service's answer is not one".to_owned()),
    }
}

fn grpc_status(fields: &HeaderMap) -> Option<&str> {
    fields.get("grpc-status")?.to_str().ok()
}

/// The target of an HTTP/2 request, which names scheme and authority.
fn uri(stream: &Stream, host: &str, path: &str) -> String {
    let scheme = if stream.is_tls() { "https" } else { "http" };
    format!("{scheme}://{host}{path}")
}

/// Sends the request and reads the answer, with the connection at work meanwhile.
async fn exchange<T>(
    stream: Stream,
    http2: bool,
    request: Request<Full<Bytes>>,
    read: impl AsyncFnOnce(Response<Incoming>) -> Result<T, String>,
) -> Result<T, String> {
    let io = TokioIo::new(stream);
    if http2 {
        let handshake = http2::handshake(TokioExecutor::new(), io).await;
        let (mut sender, connection) = handshake.map_err(said)?;
        let answered = async { read(sender.send_request(request).await.map_err(said)?).await };
        return beside(connection, answered).await;
    }
    let (mut sender, connection) = http1::handshake(io).await.map_err(said)?;
    let answered = async { read(sender.send_request(request).await.map_err(said)?).await };
    beside(connection, answered).await
}

async fn beside<T>(connection: impl Future, answered: impl Future<Output = T>) -> T {
    let mut answered = pin!(answered);
    tokio::select! {
        answered = &mut answered => answered,
        // It may end as soon as the answer is read off the wire; the answer is then at hand.
        _ = connection => answered.await,
    }
}

/// An error with what is behind it, which is where hyper says what happened.
fn said(error: impl std::error::Error) -> String {
    match error.source() {
        Some(source) => format!("{error}: {source}"),
        None => error.to_string(),
    }
}

/// A gRPC frame with `HealthCheckRequest {service}`.
fn check_request(service: &str) -> Bytes {
    let mut message = BytesMut::with_capacity(service.len() + 16);
    if !service.is_empty() {
        message.put_u8(FIELD_1 << 3 | LENGTH_DELIMITED);
        put_varint(&mut message, service.len() as u64);
        message.put_slice(service.as_bytes());
    }
    let mut frame = BytesMut::with_capacity(message.len() + 5);
    frame.put_u8(0);
    // A document's text is far below 4 GiB.
    frame.put_u32(message.len() as u32);
    frame.put_slice(&message);
    frame.freeze()
}

const FIELD_1: u8 = 1;
const VARINT: u64 = 0;
const LENGTH_DELIMITED: u8 = 2;

fn put_varint(out: &mut BytesMut, mut value: u64) {
    while value >= 0x80 {
        out.put_u8(value as u8 | 0x80);
        value >>= 7;
    }
    out.put_u8(value as u8);
}

/// The `status` in a gRPC frame with a `HealthCheckResponse`; 0 where it is left out, None for anything else.
fn serving_status(frame: &[u8]) -> Option<u64> {
    let (head, message) = frame.split_at_checked(5)?;
    let length = u32::from_be_bytes(head[1..].try_into().ok()?);
    if head[0] != 0 || message.len() != length as usize {
        return None;
    }
    let mut rest = message;
    let mut status = 0;
    while !rest.is_empty() {
        let key = take_varint(&mut rest)?;
        match key & 0b111 {
            VARINT => {
                let value = take_varint(&mut rest)?;
                if key >> 3 == u64::from(FIELD_1) {
                    status = value;
                }
            }
            1 => rest = rest.get(8..)?,
            2 => {
                let length = usize::try_from(take_varint(&mut rest)?).ok()?;
                rest = rest.get(length..)?;
            }
            5 => rest = rest.get(4..)?,
            _ => return None,
        }
    }
    Some(status)
}

fn take_varint(rest: &mut &[u8]) -> Option<u64> {
    let mut value = 0;
    for shift in (0..64).step_by(7) {
        let (byte, left) = rest.split_first()?;
        *rest = left;
        value |= u64::from(byte & 0x7f) << shift;
        if byte & 0x80 == 0 {
            return Some(value);
        }
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_question_names_the_service_and_one_about_the_server_is_empty() {
        assert_eq!(&check_request("")[..], [0, 0, 0, 0, 0]);
        let named = check_request("cart");
        assert_eq!(&named[..], b"\0\0\0\0\x06\x0a\x04cart");
        let long = "x".repeat(300);
        assert_eq!(check_request(&long)[5..8], [0x0a, 0xac, 0x02]);
    }

    #[test]
    fn an_answer_is_its_status_and_anything_else_is_none() {
        let table: [(&[u8], Option<u64>); 9] = [
            (b"\0\0\0\0\x02\x08\x01", Some(1)),
            (b"\0\0\0\0\x02\x08\x02", Some(2)),
            (b"\0\0\0\0\0", Some(0)),
            // Fields of a later version are passed over.
            (b"\0\0\0\0\x06\x12\x02ab\x08\x01", Some(1)),
            (b"\0\0\0\0\x06\x15abcd\x08", None),
            (b"\x01\0\0\0\x02\x08\x01", None),
            (b"\0\0\0\0\x03\x08\x01", None),
            (b"\0\0\0\0\x02\x08\x80", None),
            (b"", None),
        ];
        for (frame, status) in table {
            assert_eq!(serving_status(frame), status, "{frame:?}");
        }
    }

    #[test]
    fn no_bytes_make_the_reader_panic() {
        let mut rng = crate::base::rng::for_test();
        for _ in 0..20_000 {
            let mut frame: Vec<u8> = (0..rng.usize(..24)).map(|_| rng.u8(..)).collect();
            if frame.len() >= 5 {
                let length = frame.len() as u32 - 5;
                frame[0] = 0;
                frame[1..5].copy_from_slice(&length.to_be_bytes());
            }
            let _ = serving_status(&frame);
        }
    }
}
