//! Documents to snapshots and problems, as users write them.

use std::sync::Arc;
use std::time::Duration;

use super::{Loader, Problem, Severity, Source, validate};
use crate::model::{
    BackendTarget, ClusterKey, Discipline, Filter, Floors, HashKey, Hashing, HealthCheck,
    HealthProbe, IssuedCookie, Lane, LaneLimit, LeastRequest, Name, OnHalfClose, PathAction,
    PathNormalization, Snapshot,
};

fn sources(text: &str) -> Vec<Source> {
    vec![Source::file("mesh.yaml", text)]
}

pub(super) fn snapshot(text: &str) -> Snapshot {
    match Loader::new().load(&sources(text)) {
        Ok(loaded) => loaded.snapshot,
        Err(problems) => panic!("{}", super::problem::render(&problems, false)),
    }
}

fn problems(text: &str) -> Vec<String> {
    let problems: Vec<Problem> = validate(&sources(text));
    problems.iter().map(ToString::to_string).collect()
}

pub(super) fn errors(text: &str) -> Vec<String> {
    let problems = validate(&sources(text));
    let errors = problems
        .iter()
        .filter(|problem| problem.severity == Severity::Error);
    errors.map(ToString::to_string).collect()
}

const REVIEWS: &str = "
kind: HTTPRoute
name: reviews
hostnames: [reviews]
rules:
  - matches: [{path: {type: PathPrefix, value: /v2}}]
    backendRefs: [{name: reviews-v2, port: 8080, weight: 90}, {name: reviews-v1, port: 8080, weight: 10}]
    timeouts: {request: 2s}
    retry: {attempts: 2, codes: [502, 503, 504]}
---
kind: Service
name: reviews
ports: [{port: 8080, protocol: http}]
endpoints: [{address: '10.0.0.7:8080', weight: 2, zone: a, labels: {version: v1}}]
subsets: {reviews-v1: {version: v1}, reviews-v2: {version: v2}}
balance: {policy: peak_ewma}
outlier: {consecutive_5xx: 5, base_ejection: 30s}
circuit: {connections_max: 1024, requests_max: 1024, pending_max: 1024, retries: {budget_percent: 20}}
";

#[test]
fn the_short_form_compiles_into_a_mesh_route_with_its_subsets() {
    let snapshot = snapshot(REVIEWS);
    let route = &snapshot.mesh_routes[0];
    let backends = &route.rules[0].backends;
    let cluster = ClusterKey {
        service: Name::local("reviews"),
        subset: Some("reviews-v2".into()),
        port: Some(8080),
    };
    assert_eq!(backends[0].target, BackendTarget::Cluster(cluster));
    assert_eq!((backends[0].weight, backends[1].weight), (90, 10));
    let service = &snapshot.services[&Name::local("reviews")];
    assert_eq!(service.circuit.requests_max, 1024);
    assert_eq!(service.endpoints[0].weight, 2);
}

#[test]
fn the_full_form_means_the_same_as_the_short() {
    let short = "
kind: Gateway
name: edge
listeners: [{name: web, port: 80, protocol: HTTP}]
---
kind: HTTPRoute
name: shop
parentRefs: [{name: edge}]
hostnames: [shop.example.com]
rules: [{backendRefs: [{name: shop, port: 80}]}]
---
kind: Service
name: shop
ports: [{name: http-web, port: 80, protocol: http}]
";
    let full = "
apiVersion: gateway.networking.k8s.io/v1
kind: Gateway
metadata: {name: edge, labels: {a: b}}
spec:
  gatewayClassName: pillion
  listeners: [{name: web, port: 80, protocol: HTTP, allowedRoutes: {namespaces: {from: Same}}}]
status: {addresses: []}
---
apiVersion: gateway.networking.k8s.io/v1beta1
kind: HTTPRoute
metadata: {name: shop, namespace: default}
spec:
  parentRefs: [{name: edge}]
  hostnames: [shop.example.com]
  rules: [{backendRefs: [{name: shop, port: 80, kind: Service, group: ''}]}]
---
apiVersion: v1
kind: Service
metadata: {name: shop}
spec: {selector: {app: shop}, ports: [{name: http-web, port: 80, targetPort: web}]}
";
    let (short, full) = (snapshot(short), snapshot(full));
    let told = |snapshot: &Snapshot| format!("{:?} {:?}", snapshot.binds, snapshot.services);
    assert_eq!(told(&short), told(&full));
    assert_eq!(short.binds[0].listeners[0].routes.len(), 1);
}

#[test]
fn our_service_and_kubernetes_own_merge() {
    let snapshot = snapshot(
        "
apiVersion: v1
kind: Service
metadata: {name: cart}
spec: {ports: [{port: 80, appProtocol: kubernetes.io/h2c}, {port: 53, protocol: UDP}]}
---
kind: Service
name: cart
balance: least_request
",
    );
    let cart = &snapshot.services[&Name::local("cart")];
    assert_eq!(cart.ports.len(), 1);
    assert_eq!(cart.ports[0].protocol, Some(crate::model::Protocol::Http2));
    assert_eq!(cart.balance.policy, crate::model::Policy::LeastRequest);
}

#[test]
fn least_request_takes_the_fewest_of_two_unless_told() {
    let least_request = |balance: &str| {
        let snapshot = snapshot(&format!("{{kind: Service, name: a, balance: {balance}}}\n"));
        snapshot.services[&Name::local("a")].balance.least_request
    };
    let of = |choices, bias| LeastRequest { choices, bias };
    assert_eq!(least_request("least_request"), of(2, 1.0));
    assert_eq!(
        least_request("{policy: least_request, choices: 5, bias: 0.5}"),
        of(5, 0.5)
    );
}

#[test]
fn policies_that_hash_go_by_the_source_address_unless_told() {
    let hashing = |balance: &str| {
        let snapshot = snapshot(&format!("{{kind: Service, name: a, balance: {balance}}}\n"));
        snapshot.services[&Name::local("a")].balance.hashing()
    };
    assert_eq!(hashing("round_robin"), None);
    for balance in ["maglev", "{policy: ring_hash}"] {
        assert_eq!(*hashing(balance).unwrap(), Hashing::default());
    }
    let all = "{policy: ring_hash, hash_on: [{header: X-User}, {cookie: sid}, {cookie: home, ttl: 1h}, {query: user}, path, source_address], \
               ring_hash: {minimum_ring_size: 10, maximum_ring_size: 20}, bounded_load: 150%}";
    let expected = Hashing {
        keys: vec![
            HashKey::Header("X-User".into()),
            HashKey::Cookie {
                name: "sid".into(),
                issued: None,
            },
            HashKey::Cookie {
                name: "home".into(),
                issued: Some(IssuedCookie {
                    ttl: Duration::from_secs(3_600),
                    path: "/".into(),
                }),
            },
            HashKey::Query("user".into()),
            HashKey::Path,
            HashKey::SourceAddress,
        ],
        bounded_load_percent: Some(150),
        ring_size: 10..=20,
        ..Hashing::default()
    };
    assert_eq!(*hashing(all).unwrap(), expected);
    let sized = hashing("{policy: maglev, hash_on: path, maglev: {table_size: 251}}").unwrap();
    assert_eq!(
        (sized.table_size, &sized.keys[..]),
        (251, &[HashKey::Path][..])
    );
}

#[test]
fn a_lane_is_what_was_said_and_else_adaptive_by_class() {
    let lane = |text: &str| {
        let snapshot = snapshot(&format!("{{kind: Service, name: a, lane: {text}}}\n"));
        snapshot.services[&Name::local("a")].lane.clone().unwrap()
    };
    assert_eq!(lane("{}"), Lane::new(LaneLimit::Adaptive));
    let all = lane(
        "{limit: 16, discipline: mlfq, queue: {max: 64, timeout: 1s}, floors: {batch: 15%, lowest-level: 0%}, \
         tenant: {header: X-Tenant}, class_from: [10.0.0.0/8]}",
    );
    let floors = Floors {
        batch_percent: 15,
        best_effort_percent: 1,
        lowest_level_percent: 0,
    };
    let wanted = Lane {
        limit: LaneLimit::Fixed(16),
        discipline: Discipline::Mlfq,
        queue_max: 64,
        queue_timeout: Duration::from_secs(1),
        floors,
        tenant: Some("x-tenant".into()),
        class_from: vec!["10.0.0.0/8".parse().unwrap()],
    };
    assert_eq!(all, wanted);
    let tcp = "{kind: Service, name: a, ports: [{port: 5432, protocol: tcp}], lane: {limit: 4}}\n";
    assert!(problems(tcp)[0].contains("every port of this service is tcp"));
}

#[test]
fn a_dangling_reference_is_an_error_with_a_suggestion() {
    let text = REVIEWS.replace(
        "name: reviews-v2, port: 8080",
        "name: reviews-v3, port: 8080",
    );
    let expected = "mesh.yaml:7:26 rules[0].backendRefs[0].name: there is no service or subset default/reviews-v3 \
                    [BackendNotFound]; did you mean `reviews-v";
    let errors = errors(&text);
    assert!(errors[0].starts_with(expected), "{errors:?}");
    let text = REVIEWS.replace("name: reviews-v2, port: 8080", "name: reviews-v2, port: 81");
    assert!(
        self::errors(&text)[0]
            .contains("service default/reviews has no port 81 [BackendNotFound]; it has 8080")
    );
}

#[test]
fn every_problem_of_every_document_is_told_at_once() {
    let text = "kind: Servce\n---\nkind: Service\nname: a\nprots: []\nweight: x\n---\na: [\n---\nkind: HTTPRoute\nname: b\n";
    let errors = errors(text);
    assert_eq!(errors.len(), 4, "{errors:#?}");
    assert!(errors[0].contains("unknown kind `Servce`; did you mean `Service`?"));
    assert!(errors[1].contains("mesh.yaml:5:1 prots: unknown key `prots`; did you mean `ports`?"));
    assert!(
        errors[3].contains("mesh.yaml:9:1: not YAML"),
        "{}",
        errors[3]
    );
}

#[test]
fn listeners_that_overlap_are_a_problem() {
    let gateway = |name: &str, listener: &str| {
        format!("kind: Gateway\nname: {name}\nlisteners: [{listener}]\n---\n")
    };
    let table = [
        (
            "{name: w, port: 80, protocol: HTTP}",
            "has a listener for every hostname already",
        ),
        (
            "{name: w, port: 80, protocol: TCP, backend: {name: db, port: 5432}}",
            "cannot be TCP and HTTP at once",
        ),
    ];
    for (listener, message) in table {
        let text = gateway("one", "{name: w, port: 80, protocol: HTTP}")
            + &gateway("two", listener)
            + "kind: Service\nname: db\n";
        let errors = errors(&text);
        assert!(errors[0].contains(message), "{errors:?}");
    }
    let text = gateway(
        "one",
        "{name: w, port: 80, protocol: HTTP, hostname: a.example.com}",
    ) + &gateway(
        "two",
        "{name: w, port: 80, protocol: HTTP, hostname: '*.example.com'}",
    );
    assert_eq!(problems(&text), [""; 0]);
}

#[test]
fn a_tcp_listener_has_one_route_to_its_backend() {
    let snapshot = snapshot(
        "
kind: Gateway
name: db
address: 127.0.0.1
listeners: [{name: postgres, port: 5432, protocol: TCP, backend: {name: postgres, port: 5432}}]
---
kind: Service
name: postgres
endpoints: [{address: 'db.example.com:5432'}]
",
    );
    let bind = &snapshot.binds[0];
    assert!(bind.opaque);
    assert_eq!(bind.address.to_string(), "127.0.0.1:5432");
    let target = &bind.listeners[0].routes[0].rules[0].backends[0].target;
    assert!(matches!(target, BackendTarget::Cluster(key) if key.port == Some(5432)));
}

#[test]
fn a_listener_says_what_a_half_close_means_in_either_form() {
    let listeners = "[{name: a, port: 80, protocol: HTTP}, {name: b, port: 81, protocol: HTTP, on_half_close: cancel}]";
    let short = format!("kind: Gateway\nname: edge\nlisteners: {listeners}\n");
    let full = format!(
        "apiVersion: gateway.networking.k8s.io/v1\nkind: Gateway\nmetadata: {{name: edge}}\nspec: {{listeners: {listeners}}}\n"
    );
    for text in [short, full] {
        let binds = snapshot(&text).binds;
        let said: Vec<_> = binds
            .iter()
            .map(|bind| bind.listeners[0].on_half_close)
            .collect();
        assert_eq!(said, [OnHalfClose::Answer, OnHalfClose::Cancel]);
    }
    let tcp = "kind: Gateway\nname: edge\nlisteners: [{name: a, port: 80, protocol: TCP, backend: {name: s}, on_half_close: cancel}]\n---\n{kind: Service, name: s}\n";
    assert!(errors(tcp)[0].contains("a TCP listener has no `on_half_close`"));
}

#[test]
fn listeners_and_services_say_what_becomes_of_paths_in_either_form() {
    let path = "path: {encoded_slash: decode, backslash: reject, merge_slashes: true}";
    let listeners = format!("listeners: [{{name: a, port: 80, protocol: HTTP, {path}}}]");
    let short =
        format!("kind: Gateway\nname: edge\n{listeners}\n---\nkind: Service\nname: s\n{path}\n");
    let full = format!(
        "apiVersion: gateway.networking.k8s.io/v1\nkind: Gateway\nmetadata: {{name: edge}}\nspec: {{{listeners}}}\n---\n\
         apiVersion: pillion.dev/v1\nkind: Service\nmetadata: {{name: s}}\nspec: {{{path}}}\n"
    );
    let wanted = PathNormalization {
        encoded_slash: PathAction::Decode,
        backslash: PathAction::Reject,
        merge_slashes: true,
    };
    for text in [short, full] {
        let snapshot = snapshot(&text);
        assert_eq!(snapshot.binds[0].listeners[0].path, wanted);
        assert_eq!(snapshot.services[&Name::local("s")].path, wanted);
    }
    let default = snapshot(REVIEWS);
    let reviews = &default.services[&Name::local("reviews")];
    assert_eq!(reviews.path, PathNormalization::default());
    let tcp = "kind: Gateway\nname: edge\nlisteners: [{name: a, port: 80, protocol: TCP, backend: {name: s}, path: {}}]\n---\n{kind: Service, name: s}\n";
    assert!(errors(tcp)[0].contains("a TCP listener has no `path`"));
}

#[test]
fn who_takes_over_has_to_be_another_service_that_is_there() {
    let spare = "\n---\n{kind: Service, name: spare, ports: [{port: 80}], subsets: {spare-v1: {version: v1}}}\n";
    let service = |failover: &str| format!("kind: Service\nname: s\nfailover: {failover}{spare}");
    let failover = snapshot(&service("{name: spare, port: 80}"));
    let failover = failover.services[&Name::local("s")].failover.clone();
    let expected = ClusterKey {
        service: Name::local("spare"),
        subset: None,
        port: Some(80),
    };
    assert_eq!(failover, Some(expected));
    for (written, said) in [
        ("spaer", "did you mean `spare`?"),
        ("s", "cannot take over from itself"),
        ("spare-v1", "is a subset"),
        ("{name: spare, port: 81}", "has no port 81"),
        (
            "{name: spare, namespace: shop}",
            "did you mean `namespace: default`?",
        ),
    ] {
        let found = errors(&service(written));
        assert!(
            found.len() == 1 && found[0].contains(said),
            "{written}: {found:?}"
        );
    }
}

fn health_of(written: &str) -> HealthCheck {
    let snapshot = snapshot(&format!("kind: Service\nname: s\nhealth: {written}\n"));
    let health = snapshot.services[&Name::local("s")].health.clone();
    Arc::unwrap_or_clone(health.expect("a health check"))
}

#[test]
fn a_health_check_is_a_word_or_a_mapping_and_has_every_default() {
    let tcp = health_of("tcp");
    assert_eq!(tcp, health_of("{tcp: {}}"));
    assert_eq!((tcp.healthy_threshold, tcp.unhealthy_threshold), (2, 3));
    assert_eq!(health_of("grpc"), health_of("{grpc: {}}"));
    let written = "{http: {path: /up, host: s.test, statuses: [200, 301-399]}, interval: 1s, unhealthy_threshold: 1}";
    let http = health_of(written);
    let probe = HealthProbe::Http {
        path: "/up".into(),
        host: Some("s.test".into()),
        statuses: vec![200..=200, 301..=399],
    };
    assert_eq!(http.probe, probe);
    assert_eq!((http.interval.as_secs(), http.unhealthy_threshold), (1, 1));
    assert_eq!(http.timeout, tcp.timeout);
}

#[test]
fn what_is_wrong_with_a_health_check_is_said_where_it_is() {
    for (written, said) in [
        ("{http: {path: up}}", "health.http.path: `up` is no path"),
        ("{http: {}}", "health.http: `path` is missing"),
        (
            "{http: {path: /, statuses: [399-200]}}",
            "health.http.statuses[0]: `399-200` is no status",
        ),
        (
            "{http: {path: /, host: 'a b'}}",
            "health.http.host: `a b` is not a host",
        ),
        ("{tcp: {}, grpc: {}}", "health: more than one kind of probe"),
        ("{tcp: {}, interval: 0s}", "health.interval: must be longer"),
        ("{tcp: {}, healthy_threshold: 0}", "0 is out of range"),
        ("icmp", "health: `icmp` is not known here"),
    ] {
        let found = errors(&format!("kind: Service\nname: s\nhealth: {written}\n"));
        assert!(
            found.len() == 1 && found[0].contains(said),
            "{written}: {found:?}"
        );
    }
}

#[test]
fn a_full_route_without_parents_is_inert_and_says_so() {
    let text = "
apiVersion: gateway.networking.k8s.io/v1
kind: HTTPRoute
metadata: {name: a}
spec: {hostnames: [a], rules: [{backendRefs: [{name: a, port: 80}]}]}
---
{kind: Service, name: a}
";
    assert!(snapshot(text).mesh_routes.is_empty());
    assert!(problems(text)[0].contains("warning: metadata.name: this route applies to nothing"));
}

#[test]
fn a_route_attaches_where_hostnames_meet() {
    let gateway = "
kind: Gateway
name: edge
listeners:
  - {name: exact, port: 80, protocol: HTTP, hostname: a.example.com}
  - {name: wild, port: 80, protocol: HTTP, hostname: '*.example.com'}
  - {name: other, port: 80, protocol: HTTP, hostname: other.test}
---
{kind: Service, name: s}
---
kind: HTTPRoute
name: r
";
    let listeners_of = |hostnames: &str| -> Vec<String> {
        let rules = "rules: [{backendRefs: [{name: s, port: 80}]}]\n";
        let snapshot = snapshot(&format!("{gateway}hostnames: {hostnames}\n{rules}"));
        let attached = snapshot.binds[0]
            .listeners
            .iter()
            .filter(|l| !l.routes.is_empty());
        attached.map(|listener| listener.name.to_string()).collect()
    };
    assert_eq!(listeners_of("[a.example.com]"), ["exact", "wild"]);
    assert_eq!(listeners_of("['*.example.com']"), ["exact", "wild"]);
    assert_eq!(listeners_of("['*.test', b.example.com]"), ["wild", "other"]);
    assert_eq!(listeners_of("[]"), ["exact", "wild", "other"]);
    assert_eq!(listeners_of("[example.com]"), [""; 0]);
}

#[test]
fn a_mesh_route_of_a_service_knows_its_parent() {
    let text = "
kind: HTTPRoute
name: r
namespace: callers
parentRefs: [{kind: Service, name: s, namespace: shop, port: 80}]
rules: [{backendRefs: [{name: s, namespace: shop, port: 80}]}]
---
{kind: Service, name: s, namespace: shop}
";
    let snapshot = snapshot(text);
    let parent = &snapshot.mesh_routes[0].parents[0];
    assert_eq!(
        (parent.service.to_string().as_str(), parent.port),
        ("shop/s", Some(80))
    );
}

#[test]
fn a_gateway_route_needs_a_grant_to_cross_namespaces() {
    let text = "
kind: Gateway
name: edge
listeners: [{name: w, port: 80, protocol: HTTP}]
---
kind: HTTPRoute
name: r
rules: [{backendRefs: [{name: s, namespace: shop, port: 80}]}]
---
{kind: Service, name: s, namespace: shop}
";
    assert!(errors(text)[0].contains("[RefNotPermitted]; add a ReferenceGrant to `shop`"));
}

#[test]
fn a_subset_may_not_be_called_as_a_service_is() {
    let text = "
{kind: Service, name: a, subsets: {b: {v: '1'}, c: {v: '2'}}}
---
{kind: Service, name: b, subsets: {c: {v: '1'}}}
";
    let errors = errors(text);
    assert_eq!(errors.len(), 2, "{errors:?}");
    assert!(errors[0].contains("the name `b` is taken by the service default/b"));
    assert!(errors[1].contains("the name `c` is taken by a subset of service default/a"));
}

#[test]
fn the_file_wins_over_the_registry_and_says_so() {
    let registry = "kind: Service\nname: a\nbalance: round_robin\n";
    let sources = [
        Source::registry("Service", "default", "a", 7, registry),
        Source::file(
            "mesh.yaml",
            "kind: Service\nname: a\nbalance: least_request\n",
        ),
    ];
    let loaded = Loader::new().load(&sources).unwrap();
    let service = &loaded.snapshot.services[&Name::local("a")];
    assert_eq!(service.balance.policy, crate::model::Policy::LeastRequest);
    let note = loaded.remarks[0].to_string();
    assert!(note.starts_with("registry Service default/a:2:7 note: name: Service default/a of the registry is not used"), "{note}");
}

#[test]
fn what_did_not_change_stays_the_same() {
    let mut loader = Loader::new();
    let first = loader.load(&sources(REVIEWS)).unwrap().snapshot;
    let moved = format!("# a comment above\n---{REVIEWS}---\nkind: Service\nname: another\n");
    let second = loader.load(&sources(&moved)).unwrap().snapshot;
    let name = Name::local("reviews");
    assert!(Arc::ptr_eq(&first.services[&name], &second.services[&name]));
    assert!(Arc::ptr_eq(&first.mesh_routes[0], &second.mesh_routes[0]));
    assert_eq!((first.revision, second.revision), (1, 2));
}

#[test]
fn a_route_follows_what_its_references_mean() {
    let mut loader = Loader::new();
    let route =
        "kind: HTTPRoute\nname: r\nhostnames: [r]\nrules: [{backendRefs: [{name: s}]}]\n---\n";
    let port = |port: u16| format!("{route}kind: Service\nname: s\nports: [{{port: {port}}}]\n");
    let target = |snapshot: &Snapshot| snapshot.mesh_routes[0].rules[0].backends[0].target.clone();
    let first = loader.load(&sources(&port(80))).unwrap().snapshot;
    let second = loader.load(&sources(&port(81))).unwrap().snapshot;
    assert_ne!(target(&first), target(&second));
    let third = loader.load(&sources(route)).unwrap();
    assert!(third.remarks[0].is_error() && !third.remarks[0].stands_against());
    assert!(matches!(target(&third.snapshot), BackendTarget::Invalid(_)));
}

/// After a wanted change: `UPDATE_GOLDEN=1 cargo test --lib config`, and read the difference.
#[test]
fn the_problems_of_a_very_wrong_file_read_well() {
    let text = include_str!("golden/wrong.yaml");
    let problems = validate(&[Source::file("wrong.yaml", text)]);
    let rendered = super::problem::render(&problems, false);
    let path = concat!(env!("CARGO_MANIFEST_DIR"), "/src/config/golden/wrong.txt");
    if std::env::var_os("UPDATE_GOLDEN").is_some() {
        std::fs::write(path, &rendered).unwrap();
    }
    let expected = std::fs::read_to_string(path).unwrap();
    assert_eq!(rendered, expected);
}

#[test]
fn every_example_compiles_without_a_remark() {
    let folder = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("config");
    let sources = super::source::read(&folder).unwrap();
    assert!(sources.len() >= 11);
    for source in sources {
        let path = std::path::PathBuf::from(source.origin.to_string());
        let problems = match super::bootstrap::recognise(&source.text) {
            Some(kind) => super::bootstrap::validate(kind, &path, &source.text),
            None => Loader::new().judge_by_interfaces(&[source]).1,
        };
        assert_eq!(problems, [], "{}", super::problem::render(&problems, false));
    }
}

#[test]
fn a_rule_that_redirects_needs_no_backend() {
    for backends in ["", ", backendRefs: []"] {
        let text = format!(
            "kind: HTTPRoute\nname: r\nhostnames: [r]\nrules: [{{filters: [{{type: RequestRedirect, \
             requestRedirect: {{scheme: https}}}}]{backends}}}]\n"
        );
        assert_eq!(problems(&text), Vec::<String>::new(), "{backends}");
        let snapshot = snapshot(&text);
        let Filter::RequestRedirect(redirect) = &snapshot.mesh_routes[0].rules[0].filters[0] else {
            panic!("it is a redirect");
        };
        assert_eq!(redirect.status, 302);
    }
}
