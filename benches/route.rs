//! Finding a rule, counting a request and writing its access-log line. The first must not grow with the number of routes.
//!
//! `cargo bench --bench route`

use std::hint::black_box;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use criterion::{BenchmarkId, Criterion, criterion_group, criterion_main};
use pillion::model::{
    HeaderMatch, HostPattern, Name, PathMatch, Route, RouteKind, RouteMatch, Rule, Timeouts,
    ValueMatch,
};
use pillion::proxy::http::head::RequestHead;
use pillion::proxy::route::{Found, HeadView, Table, normalize};
use pillion::telemetry::access_log::{self, Output, Record, Settings};
use pillion::telemetry::flags::Flags;
use pillion::telemetry::metrics::{Registry, Requests};

const SIZES: [usize; 4] = [1, 100, 5_000, 20_000];

fn route(number: usize, host: Option<HostPattern>, path: PathMatch) -> Arc<Route> {
    let conditions = RouteMatch {
        path,
        method: None,
        headers: Vec::new(),
        queries: Vec::new(),
    };
    Arc::new(Route {
        kind: RouteKind::Http,
        name: Name::local(&format!("route-{number}")),
        hostnames: host.into_iter().collect(),
        parents: Vec::new(),
        created: 0,
        rules: vec![rule(conditions)],
    })
}

fn rule(conditions: RouteMatch) -> Rule {
    Rule {
        name: None,
        matches: vec![conditions],
        filters: Vec::new(),
        backends: Vec::new(),
        mirrors: Vec::new(),
        timeouts: Timeouts::default(),
        retry: None,
        hedge: None,
        session: None,
    }
}

fn compile(routes: &[Arc<Route>]) -> Table<()> {
    Table::compile(routes, &Requests::default().listener("bench"), |_| ())
}

fn request(host: &str, target: &str) -> RequestHead {
    let mut head = RequestHead::new();
    head.set_target(target.as_bytes()).expect("a target");
    head.fields.push(b"Host", host.as_bytes());
    head.fields.push(b"User-Agent", b"bench/1.0");
    head.fields.push(b"Accept", b"*/*");
    head.fields.push(b"X-Tenant", b"blue");
    head
}

fn finds(table: &Table<()>, head: &RequestHead) -> bool {
    let path = normalize(head.path(), Default::default()).expect("no NUL");
    matches!(table.find(&HeadView::new(head, &path)), Found::Rule { .. })
}

/// Many hosts, one prefix each.
fn by_host(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("route/host");
    for size in SIZES {
        let host = |n: usize| HostPattern::Exact(format!("service-{n}.shop.example").into());
        let routes: Vec<_> = (0..size)
            .map(|n| route(n, Some(host(n)), PathMatch::Prefix("".into())))
            .collect();
        let table = compile(&routes);
        let head = request(
            &format!("service-{}.shop.example:8080", size / 2),
            "/cart?id=1",
        );
        assert!(finds(&table, &head));
        group.bench_with_input(BenchmarkId::from_parameter(size), &head, |bencher, head| {
            bencher.iter(|| finds(black_box(&table), black_box(head)));
        });
    }
}

/// One host, many prefixes and exact paths.
fn by_path(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("route/path");
    for size in SIZES {
        let path = |n: usize| match n % 2 {
            0 => PathMatch::Prefix(format!("/api/v1/service-{n}").into()),
            _ => PathMatch::Exact(format!("/api/v1/service-{n}").into()),
        };
        let host = || Some(HostPattern::Exact("shop.example".into()));
        let routes: Vec<_> = (0..size).map(|n| route(n, host(), path(n))).collect();
        let table = compile(&routes);
        let target = format!("/api/v1/service-{}/orders/17?full=1", size / 4 * 2);
        let head = request("shop.example", &target);
        assert!(finds(&table, &head));
        group.bench_with_input(BenchmarkId::from_parameter(size), &head, |bencher, head| {
            bencher.iter(|| finds(black_box(&table), black_box(head)));
        });
    }
}

/// Ten rules of one host and path told apart by a header; the last one fits.
fn by_header(criterion: &mut Criterion) {
    let matches = |value: &str| RouteMatch {
        path: PathMatch::Prefix("".into()),
        method: None,
        headers: vec![HeaderMatch {
            name: "x-tenant".into(),
            value: ValueMatch::Exact(value.into()),
        }],
        queries: Vec::new(),
    };
    let mut tenants = route(0, None, PathMatch::Prefix("".into()));
    let rules = &mut Arc::make_mut(&mut tenants).rules;
    *rules = (0..9)
        .map(|n| rule(matches(&format!("tenant-{n}"))))
        .chain([rule(matches("blue"))])
        .collect();
    let table = compile(&[tenants]);
    let head = request("shop.example", "/");
    assert!(finds(&table, &head));
    criterion.bench_function("route/header/10", |bencher| {
        bencher.iter(|| finds(black_box(&table), black_box(&head)));
    });
}

fn compiling(criterion: &mut Criterion) {
    let host = |n: usize| HostPattern::Exact(format!("service-{n}").into());
    let routes: Vec<_> = (0..20_000)
        .map(|n| route(n, Some(host(n)), PathMatch::Prefix("/api".into())))
        .collect();
    criterion.bench_function("route/compile/20000", |bencher| {
        bencher.iter(|| compile(black_box(&routes)));
    });
}

fn counting(criterion: &mut Criterion) {
    let requests = Requests::default();
    let series = requests
        .listener("edge")
        .series("default/shop/0", "default/shop");
    criterion.bench_function("metrics/record", |bencher| {
        bencher.iter(|| {
            series.record(
                black_box(200),
                Flags::NONE,
                black_box(Duration::from_micros(730)),
            );
        });
    });
}

fn logging(criterion: &mut Criterion) {
    let settings = Settings {
        output: Output::File("/dev/null".into()),
        ..Settings::default()
    };
    let log = access_log::start(settings, &Registry::default()).expect("/dev/null");
    let mut writer = log.writer();
    let record = Record {
        start: SystemTime::now(),
        listener: "default/edge/http",
        downstream: Some("10.1.2.3:40000".parse().expect("an address")),
        method: b"GET",
        authority: b"shop.example",
        path: b"/api/v1/orders/17?full=1",
        protocol: "HTTP/1.1",
        status: 200,
        bytes_out: 1_024,
        duration: Duration::from_micros(730),
        upstream_first_byte: Some(Duration::from_micros(512)),
        route: "default/shop/0",
        service: "default/shop",
        endpoint: Some("10.1.2.4:8080".parse().expect("an address")),
        attempts: 1,
        ..Record::default()
    };
    criterion.bench_function("access_log/line", |bencher| {
        bencher.iter(|| writer.write(black_box(&record)));
    });
}

criterion_group!(
    benches, by_host, by_path, by_header, compiling, counting, logging
);
criterion_main!(benches);
