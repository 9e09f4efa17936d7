//! The table against a linear search over the standard's ordering, on random routes and requests; and the ordering's
//! lines one by one.

use std::cmp::Reverse;
use std::collections::BTreeMap;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use proptest::prelude::*;
use regex::bytes::Regex;

use super::*;
use crate::model::{self, *};
use crate::telemetry::metrics::Requests;

#[derive(Debug, Clone)]
struct Request {
    host: String,
    path: String,
    query: Option<String>,
    method: &'static str,
    headers: Vec<(&'static str, &'static str)>,
}

impl RequestView for Request {
    fn host(&self) -> &[u8] {
        self.host.as_bytes()
    }
    fn path(&self) -> &[u8] {
        self.path.as_bytes()
    }
    fn query(&self) -> Option<&[u8]> {
        self.query.as_deref().map(str::as_bytes)
    }
    fn method(&self) -> &[u8] {
        self.method.as_bytes()
    }
    fn header(&self, lower_name: &str) -> Option<&[u8]> {
        let mut headers = self.headers.iter();
        headers
            .find(|(name, _)| *name == lower_name)
            .map(|(_, value)| value.as_bytes())
    }
}

/// Every (route, rule) whose hostname and match fit, by the standard's ordering; the least one wins.
fn linear(routes: &[Arc<Route>], request: &Request) -> Option<(String, usize)> {
    let mut fitting = Vec::new();
    for route in routes {
        let hosts = route.hostnames.iter().map(Some);
        let hosts = hosts.chain(route.hostnames.is_empty().then_some(None));
        for host_rank in hosts.filter_map(|host| host_rank(host, &request.host)) {
            for (rule_index, rule) in route.rules.iter().enumerate() {
                for (match_index, conditions) in rule.matches.iter().enumerate() {
                    let Some(path_rank) = path_rank(&conditions.path, &request.path) else {
                        continue;
                    };
                    if others_fit(conditions, request) {
                        let rank = (
                            host_rank,
                            path_rank,
                            Reverse(conditions.method.is_some()),
                            Reverse(conditions.headers.len()),
                            Reverse(conditions.queries.len()),
                            route.created,
                            route.name.to_string(),
                            rule_index,
                            match_index,
                        );
                        fitting.push((rank, (route.name.to_string(), rule_index)));
                    }
                }
            }
        }
    }
    fitting.into_iter().min().map(|(_, winner)| winner)
}

/// Characters of a matching non-wildcard hostname, then characters of the hostname.
fn host_rank(host: Option<&HostPattern>, asked: &str) -> Option<(Reverse<usize>, Reverse<usize>)> {
    let asked = asked.trim_end_matches('.').to_lowercase();
    match host {
        None => Some((Reverse(0), Reverse(0))),
        Some(HostPattern::Exact(name)) => {
            (**name == *asked).then_some((Reverse(name.len()), Reverse(name.len())))
        }
        Some(HostPattern::Wildcard(name)) => {
            let before = asked.strip_suffix(&format!(".{name}"))?;
            (!before.is_empty()).then_some((Reverse(0), Reverse(name.len() + 2)))
        }
    }
}

fn path_rank(path: &PathMatch, asked: &str) -> Option<(u8, Reverse<usize>)> {
    match path {
        PathMatch::Exact(exact) => (**exact == *asked).then_some((0, Reverse(0))),
        PathMatch::Regex(regex) => regex.is_match(asked.as_bytes()).then_some((1, Reverse(0))),
        PathMatch::Prefix(prefix) => {
            let fits =
                prefix.is_empty() || *asked == **prefix || asked.starts_with(&format!("{prefix}/"));
            let rank = if prefix.is_empty() { 4 } else { 2 };
            fits.then_some((rank, Reverse(prefix.len())))
        }
        PathMatch::Method(method) => {
            let elements: Vec<&str> = asked.split('/').collect();
            let fits = matches!(elements[..], ["", _, last] if *last == **method);
            fits.then_some((3, Reverse(0)))
        }
    }
}

fn others_fit(conditions: &RouteMatch, request: &Request) -> bool {
    let fits = |wanted: &ValueMatch, value: &str| match wanted {
        ValueMatch::Exact(exact) => **exact == *value,
        ValueMatch::Regex(regex) => regex.is_match(value.as_bytes()),
    };
    let query = request.query.clone().unwrap_or_default();
    let queries: Vec<_> = query.split('&').filter_map(|p| p.split_once('=')).collect();
    conditions
        .method
        .as_deref()
        .is_none_or(|m| m == request.method)
        && conditions.headers.iter().all(|wanted| {
            let first = request
                .headers
                .iter()
                .find(|(name, _)| *name == &*wanted.name);
            first.is_some_and(|(_, value)| fits(&wanted.value, value))
        })
        && conditions.queries.iter().all(|wanted| {
            let first = queries.iter().find(|(name, _)| *name == &*wanted.name);
            first.is_some_and(|(_, value)| fits(&wanted.value, value))
        })
}

fn table(routes: &[Arc<Route>]) -> Table<()> {
    Table::compile(routes, &Requests::default().listener("test"), |_| ())
}

fn winner(table: &Table<()>, request: &Request) -> Option<(String, usize)> {
    match table.find(request) {
        Found::Rule { rule, .. } => Some((rule.route.name.to_string(), rule.index)),
        Found::NoHost | Found::NoRule => None,
    }
}

fn host_pattern() -> impl Strategy<Value = HostPattern> {
    prop_oneof![
        prop::sample::select(vec!["a.b.c", "b.c", "c", "x.b.c"])
            .prop_map(|name| HostPattern::Exact(name.into())),
        prop::sample::select(vec!["b.c", "c", "a.b.c"])
            .prop_map(|name| HostPattern::Wildcard(name.into())),
    ]
}

fn path_match() -> impl Strategy<Value = PathMatch> {
    let prefix = prop::sample::select(vec![
        "", "/a", "/a/b", "/a/", "/ab", "//", "/a//b", "/a/b/c",
    ]);
    let exact = prop::sample::select(vec!["/", "/a", "/a/", "/a/b", "//a"]);
    let regex = prop::sample::select(regexes(&["^/a.*$", "^/[ab]/b$", "^/.$"]));
    prop_oneof![
        3 => prefix.prop_map(|prefix| PathMatch::Prefix(prefix.into())),
        2 => exact.prop_map(|exact| PathMatch::Exact(exact.into())),
        1 => regex.prop_map(PathMatch::Regex),
        1 => prop::sample::select(vec!["b", "", "c"]).prop_map(|method| PathMatch::Method(method.into())),
    ]
}

/// Compiled once for all cases: that is what takes long.
fn regexes(patterns: &[&str]) -> Vec<Regex> {
    static COMPILED: Mutex<BTreeMap<String, Regex>> = Mutex::new(BTreeMap::new());
    let mut compiled = COMPILED.lock().expect("compiling does not panic");
    let mut regex = |pattern: &&str| {
        let new = || Regex::new(pattern).expect("valid");
        compiled
            .entry(pattern.to_string())
            .or_insert_with(new)
            .clone()
    };
    patterns.iter().map(&mut regex).collect()
}

fn value_match() -> impl Strategy<Value = ValueMatch> {
    prop_oneof![
        prop::sample::select(vec!["1", "2"]).prop_map(|value| ValueMatch::Exact(value.into())),
        prop::sample::select(regexes(&["^[12]$"])).prop_map(ValueMatch::Regex),
    ]
}

prop_compose! {
    fn route_match()(
        path in path_match(),
        method in prop::option::weighted(0.3, prop::sample::select(vec!["GET", "POST"])),
        headers in prop::collection::vec((prop::sample::select(vec!["x-a", "x-b"]), value_match()), 0..3),
        queries in prop::collection::vec((prop::sample::select(vec!["p", "q"]), value_match()), 0..3),
    ) -> RouteMatch {
        RouteMatch {
            path,
            method: method.map(Into::into),
            headers: headers.into_iter().map(|(name, value)| HeaderMatch { name: name.into(), value }).collect(),
            queries: queries.into_iter().map(|(name, value)| QueryMatch { name: name.into(), value }).collect(),
        }
    }
}

fn rule(matches: Vec<RouteMatch>) -> Rule {
    Rule {
        name: None,
        matches,
        filters: Vec::new(),
        backends: Vec::new(),
        mirrors: Vec::new(),
        timeouts: Timeouts::default(),
        retry: None,
        hedge: None,
        session: None,
    }
}

fn routes() -> impl Strategy<Value = Vec<Arc<Route>>> {
    let rules = prop::collection::vec(
        prop::collection::vec(route_match(), 1..3).prop_map(rule),
        1..3,
    );
    let route = (prop::collection::vec(host_pattern(), 0..3), 0..3_i64, rules);
    prop::collection::vec(route, 0..12).prop_map(|routes| {
        let numbered = routes.into_iter().enumerate();
        let build = |(at, (hostnames, created, rules)): (usize, (Vec<_>, _, _))| {
            // Namespaces that order differently as text than as parts.
            let namespace = ["a", "a-b", "a.b"][at % 3];
            Arc::new(Route {
                kind: RouteKind::Http,
                name: Name::new(namespace, &format!("r{}", 97 * (at + 1) % 31)),
                hostnames,
                parents: Vec::new(),
                created,
                rules,
            })
        };
        numbered.map(build).collect()
    })
}

prop_compose! {
    fn request()(
        host in prop::sample::select(vec!["a.b.c", "A.B.C.", "x.b.c", "b.c", "c", "z.c", "q.a.b.c", "other", ""]),
        path in prop::sample::select(vec!["/", "/a", "/a/", "/a/b", "/a/b/c/d", "/ab", "//", "//a", "/a//b", "*", "/z"]),
        method in prop::sample::select(vec!["GET", "POST", "HEAD"]),
        headers in prop::collection::vec((prop::sample::select(vec!["x-a", "x-b"]), prop::sample::select(vec!["1", "2", "3"])), 0..4),
        query in prop::option::of(prop::sample::select(vec!["p=1", "p=2&q=1", "q=3&q=1", "p=1&q=2&p=2"])),
    ) -> Request {
        Request { host: host.into(), path: path.into(), query: query.map(Into::into), method, headers }
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 600, ..ProptestConfig::default() })]

    #[test]
    fn the_table_finds_what_a_linear_search_finds(routes in routes(), requests in prop::collection::vec(request(), 8)) {
        let table = table(&routes);
        for request in requests {
            prop_assert_eq!(winner(&table, &request), linear(&routes, &request), "{:?}", request);
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 2_000, ..ProptestConfig::default() })]

    #[test]
    fn an_explanation_agrees_with_the_search(routes in routes(), requests in prop::collection::vec(request(), 8)) {
        let table = table(&routes);
        for request in requests {
            let considered = table.explain(&request);
            let taken: Vec<_> = considered.iter().filter(|one| matches!(one.fate, Fate::Taken)).collect();
            let explained = taken.first().map(|one| (one.rule.route.name.to_string(), one.rule.index));
            prop_assert_eq!(&explained, &winner(&table, &request), "{:?}", request);
            prop_assert!(taken.len() <= 1);
            // Nothing is left out, and nothing told twice.
            let of_host = |route: &Route| {
                let any = route.hostnames.is_empty().then_some(None);
                route.hostnames.iter().map(Some).chain(any).any(|host| host_rank(host, &request.host).is_some())
            };
            let matches = routes.iter().filter(|route| of_host(route));
            let matches: usize = matches.flat_map(|route| &route.rules).map(|rule| rule.matches.len()).sum();
            prop_assert_eq!(considered.len(), matches);
            for one in &considered {
                let path = path_rank(&one.conditions.path, &request.path).is_some();
                let others = others_fit(one.conditions, &request);
                let (expected_path, expected_others) = match one.fate {
                    Fate::Taken | Fate::Later => (true, true),
                    Fate::OtherPath => (false, others),
                    Fate::Mismatch(_) => (true, false),
                };
                prop_assert_eq!((path, others), (expected_path, expected_others), "{:?}", one.conditions);
            }
        }
    }
}

fn get(host: &str, path: &str) -> Request {
    Request {
        host: host.into(),
        path: path.into(),
        query: None,
        method: "GET",
        headers: Vec::new(),
    }
}

fn route(name: &str, hostnames: &[HostPattern], path: PathMatch) -> Route {
    let conditions = RouteMatch {
        path,
        method: None,
        headers: Vec::new(),
        queries: Vec::new(),
    };
    Route {
        kind: RouteKind::Http,
        name: Name::local(name),
        hostnames: hostnames.to_vec(),
        parents: Vec::new(),
        created: 0,
        rules: vec![rule(vec![conditions])],
    }
}

#[test]
fn a_miss_tells_an_unknown_host_from_an_unknown_path() {
    let host = HostPattern::Exact("shop".into());
    let routes = [Arc::new(route(
        "r",
        &[host],
        PathMatch::Exact("/cart".into()),
    ))];
    let table = table(&routes);
    assert!(matches!(table.find(&get("other", "/cart")), Found::NoHost));
    assert!(matches!(table.find(&get("shop", "/")), Found::NoRule));
    assert!(matches!(
        table.find(&get("shop", "/cart")),
        Found::Rule { .. }
    ));
}

#[test]
fn a_less_specific_host_serves_what_the_more_specific_has_no_rule_for() {
    let host = HostPattern::Exact("shop".into());
    let routes = [
        Arc::new(route("exact", &[host], PathMatch::Exact("/cart".into()))),
        Arc::new(route("any", &[], PathMatch::Prefix("".into()))),
    ];
    let winner = winner(&table(&routes), &get("shop", "/elsewhere"));
    assert_eq!(winner, Some(("default/any".into(), 0)));
}

#[test]
fn a_catch_all_does_not_hide_a_regular_expression() {
    let regex = Regex::new("^/v[0-9]+$").expect("valid");
    let routes = [
        Arc::new(route("all", &[], PathMatch::Prefix("".into()))),
        Arc::new(route("regex", &[], PathMatch::Regex(regex))),
    ];
    let winner = winner(&table(&routes), &get("any", "/v12"));
    assert_eq!(winner, Some(("default/regex".into(), 0)));
}

#[test]
fn a_rule_knows_its_label_timeouts_and_backends() {
    let mut shop = route("shop", &[], PathMatch::Prefix("".into()));
    let cluster = |name: &str| ClusterKey {
        service: Name::local(name),
        subset: None,
        port: None,
    };
    let backend = |target, weight| model::Backend {
        mirrors: Vec::new(),
        target,
        weight,
        filters: Vec::new(),
    };
    shop.rules[0].name = Some("cart".into());
    shop.rules[0].timeouts.request = Some(Duration::from_secs(2));
    shop.rules[0].backends = vec![
        backend(BackendTarget::Cluster(cluster("v1")), 0),
        backend(BackendTarget::Cluster(cluster("v2")), 3),
        backend(BackendTarget::Invalid("no such service".into()), 1),
    ];
    let requests = Requests::default().listener("test");
    let table = Table::compile(&[Arc::new(shop)], &requests, |key| key.service.to_string());
    let Found::Rule { rule, .. } = table.find(&get("any", "/")) else {
        panic!("the catch-all matches");
    };
    assert_eq!(&*rule.label, "default/shop/cart");
    assert_eq!(rule.timeouts().request, Some(Duration::from_secs(2)));
    assert_eq!(rule.backends().count(), 2);
    let mut rng = fastrand::Rng::with_seed(1);
    let mut invalid = 0;
    for _ in 0..1_000 {
        match rule.pick_backend(&mut rng) {
            BackendChoice::Cluster(backend) => assert_eq!(backend.target, "default/v2"),
            BackendChoice::Invalid(reason) => {
                assert_eq!(&**reason, "no such service");
                invalid += 1;
            }
            BackendChoice::None => panic!("there are weights"),
        }
    }
    assert!((150..350).contains(&invalid), "{invalid}");
}
