use std::net::SocketAddr;

/// The Gateway `edge`, whose one listener has this address.
pub fn edge(gateway: SocketAddr) -> String {
    format!(
        "kind: Gateway\nname: edge\naddress: {}\nlisteners: [{{name: http, port: {}, protocol: HTTP}}]\n---\n",
        gateway.ip(),
        gateway.port()
    )
}

/// An HTTPRoute of `edge` in the form of Kubernetes, for `NAME.test`. Each rule is a flow mapping without its braces.
pub fn route(name: &str, rules: &[impl AsRef<str>]) -> String {
    let rules = rules
        .iter()
        .map(|rule| format!("    - {{{}}}\n", rule.as_ref()));
    format!(
        "apiVersion: gateway.networking.k8s.io/v1\nkind: HTTPRoute\nmetadata: {{name: {name}}}\nspec:\n  \
         parentRefs: [{{name: edge}}]\n  hostnames: [{name}.test]\n  rules:\n{}---\n",
        rules.collect::<String>()
    )
}

/// `matches:` of a rule for the paths below this one, and what else the rule has.
pub fn below(path: &str, rest: &str) -> String {
    format!("matches: [{{path: {{type: PathPrefix, value: {path}}}}}], {rest}")
}

/// A service with one port.
pub fn service(name: &str, endpoints: &[SocketAddr]) -> String {
    let endpoints = endpoints
        .iter()
        .map(|address| format!("{{address: \"{address}\"}}"));
    format!(
        "kind: Service\nname: {name}\nports: [{{port: 80, protocol: http}}]\nendpoints: [{}]\n---\n",
        endpoints.collect::<Vec<_>>().join(", ")
    )
}
