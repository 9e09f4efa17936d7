use std::net::SocketAddr;

use crate::harness::documents::{below, edge, route, service};
use crate::harness::{Client, Mesh, Service, Target, eventually};

/// What the client asks of `shop.test`, and what the backend is asked for.
const PATHS: [(&str, &str); 10] = [
    ("/old/7?x=/old", "/new/7?x=/old"),
    ("/old", "/new"),
    ("/old/", "/new/"),
    ("/old/../old/./7", "/new/7"),
    // Nobody climbs out of the prefix that was put before the path.
    ("/deep/../../old/../old/%2e%2e/old/x", "/new/x"),
    ("/strip/a//b%2Fc", "/a//b%2Fc"),
    ("/strip", "/"),
    ("/full/a?b=c", "/one?b=c"),
    ("/backend/a", "/chosen/a"),
    ("/other?a", "/other?a"),
];

#[tokio::test]
async fn backends_are_asked_for_another_path() {
    let mesh = Mesh::new();
    let service = Service::start("shop").await;
    let gateway = mesh.gateway(|address| documents(address, &service)).await;
    let mut client = Client::new(Target::direct(gateway.gateway, "shop.test"));
    for (asked, expected) in PATHS {
        let seen = seen(&mut client, asked).await;
        let line = seen.lines().next();
        assert_eq!(line, Some(&*format!("GET {expected}")), "{asked}");
        assert!(seen.contains("\nhost: shop.test\n"), "{asked}: {seen}");
    }
}

#[tokio::test]
async fn a_path_alone_in_its_rule_cannot_be_left_either() {
    let mesh = Mesh::new();
    let service = Service::start("shop").await;
    let gateway = mesh.gateway(|address| documents(address, &service)).await;
    let mut client = Client::new(Target::direct(gateway.gateway, "all.test"));
    for (asked, expected) in [("/a", "/tenant/a"), ("/../secret", "/tenant/secret")] {
        let seen = seen(&mut client, asked).await;
        let line = seen.lines().next();
        assert_eq!(line, Some(&*format!("GET {expected}")), "{asked}");
    }
}

#[tokio::test]
async fn backends_are_asked_as_another_host() {
    let mesh = Mesh::new();
    let service = Service::start("shop").await;
    let gateway = mesh.gateway(|address| documents(address, &service)).await;
    let mut client = Client::new(Target::direct(gateway.gateway, "shop.test"));
    let seen = seen(&mut client, "/host/a").await;
    assert!(seen.starts_with("GET /host/a\n"), "{seen}");
    assert!(seen.contains("\nhost: inner.test\n"), "{seen}");
    assert!(seen.contains("\nx-forwarded-host: shop.test\n"), "{seen}");
}

#[tokio::test]
async fn the_log_keeps_what_the_client_asked_for() {
    let mesh = Mesh::new();
    let service = Service::start("shop").await;
    let bootstrap = "access_log: {path: access.log}\n";
    let gateway = mesh
        .gateway_with(bootstrap, |address| documents(address, &service))
        .await;
    let mut client = Client::new(Target::direct(gateway.gateway, "shop.test"));
    for path in ["/old/7?x=1", "/host/a"] {
        client.get(path).await.expect("the gateway answers");
    }
    eventually("the log says so", async || {
        let log = std::fs::read_to_string(mesh.folder().join("access.log")).ok()?;
        let lines = [r#""path":"/old/7?x=1""#, r#""path":"/host/a""#];
        let all = lines.iter().all(|line| log.contains(line));
        (all && log.matches(r#""authority":"shop.test""#).count() == 2).then_some(())
    })
    .await;
}

async fn seen(client: &mut Client, path: &str) -> String {
    let answer = client.get_with(path, &[("x-echo", "1")]).await;
    answer.expect("the backend answers").body
}

fn documents(gateway: SocketAddr, shop: &Service) -> String {
    let rewrite =
        |settings: &str| format!("filters: [{{type: URLRewrite, urlRewrite: {{{settings}}}}}]");
    let prefix = |path: &str| {
        rewrite(&format!(
            "path: {{type: ReplacePrefixMatch, replacePrefixMatch: {path}}}"
        ))
    };
    let backend = |filters: &str| format!("backendRefs: [{{name: shop, port: 80{filters}}}]");
    let plain = backend("");
    let full = rewrite("path: {type: ReplaceFullPath, replaceFullPath: /one}");
    let rules = [
        below("/old", &format!("{}, {plain}", prefix("/new"))),
        below("/strip", &format!("{}, {plain}", prefix("/"))),
        below("/full", &format!("{full}, {plain}")),
        below(
            "/host",
            &format!("{}, {plain}", rewrite("hostname: inner.test")),
        ),
        below("/backend", &backend(&format!(", {}", prefix("/chosen")))),
        plain.clone(),
    ];
    let all = format!("{}, {plain}", prefix("/tenant"));
    [
        edge(gateway),
        route("shop", &rules),
        route("all", &[all]),
        service("shop", &[shop.address]),
    ]
    .concat()
}
