use std::convert::Infallible;
use std::io::Read;
use std::net::SocketAddr;

use bytes::Bytes;
use http_body_util::{BodyExt, Empty, Full, StreamBody};
use hyper::body::{Frame, Incoming};
use hyper::header::HeaderMap;
use hyper::service::service_fn;
use hyper::{Request, Response};
use hyper_util::rt::{TokioExecutor, TokioIo};
use hyper_util::server::conn::auto;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::mpsc;

use crate::harness::documents::{below, edge, route, service};
use crate::harness::{Mesh, Sidecar};

const LINE: &str = "A line of text that is there again and again, as in most of what is served.\n";

fn text() -> String {
    LINE.repeat(2_000)
}

type Body = http_body_util::combinators::UnsyncBoxBody<Bytes, Infallible>;

/// `/text` is long, `/short` is not, `/image` is of another type, and `/events` says one line for each permit it is given.
async fn answer(request: Request<Incoming>) -> Result<Response<Body>, Infallible> {
    let whole = |text: String| Full::new(Bytes::from(text)).boxed_unsync();
    let (media, body) = match request.uri().path() {
        "/short" => ("text/plain", whole(LINE.to_owned())),
        "/image" => ("image/png", whole(text())),
        "/events" => ("text/plain", events()),
        _ => ("text/plain; charset=utf-8", whole(text())),
    };
    let mut response = Response::new(body);
    let headers = response.headers_mut();
    headers.insert("content-type", media.parse().expect("a value"));
    headers.insert("etag", "\"one\"".parse().expect("a value"));
    if request.headers().contains_key("if-none-match") {
        *response.status_mut() = hyper::StatusCode::NOT_MODIFIED;
        *response.body_mut() = Full::default().boxed_unsync();
    }
    Ok(response)
}

/// Two lines with a pause between them that lasts until the client goes.
fn events() -> Body {
    let (lines, said) = mpsc::channel(1);
    tokio::spawn(async move {
        let frame = || Ok::<_, Infallible>(Frame::data(Bytes::from(LINE)));
        if lines.send(frame()).await.is_ok() {
            lines.closed().await;
        }
    });
    let stream = futures_util::stream::unfold(said, |mut said| async {
        let frame = said.recv().await?;
        Some((frame, said))
    });
    StreamBody::new(stream).boxed_unsync()
}

async fn start() -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
    let address = listener.local_addr().expect("bound");
    tokio::spawn(async move {
        loop {
            let (stream, _) = listener.accept().await.expect("a connection");
            let serve = async move {
                let server = auto::Builder::new(TokioExecutor::new());
                let _ = server
                    .serve_connection(TokioIo::new(stream), service_fn(answer))
                    .await;
            };
            tokio::spawn(serve);
        }
    });
    address
}

async fn gateway(mesh: &Mesh, backend: SocketAddr) -> Sidecar {
    let filter =
        "filters: [{type: Compression, compression: {}}], backendRefs: [{name: web, port: 80}]";
    let gzip = "filters: [{type: Compression, compression: {algorithms: [gzip], minLength: 1B, contentTypes: ['image/*']}}], \
                backendRefs: [{name: web, port: 80}]";
    mesh.gateway(|address| {
        edge(address)
            + &route("shop", &[below("/", filter), below("/image", gzip)])
            + &service("web", &[backend])
    })
    .await
}

/// Asks over HTTP/1.1 or HTTP/2.
async fn ask(gateway: SocketAddr, http2: bool, path: &str, accept: &str) -> Response<Incoming> {
    ask_as(gateway, http2, Request::get(path), accept).await
}

async fn ask_as(
    gateway: SocketAddr,
    http2: bool,
    request: hyper::http::request::Builder,
    accept: &str,
) -> Response<Incoming> {
    let stream = TokioIo::new(TcpStream::connect(gateway).await.expect("connected"));
    let mut request = request
        .header("host", "shop.test")
        .header("accept-encoding", accept)
        .body(Empty::<Bytes>::new())
        .expect("a request");
    if http2 {
        let uri = format!("http://shop.test{}", request.uri());
        *request.uri_mut() = uri.parse().expect("a URI");
        let shaken = hyper::client::conn::http2::handshake(TokioExecutor::new(), stream).await;
        let (mut sender, connection) = shaken.expect("HTTP/2");
        tokio::spawn(connection);
        return sender.send_request(request).await.expect("an answer");
    }
    let shaken = hyper::client::conn::http1::handshake(stream).await;
    let (mut sender, connection) = shaken.expect("HTTP/1");
    tokio::spawn(connection);
    sender.send_request(request).await.expect("an answer")
}

async fn fetch(gateway: SocketAddr, http2: bool, path: &str, accept: &str) -> (HeaderMap, Bytes) {
    let (head, body) = ask(gateway, http2, path, accept).await.into_parts();
    let body = body.collect().await.expect("a whole body");
    (head.headers, body.to_bytes())
}

fn decoded(coding: &str, bytes: &[u8]) -> String {
    let mut text = String::new();
    let read = match coding {
        "gzip" => flate2::read::GzDecoder::new(bytes).read_to_string(&mut text),
        "br" => brotli::Decompressor::new(bytes, 4096).read_to_string(&mut text),
        "zstd" => zstd::stream::read::Decoder::new(bytes)
            .expect("a decoder")
            .read_to_string(&mut text),
        other => panic!("no coding: {other}"),
    };
    read.expect("a whole stream");
    text
}

#[tokio::test]
async fn answers_are_compressed_as_the_client_takes_them() {
    let mesh = Mesh::new();
    let gateway = gateway(&mesh, start().await).await;
    for http2 in [false, true] {
        for (accept, coding) in [
            ("gzip", "gzip"),
            ("br, gzip", "br"),
            ("zstd;q=1, br;q=0.5", "zstd"),
            ("*", "br"),
        ] {
            let (headers, body) = fetch(gateway.gateway, http2, "/text", accept).await;
            assert_eq!(headers["content-encoding"], coding);
            assert_eq!(headers["vary"], "Accept-Encoding");
            assert_eq!(headers["etag"], "W/\"one\"");
            assert!(!headers.contains_key("content-length"));
            assert!(body.len() < text().len() / 20, "{}", body.len());
            assert_eq!(decoded(coding, &body), text());
        }
        for (path, accept) in [
            ("/text", "identity"),
            ("/text", "gzip;q=0"),
            ("/short", "gzip"),
        ] {
            let (headers, body) = fetch(gateway.gateway, http2, path, accept).await;
            assert!(!headers.contains_key("content-encoding"), "{path} {accept}");
            assert_eq!(headers["etag"], "\"one\"");
            assert_eq!(headers["content-length"], body.len().to_string());
            assert!(body.starts_with(LINE.as_bytes()));
        }
        let (headers, body) = fetch(gateway.gateway, http2, "/image", "br, gzip").await;
        assert_eq!(
            headers["content-encoding"], "gzip",
            "the rule offers nothing else"
        );
        assert_eq!(decoded("gzip", &body), text());
    }
}

#[tokio::test]
async fn what_a_stream_has_said_is_not_held_back() {
    let mesh = Mesh::new();
    let gateway = gateway(&mesh, start().await).await;
    let answer = ask(gateway.gateway, false, "/events", "gzip").await;
    assert_eq!(answer.headers()["content-encoding"], "gzip");
    let mut body = answer.into_body();
    let mut decoder = flate2::write::GzDecoder::new(Vec::new());
    // The stream never ends, so only a flush can bring the line.
    while decoder.get_ref().len() < LINE.len() {
        let frame = body.frame().await.expect("more to come").expect("no error");
        let bytes = frame.into_data().expect("no trailers");
        std::io::Write::write_all(&mut decoder, &bytes).expect("gzip");
        std::io::Write::flush(&mut decoder).expect("gzip");
    }
    assert_eq!(decoder.get_ref(), LINE.as_bytes());
}

#[tokio::test]
async fn head_and_not_modified_say_what_get_says() {
    let mesh = Mesh::new();
    let gateway = gateway(&mesh, start().await).await;
    for http2 in [false, true] {
        let head = ask_as(gateway.gateway, http2, Request::head("/text"), "gzip").await;
        assert_eq!(head.headers()["content-encoding"], "gzip");
        assert_eq!(head.headers()["vary"], "Accept-Encoding");
        assert_eq!(head.headers()["etag"], "W/\"one\"");
        assert!(!head.headers().contains_key("content-length"));
        let head = ask_as(gateway.gateway, http2, Request::head("/short"), "gzip").await;
        assert!(!head.headers().contains_key("content-encoding"));
        assert_eq!(head.headers()["content-length"], LINE.len().to_string());
        for etag in ["W/\"one\"", "\"one\""] {
            let known = Request::get("/text").header("if-none-match", etag);
            let answer = ask_as(gateway.gateway, http2, known, "gzip").await;
            assert_eq!(answer.status(), 304);
            assert_eq!(answer.headers()["etag"], etag, "as the client knows it");
            assert_eq!(answer.headers()["vary"], "Accept-Encoding");
        }
    }
}
