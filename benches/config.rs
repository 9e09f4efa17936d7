//! Loading a mesh of 10,000 services, 100,000 endpoints and 20,000 routes from one file, and loading it again after one of its
//! documents changed.

use std::fmt::Write;
use std::hint::black_box;

use criterion::{BatchSize, Criterion, criterion_group, criterion_main};
use pillion::config::{Loader, Source};

const SERVICES: usize = 10_000;
const ENDPOINTS_PER_SERVICE: usize = 10;
const ROUTES_PER_SERVICE: usize = 2;

fn mesh(services: usize) -> String {
    let mut text = String::new();
    for service in 0..services {
        write_service(&mut text, service);
        for route in 0..ROUTES_PER_SERVICE {
            write_route(&mut text, service, route);
        }
    }
    text
}

fn write_service(text: &mut String, service: usize) {
    // Writing to a String does not fail.
    let _ = write!(
        text,
        "---\nkind: Service\nname: service-{service}\nports: [{{port: 8080, protocol: http}}]\nendpoints:\n"
    );
    for endpoint in 0..ENDPOINTS_PER_SERVICE {
        let (high, low) = (service / 250, service % 250);
        let _ = writeln!(
            text,
            "  - {{address: 10.{high}.{low}.{endpoint}:8080, weight: 2, zone: a, labels: {{version: v1}}}}"
        );
    }
}

fn write_route(text: &mut String, service: usize, route: usize) {
    let _ = write!(
        text,
        "---\nkind: HTTPRoute\nname: route-{service}-{route}\nhostnames: [service-{service}]\nrules:\n  \
         - matches: [{{path: {{type: PathPrefix, value: /v{route}}}, headers: [{{name: x-canary, value: yes}}]}}]\n    \
         backendRefs: [{{name: service-{service}, port: 8080}}]\n    timeouts: {{request: 2s}}\n"
    );
}

fn loaded(loader: &mut Loader, sources: &[Source]) -> u64 {
    match loader.load(sources) {
        Ok(loaded) => loaded.snapshot.revision,
        Err(problems) => panic!("{}", problems[0]),
    }
}

fn load(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("config");
    group.sample_size(10);
    for services in [SERVICES / 10, SERVICES] {
        let sources = [Source::file("mesh.yaml", mesh(services))];
        group.bench_function(format!("load {services} services"), |bencher| {
            bencher.iter(|| black_box(loaded(&mut Loader::new(), &sources)));
        });
    }
    group.finish();
}

fn reload(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("config");
    group.sample_size(10);
    let before = mesh(SERVICES);
    let after = before.replace(
        "name: service-5000\nports: [{port: 8080",
        "name: service-5000\nports: [{port: 9090",
    );
    let after = after.replace(
        "name: service-5000, port: 8080",
        "name: service-5000, port: 9090",
    );
    let texts = [
        Source::file("mesh.yaml", before),
        Source::file("mesh.yaml", after),
    ];
    let mut loader = Loader::new();
    let mut turn = 0;
    group.bench_function(
        "reload after one changed service and its routes",
        |bencher| {
            bencher.iter_batched(
                || {
                    turn += 1;
                    texts[turn % 2].clone()
                },
                |source| black_box(loaded(&mut loader, &[source])),
                BatchSize::PerIteration,
            );
        },
    );
    group.finish();
}

criterion_group!(benches, load, reload);
criterion_main!(benches);
