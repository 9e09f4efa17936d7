//! The Gateway API's rules between documents, in the full form, and the status conditions that tell of them.

use super::status;
use super::tests::{errors, snapshot};
use crate::model::{BackendTarget, PathMatch, Snapshot};

const EDGE: &str = "
apiVersion: gateway.networking.k8s.io/v1
kind: GatewayClass
metadata: {name: pillion}
spec: {controllerName: pillion.dev/mesh}
---
apiVersion: gateway.networking.k8s.io/v1
kind: Gateway
metadata: {name: edge, namespace: infra}
spec:
  gatewayClassName: pillion
  listeners:
    - {name: web, port: 80, protocol: HTTP, ALLOWED}
---
apiVersion: v1
kind: Service
metadata: {name: cart, namespace: shop}
spec: {ports: [{port: 80}]}
---
apiVersion: v1
kind: Namespace
metadata: {name: shop, labels: {team: commerce}}
";

fn edge(allowed: &str) -> String {
    EDGE.replace(", ALLOWED", allowed)
}

fn route(kind: &str, namespace: &str, name: &str, rest: &str) -> String {
    let parent = "parentRefs: [{name: edge, namespace: infra}]";
    let backend = "rules: [{backendRefs: [{name: cart, namespace: shop, port: 80}]}]";
    let metadata = format!("{{name: {name}, namespace: {namespace}}}");
    let api = "gateway.networking.k8s.io/v1";
    format!(
        "---\napiVersion: {api}\nkind: {kind}\nmetadata: {metadata}\nspec: {{{parent}, {backend}{rest}}}\n"
    )
}

/// `kind name: conditions`, one line each.
fn told(snapshot: &Snapshot, kind: &str) -> Vec<String> {
    let text = status::to_text(&snapshot.statuses);
    let mut lines = text.lines().skip_while(|line| !line.starts_with(kind));
    let first = lines.next().into_iter();
    let rest = lines.take_while(|line| line.starts_with(' '));
    first.chain(rest).map(str::to_owned).collect()
}

fn attached(snapshot: &Snapshot) -> usize {
    snapshot.binds[0].listeners[0].routes.len()
}

#[test]
fn everything_in_order_is_accepted_resolved_and_programmed() {
    let allowed = ", allowedRoutes: {namespaces: {from: All}}";
    let text = edge(allowed) + &route("HTTPRoute", "shop", "r", "");
    assert_eq!(errors(&text), [""; 0]);
    let snapshot = snapshot(&text);
    assert_eq!(
        told(&snapshot, "GatewayClass"),
        ["GatewayClass default/pillion: Accepted"]
    );
    assert_eq!(
        told(&snapshot, "Gateway infra"),
        [
            "Gateway infra/edge: Accepted, Programmed",
            "  listener web, 1 route: Accepted, ResolvedRefs, Programmed"
        ]
    );
    assert_eq!(
        told(&snapshot, "HTTPRoute"),
        [
            "HTTPRoute shop/r",
            "  Gateway infra/edge: Accepted, ResolvedRefs"
        ]
    );
    let json = status::to_json(&snapshot.statuses);
    let parents = &json[2]["status"]["parents"][0];
    assert_eq!(parents["conditions"][1]["type"], "ResolvedRefs");
    assert_eq!(parents["conditions"][1]["status"], "True");
}

#[test]
fn a_selector_takes_routes_of_namespaces_by_their_labels() {
    let selector = |selector: &str| {
        let allowed =
            format!(", allowedRoutes: {{namespaces: {{from: Selector, selector: {selector}}}}}");
        edge(&allowed)
    };
    for (labels, taken) in [
        ("{matchLabels: {team: commerce}}", 1),
        ("{matchLabels: {team: other}}", 0),
        (
            "{matchExpressions: [{key: team, operator: In, values: [commerce, x]}]}",
            1,
        ),
        (
            "{matchExpressions: [{key: team, operator: DoesNotExist}]}",
            0,
        ),
        ("{matchLabels: {kubernetes.io/metadata.name: shop}}", 1),
    ] {
        let text = selector(labels) + &route("HTTPRoute", "shop", "r", "");
        assert_eq!(attached(&snapshot(&text)), taken, "{labels}");
    }
    let text = edge("") + &route("HTTPRoute", "shop", "r", "");
    let refused = &errors(&text)[0];
    assert!(refused.contains("takes no routes of namespace `shop` [NotAllowedByListeners]"));
}

#[test]
fn a_listener_takes_the_kinds_it_names() {
    let allowed = ", allowedRoutes: {namespaces: {from: All}, kinds: [{kind: GRPCRoute}]}";
    let text =
        edge(allowed) + &route("HTTPRoute", "shop", "h", "") + &route("GRPCRoute", "shop", "g", "");
    let snapshot = snapshot(&text);
    assert_eq!(attached(&snapshot), 1);
    let refused = &told(&snapshot, "HTTPRoute")[1];
    assert!(
        refused.contains("not Accepted (NotAllowedByListeners"),
        "{refused}"
    );

    let allowed = ", allowedRoutes: {kinds: [{kind: UDPRoute}, {kind: HTTPRoute, group: other}]}";
    let snapshot = self::snapshot(&edge(allowed));
    let listener = &told(&snapshot, "Gateway infra")[1];
    assert!(
        listener.contains("not ResolvedRefs (InvalidRouteKinds"),
        "{listener}"
    );
    assert!(listener.ends_with(", Programmed"), "{listener}");
}

#[test]
fn a_reference_into_another_namespace_needs_a_grant_of_its_kind_and_name() {
    let allowed = ", allowedRoutes: {namespaces: {from: All}}";
    let grant = |from: &str, to: &str| {
        let metadata = "metadata: {name: g, namespace: shop}";
        let spec = format!("from: [{from}], to: [{to}]");
        format!("---\nkind: ReferenceGrant\n{metadata}\nspec: {{{spec}}}\n")
    };
    let http = "{group: gateway.networking.k8s.io, kind: HTTPRoute, namespace: web}";
    let table = [
        (http, "{group: '', kind: Service}", true),
        (http, "{group: '', kind: Service, name: cart}", true),
        (http, "{group: '', kind: Service, name: other}", false),
        (http, "{group: '', kind: Secret}", false),
        (
            "{group: gateway.networking.k8s.io, kind: GRPCRoute, namespace: web}",
            "{group: '', kind: Service}",
            false,
        ),
        (
            "{group: gateway.networking.k8s.io, kind: HTTPRoute, namespace: other}",
            "{group: '', kind: Service}",
            false,
        ),
    ];
    for (from, to, granted) in table {
        let text = edge(allowed) + &route("HTTPRoute", "web", "r", "") + &grant(from, to);
        let snapshot = snapshot(&text);
        let target = &snapshot.binds[0].listeners[0].routes[0].rules[0].backends[0].target;
        assert_eq!(
            matches!(target, BackendTarget::Cluster(_)),
            granted,
            "{from} {to}"
        );
        let told = &told(&snapshot, "HTTPRoute")[1];
        assert_eq!(
            told.contains("not ResolvedRefs (RefNotPermitted"),
            !granted,
            "{told}"
        );
    }
}

#[test]
fn what_is_no_service_gets_no_requests() {
    let allowed = ", allowedRoutes: {namespaces: {from: All}}";
    let route = route("HTTPRoute", "shop", "r", "").replace(
        "{name: cart, namespace: shop",
        "{kind: Bucket, group: x.com, name: cart",
    );
    let snapshot = snapshot(&(edge(allowed) + &route));
    let told = &told(&snapshot, "HTTPRoute")[1];
    assert!(told.contains("not ResolvedRefs (InvalidKind: requests cannot go to a Bucket.x.com)"));
}

#[test]
fn a_grpc_method_is_a_path() {
    let allowed = ", allowedRoutes: {namespaces: {from: All}}";
    let path = |method: &str| {
        let matches = format!("rules: [{{matches: [{{method: {method}}}], backendRefs");
        let route = route("GRPCRoute", "shop", "r", "").replace("rules: [{backendRefs", &matches);
        let snapshot = snapshot(&(edge(allowed) + &route));
        let rule = &snapshot.binds[0].listeners[0].routes[0].rules[0];
        rule.matches[0].path.clone()
    };
    let is_exact = |path| matches!(path, PathMatch::Exact(path) if *path == *"/a.B/C");
    assert!(is_exact(path("{service: a.B, method: C}")));
    assert!(matches!(path("{service: a.B}"), PathMatch::Prefix(path) if *path == *"/a.B"));
    assert!(matches!(path("{method: C}"), PathMatch::Method(method) if *method == *"C"));
    let PathMatch::Regex(regex) = path("{type: RegularExpression, method: 'Get|Set'}") else {
        panic!("a regular expression");
    };
    assert!(regex.is_match(b"/a.B/Get") && regex.is_match(b"/x/Set"));
    assert!(!regex.is_match(b"/a/b/Get") && !regex.is_match(b"/a.B/GetAll"));
}

#[test]
fn kinds_never_share_a_hostname_and_the_older_has_it() {
    let allowed = ", allowedRoutes: {namespaces: {from: All}}";
    let created = |route: String, year: &str| {
        let stamp = format!("{{creationTimestamp: '{year}-01-01T00:00:00Z', name");
        route.replace("metadata: {name", &format!("metadata: {stamp}"))
    };
    let hosts = ", hostnames: [a.com]";
    let both = |http: &str, grpc: &str| {
        let text = edge(allowed)
            + &created(route("HTTPRoute", "shop", "h", hosts), http)
            + &created(route("GRPCRoute", "shop", "g", hosts), grpc);
        let snapshot = snapshot(&text);
        assert_eq!(attached(&snapshot), 1);
        let (http, grpc) = (told(&snapshot, "HTTPRoute"), told(&snapshot, "GRPCRoute"));
        (
            http[1].contains(": Accepted"),
            grpc[1].contains(": Accepted"),
        )
    };
    assert_eq!(both("2024", "2025"), (true, false));
    assert_eq!(both("2025", "2024"), (false, true));
    // Alphabetical where they are of one age.
    assert_eq!(both("2024", "2024"), (false, true));
    let text = edge(allowed)
        + &route("HTTPRoute", "shop", "h", hosts)
        + &route("GRPCRoute", "shop", "g", ", hostnames: [b.com]");
    assert_eq!(attached(&snapshot(&text)), 2);
}

#[test]
fn at_a_service_the_more_specific_kind_counts() {
    let of_service = |kind: &str, name: &str| {
        route(kind, "shop", name, "").replace(
            "{name: edge, namespace: infra}",
            "{kind: Service, group: '', name: cart}",
        )
    };
    let text = edge("") + &of_service("HTTPRoute", "h") + &of_service("GRPCRoute", "g");
    let snapshot = snapshot(&text);
    let routes: Vec<String> = snapshot
        .mesh_routes
        .iter()
        .map(|route| route.name.to_string())
        .collect();
    assert_eq!(routes, ["shop/g"]);
}

#[test]
fn a_listener_in_conflict_is_not_programmed() {
    let second = EDGE.replace(
        ", ALLOWED}",
        "}\n    - {name: again, port: 80, protocol: HTTP}\n    - {name: raw, port: 80, protocol: TCP, backend: {name: cart, namespace: shop}}",
    );
    let snapshot = snapshot(&second);
    let told = told(&snapshot, "Gateway infra");
    assert!(told[0].contains("Accepted (ListenersNotValid"), "{told:?}");
    assert!(
        told[1].ends_with(": Accepted, ResolvedRefs, Programmed"),
        "{told:?}"
    );
    assert!(
        told[2].contains("not Accepted (HostnameConflict"),
        "{told:?}"
    );
    assert!(told[2].contains("not Programmed (Invalid"), "{told:?}");
    assert!(told[3].contains("Conflicted (ProtocolConflict"), "{told:?}");
    assert!(
        told[3].contains("not ResolvedRefs (RefNotPermitted"),
        "{told:?}"
    );
}

/// A pair as `kubectl create secret tls` makes it.
fn secret(namespace: &str, name: &str) -> String {
    use base64::Engine;
    let key = rcgen::KeyPair::generate().expect("a key");
    let params = rcgen::CertificateParams::new(vec!["a.com".to_owned()]).expect("names");
    let certificate = params.self_signed(&key).expect("signed");
    let base64 = |text: String| base64::engine::general_purpose::STANDARD.encode(text);
    format!(
        "---\napiVersion: v1\nkind: Secret\nmetadata: {{name: {name}, namespace: {namespace}}}\n\
         type: kubernetes.io/tls\ndata:\n  tls.crt: {}\n  tls.key: {}\n",
        base64(certificate.pem()),
        base64(key.serialize_pem())
    )
}

fn https(refs: &str) -> String {
    EDGE.replace(
        "{name: web, port: 80, protocol: HTTP, ALLOWED}",
        &format!("{{name: web, port: 443, protocol: HTTPS, tls: {{certificateRefs: [{refs}]}}}}"),
    )
}

#[test]
fn a_listener_takes_its_certificate_from_a_secret() {
    let text = https("{name: tls}") + &secret("infra", "tls");
    assert_eq!(errors(&text), [""; 0]);
    let snapshot = snapshot(&text);
    let tls = snapshot.binds[0].listeners[0].tls.as_ref().expect("TLS");
    let shown = format!("{:?}", tls.certificates);
    assert!(shown.contains("Pem(Secret infra/tls, tls.key)"), "{shown}");
    assert!(!shown.contains("PRIVATE"), "{shown}");
}

#[test]
fn a_listener_without_its_certificate_is_not_programmed() {
    let broken = secret("infra", "tls").replace("tls.crt: ", "tls.crt: AAAA");
    let empty = "---\napiVersion: v1\nkind: Secret\nmetadata: {name: tls, namespace: infra}\n";
    for (text, why) in [
        (https("{name: tls}"), "there is no Secret infra/tls"),
        (https("{name: tls}") + &broken, "is not PEM"),
        (
            https("{name: tls}") + empty,
            "holds no certificate with its key",
        ),
        (
            https("{kind: ConfigMap, name: tls}"),
            "not taken from a ConfigMap",
        ),
    ] {
        let snapshot = snapshot(&text);
        assert!(snapshot.binds.is_empty());
        let listener = &told(&snapshot, "Gateway infra")[1];
        assert!(
            listener.contains("not ResolvedRefs (InvalidCertificateRef"),
            "{listener}"
        );
        assert!(listener.contains(why), "{listener}");
        assert!(listener.contains("not Programmed (Invalid"), "{listener}");
    }
}

#[test]
fn a_secret_of_another_namespace_needs_a_grant() {
    let text = https("{name: tls, namespace: certs}") + &secret("certs", "tls");
    let refused = &errors(&text)[0];
    assert!(refused.contains("secret certs/tls is in another namespace [RefNotPermitted]"));
    let grant = "---\nkind: ReferenceGrant\nmetadata: {name: g, namespace: certs}\nspec:\n  \
                 from: [{group: gateway.networking.k8s.io, kind: Gateway, namespace: infra}]\n  \
                 to: [{group: '', kind: Secret}]\n";
    assert_eq!(errors(&(text + grant)), [""; 0]);
}

#[test]
fn what_is_wrong_in_a_secret_is_told_without_its_text() {
    let text = "kind: Secret\nname: a\ndata: {tls.key: '!hush!'}\n---\nkind: Secret\nname: [b\ndata: hush\n";
    let problems = super::validate(&[super::Source::file("mesh.yaml", text)]);
    let shown = super::problem::render(&problems, false);
    assert!(shown.contains("data.tls.key: not Base64"), "{shown}");
    assert!(!shown.contains("hush"), "{shown}");
}

fn policy(name: &str, target: &str, validation: &str) -> String {
    format!(
        "---\napiVersion: gateway.networking.k8s.io/v1\nkind: BackendTLSPolicy\n\
         metadata: {{name: {name}, namespace: shop}}\nspec:\n  \
         targetRefs: [{{group: '', kind: Service, {target}}}]\n  \
         validation: {{hostname: cart.internal, {validation}}}\n"
    )
}

fn authority() -> String {
    let key = rcgen::KeyPair::generate().expect("a key");
    let params = rcgen::CertificateParams::new(vec!["ca".to_owned()]).expect("names");
    let pem = params.self_signed(&key).expect("signed").pem();
    let indented: String = pem.lines().map(|line| format!("    {line}\n")).collect();
    format!(
        "---\napiVersion: v1\nkind: ConfigMap\nmetadata: {{name: ca, namespace: shop}}\ndata:\n  ca.crt: |\n{indented}"
    )
}

#[test]
fn a_policy_says_how_a_service_is_spoken_to() {
    let system = "wellKnownCACertificates: System";
    let bundle = "caCertificateRefs: [{group: '', kind: ConfigMap, name: ca}]";
    let ports = "ports: [{name: plain, port: 80}, {name: secure, port: 443}]";
    let services = edge("").replace("ports: [{port: 80}]", ports) + &authority();
    let cart = |text: &str| {
        let snapshot = snapshot(&(services.clone() + text));
        let told = told(&snapshot, "BackendTLSPolicy");
        let name = crate::model::Name::new("shop", "cart");
        (snapshot.services[&name].clone(), told)
    };
    let (all, told) = cart(&policy("p", "name: cart", system));
    assert_eq!(told[1], "  Service shop/cart: Accepted, ResolvedRefs");
    let tls = all.tls_of(Some(80)).expect("TLS");
    assert_eq!(
        (tls.sni.as_deref(), tls.ca.is_none()),
        (Some("cart.internal"), true)
    );

    let (one, told) = cart(&policy("p", "name: cart, sectionName: secure", bundle));
    assert_eq!(
        told[1],
        "  Service shop/cart, port secure: Accepted, ResolvedRefs"
    );
    assert!(one.tls_of(Some(80)).is_none());
    let ca = one
        .tls_of(Some(443))
        .and_then(|tls| tls.ca.as_ref())
        .expect("a bundle");
    assert_eq!(ca.to_string(), "ConfigMap shop/ca, ca.crt");

    let missing = bundle.replace("name: ca", "name: other");
    let (closed, told) = cart(&policy("p", "name: cart", &missing));
    assert!(
        told[1].contains("not Accepted (NoValidCACertificate"),
        "{told:?}"
    );
    assert!(
        told[1].contains("not ResolvedRefs (InvalidCACertificateRef"),
        "{told:?}"
    );
    assert!(
        closed.tls_of(Some(80)).expect("TLS").ca.is_some(),
        "nobody is trusted"
    );

    let (_, told) = cart(&policy("p", "name: cart, sectionName: other", system));
    assert!(told[1].contains("not Accepted (TargetNotFound"), "{told:?}");
    let two = policy("a", "name: cart", bundle) + &policy("b", "name: cart", system);
    let (first, _) = cart(&two);
    assert!(first.tls_of(None).expect("TLS").ca.is_some());
}

#[test]
fn endpoint_slices_are_the_endpoints_of_their_service() {
    let slice = "---
apiVersion: discovery.k8s.io/v1
kind: EndpointSlice
metadata: {name: cart-x, namespace: shop, labels: {kubernetes.io/service-name: cart}}
addressType: IPv4
ports: [{name: web, port: 8080, protocol: TCP}, {name: admin, port: 9090}, {name: dns, port: 53, protocol: UDP}]
endpoints:
  - {addresses: [10.1.0.1], conditions: {ready: true}, zone: a, nodeName: n, targetRef: {kind: Pod, name: p}}
  - {addresses: [10.1.0.2], conditions: {ready: false, serving: true, terminating: true}}
  - {addresses: [10.1.0.3]}
";
    let ports = "ports: [{name: web, port: 80, targetPort: 8080}, {name: admin, port: 81}]";
    let text = edge("").replace("ports: [{port: 80}]", ports) + slice;
    assert_eq!(errors(&text), [""; 0]);
    let snapshot = snapshot(&text);
    let service = &snapshot.services[&crate::model::Name::new("shop", "cart")];
    let told: Vec<_> = service
        .endpoints
        .iter()
        .map(|one| (one.address.to_string(), one.port, one.zone.as_deref()))
        .collect();
    let expected = [
        ("10.1.0.1:8080", 80, Some("a")),
        ("10.1.0.3:8080", 80, None),
        ("10.1.0.1:9090", 81, Some("a")),
        ("10.1.0.3:9090", 81, None),
    ];
    let expected = expected.map(|(address, port, zone)| (address.to_owned(), Some(port), zone));
    assert_eq!(told, expected);
}

#[test]
fn a_list_as_kubectl_exports_it_is_its_items() {
    let list = "apiVersion: v1
items:
- apiVersion: v1
  kind: Service
  metadata: {name: cart, namespace: shop}
  spec:
    ports:
    - {port: 80, name: web}
- apiVersion: gateway.networking.k8s.io/v1
  kind: HTTPRoute
  metadata: {name: r, namespace: shop}
  spec:
    parentRefs: [{kind: Service, group: '', name: cart}]
    rules:
    - backendRefs: [{name: card, port: 80}]
kind: List
metadata: {resourceVersion: ''}
";
    let told = errors(list);
    assert_eq!(told.len(), 1, "{told:?}");
    let place = "mesh.yaml:15:28 spec.rules[0].backendRefs[0].name: there is no service";
    assert!(told[0].starts_with(place), "{told:?}");
    let identities = super::document_identities("list", list).expect("two documents");
    assert_eq!(identities.len(), 2);
    assert_eq!(identities[1].kind, "HTTPRoute");
    assert!(
        identities[1].text.starts_with("apiVersion: gateway"),
        "{}",
        identities[1].text
    );
    assert!(
        identities[1].text.contains("\nspec:\n  parentRefs:"),
        "{}",
        identities[1].text
    );
}
