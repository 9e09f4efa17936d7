//! The codec against hyper's HTTP/1: whatever both accept, both take apart in the same way.
//!
//! hyper accepts more than we do (bare LF, both framings at once), so its word counts only as far as ours goes, and ours
//! must go all the way for messages that are well-formed.

use std::convert::Infallible;
use std::sync::{Arc, Mutex};

use http_body_util::{BodyExt, Empty, Full};
use hyper::body::{Bytes, Incoming};
use hyper::service::service_fn;
use hyper::{HeaderMap, Request, Response};
use hyper_util::rt::TokioIo;
use pillion::proxy::http::head::{Fields, Method, RequestHead, ResponseHead};
use pillion::proxy::http1::codec::{
    BodyDecoder, Framing, Limits, Parsed, keep_alive, parse_request, parse_response,
    request_framing, response_framing,
};
use proptest::prelude::*;
use tokio::io::{AsyncReadExt, AsyncWriteExt};

/// What a reader made of one message. Names are in lower case, since hyper forgets the case.
#[derive(Clone, PartialEq, Eq, Debug)]
struct Message {
    /// Method and target, or status.
    line: String,
    fields: Vec<(String, Vec<u8>)>,
    body: Vec<u8>,
    trailers: Vec<(String, Vec<u8>)>,
}

/// All whole messages at the beginning of `bytes`, and whether nothing was wrong up to the end.
fn our_requests(bytes: &[u8]) -> (Vec<Message>, bool) {
    let (mut rest, mut messages) = (bytes, Vec::new());
    let mut head = RequestHead::new();
    while !rest.is_empty() {
        let Ok(Parsed::Complete(consumed)) = parse_request(rest, &Limits::DEFAULT, &mut head)
        else {
            return (messages, false);
        };
        let Ok(framing) = request_framing(&head) else {
            return (messages, false);
        };
        let Some((body, trailers, behind)) = our_body(framing, &rest[consumed..]) else {
            return (messages, false);
        };
        let target = String::from_utf8_lossy(head.path_and_query());
        messages.push(Message {
            line: format!("{} {target}", head.method.as_str()),
            fields: list(&head.fields),
            body,
            trailers,
        });
        if !keep_alive(head.version, &head.fields) {
            return (messages, true);
        }
        rest = behind;
    }
    (messages, true)
}

type Pairs = Vec<(String, Vec<u8>)>;

fn our_body(framing: Framing, bytes: &[u8]) -> Option<(Vec<u8>, Pairs, &[u8])> {
    let mut decoder = BodyDecoder::new(framing);
    let (mut rest, mut body) = (bytes, Vec::new());
    while !rest.is_empty() && !decoder.is_end() {
        let piece = decoder.decode(rest).ok()?;
        body.extend_from_slice(&rest[piece.data]);
        rest = &rest[piece.consumed..];
    }
    decoder.eof().ok()?;
    let trailers = decoder.trailers().map(list).unwrap_or_default();
    Some((body, trailers, rest))
}

fn our_response(bytes: &[u8]) -> Option<Message> {
    let mut head = ResponseHead::default();
    let Ok(Parsed::Complete(consumed)) = parse_response(bytes, &Limits::DEFAULT, &mut head) else {
        return None;
    };
    let framing = response_framing(&head, &Method::Get).ok()?;
    let (body, trailers, _) = our_body(framing, &bytes[consumed..])?;
    Some(Message {
        line: head.status.to_string(),
        fields: list(&head.fields),
        body,
        trailers,
    })
}

fn list(fields: &Fields) -> Pairs {
    let mut pairs: Pairs = fields
        .iter()
        .map(|field| {
            let name = String::from_utf8_lossy(field.name).to_ascii_lowercase();
            (name, field.value.to_vec())
        })
        .collect();
    // hyper keeps the order within a name only.
    pairs.sort_by(|one, other| one.0.cmp(&other.0));
    pairs
}

fn hypers_list(fields: &HeaderMap) -> Pairs {
    let mut pairs: Pairs = fields
        .iter()
        .map(|(name, value)| (name.as_str().to_owned(), value.as_bytes().to_vec()))
        .collect();
    pairs.sort_by(|one, other| one.0.cmp(&other.0));
    pairs
}

/// Without framing fields, which we drop from trailers and hyper passes on.
fn hypers_trailers(trailers: Option<&HeaderMap>) -> Pairs {
    let mut pairs = trailers.map(hypers_list).unwrap_or_default();
    pairs.retain(|(name, _)| !["content-length", "transfer-encoding"].contains(&name.as_str()));
    pairs
}

/// Feeds the bytes to hyper's server and notes what arrives whole at its service.
async fn hypers_requests(bytes: &[u8]) -> Vec<Message> {
    let seen = Arc::new(Mutex::new(Vec::new()));
    let (mut client, server) = tokio::io::duplex(64 * 1024);
    let service = service_fn(|request: Request<Incoming>| {
        let seen = seen.clone();
        async move {
            if let Some(message) = hypers_request(request).await {
                seen.lock().expect("no test panics under it").push(message);
            }
            Ok::<_, Infallible>(Response::new(Empty::<Bytes>::new()))
        }
    });
    let serve = hyper::server::conn::http1::Builder::new()
        .half_close(true)
        .serve_connection(TokioIo::new(server), service);
    let feed = async {
        // hyper may close before it has read all, which is its answer.
        let _ = client.write_all(bytes).await;
        let _ = client.shutdown().await;
        let mut answers = Vec::new();
        let _ = client.read_to_end(&mut answers).await;
    };
    let _ = tokio::join!(serve, feed);
    let seen = seen.lock().expect("no test panics under it");
    seen.clone()
}

async fn hypers_request(request: Request<Incoming>) -> Option<Message> {
    let (parts, body) = request.into_parts();
    let body = body.collect().await.ok()?;
    let target = parts
        .uri
        .path_and_query()
        .map_or("*", |target| target.as_str());
    Some(Message {
        line: format!("{} {target}", parts.method),
        fields: hypers_list(&parts.headers),
        trailers: hypers_trailers(body.trailers()),
        body: body.to_bytes().to_vec(),
    })
}

/// Answers a GET of hyper's client with the bytes.
async fn hypers_response(bytes: &[u8]) -> Option<Message> {
    let (client, mut server) = tokio::io::duplex(64 * 1024);
    let (mut sender, connection) = hyper::client::conn::http1::handshake(TokioIo::new(client))
        .await
        .ok()?;
    let request = Request::get("/")
        .header("host", "a")
        .body(Full::<Bytes>::default())
        .ok()?;
    let answer = async {
        let mut request_bytes = [0; 1024];
        let _ = server.read(&mut request_bytes).await;
        let _ = server.write_all(bytes).await;
        drop(server);
    };
    let receive = async {
        let (parts, body) = sender.send_request(request).await.ok()?.into_parts();
        let body = body.collect().await.ok()?;
        drop(sender);
        Some(Message {
            line: parts.status.as_u16().to_string(),
            fields: hypers_list(&parts.headers),
            trailers: hypers_trailers(body.trailers()),
            body: body.to_bytes().to_vec(),
        })
    };
    let (_, _, message) = tokio::join!(connection, answer, receive);
    message
}

fn block_on<T>(future: impl Future<Output = T>) -> T {
    tokio::runtime::Builder::new_current_thread()
        .build()
        .expect("a runtime without drivers")
        .block_on(future)
}

fn field() -> impl Strategy<Value = String> {
    prop_oneof![
        (
            "X-[A-Za-z0-9]{1,12}",
            "[ \t]{0,2}([!-~\u{80}-\u{ff}]([ -~\t]{0,20}[!-~])?)?[ \t]{0,2}"
        )
            .prop_map(|(name, value)| format!("{name}:{value}\r\n")),
        prop::sample::select(vec![
            "Accept: */*\r\n",
            "cookie: a=b\r\nCookie: c=d\r\n",
            "CONNECTION: keep-alive\r\n",
            "Connection: x, close\r\n",
            "Date:Mon, 01 Jan 2029 00:00:00 GMT\r\n",
        ])
        .prop_map(str::to_owned),
    ]
}

/// The framing field and the body as bytes.
fn framed_body() -> impl Strategy<Value = (String, Vec<u8>)> {
    let bytes = prop::collection::vec(any::<u8>(), 0..60);
    let extension = prop::sample::select(vec!["", ";a", ";a=b", " ;a=\"b;c\""]);
    let chunks =
        prop::collection::vec((prop::collection::vec(any::<u8>(), 1..30), extension), 0..4);
    let trailers = prop::sample::select(vec!["", "x-sum: 1\r\n", "X-Sum:\t2 \r\nx-b: 3\r\n"]);
    prop_oneof![
        Just((String::new(), Vec::new())),
        bytes.prop_map(|body| (format!("Content-Length: {}\r\n", body.len()), body)),
        (chunks, trailers).prop_map(|(chunks, trailers)| {
            let mut body = Vec::new();
            for (chunk, extension) in chunks {
                body.extend_from_slice(format!("{:X}{extension}\r\n", chunk.len()).as_bytes());
                body.extend_from_slice(&chunk);
                body.extend_from_slice(b"\r\n");
            }
            body.extend_from_slice(format!("0\r\n{trailers}\r\n").as_bytes());
            ("transfer-encoding: chunked\r\n".to_owned(), body)
        }),
    ]
}

fn message(first_lines: impl Strategy<Value = String>) -> impl Strategy<Value = Vec<u8>> {
    (
        first_lines,
        prop::collection::vec(field(), 0..5),
        framed_body(),
    )
        .prop_map(|(first_line, fields, (framing, body))| {
            let mut bytes = format!("{first_line}{}{framing}\r\n", fields.concat()).into_bytes();
            bytes.extend_from_slice(&body);
            bytes
        })
}

fn request() -> impl Strategy<Value = Vec<u8>> {
    let method = prop::sample::select(vec![
        "GET", "POST", "PUT", "PATCH", "DELETE", "OPTIONS", "PROPFIND",
    ]);
    let target = "/[a-zA-Z0-9/%.~_-]{0,20}(\\?[a-z0-9=&?/]{0,10})?";
    message((method, target).prop_map(|(method, target)| {
        format!("{method} {target} HTTP/1.1\r\nHost: shop.example:80\r\n")
    }))
}

fn response() -> impl Strategy<Value = Vec<u8>> {
    let status = prop::sample::select(vec![200u16, 201, 204, 206, 301, 304, 404, 418, 500, 599]);
    message(
        (status, "[ -~]{0,12}")
            .prop_map(|(status, reason)| format!("HTTP/1.1 {status} {reason}\r\n")),
    )
}

/// A few bytes that differ from a well-formed message: where, and what stands there instead.
fn damage() -> impl Strategy<Value = Vec<(prop::sample::Index, Vec<u8>)>> {
    let wrong = prop::sample::select(vec![
        &b""[..],
        b"\r",
        b"\n",
        b"\r\n",
        b" ",
        b"\t",
        b":",
        b"\0",
        b"0",
        b"5",
        b",",
        b";",
        b"-",
        b"\x7f",
        b"Content-Length: 3\r\n",
        b"Transfer-Encoding: chunked\r\n",
        b"\r\n\r\n",
    ]);
    prop::collection::vec(
        (any::<prop::sample::Index>(), wrong.prop_map(<[u8]>::to_vec)),
        1..3,
    )
}

fn damaged(mut bytes: Vec<u8>, damage: &[(prop::sample::Index, Vec<u8>)]) -> Vec<u8> {
    for (place, wrong) in damage {
        let at = place.index(bytes.len());
        bytes.splice(at..at + 1, wrong.iter().copied());
        if bytes.is_empty() {
            break;
        }
    }
    bytes
}

/// hyper must agree with every message of ours that it accepts too.
fn check_requests(bytes: &[u8]) -> Result<(usize, bool), TestCaseError> {
    let (ours, all_right) = our_requests(bytes);
    let theirs = block_on(hypers_requests(bytes));
    for (our, their) in ours.iter().zip(&theirs) {
        prop_assert_eq!(our, their, "in {:?}", bytes.escape_ascii().to_string());
    }
    prop_assert!(
        !all_right || theirs.len() <= ours.len(),
        "hyper sees more requests than we do in {:?}",
        bytes.escape_ascii().to_string()
    );
    Ok((theirs.len(), all_right))
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 400, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn well_formed_requests_mean_the_same_to_both(requests in prop::collection::vec(request(), 1..4)) {
        let (theirs, all_right) = check_requests(&requests.concat())?;
        prop_assert!(all_right && theirs > 0);
    }

    #[test]
    fn damaged_requests_never_mean_different_things(requests in prop::collection::vec(request(), 1..3), damage in damage()) {
        check_requests(&damaged(requests.concat(), &damage))?;
    }

    #[test]
    fn well_formed_responses_mean_the_same_to_both(bytes in response()) {
        let ours = our_response(&bytes);
        prop_assert!(ours.is_some());
        prop_assert_eq!(ours, block_on(hypers_response(&bytes)));
    }

    #[test]
    fn damaged_responses_never_mean_different_things(bytes in response(), damage in damage()) {
        let bytes = damaged(bytes, &damage);
        if let (Some(ours), Some(theirs)) = (our_response(&bytes), block_on(hypers_response(&bytes))) {
            prop_assert_eq!(ours, theirs, "in {:?}", bytes.escape_ascii().to_string());
        }
    }
}
