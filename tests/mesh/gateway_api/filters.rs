//! Filters of HTTPRoute, retries, and the protocols of backends.

use hyper::Method;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};

use super::{Shop, gateway, http_listener, route};
use crate::harness::{Answer, Client, Mesh, Target, eventually};

/// A rule for what is below a path: its filters, and the rest of it.
fn rule(path: &str, filters: &[&str], rest: &str) -> String {
    let filters = filters.join(", ");
    format!(
        "{{matches: [{{path: {{type: PathPrefix, value: {path}}}}}], filters: [{filters}]{rest}}}"
    )
}

fn rules(rules: &[String]) -> String {
    route(
        "HTTPRoute",
        "filters",
        &format!("rules: [{}]", rules.join(", ")),
    )
}

const TO_A: &str = ", backendRefs: [{name: a, port: 80}]";

fn client(shop: &Shop, host: &str) -> Client {
    Client::new(Target::direct(shop.gateway.gateway, host))
}

fn field<'a>(answer: &'a Answer, name: &str) -> &'a str {
    let value = answer.headers.get(name).map(|value| value.to_str());
    value.unwrap_or(Ok("")).expect("text")
}

#[tokio::test]
async fn redirects_change_what_they_name_and_keep_the_rest() {
    let redirect = |path: &str, what: &str| {
        let filter = format!("{{type: RequestRedirect, requestRedirect: {{{what}}}}}");
        rule(path, &[&filter], "")
    };
    let statuses = [301, 302, 303, 307, 308];
    let by_status = statuses.map(|status| {
        redirect(
            &format!("/{status}"),
            &format!("hostname: new.test, port: 8443, statusCode: {status}"),
        )
    });
    let others = [
        redirect("/scheme", "scheme: https"),
        redirect("/scheme-port", "scheme: https, port: 8443"),
        redirect("/host", "hostname: new.test, port: 80"),
        redirect(
            "/prefix",
            "hostname: new.test, port: 80, path: {type: ReplacePrefixMatch, replacePrefixMatch: /other}",
        ),
        redirect(
            "/full",
            "hostname: new.test, port: 80, path: {type: ReplaceFullPath, replaceFullPath: /one}",
        ),
    ];
    let shop = Shop::start(&rules(&[&by_status[..], &others[..]].concat())).await;
    let mut client = client(&shop, "shop.test");
    for status in statuses {
        let answer = client.get(&format!("/{status}/x?a=b")).await.expect("one");
        let location = format!("http://new.test:8443/{status}/x?a=b");
        assert_eq!(
            (answer.status, field(&answer, "location")),
            (status, &*location)
        );
    }
    for (path, location) in [
        ("/scheme/x", "https://shop.test/scheme/x"),
        ("/scheme-port/x", "https://shop.test:8443/scheme-port/x"),
        ("/host", "http://new.test/host"),
        ("/prefix/a/b?c", "http://new.test/other/a/b?c"),
        ("/prefix", "http://new.test/other"),
        ("/full/a/b?c", "http://new.test/one?c"),
    ] {
        let answer = client.get(path).await.expect("an answer");
        assert_eq!(
            (answer.status, field(&answer, "location")),
            (302, location),
            "{path}"
        );
    }
}

#[tokio::test]
async fn rewrites_are_what_the_backend_is_asked_for() {
    let rewrite = |path: &str, what: &str| {
        let filter = format!("{{type: URLRewrite, urlRewrite: {{{what}}}}}");
        rule(path, &[&filter], TO_A)
    };
    let shop = Shop::start(&rules(&[
        rewrite("/host", "hostname: one.internal"),
        rewrite(
            "/prefix/one",
            "path: {type: ReplacePrefixMatch, replacePrefixMatch: /two}",
        ),
        rewrite(
            "/strip",
            "path: {type: ReplacePrefixMatch, replacePrefixMatch: /}",
        ),
        rewrite(
            "/full",
            "hostname: one.internal, path: {type: ReplaceFullPath, replaceFullPath: /three}",
        ),
    ]))
    .await;
    let mut client = client(&shop, "shop.test");
    for (path, asked, host) in [
        ("/host/a", "GET /host/a", "one.internal"),
        ("/prefix/one/a?b", "GET /two/a?b", "shop.test"),
        ("/prefix/one", "GET /two", "shop.test"),
        ("/strip/a", "GET /a", "shop.test"),
        ("/strip", "GET /", "shop.test"),
        ("/full/a/b?c", "GET /three?c", "one.internal"),
    ] {
        let answer = client.get_with(path, &[("x-echo", "1")]).await;
        let seen = answer.expect("an answer").body;
        assert_eq!(seen.lines().next(), Some(asked), "{path}");
        assert!(
            seen.contains(&format!("\nhost: {host}\n")),
            "{path}: {seen}"
        );
    }
}

#[tokio::test]
async fn several_mirrors_get_copies_by_percent_and_fraction() {
    let mirror = |to: &str, share: &str| {
        format!(
            "{{type: RequestMirror, requestMirror: {{backendRef: {{name: {to}, port: 80}}{share}}}}}"
        )
    };
    let (all, half) = (
        mirror("b", ""),
        mirror("c", ", fraction: {numerator: 1, denominator: 2}"),
    );
    let (none, percent) = (mirror("b", ", percent: 0"), mirror("c", ", percent: 100"));
    let shop = Shop::start(&rules(&[
        rule("/both", &[&all, &half], TO_A),
        rule("/percent", &[&none, &percent], TO_A),
    ]))
    .await;
    let [a, b, c] = &shop.backends;
    let mut client = client(&shop, "shop.test");
    for _ in 0..100 {
        let answer = client.get("/both").await.expect("an answer");
        assert_eq!((answer.status, &*answer.body), (200, "a"));
    }
    eventually("all are copied to b", async || {
        (b.asked() == 100).then_some(())
    })
    .await;
    // Half of them, with a standard deviation of 5: eight of those never happen.
    eventually("some are copied to c", async || {
        (c.asked() >= 10).then_some(())
    })
    .await;
    assert!(c.asked() <= 90, "{}", c.asked());
    let before = c.asked();
    for _ in 0..20 {
        client.get("/percent").await.expect("an answer");
    }
    eventually("all are copied to c", async || {
        (c.asked() >= before + 20).then_some(())
    })
    .await;
    assert_eq!((a.asked(), b.asked()), (120, 100));
}

#[tokio::test]
async fn scripts_of_allowed_origins_may_ask() {
    let cors = "{type: CORS, cors: {allowOrigins: ['https://web.test', 'https://*.shop.test'], allowMethods: [GET, PUT], \
                allowHeaders: [x-token], exposeHeaders: [x-answer], allowCredentials: true, maxAge: 600}}";
    let shop = Shop::start(&rules(&[rule("/", &[cors], TO_A)])).await;
    let mut client = client(&shop, "shop.test");
    for (origin, allowed) in [
        ("https://web.test", true),
        ("https://a.shop.test", true),
        ("https://other.test", false),
        ("http://web.test", false),
    ] {
        let preflight = [
            ("origin", origin),
            ("access-control-request-method", "PUT"),
            ("access-control-request-headers", "x-token"),
        ];
        let answer = client
            .send_with(Method::OPTIONS, "/a", &preflight, "")
            .await;
        let answer = answer.expect("an answer");
        let told = if allowed { origin } else { "" };
        assert_eq!(field(&answer, "access-control-allow-origin"), told);
        if allowed {
            assert!(field(&answer, "access-control-allow-methods").contains("PUT"));
            assert_eq!(field(&answer, "access-control-allow-headers"), "x-token");
            assert_eq!(field(&answer, "access-control-allow-credentials"), "true");
            assert_eq!(field(&answer, "access-control-max-age"), "600");
        }
        let answer = client.get_with("/a", &[("origin", origin)]).await;
        let answer = answer.expect("an answer");
        assert_eq!((answer.status, &*answer.body), (200, "a"));
        assert_eq!(field(&answer, "access-control-allow-origin"), told);
        let exposed = if allowed { "x-answer" } else { "" };
        assert_eq!(field(&answer, "access-control-expose-headers"), exposed);
    }
}

#[tokio::test]
async fn answers_of_some_codes_are_tried_again() {
    let retry = |path: &str, what: &str| {
        rule(
            path,
            &[],
            &format!("{TO_A}, retry: {{{what}, backoff: 1ms}}"),
        )
    };
    let shop = Shop::start(&rules(&[
        retry("/twice", "attempts: 2, codes: [503]"),
        retry("/other", "attempts: 2, codes: [500, 504]"),
    ]))
    .await;
    let [a, ..] = &shop.backends;
    a.fails(true);
    let mut client = client(&shop, "shop.test");
    for (path, times) in [("/twice", 3), ("/other", 1)] {
        let before = a.asked();
        let answer = client.get(path).await.expect("an answer");
        assert_eq!((answer.status, a.asked() - before), (503, times), "{path}");
    }
}

/// A service whose one endpoint is this listener's, of a protocol.
fn backend(listener: &TcpListener, protocol: &str) -> String {
    let port = listener.local_addr().expect("bound").port();
    format!(
        "apiVersion: v1\nkind: Service\nmetadata: {{name: one, namespace: shop}}\n\
         spec: {{ports: [{{name: main, port: 80, targetPort: {port}, appProtocol: {protocol}}}]}}\n---\n\
         apiVersion: discovery.k8s.io/v1\nkind: EndpointSlice\n\
         metadata: {{name: one-1, namespace: shop, labels: {{kubernetes.io/service-name: one}}}}\n\
         addressType: IPv4\nports: [{{name: main, port: {port}}}]\nendpoints: [{{addresses: [127.0.0.1]}}]\n---\n"
    )
}

/// What a backend of this protocol is asked in one connection of a client, and what it answers.
async fn spoken(protocol: &str, asked: &[u8], begins: &[u8], answer: &[u8]) -> Vec<u8> {
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
    let mesh = Mesh::new();
    let gateway = mesh
        .gateway(|address| {
            gateway(address, &[http_listener(address)])
                + &rules(&[rule("/", &[], ", backendRefs: [{name: one, port: 80}]")])
                + &backend(&listener, protocol)
        })
        .await;
    let mut client = TcpStream::connect(gateway.gateway)
        .await
        .expect("connected");
    client.write_all(asked).await.expect("sent");
    let (mut backend, _) = listener.accept().await.expect("the backend is called");
    let mut head = vec![0; begins.len()];
    backend.read_exact(&mut head).await.expect("a request");
    assert_eq!(head, begins, "{protocol}");
    if answer.is_empty() {
        return Vec::new();
    }
    // The rest of the head.
    let mut last = [0; 4];
    while last != *b"\r\n\r\n" {
        last.rotate_left(1);
        last[3] = backend.read_u8().await.expect("a head");
    }
    backend.write_all(answer).await.expect("answered");
    let mut status = vec![0; 12];
    client.read_exact(&mut status).await.expect("an answer");
    let mut last = [0; 4];
    while last != *b"\r\n\r\n" {
        last.rotate_left(1);
        last[3] = client.read_u8().await.expect("a head");
    }
    // Both ways from now on, in whatever protocol.
    client.write_all(b"ping").await.expect("sent");
    let mut ping = [0; 4];
    backend.read_exact(&mut ping).await.expect("a ping");
    backend.write_all(b"pong").await.expect("sent");
    let mut pong = vec![0; 4];
    client.read_exact(&mut pong).await.expect("a pong");
    assert_eq!((&ping, &pong[..]), (b"ping", &b"pong"[..]));
    status
}

#[tokio::test]
async fn a_backend_is_spoken_to_as_its_port_says() {
    let plain = b"GET / HTTP/1.1\r\nhost: shop.test\r\n\r\n";
    spoken(
        "kubernetes.io/h2c",
        plain,
        b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n",
        b"",
    )
    .await;
    let socket = b"GET / HTTP/1.1\r\nhost: shop.test\r\nconnection: upgrade\r\nupgrade: websocket\r\n\
                   sec-websocket-version: 13\r\nsec-websocket-key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n";
    let switched =
        b"HTTP/1.1 101 Switching Protocols\r\nconnection: upgrade\r\nupgrade: websocket\r\n\
                     sec-websocket-accept: s3pPLMBiTxaQ9kYGzzhZRbK+xOo=\r\n\r\n";
    let status = spoken("kubernetes.io/ws", socket, b"GET / HTTP/1.1\r\n", switched).await;
    assert_eq!(status, b"HTTP/1.1 101");
}
