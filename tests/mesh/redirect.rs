use std::net::SocketAddr;

use crate::harness::documents::{below, edge, route};
use crate::harness::{Answer, Client, Mesh, Target};

/// Method, path, status, and where the client is sent behind the host `shop.test`.
const REDIRECTS: [(&str, &str, u16, &str); 6] = [
    ("GET", "/basket/7?x=1", 308, "{listener}/cart/7?x=1"),
    ("GET", "/basket", 308, "{listener}/cart"),
    ("POST", "/basket/", 308, "{listener}/cart/"),
    ("HEAD", "/basket/../basket/7", 308, "{listener}/cart/7"),
    ("GET", "/secret", 301, "https://shop.test/secret"),
    ("GET", "/", 302, "{listener}/welcome"),
];

#[tokio::test]
async fn a_redirect_is_answered_by_the_proxy_and_the_connection_stays() {
    let mesh = Mesh::new();
    let gateway = mesh.gateway(documents).await;
    let mut client = Client::new(Target::direct(gateway.gateway, "shop.test"));
    let listener = format!("http://shop.test:{}", gateway.gateway.port());
    for (method, path, status, expected) in REDIRECTS {
        let method = method.parse().expect("a method");
        let answer = client.send(method, path, "").await;
        let answer = answer.expect("the gateway answers");
        assert_eq!(answer.status, status, "{path}");
        assert_eq!(
            location(&answer),
            expected.replace("{listener}", &listener),
            "{path}"
        );
        assert_eq!(answer.headers["content-length"], "0", "{path}");
        assert!(!answer.headers.contains_key("connection"), "{path}");
        assert!(!answer.headers.contains_key("proxy-status"), "{path}");
    }
}

#[tokio::test]
async fn filters_for_responses_see_a_redirect() {
    let mesh = Mesh::new();
    let gateway = mesh.gateway(documents).await;
    let mut client = Client::new(Target::direct(gateway.gateway, "shop.test"));
    let answer = client.get("/secret").await.expect("the gateway answers");
    assert_eq!(answer.headers["strict-transport-security"], "max-age=60");
}

fn location(answer: &Answer) -> &str {
    let location = answer.headers["location"].to_str();
    location.expect("the tests use ASCII")
}

fn documents(gateway: SocketAddr) -> String {
    let redirect =
        |settings: &str| format!("{{type: RequestRedirect, requestRedirect: {{{settings}}}}}");
    let basket = "path: {type: ReplacePrefixMatch, replacePrefixMatch: /cart}, statusCode: 308";
    let secret = "scheme: https, statusCode: 301";
    let others = "path: {type: ReplaceFullPath, replaceFullPath: /welcome}";
    let rules = [
        below("/basket", &format!("filters: [{}]", redirect(basket))),
        format!(
            "matches: [{{path: {{type: Exact, value: /secret}}}}], filters: [{}, {{type: ResponseHeaderModifier, \
             responseHeaderModifier: {{set: [{{name: strict-transport-security, value: max-age=60}}]}}}}]",
            redirect(secret)
        ),
        format!("filters: [{}]", redirect(others)),
    ];
    edge(gateway) + &route("shop", &rules)
}
