use std::net::SocketAddr;

use bytes::Bytes;
use http_body_util::{BodyExt, Empty};
use hyper::Request;
use hyper::client::conn::http2;
use hyper_util::rt::{TokioExecutor, TokioIo};
use tokio::net::TcpStream;

use crate::harness::documents::{below, edge, route};
use crate::harness::{Client, Mesh, Target};

/// Method, path, and the answer: status, body, and what the head says of its length and type.
type Row = (
    &'static str,
    &'static str,
    u16,
    &'static str,
    Option<&'static str>,
    Option<&'static str>,
);

const ANSWERS: [Row; 6] = [
    ("GET", "/body", 200, "Hello.\n", Some("7"), PLAIN),
    ("POST", "/body", 200, "Hello.\n", Some("7"), PLAIN),
    ("HEAD", "/body", 200, "", Some("7"), PLAIN),
    ("GET", "/no-body", 204, "", None, None),
    ("GET", "/forbidden", 403, "", Some("0"), None),
    (
        "GET",
        "/json",
        503,
        r#"{"soon":true}"#,
        Some("13"),
        Some("application/json"),
    ),
];

const PLAIN: Option<&str> = Some("text/plain; charset=utf-8");

#[tokio::test]
async fn the_proxy_answers_what_the_route_says_and_the_connection_stays() {
    let mesh = Mesh::new();
    let gateway = mesh.gateway(documents).await;
    let mut client = Client::new(Target::direct(gateway.gateway, "shop.test"));
    for (method, path, status, body, length, content_type) in ANSWERS {
        let method = method.parse().expect("a method");
        let answer = client.send(method, path, "").await;
        let answer = answer.expect("the gateway answers");
        assert_eq!((answer.status, &*answer.body), (status, body), "{path}");
        let field = |name: &str| Some(answer.headers.get(name)?.to_str().expect("ASCII"));
        assert_eq!(field("content-length"), length, "{path}");
        assert_eq!(field("content-type"), content_type, "{path}");
        assert_eq!(field("proxy-status"), None, "{path}");
        assert_eq!(field("connection"), None, "{path}");
    }
}

/// The head says how long the body would be, and none may follow; nor is the stream reset.
#[tokio::test]
async fn head_gets_a_head_over_http2_from_a_route_and_from_a_refusal() {
    let mesh = Mesh::new();
    let gateway = mesh.gateway(documents).await;
    let stream = TcpStream::connect(gateway.gateway).await;
    let stream = TokioIo::new(stream.expect("the gateway listens"));
    let (mut client, connection) = http2::handshake(TokioExecutor::new(), stream)
        .await
        .expect("HTTP/2");
    let connection = tokio::spawn(connection);
    for (path, status) in [("/body", 200), ("/none", 404)] {
        let request = Request::head(format!("http://shop.test{path}"));
        let request = request.body(Empty::<Bytes>::new()).expect("a request");
        let answer = client.send_request(request).await.expect("an answer");
        assert_eq!(answer.status(), status, "{path}");
        assert_ne!(answer.headers()["content-length"], "0", "{path}");
        let body = answer.into_body().collect().await.expect("an end");
        assert!(body.to_bytes().is_empty(), "{path}");
    }
    drop(client);
    connection.await.expect("it ends").expect("in order");
}

fn documents(gateway: SocketAddr) -> String {
    let answers = [
        ("/body", r#"statusCode: 200, body: {string: "Hello.\n"}"#),
        ("/no-body", "statusCode: 204"),
        ("/forbidden", "statusCode: 403"),
        (
            "/json",
            r#"statusCode: 503, contentType: application/json, body: {string: '{"soon":true}'}"#,
        ),
    ];
    let rules = answers.map(|(path, answer)| {
        below(
            path,
            &format!("filters: [{{type: DirectResponse, directResponse: {{{answer}}}}}]"),
        )
    });
    edge(gateway) + &route("shop", &rules)
}
