//! What a pick costs with each policy, and what a change of the endpoints does. Goal: at most 50 ns for a pick that compares
//! two, and a change whose cost does not grow with the number of other services.

use std::hint::black_box;
use std::net::Ipv4Addr;
use std::sync::Arc;
use std::time::Duration;

use criterion::{BatchSize, BenchmarkId, Criterion, criterion_group, criterion_main};
use pillion::load::orca;
use pillion::model::{
    Address, Balance, ClusterKey, Endpoint, EndpointState, EndpointUpdate, Name, Policy, Service,
    Snapshot,
};
use pillion::proxy::cluster::{Cluster, Clusters, Outcome, reported};
use tokio::time::Instant;

const POLICIES: [(&str, Policy); 12] = [
    ("random", Policy::Random),
    ("round_robin", Policy::RoundRobin),
    ("weighted_round_robin", Policy::WeightedRoundRobin),
    ("least_request", Policy::LeastRequest),
    ("least_request unequal", Policy::LeastRequest),
    ("least_connections", Policy::LeastConnections),
    ("peak_ewma", Policy::PeakEwma),
    ("weights: auto", Policy::AutoWeightedRoundRobin),
    ("load_factor", Policy::LoadFactor),
    ("lowest_load", Policy::LowestLoad),
    ("maglev", Policy::Maglev),
    ("ring_hash", Policy::RingHash),
];

fn endpoint(number: u32, weight: u32) -> Endpoint {
    let ip = Ipv4Addr::from(0x0A00_0000 + number);
    Endpoint {
        address: Address::Socket((ip, 8080).into()),
        port: None,
        weight,
        zone: None,
        priority: 0,
        labels: Arc::default(),
        state: EndpointState::Passing,
        instance: None,
    }
}

fn service(name: &str, policy: Policy) -> Service {
    Service {
        balance: Balance {
            policy,
            ..Balance::default()
        },
        ..Service::new(Name::local(name))
    }
}

fn key(name: &str) -> ClusterKey {
    ClusterKey {
        service: Name::local(name),
        subset: None,
        port: None,
    }
}

fn cluster(policy: Policy, endpoints: Vec<Endpoint>) -> Arc<Cluster> {
    let cluster = Cluster::new(key("a"), &Arc::new(service("a", policy)), None);
    cluster.set_endpoints(endpoints);
    cluster
}

/// Settles a few requests at each endpoint, so that all have a latency, and a load for those who go by that.
fn warm(cluster: &Cluster, count: u32) {
    let mut rng = fastrand::Rng::with_seed(1);
    let now = Instant::now();
    let leases: Vec<_> = (0..count * 20)
        .filter_map(|_| cluster.pick(&[], now, &mut rng).ok())
        .collect();
    for lease in leases {
        let latency = Duration::from_micros(500 + rng.u64(..1_000));
        lease.settle(Outcome::Success, latency, now);
    }
    // Long enough ago to count, and not so long that it does not.
    for endpoint in &cluster.endpoints().endpoints {
        let report = orca::Report {
            application: Some(0.2 + 0.6 * rng.f64()),
            rps: Some(100.0),
            ..orca::Report::default()
        };
        endpoint.reported(&report, now);
        endpoint.reported(&report, now + reported::BLACKOUT);
    }
    cluster.reweigh(now + reported::BLACKOUT);
}

/// A pick whose lease is dropped at once, and a whole lease with its verdict.
fn picks(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("pick");
    for (name, policy) in POLICIES {
        for count in [3, 100, 1_000] {
            let weight = |n| {
                if policy == Policy::WeightedRoundRobin || name.ends_with("unequal") {
                    1 + n % 5
                } else {
                    1
                }
            };
            let endpoints = (0..count).map(|n| endpoint(n, weight(n))).collect();
            let cluster = cluster(policy, endpoints);
            warm(&cluster, count);
            let mut rng = fastrand::Rng::with_seed(1);
            let now = Instant::now() + reported::BLACKOUT;
            group.bench_function(BenchmarkId::new(name, count), |bencher| {
                bencher.iter(|| {
                    let key = policy.hashes().then(|| rng.u64(..));
                    black_box(cluster.pick_by_key(key, &[], now, &mut rng)).is_ok()
                });
            });
        }
    }
    let cluster = cluster(Policy::PeakEwma, (0..100).map(|n| endpoint(n, 1)).collect());
    warm(&cluster, 100);
    let mut rng = fastrand::Rng::with_seed(1);
    let now = Instant::now();
    group.bench_function("peak_ewma and settle/100", |bencher| {
        bencher.iter(|| {
            if let Ok(lease) = cluster.pick(&[], now, &mut rng) {
                lease.settle(Outcome::Success, Duration::from_micros(900), now);
            }
        });
    });
    group.finish();
}

/// The first pick after a change, which works out again who may be picked.
fn refreshes(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("change and pick");
    for (name, policy) in POLICIES {
        for count in [10, 1_000] {
            let cluster = cluster(policy, Vec::new());
            let mut rng = fastrand::Rng::with_seed(1);
            let now = Instant::now();
            let mut weight = 1;
            group.bench_function(BenchmarkId::new(name, count), |bencher| {
                bencher.iter_batched(
                    || {
                        weight = weight % 7 + 1;
                        let weight = |n| if n == 0 { weight } else { 1 };
                        (0..count).map(|n| endpoint(n, weight(n))).collect()
                    },
                    |endpoints| {
                        cluster.set_endpoints(endpoints);
                        cluster.pick(&[], now, &mut rng).is_ok()
                    },
                    BatchSize::SmallInput,
                );
            });
        }
    }
    group.finish();
}

/// The first pick after a change that leaves all endpoints as they are, such as one of somebody's health.
fn rearrangements(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("health change and pick");
    for (name, policy) in POLICIES {
        let cluster = cluster(policy, (0..1_000).map(|n| endpoint(n, 1)).collect());
        let service = Arc::new(service("a", policy));
        let mut rng = fastrand::Rng::with_seed(1);
        let now = Instant::now();
        group.bench_function(BenchmarkId::new(name, 1_000), |bencher| {
            bencher.iter(|| {
                cluster.update_service(&service);
                cluster.pick(&[], now, &mut rng).is_ok()
            });
        });
    }
    group.finish();
}

/// A change of one endpoint among many services, and a snapshot in which one service is another.
fn directories(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("directory");
    for services in [100_u32, 10_000] {
        let clusters = Clusters::new(None);
        let names: Vec<String> = (0..services).map(|n| format!("service-{n}")).collect();
        let mut snapshot = Snapshot::default();
        for name in &names {
            let service = Arc::new(service(name, Policy::PeakEwma));
            snapshot.services.insert(service.name.clone(), service);
        }
        clusters.apply(&snapshot);
        let update = |number: u32, weight| EndpointUpdate {
            service: Name::local(&names[number as usize]),
            endpoints: (0..10)
                .map(|n| endpoint(number * 10 + n, if n == 0 { weight } else { 1 }))
                .collect(),
        };
        let held: Vec<_> = names
            .iter()
            .map(|name| clusters.get_or_create(&key(name)))
            .collect();
        (0..services).for_each(|number| clusters.set_endpoints(update(number, 1)));
        let mut round = 0;
        group.bench_function(
            BenchmarkId::new("one endpoint changes", services),
            |bencher| {
                bencher.iter_batched(
                    || {
                        round += 1;
                        update(round % services, round % 7 + 1)
                    },
                    |update| clusters.set_endpoints(update),
                    BatchSize::SmallInput,
                );
            },
        );
        group.bench_function(
            BenchmarkId::new("one service changes", services),
            |bencher| {
                bencher.iter(|| {
                    round += 1;
                    let service = service(&names[(round % services) as usize], Policy::RoundRobin);
                    let service = Arc::new(service);
                    snapshot.services.insert(service.name.clone(), service);
                    clusters.apply(&snapshot);
                });
            },
        );
        drop(held);
    }
    group.finish();
}

criterion_group!(benches, picks, refreshes, rearrangements, directories);
criterion_main!(benches);
