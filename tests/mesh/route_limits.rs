//! What a route lets through: RateLimit, RequestSizeLimit and FaultInjection.

use std::net::SocketAddr;
use std::time::Duration;

use hyper::Method;
use tokio::time::Instant;

use crate::harness::documents::{below, edge, route, service};
use crate::harness::{Answer, Client, Mesh, Service, Sidecar, Target, eventually};

async fn shop() -> (Mesh, Service, Sidecar) {
    let mesh = Mesh::new();
    let service = Service::start("shop").await;
    let gateway = mesh.gateway(|address| documents(address, &service)).await;
    (mesh, service, gateway)
}

fn client(gateway: &Sidecar) -> Client {
    Client::new(Target::direct(gateway.gateway, "shop.test"))
}

#[tokio::test]
async fn no_more_requests_come_through_than_the_rate_allows() {
    let (_mesh, service, gateway) = shop().await;
    let mut client = client(&gateway);
    for status in [200, 200, 200, 429, 429] {
        let answer = client.get("/rate").await.expect("an answer");
        assert_eq!(answer.status, status);
        // Three an hour: the fourth comes after 20 minutes.
        let retry_after = answer.headers.get("retry-after");
        let seconds = retry_after.map(|value| value.to_str().expect("ASCII").parse::<u32>());
        match seconds {
            None => assert_eq!(status, 200),
            Some(seconds) => assert!(matches!(seconds, Ok(1_000..=1_200)), "{seconds:?}"),
        }
    }
    assert_eq!(service.asked(), 3);
}

#[tokio::test]
async fn each_key_has_a_rate_of_its_own() {
    let (_mesh, _service, gateway) = shop().await;
    let mut client = client(&gateway);
    let mut status = async |user: &str| {
        let answer = client.get_with("/user", &[("x-user", user)]).await;
        answer.expect("an answer").status
    };
    assert_eq!(status("ann").await, 200);
    assert_eq!(status("ann").await, 429);
    assert_eq!(status("ben").await, 200);
    assert_eq!(status("ben").await, 429);
}

#[tokio::test]
async fn a_client_is_told_by_its_address_which_only_a_trusted_proxy_may_say() {
    for (trusted, first, second) in [
        ("[127.0.0.0/8, 10.0.0.0/8]", 200, 200),
        ("[10.0.0.0/8]", 200, 429),
    ] {
        let mesh = Mesh::new();
        let service = Service::start("shop").await;
        let bootstrap = format!("trusted_networks: {trusted}\n");
        let documents = |address| documents(address, &service);
        let gateway = mesh.gateway_with(&bootstrap, documents).await;
        let mut client = client(&gateway);
        let mut status = async |forwarded: &str| {
            let fields = [("x-forwarded-for", forwarded)];
            let answer = client.get_with("/source", &fields).await;
            answer.expect("an answer").status
        };
        assert_eq!(status("198.51.100.1").await, first);
        // What the client itself has put before is not believed; 10.0.0.7 is a proxy between.
        assert_eq!(status("198.51.100.1, 198.51.100.2, 10.0.0.7").await, second);
        assert_eq!(status("203.0.113.9, 198.51.100.2").await, 429);
    }
}

#[tokio::test]
async fn a_rate_is_kept_over_a_reload_of_other_documents() {
    let mesh = Mesh::new();
    let service = Service::start("shop").await;
    let gateway = mesh.gateway(|address| documents(address, &service)).await;
    let mut client = client(&gateway);
    assert_eq!(client.get("/user").await.expect("an answer").status, 200);
    let more = "kind: HTTPRoute\nname: new\nhostnames: [new.test]\n\
                rules: [{filters: [{type: DirectResponse, directResponse: {statusCode: 204}}]}]\n";
    let documents = documents(gateway.gateway, &service);
    mesh.write("mesh.yaml", &(documents + more));
    let mut probe = Client::new(Target::direct(gateway.gateway, "new.test"));
    eventually("the new document is in effect", async || {
        let answer = probe.get("/").await.expect("an answer");
        (answer.status == 204).then_some(())
    })
    .await;
    assert_eq!(client.get("/user").await.expect("an answer").status, 429);
}

#[tokio::test]
async fn a_body_that_is_too_long_is_refused_whether_it_says_so_or_not() {
    let (_mesh, service, gateway) = shop().await;
    let mut client = client(&gateway);
    let mut post = async |length: usize| {
        let body = "x".repeat(length);
        let answer = client.send(Method::POST, "/size", &body).await;
        answer.expect("an answer").status
    };
    assert_eq!(post(1024).await, 200);
    assert_eq!(post(1025).await, 413);
    assert_eq!(service.asked(), 1);
    for (length, status) in [(1024, 200), (1025, 413), (500_000, 413)] {
        let answer = chunked(gateway.gateway, length).await;
        assert!(answer.contains(&format!("HTTP/1.1 {status} ")), "{answer}");
    }
}

/// The answer to a POST whose body has this length, which its head does not say.
async fn chunked(gateway: SocketAddr, length: usize) -> String {
    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    let stream = tokio::net::TcpStream::connect(gateway).await;
    let (mut reader, mut writer) = stream.expect("the gateway listens").into_split();
    let send = async {
        let head = "POST /size HTTP/1.1\r\nhost: shop.test\r\ntransfer-encoding: chunked\r\nconnection: close\r\n\r\n";
        // The proxy need not read on once it has refused.
        let _ = writer.write_all(head.as_bytes()).await;
        for start in (0..length).step_by(512) {
            let chunk = "x".repeat((length - start).min(512));
            let chunk = format!("{:x}\r\n{chunk}\r\n", chunk.len());
            let _ = writer.write_all(chunk.as_bytes()).await;
        }
        let _ = writer.write_all(b"0\r\n\r\n").await;
    };
    let mut answer = Vec::new();
    let receive = async {
        // An end by reset follows the answer where the body is not read.
        let _ = reader.read_to_end(&mut answer).await;
    };
    tokio::join!(send, receive);
    String::from_utf8_lossy(&answer).into_owned()
}

#[tokio::test]
async fn requests_are_refused_and_delayed_on_purpose() {
    let (_mesh, service, gateway) = shop().await;
    let mut client = client(&gateway);
    let mut get = async |fields: &[(&str, &str)]| -> (Answer, Duration) {
        let began = Instant::now();
        let answer = client.get_with("/fault", fields).await;
        (answer.expect("an answer"), began.elapsed())
    };
    let (answer, _) = get(&[]).await;
    assert_eq!((answer.status, &*answer.body), (200, "shop"));
    let (answer, _) = get(&[("x-abort", "418")]).await;
    assert_eq!(answer.status, 418);
    assert!(
        answer.body.contains("a fault is injected"),
        "{}",
        answer.body
    );
    let (answer, took) = get(&[("x-delay", "150ms")]).await;
    assert_eq!(answer.status, 200);
    assert!(took >= Duration::from_millis(150), "{took:?}");
    let (answer, took) = get(&[("x-delay", "150ms"), ("x-abort", "503")]).await;
    assert_eq!(answer.status, 503);
    assert!(took >= Duration::from_millis(150), "{took:?}");
    // The route gives a request one second.
    let (answer, took) = get(&[("x-delay", "30s")]).await;
    assert_eq!(answer.status, 504);
    assert!(took < Duration::from_secs(20), "{took:?}");
    assert_eq!(service.asked(), 2);
}

#[tokio::test]
async fn a_share_of_requests_meets_a_fault() {
    let (_mesh, service, gateway) = shop().await;
    let mut client = client(&gateway);
    for _ in 0..1_000 {
        let answer = client.get("/share").await.expect("an answer");
        assert!(matches!(answer.status, 200 | 503), "{}", answer.status);
    }
    // 30 % of 1,000 with a standard deviation of 14.5; six of them either way never fail by chance.
    let met = 1_000 - service.asked();
    assert!((213..387).contains(&met), "{met}");
}

fn documents(gateway: SocketAddr, shop: &Service) -> String {
    let rules = [
        (
            "/rate",
            "{type: RateLimit, rateLimit: {requests: 3, per: 1h}}",
        ),
        (
            "/user",
            "{type: RateLimit, rateLimit: {requests: 1, per: 1h, key: {header: x-user}}}",
        ),
        (
            "/source",
            "{type: RateLimit, rateLimit: {requests: 1, per: 1h, key: source}}",
        ),
        (
            "/size",
            "{type: RequestSizeLimit, requestSizeLimit: {max: 1KiB}}",
        ),
        (
            "/fault",
            "{type: FaultInjection, faultInjection: {delay: {header: x-delay}, abort: {header: x-abort}}}",
        ),
        (
            "/share",
            "{type: FaultInjection, faultInjection: {abort: {statusCode: 503, percent: 30%}}}",
        ),
    ];
    let rules = rules.map(|(path, filter)| {
        let rest = format!(
            "filters: [{filter}], timeouts: {{request: 1s}}, backendRefs: [{{name: shop, port: 80}}]"
        );
        below(path, &rest)
    });
    edge(gateway) + &route("shop", &rules) + &service("shop", &[shop.address])
}
