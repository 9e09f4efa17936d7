use std::collections::HashMap;

use hyper::Method;

use super::{Shop, backends, created_route, gateway, http_listener, route, rule};
use crate::harness::{Client, Mesh, Service, Target};

/// One request, and who answers: a backend's name, or the status of who does not.
type Asked = (
    &'static str,
    &'static [(&'static str, &'static str)],
    &'static str,
);

async fn answered(client: &mut Client, method: &str, asked: &Asked) -> String {
    let (path, headers, _) = asked;
    let method = Method::from_bytes(method.as_bytes()).expect("a method");
    let answer = client.send_with(method, path, headers, "").await;
    let answer = answer.expect("the gateway answers");
    match answer.status {
        200 => answer.body,
        status => status.to_string(),
    }
}

/// Requests of `shop.test` to a gateway with these documents and the backends `a`, `b` and `c`.
async fn expect(documents: &str, requests: &[(&str, Asked)]) {
    let shop = Shop::start(documents).await;
    let mut client = Client::new(Target::direct(shop.gateway.gateway, "shop.test"));
    for (method, asked) in requests {
        let answer = answered(&mut client, method, asked).await;
        assert_eq!(answer, asked.2, "{method} {} {:?}", asked.0, asked.1);
    }
}

fn rules(rules: &[String]) -> String {
    format!("rules: [{}]", rules.join(", "))
}

#[tokio::test]
async fn paths_match_exactly_by_whole_elements_or_by_expression() {
    let spec = rules(&[
        rule("{path: {type: Exact, value: /one}}", "a"),
        rule("{path: {type: PathPrefix, value: /one/two/}}", "b"),
        rule(
            "{path: {type: RegularExpression, value: '/v[0-9]+/.*'}}",
            "c",
        ),
    ]);
    let requests = [
        ("GET", ("/one", [].as_slice(), "a")),
        ("GET", ("/one/", &[], "404")),
        ("GET", ("/ONE", &[], "404")),
        ("GET", ("/one?query", &[], "a")),
        ("GET", ("/one/two", &[], "b")),
        ("GET", ("/one/two/three", &[], "b")),
        ("GET", ("/one/twofold", &[], "404")),
        ("GET", ("/v12/x", &[], "c")),
        ("GET", ("/v/x", &[], "404")),
    ];
    expect(&route("HTTPRoute", "paths", &spec), &requests).await;
}

#[tokio::test]
async fn methods_headers_and_queries_match() {
    let spec = rules(&[
        rule("{method: POST}", "a"),
        rule(
            "{headers: [{name: X-Colour, value: blue}, {name: x-size, type: RegularExpression, value: '[0-9]+'}]}",
            "b",
        ),
        rule("{queryParams: [{name: animal, value: whale}]}", "c"),
        rule(
            "{queryParams: [{name: animal, type: RegularExpression, value: 'd.*'}]}, {headers: [{name: version, value: two}]}",
            "a",
        ),
    ]);
    let requests = [
        ("POST", ("/", [].as_slice(), "a")),
        ("GET", ("/", &[("x-colour", "blue"), ("X-SIZE", "12")], "b")),
        ("GET", ("/", &[("x-colour", "blue")], "404")),
        (
            "GET",
            ("/", &[("x-colour", "Blue"), ("x-size", "12")], "404"),
        ),
        (
            "GET",
            ("/", &[("x-colour", "blue"), ("x-size", "12 m")], "404"),
        ),
        ("GET", ("/?animal=whale", &[], "c")),
        ("GET", ("/?Animal=whale", &[], "404")),
        ("GET", ("/?animal=dolphin&animal=whale", &[], "a")),
        ("GET", ("/?animal=whales", &[], "404")),
        ("GET", ("/", &[("version", "two")], "a")),
    ];
    expect(&route("HTTPRoute", "conditions", &spec), &requests).await;
}

#[tokio::test]
async fn the_first_difference_of_the_standards_list_decides() {
    let spec = rules(&[
        rule("{path: {type: PathPrefix, value: /a}}", "a"),
        rule("{path: {type: PathPrefix, value: /a/longer}}", "b"),
        rule("{path: {type: Exact, value: /a/longer}}", "c"),
        rule(
            "{path: {value: /m}, headers: [{name: x-one, value: '1'}, {name: x-two, value: '2'}]}",
            "a",
        ),
        rule("{path: {value: /m}, method: GET}", "b"),
        rule(
            "{path: {value: /h}, queryParams: [{name: p, value: '1'}, {name: q, value: '1'}]}",
            "a",
        ),
        rule(
            "{path: {value: /h}, headers: [{name: x-one, value: '1'}]}",
            "b",
        ),
        rule(
            "{path: {value: /q}, queryParams: [{name: p, value: '1'}]}",
            "a",
        ),
        rule(
            "{path: {value: /q}, queryParams: [{name: p, value: '1'}, {name: q, value: '1'}]}",
            "b",
        ),
        rule("{path: {value: /first}}", "c"),
        rule("{path: {value: /first}}", "a"),
    ]);
    let both = [("x-one", "1"), ("x-two", "2")].as_slice();
    let requests = [
        ("GET", ("/a/longer", [].as_slice(), "c")),
        ("GET", ("/a/longer/x", &[], "b")),
        ("GET", ("/a/long", &[], "a")),
        // A method comes before any number of headers.
        ("GET", ("/m", both, "b")),
        ("PUT", ("/m", both, "a")),
        // Headers come before any number of queries.
        ("GET", ("/h?p=1&q=1", both, "b")),
        ("GET", ("/h?p=1&q=1", &[], "a")),
        ("GET", ("/q?p=1&q=1", &[], "b")),
        ("GET", ("/q?p=1", &[], "a")),
        ("GET", ("/first", &[], "c")),
    ];
    expect(&route("HTTPRoute", "order", &spec), &requests).await;
}

#[tokio::test]
async fn among_equals_the_older_route_wins_and_then_the_alphabet() {
    let older = |path: &str, backend: &str| {
        rules(&[rule(&format!("{{path: {{value: {path}}}}}"), backend)])
    };
    let documents = created_route(
        "HTTPRoute",
        "a-young",
        "2025-06-01T00:00:00Z",
        &older("/age", "a"),
    ) + &created_route(
        "HTTPRoute",
        "z-old",
        "2024-06-01T00:00:00Z",
        &older("/age", "b"),
    ) + &route("HTTPRoute", "same-b", &older("/name", "b"))
        + &route("HTTPRoute", "same-a", &older("/name", "c"));
    let requests = [
        ("GET", ("/age", [].as_slice(), "b")),
        ("GET", ("/name", &[], "c")),
    ];
    expect(&documents, &requests).await;
}

#[tokio::test]
async fn hostnames_of_listener_and_route_meet_and_the_more_exact_wins() {
    let mesh = Mesh::new();
    let (a, b) = (Service::start("a").await, Service::start("b").await);
    let c = Service::start("c").await;
    let of = |hosts: &str, backend: &str| {
        format!("hostnames: [{hosts}], rules: [{}]", rule("", backend))
    };
    let gateway = mesh
        .gateway(|address| {
            let listener = http_listener(address);
            let with = |name: &str, host: &str| {
                listener.replace("name: http", &format!("name: {name}, hostname: '{host}'"))
            };
            let section = |route: String, section: &str| {
                route.replace(
                    "namespace: infra}",
                    &format!("namespace: infra, sectionName: {section}}}"),
                )
            };
            gateway(
                address,
                &[
                    listener.clone(),
                    with("wild", "*.test"),
                    with("exact", "exact.test"),
                ],
            ) + &section(
                route(
                    "HTTPRoute",
                    "any",
                    &of("", "a").replace("hostnames: [], ", ""),
                ),
                "http",
            ) + &section(route("HTTPRoute", "wild", &of("'*.test'", "b")), "wild")
                + &section(
                    route(
                        "HTTPRoute",
                        "deep",
                        &of("deep.wild.test, other.example", "c"),
                    ),
                    "wild",
                )
                + &section(
                    route(
                        "HTTPRoute",
                        "exact",
                        &of("exact.test", "c")
                            .replace("matches: []", "matches: [{path: {value: /only}}]"),
                    ),
                    "exact",
                )
                + &backends(&[&a, &b, &c])
        })
        .await;
    for (host, path, expected) in [
        ("example.com", "/", "a"),
        ("x.test", "/", "b"),
        ("x.y.test", "/", "b"),
        ("deep.wild.test", "/", "c"),
        ("test", "/", "a"),
        // Outside of the hostname of its listener, a route's hostname means nothing.
        ("other.example", "/", "a"),
        // Listeners are isolated: what the more exact one has no route for is not looked for in another.
        ("exact.test", "/only", "c"),
        ("exact.test", "/", "404"),
        ("EXACT.test:8080", "/only", "c"),
    ] {
        let mut client = Client::new(Target::direct(gateway.gateway, host));
        let answer = answered(&mut client, "GET", &(path, &[], "")).await;
        assert_eq!(answer, expected, "{host}{path}");
    }
}

#[tokio::test]
async fn weights_are_shares_and_what_is_invalid_gets_500_for_its_own() {
    // Of 5,000, chance alone would miss two points in one run of 400.
    const REQUESTS: usize = 12_000;
    let mesh = Mesh::new();
    let (a, b) = (Service::start("a").await, Service::start("b").await);
    let c = Service::start("c").await;
    let weighted = |backends: &[(&str, u32)]| {
        let refs = backends
            .iter()
            .map(|(name, weight)| format!("{{name: {name}, port: 80, weight: {weight}}}"));
        format!("backendRefs: [{}]", refs.collect::<Vec<_>>().join(", "))
    };
    let rule = |path: &str, backends: &str| {
        format!("{{matches: [{{path: {{value: {path}}}}}], {backends}}}")
    };
    let spec = rules(&[
        rule("/split", &weighted(&[("a", 7), ("b", 2), ("c", 1)])),
        rule("/zero", &weighted(&[("a", 0), ("b", 1)])),
        rule("/all-zero", &weighted(&[("a", 0)])),
        rule("/half", &weighted(&[("a", 3), ("missing", 1)])),
        rule(
            "/kind",
            "backendRefs: [{name: a, kind: Bucket, group: storage.example.com}]",
        ),
        rule(
            "/elsewhere",
            "backendRefs: [{name: secret, namespace: vault, port: 80}]",
        ),
        rule("/nothing", "backendRefs: []"),
    ]);
    let elsewhere = "kind: Service\nname: secret\nnamespace: vault\nports: [{port: 80}]\n---\n";
    let gateway = mesh
        .gateway(|address| {
            gateway(address, &[http_listener(address)])
                + &route("HTTPRoute", "weights", &spec)
                + elsewhere
                + &backends(&[&a, &b, &c])
        })
        .await;
    let mut client = Client::new(Target::direct(gateway.gateway, "shop.test"));
    let mut counts = async |path: &'static str, requests: usize| {
        let mut counts: HashMap<String, usize> = HashMap::new();
        for _ in 0..requests {
            let answer = answered(&mut client, "GET", &(path, &[], "")).await;
            *counts.entry(answer).or_default() += 1;
        }
        counts
    };
    let split = counts("/split", REQUESTS).await;
    for (name, share) in [("a", 0.7), ("b", 0.2), ("c", 0.1)] {
        let seen = split[name] as f64 / REQUESTS as f64;
        assert!((seen - share).abs() < 0.02, "{name}: {seen}");
    }
    let zero = counts("/zero", 200).await;
    assert_eq!(zero.keys().collect::<Vec<_>>(), ["b"]);
    let half = counts("/half", 2_000).await;
    let failed = half["500"] as f64 / 2_000.0;
    assert!((failed - 0.25).abs() < 0.05, "{half:?}");
    for path in ["/all-zero", "/kind", "/elsewhere", "/nothing"] {
        assert_eq!(
            counts(path, 5).await,
            HashMap::from([("500".to_owned(), 5)]),
            "{path}"
        );
    }
    let config = gateway.admin("/config").await.expect("a page").body;
    let config: serde_json::Value = serde_json::from_str(&config).expect("JSON");
    let statuses = config["statuses"].as_array().expect("a list");
    let route = statuses.iter().find(|one| one["kind"] == "HTTPRoute");
    let conditions = &route.expect("the route")["status"]["parents"][0]["conditions"];
    assert_eq!(
        (&conditions[0]["type"], &conditions[0]["status"]),
        (&"Accepted".into(), &"True".into())
    );
    assert_eq!(conditions[1]["reason"], "BackendNotFound");
}

#[tokio::test]
async fn a_grant_opens_a_namespace_and_a_parent_may_be_one_port_or_section() {
    let mesh = Mesh::new();
    let (a, b) = (Service::start("a").await, Service::start("b").await);
    let other = crate::harness::free_address();
    let gateway = mesh
        .gateway(|address| {
            let second = http_listener(other).replace("name: http", "name: second");
            let to = |path: &str, backend: &str| {
                rules(&[rule(&format!("{{path: {{value: {path}}}}}"), backend)])
            };
            let parent = |route: String, narrowed: &str| {
                route.replace(
                    "namespace: infra}",
                    &format!("namespace: infra, {narrowed}}}"),
                )
            };
            let port = format!("port: {}", other.port());
            let crossing = route("HTTPRoute", "crossing", &to("/cross", "a, namespace: shop"))
                .replace("namespace: shop, creation", "namespace: web, creation");
            let grant = "apiVersion: gateway.networking.k8s.io/v1beta1\nkind: ReferenceGrant\n\
                metadata: {name: web, namespace: shop}\nspec:\n  \
                from: [{group: gateway.networking.k8s.io, kind: HTTPRoute, namespace: web}]\n  \
                to: [{group: '', kind: Service, name: a}]\n---\n";
            gateway(address, &[http_listener(address), second])
                + &parent(route("HTTPRoute", "by-port", &to("/port", "a")), &port)
                + &parent(
                    route("HTTPRoute", "by-section", &to("/section", "b")),
                    "sectionName: http",
                )
                + &crossing
                + grant
                + &backends(&[&a, &b])
        })
        .await;
    let mut first = Client::new(Target::direct(gateway.gateway, "shop.test"));
    let mut second = Client::new(Target::direct(other, "shop.test"));
    for (path, at_first, at_second) in [
        ("/port", "404", "a"),
        ("/section", "b", "404"),
        ("/cross", "a", "a"),
    ] {
        assert_eq!(
            answered(&mut first, "GET", &(path, &[], "")).await,
            at_first,
            "{path}"
        );
        assert_eq!(
            answered(&mut second, "GET", &(path, &[], "")).await,
            at_second,
            "{path}"
        );
    }
}

#[tokio::test]
async fn headers_are_changed_for_a_rule_and_for_one_backend() {
    let mesh = Mesh::new();
    let a = Service::start("a").await;
    let modifier = |kind: &str, key: &str, name: &str| {
        format!(
            "{{type: {kind}, {key}: {{set: [{{name: {name}, value: new}}], add: [{{name: x-more, value: one}}], remove: [x-gone]}}}}"
        )
    };
    let spec = format!(
        "rules: [{{name: both, filters: [{}, {}], backendRefs: [{{name: a, port: 80, filters: [{}]}}]}}]",
        modifier("RequestHeaderModifier", "requestHeaderModifier", "x-rule"),
        modifier(
            "ResponseHeaderModifier",
            "responseHeaderModifier",
            "x-answer"
        ),
        "{type: RequestHeaderModifier, requestHeaderModifier: {set: [{name: x-backend, value: its-own}]}}",
    );
    let gateway = mesh
        .gateway_with("access_log: {path: access.log}\n", |address| {
            gateway(address, &[http_listener(address)])
                + &route("HTTPRoute", "headers", &spec)
                + &backends(&[&a])
        })
        .await;
    let mut client = Client::new(Target::direct(gateway.gateway, "shop.test"));
    let headers = [
        ("x-echo", "1"),
        ("x-rule", "old"),
        ("x-more", "zero"),
        ("x-gone", "1"),
    ];
    let answer = client.get_with("/", &headers).await.expect("an answer");
    let seen = answer.body;
    assert!(
        seen.contains("\nx-rule: new\n") && seen.contains("\nx-backend: its-own\n"),
        "{seen}"
    );
    assert!(
        seen.contains("x-more: zero") && seen.contains("x-more: one"),
        "{seen}"
    );
    assert!(!seen.contains("x-gone"), "{seen}");
    assert_eq!(answer.headers["x-answer"], "new");
    let logged = crate::harness::eventually("the log names the rule", async || {
        let log = std::fs::read_to_string(mesh.folder().join("access.log")).ok()?;
        log.contains("shop/headers/both").then_some(())
    });
    logged.await;
}

#[tokio::test]
async fn requests_and_attempts_have_their_time() {
    let spec = rules(&[
        "{matches: [{path: {value: /slow}}], timeouts: {request: 50ms}, backendRefs: [{name: a, port: 80}]}".to_owned(),
        "{matches: [{path: {value: /work}}], timeouts: {request: 5s, backendRequest: 50ms}, backendRefs: [{name: a, port: 80}]}".to_owned(),
        "{matches: [{path: {value: /free}}], timeouts: {request: 0s}, backendRefs: [{name: a, port: 80}]}".to_owned(),
    ]);
    let requests = [
        ("GET", ("/slow", [].as_slice(), "504")),
        ("GET", ("/work/500", &[], "504")),
        ("GET", ("/work/0", &[], "a")),
        ("GET", ("/free", &[], "a")),
    ];
    expect(&route("HTTPRoute", "times", &spec), &requests).await;
}
