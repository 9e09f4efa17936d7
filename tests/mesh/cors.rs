use std::net::SocketAddr;

use hyper::header::HeaderMap;

use crate::harness::documents::{below, edge, route, service};
use crate::harness::{Answer, Client, Mesh, Service, Target};

const ALLOW_ORIGIN: &str = "access-control-allow-origin";

#[tokio::test]
async fn a_preflight_is_answered_and_no_backend_sees_it() {
    let mesh = Mesh::new();
    let service = Service::start("shop").await;
    let gateway = mesh.gateway(|address| documents(address, &service)).await;
    let mut client = Client::new(Target::direct(gateway.gateway, "shop.test"));
    for origin in [
        "https://www.foo.com",
        "https://www.bar.com",
        "https://x.y.bar.com",
    ] {
        let answer = preflight(&mut client, "/listed", origin).await;
        assert_eq!(answer.status, 200, "{origin}");
        let expected = [
            (ALLOW_ORIGIN, origin),
            ("access-control-allow-methods", "GET, OPTIONS"),
            ("access-control-allow-headers", "x-header-1, x-header-2"),
            ("access-control-expose-headers", "x-header-3, x-header-4"),
            ("access-control-max-age", "3600"),
            ("access-control-allow-credentials", "true"),
            ("vary", "Origin"),
            ("content-length", "0"),
        ];
        expect(&answer.headers, &expected);
    }
    for origin in ["https://foobar.com", "https://bar.com", "null"] {
        let answer = preflight(&mut client, "/listed", origin).await;
        assert!(!answer.headers.contains_key(ALLOW_ORIGIN), "{origin}");
        assert_eq!(answer.status, 200, "{origin}");
    }
    assert_eq!(service.asked(), 0);
}

#[tokio::test]
async fn a_star_is_sent_without_credentials_and_never_with_them() {
    let mesh = Mesh::new();
    let service = Service::start("shop").await;
    let gateway = mesh.gateway(|address| documents(address, &service)).await;
    let mut client = Client::new(Target::direct(gateway.gateway, "shop.test"));
    let answer = preflight(&mut client, "/any", "https://a.com:12345").await;
    let stars = [
        (ALLOW_ORIGIN, "*"),
        ("access-control-allow-methods", "*"),
        ("access-control-allow-headers", "*"),
        ("access-control-max-age", "5"),
    ];
    expect(&answer.headers, &stars);
    assert!(!answer.headers.contains_key("vary"));
    let credentials = "access-control-allow-credentials";
    assert!(!answer.headers.contains_key(credentials));

    let answer = preflight(&mut client, "/any-with-credentials", "https://a.com").await;
    let asked = [
        (ALLOW_ORIGIN, "https://a.com"),
        ("access-control-allow-methods", "PUT"),
        ("access-control-allow-headers", "x-header-1, x-header-2"),
        (credentials, "true"),
    ];
    expect(&answer.headers, &asked);
}

#[tokio::test]
async fn every_other_request_reaches_the_backend_and_its_answer_tells() {
    let mesh = Mesh::new();
    let service = Service::start("shop").await;
    let gateway = mesh.gateway(|address| documents(address, &service)).await;
    let mut client = Client::new(Target::direct(gateway.gateway, "shop.test"));
    let mut get = async |origin: Option<&str>| {
        let fields = origin.map(|origin| ("origin", origin));
        let answer = client.get_with("/listed", fields.as_slice()).await;
        answer.expect("the gateway answers")
    };
    let allowed = get(Some("https://www.foo.com")).await;
    expect(&allowed.headers, &[(ALLOW_ORIGIN, "https://www.foo.com")]);
    for origin in [Some("https://evil.org"), None] {
        let answer = get(origin).await;
        assert_eq!((answer.status, &*answer.body), (200, "shop"));
        assert!(!answer.headers.contains_key(ALLOW_ORIGIN), "{origin:?}");
        expect(&answer.headers, &[("vary", "Origin")]);
    }
    assert_eq!(service.asked(), 3);
}

/// Otherwise the browser tells the script nothing but that something went wrong.
#[tokio::test]
async fn scripts_may_read_what_the_proxy_itself_answers() {
    let mesh = Mesh::new();
    let service = Service::start("shop").await;
    let gateway = mesh.gateway(|address| documents(address, &service)).await;
    let mut client = Client::new(Target::direct(gateway.gateway, "shop.test"));
    let origin = [("origin", "https://www.foo.com")];
    let answer = client.get_with("/nobody", &origin).await;
    let answer = answer.expect("the gateway answers");
    assert_eq!(answer.status, 503);
    expect(&answer.headers, &[(ALLOW_ORIGIN, "https://www.foo.com")]);
}

async fn preflight(client: &mut Client, path: &str, origin: &str) -> Answer {
    let fields = [
        ("origin", origin),
        ("access-control-request-method", "PUT"),
        ("access-control-request-headers", "x-header-1, x-header-2"),
    ];
    let method = "OPTIONS".parse().expect("a method");
    let answer = client.send_with(method, path, &fields, "").await;
    answer.expect("the gateway answers")
}

fn expect(headers: &HeaderMap, expected: &[(&str, &str)]) {
    for (name, value) in expected {
        let found = headers.get_all(*name).iter().collect::<Vec<_>>();
        assert_eq!(found, [value], "{name}");
    }
}

fn documents(gateway: SocketAddr, shop: &Service) -> String {
    let listed = "allowOrigins: [https://www.foo.com, 'https://*.bar.com'], allowMethods: [GET, OPTIONS], \
                  allowHeaders: [x-header-1, x-header-2], exposeHeaders: [x-header-3, x-header-4], \
                  allowCredentials: true, maxAge: 3600";
    let any = "allowOrigins: ['*'], allowMethods: ['*'], allowHeaders: ['*']";
    let with_credentials = format!("{any}, allowCredentials: true");
    let rules = [
        ("/listed", listed, "shop"),
        ("/any", any, "shop"),
        ("/any-with-credentials", &with_credentials, "shop"),
        ("/nobody", listed, "nobody"),
    ];
    let rules = rules.map(|(path, cors, backend)| {
        let rest = format!(
            "filters: [{{type: CORS, cors: {{{cors}}}}}], backendRefs: [{{name: {backend}, port: 80}}]"
        );
        below(path, &rest)
    });
    [
        edge(gateway),
        route("shop", &rules),
        service("shop", &[shop.address]),
        service("nobody", &[]),
    ]
    .concat()
}
