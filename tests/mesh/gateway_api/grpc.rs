use std::net::SocketAddr;

use bytes::Bytes;
use http_body_util::{BodyExt, Full};
use hyper::Request;
use hyper::client::conn::http2::{SendRequest, handshake};
use hyper_util::rt::{TokioExecutor, TokioIo};

use super::{Shop, route, rule};

/// A client of gRPC's HTTP/2, which looks at who answers; what the messages say is nobody's business here.
struct Caller(SendRequest<Full<Bytes>>);

impl Caller {
    async fn connect(address: SocketAddr) -> Self {
        let stream = tokio::net::TcpStream::connect(address)
            .await
            .expect("connected");
        let shaken = handshake(TokioExecutor::new(), TokioIo::new(stream)).await;
        let (sender, connection) = shaken.expect("HTTP/2");
        tokio::spawn(connection);
        Self(sender)
    }

    /// The name of the backend, or the status of gRPC that the gateway answers with.
    async fn call(&mut self, host: &str, method: &str, headers: &[(&str, &str)]) -> String {
        let mut request = Request::post(format!("http://{host}{method}"))
            .header("content-type", "application/grpc")
            .header("te", "trailers");
        for (name, value) in headers {
            request = request.header(*name, *value);
        }
        let request = request.body(Full::default()).expect("a request");
        let answer = self.0.send_request(request).await.expect("an answer");
        assert_eq!(answer.status(), 200, "gRPC says everything else itself");
        if let Some(status) = answer.headers().get("grpc-status") {
            return status.to_str().expect("a number").to_owned();
        }
        let body = answer.into_body().collect().await.expect("a body");
        String::from_utf8_lossy(&body.to_bytes()).into_owned()
    }
}

/// Host, method, headers, and who answers.
type Call<'c> = (&'c str, &'c str, &'c [(&'c str, &'c str)], &'c str);

async fn expect(documents: &str, calls: &[Call<'_>]) {
    let shop = Shop::start(documents).await;
    let mut caller = Caller::connect(shop.gateway.gateway).await;
    for (host, method, headers, expected) in calls {
        let answered = caller.call(host, method, headers).await;
        assert_eq!(answered, *expected, "{host}{method} {headers:?}");
    }
}

#[tokio::test]
async fn calls_go_by_service_and_method() {
    let spec = [
        rule("{method: {service: shop.Cart, method: Add}}", "a"),
        rule("{method: {service: shop.Cart}}", "b"),
        rule("{method: {method: Watch}}", "c"),
        rule(
            "{method: {type: RegularExpression, service: 'shop\\.V[0-9]', method: 'Get.*'}}",
            "c",
        ),
    ];
    let spec = format!("rules: [{}]", spec.join(", "));
    let none = [].as_slice();
    let calls = [
        ("any.test", "/shop.Cart/Add", none, "a"),
        ("any.test", "/shop.Cart/Remove", none, "b"),
        // More characters of the service come before those of the method.
        ("any.test", "/shop.Cart/Watch", none, "b"),
        ("any.test", "/shop.Stock/Watch", none, "c"),
        ("any.test", "/shop.V2/GetAll", none, "c"),
        ("any.test", "/shop.V22/GetAll", none, "12"),
        ("any.test", "/shop.cart/Add", none, "12"),
        ("any.test", "/shop.Carts/Add", none, "12"),
    ];
    expect(&route("GRPCRoute", "calls", &spec), &calls).await;
}

#[tokio::test]
async fn calls_go_by_hostname_headers_and_weight() {
    let headers = [
        rule("{headers: [{name: version, value: two}]}", "b"),
        rule(
            "{headers: [{name: version, value: two}, {name: colour, type: RegularExpression, value: 'b.*'}]}",
            "c",
        ),
        rule("", "a"),
    ];
    let documents = route(
        "GRPCRoute",
        "headers",
        &format!("hostnames: [h.test], rules: [{}]", headers.join(", ")),
    ) + &route(
        "GRPCRoute",
        "weights",
        "hostnames: ['*.w.test'], rules: [{backendRefs: [{name: a, port: 80, weight: 0}, {name: b, port: 80, weight: 3}]}]",
    ) + &route(
        "GRPCRoute",
        "broken",
        "hostnames: [broken.test], rules: [{name: all, backendRefs: [{name: missing, port: 80}]}]",
    );
    let none = [].as_slice();
    let calls = [
        ("h.test", "/a.B/C", none, "a"),
        ("h.test", "/a.B/C", &[("version", "two")], "b"),
        (
            "h.test",
            "/a.B/C",
            &[("version", "two"), ("colour", "blue")],
            "c",
        ),
        ("x.w.test", "/a.B/C", none, "b"),
        ("other.test", "/a.B/C", none, "12"),
        ("broken.test", "/a.B/C", none, "14"),
    ];
    expect(&documents, &calls).await;
}

#[tokio::test]
async fn an_http_route_and_a_grpc_route_never_share_a_hostname() {
    let spec =
        |host: &str, backend: &str| format!("hostnames: [{host}], rules: [{}]", rule("", backend));
    let documents = super::created_route(
        "HTTPRoute",
        "http",
        "2024-01-01T00:00:00Z",
        &spec("both.test", "a"),
    ) + &route("GRPCRoute", "grpc", &spec("both.test", "b"))
        + &route("GRPCRoute", "alone", &spec("alone.test", "c"));
    let none = [].as_slice();
    let calls = [
        ("both.test", "/a.B/C", none, "a"),
        ("alone.test", "/a.B/C", none, "c"),
    ];
    expect(&documents, &calls).await;
}
