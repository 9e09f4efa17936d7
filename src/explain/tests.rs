//! Questions about documents, and what is told.

use super::*;
use crate::config::{Loader, Source};

const MESH: &str = "
kind: Gateway
name: edge
address: 127.0.0.1
listeners:
  - {name: web, port: 80, protocol: HTTP}
  - {name: shop, port: 80, protocol: HTTP, hostname: shop.test}
---
kind: HTTPRoute
name: shop
parentRefs: [{name: edge, sectionName: shop}]
rules:
  - name: testers
    matches: [{path: {value: /cart}, headers: [{name: x-tester, value: 'yes'}]}]
    filters:
      - {type: RequestHeaderModifier, requestHeaderModifier: {set: [{name: x-a, value: new}], remove: [x-tester]}}
      - {type: URLRewrite, urlRewrite: {path: {type: ReplacePrefixMatch, replacePrefixMatch: /basket}}}
    backendRefs: [{name: cart, port: 80, weight: 3}, {name: missing, weight: 1}]
    timeouts: {request: 2s}
    retry: {attempts: 2, codes: [503]}
  - matches: [{path: {value: /old}}]
    filters: [{type: RequestRedirect, requestRedirect: {hostname: new.test}}]
  - matches: [{path: {value: /nobody}}]
    backendRefs: [{name: cart, port: 80, weight: 0}]
---
kind: HTTPRoute
name: orders
namespace: shop
parentRefs: [{kind: Service, name: orders}]
rules: [{matches: [{method: GET}], backendRefs: [{name: orders, port: 80}]}]
---
kind: Service
name: cart
ports: [{port: 80}]
balance: least_request
endpoints: [{address: '10.0.0.1:80', weight: 2, zone: a}]
---
{kind: Service, name: orders, namespace: shop, ports: [{port: 80}]}
---
{kind: Service, name: plain, namespace: shop, ports: [{port: 81}]}
";

fn asked(request: &str, headers: &[&str], from: Option<&str>) -> Explained {
    let sources = [Source::file("mesh.yaml", MESH)];
    let snapshot = Loader::new().load(&sources).expect("usable").snapshot;
    let asked = Asked {
        request: request.to_owned(),
        headers: headers.iter().map(|header| header.to_string()).collect(),
        from: from.map(str::to_owned),
        gateway: None,
    };
    let known = Known {
        endpoints: &|key| documented(&snapshot, key),
        interfaces: true,
    };
    asked
        .explain(&snapshot, "default", known)
        .expect("a question")
}

#[test]
fn a_rule_tells_its_filters_its_split_and_what_backends_are_asked_for() {
    let told = asked("http://shop.test/cart/7?b=1", &["X-Tester: yes"], None);
    let text = told.to_string();
    for line in [
        "listener default/edge/shop on 127.0.0.1:80, for shop.test",
        "=>       HTTPRoute default/shop/testers: path /cart/…, header x-tester = yes",
        "filter   RequestHeaderModifier: + x-a: new",
        "filter   RequestHeaderModifier: - x-tester: yes",
        "filter   URLRewrite: path: /cart/7?b=1 -> /basket/7?b=1",
        "timeout  2000 ms",
        "retry    2 retries",
        "75.0 % default/cart:80, asked for GET /basket/7?b=1 as shop.test",
        "balance  least_request",
        "10.0.0.1:80 weight 2, zone a",
        "25.0 % answered 500: there is no service or subset default/missing",
    ] {
        assert!(text.contains(line), "{line}\n{text}");
    }
}

#[test]
fn who_loses_is_told_why() {
    let told = asked("http://shop.test/cart", &["x-tester: no"], None);
    let whys: Vec<&str> = told.candidates.iter().map(|one| one.why.as_str()).collect();
    assert_eq!(
        whys,
        [
            "header x-tester is `no`",
            "its path is another",
            "its path is another"
        ]
    );
    let Outcome::Refused { status: 404, .. } = told.outcome else {
        panic!("{told}");
    };
}

#[test]
fn what_a_filter_answers_is_told_as_it_would_be() {
    let told = asked("http://shop.test/old/x?y", &[], None);
    let expected = Outcome::Answered {
        status: 302,
        location: Some("http://new.test/old/x?y".to_owned()),
        filter: "RequestRedirect".to_owned(),
    };
    assert_eq!(told.outcome, expected);
    let told = asked("http://shop.test/nobody", &[], None);
    assert!(matches!(told.outcome, Outcome::Refused { status: 500, .. }));
    let told = asked("http://shop.test/cart%00", &[], None);
    assert!(
        matches!(told.outcome, Outcome::Refused { status: 400, .. }),
        "{told}"
    );
}

#[test]
fn a_sidecar_goes_by_routes_of_the_service_or_to_the_service() {
    let told = asked("http://orders/x", &[], Some("shop"));
    let at = |service: &str, routes| At::Sidecar {
        namespace: "shop".to_owned(),
        service: Some(service.to_owned()),
        routes,
    };
    assert_eq!(told.at, at("shop/orders", Some("parentRefs")));
    assert_eq!(told.backends[0].cluster.as_deref(), Some("shop/orders:80"));
    let told = asked("POST http://orders/x", &[], Some("shop"));
    assert!(matches!(told.outcome, Outcome::Refused { status: 404, .. }));
    let told = asked("http://plain.shop.svc.cluster.local:9/x", &[], Some("shop"));
    assert_eq!(told.at, at("shop/plain", None));
    assert_eq!(told.backends[0].cluster.as_deref(), Some("shop/plain:81"));
    let told = asked("http://elsewhere.test/", &[], Some("shop"));
    assert_eq!(told.outcome, Outcome::Outside);
}

#[test]
fn without_a_standpoint_the_gateway_is_asked_first() {
    let told = asked("http://orders.shop/x", &[], None);
    // The listener `web` is for every host.
    assert!(matches!(told.at, At::Gateway { .. }), "{told}");
    let told = asked("https://orders.shop/x", &[], None);
    assert!(matches!(told.at, At::Sidecar { .. }), "{told}");
    let told = asked("https://elsewhere.test/", &[], None);
    assert!(matches!(told.at, At::Nowhere { .. }), "{told}");
}

#[test]
fn the_operation_that_serves_a_request_is_told() {
    let file = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("config/interfaces.yaml");
    let sources = crate::config::source::read(&file).expect("the example");
    let snapshot = Loader::new().load(&sources).expect("usable").snapshot;
    let ask = |request: &str, interfaces| {
        let asked = Asked {
            request: request.to_owned(),
            ..Asked::default()
        };
        let known = Known {
            endpoints: &|key| documented(&snapshot, key),
            interfaces,
        };
        let told = asked.explain(&snapshot, "default", known);
        told.expect("a question").backends[0].operation.clone()
    };
    for (request, expected) in [
        (
            "http://shop.example.com/v1/carts/7?a=b",
            "GET /carts/{id}, getCart",
        ),
        (
            "PUT http://shop.example.com/v1/carts/7",
            "no operation serves this; there are GET /carts/{id}, GET /carts, POST /carts",
        ),
        (
            "POST http://stock.example.com/shop.stock.v1.Stock/Reserve",
            "POST /shop.stock.v1.Stock/Reserve",
        ),
    ] {
        assert_eq!(ask(request, true).as_deref(), Some(expected));
        assert_eq!(ask(request, false), None);
    }
}

#[test]
fn a_request_meets_the_endpoints_of_its_lane() {
    let mesh = "
kind: Service
name: web
ports: [{port: 80}]
gray: {header: x-lane}
endpoints: [{address: '10.0.0.1:80'}, {address: '10.0.0.2:80', labels: {lane: blue}}]
";
    let sources = [Source::file("mesh.yaml", mesh)];
    let snapshot = Loader::new().load(&sources).expect("usable").snapshot;
    let told = |header: &str| {
        let asked = Asked {
            request: "http://web/".to_owned(),
            headers: vec![header.to_owned()],
            ..Asked::default()
        };
        let known = Known {
            endpoints: &|key| documented(&snapshot, key),
            interfaces: false,
        };
        let told = asked.explain(&snapshot, "default", known);
        let backend = told.expect("a question").backends.remove(0);
        let endpoints = backend.endpoints.into_iter().map(|one| one.address);
        (backend.lane.expect("lanes"), endpoints.collect::<Vec<_>>())
    };
    let base = vec!["10.0.0.1:80".to_owned()];
    assert_eq!(told("x-other: blue"), ("none".to_owned(), base.clone()));
    assert_eq!(
        told("x-lane: blue"),
        ("blue".to_owned(), vec!["10.0.0.2:80".to_owned()])
    );
    let missing = "red, which nobody serves here: those without a lane do";
    assert_eq!(told("x-lane: red"), (missing.to_owned(), base));
}
