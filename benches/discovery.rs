//! One endpoint's change against meshes of growing size: from the bytes of the watch to the update for the data plane and
//! the bytes for the disk. The times of one group are to be the same, whatever the size of the mesh.
//!
//! And what happens once: a listing of the whole, and reading the whole from disk.

use std::hint::black_box;

use criterion::{BatchSize, BenchmarkId, Criterion, criterion_group, criterion_main};
use pillion::api::{FrameDecoder, Instance, InstancesChange, ServiceSet, WatchFrame};
use pillion::discovery::mirror::Mirror;
use pillion::discovery::snapshot::{self, Key, Saved};
use pillion::model::Name;

const SERVICES: [usize; 3] = [100, 1_000, 10_000];
const INSTANCES_PER_SERVICE: usize = 10;
/// Services in one frame of a listing.
const SERVICES_PER_FRAME: usize = 100;

fn instance(service: usize, number: usize, weight: usize) -> Instance {
    let (high, low) = (service / 250, service % 250);
    let instance = serde_json::json!({
        "id": format!("service-{service}.default.pod-{number}"), "namespace": "default",
        "service": format!("service-{service}"), "zone": "a", "weight": weight, "labels": {"version": "v1"},
        "ports": [{"address": format!("10.{high}.{low}.{number}:8080"), "port": 8080, "protocol": "http"}],
    });
    serde_json::from_value(instance).expect("an instance")
}

fn set(service: usize) -> ServiceSet {
    ServiceSet {
        namespace: "default".into(),
        name: format!("service-{service}"),
        instances: (0..INSTANCES_PER_SERVICE)
            .map(|number| instance(service, number, 1))
            .collect(),
    }
}

fn listing(services: usize) -> Vec<u8> {
    let mut frames = vec![
        WatchFrame::Hello {
            version: 1,
            store: "bench".into(),
            revision: 1,
        },
        WatchFrame::Reset {
            reason: "a bench".into(),
        },
    ];
    for first in (0..services).step_by(SERVICES_PER_FRAME) {
        let services = (first..services.min(first + SERVICES_PER_FRAME))
            .map(set)
            .collect();
        frames.push(WatchFrame::Snapshot {
            documents: Vec::new(),
            services,
        });
    }
    frames.push(WatchFrame::Synced { revision: 1 });
    frames.iter().flat_map(line).collect()
}

/// The last instance of the middle service gets another weight.
fn change(services: usize, revision: u64) -> Vec<u8> {
    let service = services / 2;
    let weight = 2 + revision as usize % 100;
    line(&WatchFrame::Changes {
        revision,
        documents: Vec::new(),
        documents_deleted: Vec::new(),
        instances: vec![InstancesChange {
            namespace: "default".into(),
            service: format!("service-{service}"),
            upserts: vec![instance(service, INSTANCES_PER_SERVICE - 1, weight)],
            removals: Vec::new(),
        }],
    })
}

fn line(frame: &WatchFrame) -> Vec<u8> {
    let mut line = serde_json::to_vec(frame).expect("a frame");
    line.push(b'\n');
    line
}

/// Everything that is done with bytes of the watch; gives the number of endpoints handed out.
fn follow(decoder: &mut FrameDecoder, mirror: &mut Mirror, bytes: &[u8]) -> usize {
    decoder.push(bytes);
    let mut endpoints = 0;
    while let Some(frame) = decoder.next_frame().expect("good frames") {
        let changed = mirror.apply(frame).expect("frames in their place");
        for service in &changed.services {
            endpoints += black_box(mirror.endpoints(service)).endpoints.len();
        }
        for change in &changed.instances {
            black_box(serde_json::to_vec(&change.instance).expect("an instance"));
        }
    }
    endpoints
}

fn one_change(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("discovery/one endpoint changes");
    for services in SERVICES {
        let (mut decoder, mut mirror) = (FrameDecoder::default(), Mirror::default());
        follow(&mut decoder, &mut mirror, &listing(services));
        let mut revision = 1;
        let id = BenchmarkId::from_parameter(format!("of {}", services * INSTANCES_PER_SERVICE));
        group.bench_function(id, |bencher| {
            bencher.iter_batched(
                || {
                    revision += 1;
                    change(services, revision)
                },
                |bytes| {
                    assert_eq!(
                        follow(&mut decoder, &mut mirror, &bytes),
                        INSTANCES_PER_SERVICE
                    )
                },
                BatchSize::SmallInput,
            );
        });
        assert_eq!(
            mirror.endpoints(&Name::local("service-0")).endpoints.len(),
            INSTANCES_PER_SERVICE
        );
    }
    group.finish();
}

fn the_whole(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("discovery/the whole");
    group.sample_size(10);
    let services = SERVICES[SERVICES.len() - 1];
    let bytes = listing(services);
    group.bench_function("listing of 100000", |bencher| {
        bencher.iter_with_large_drop(|| {
            let mut mirror = Mirror::default();
            assert_eq!(
                follow(&mut FrameDecoder::default(), &mut mirror, &bytes),
                services * INSTANCES_PER_SERVICE
            );
            mirror
        });
    });
    let instances = (0..services).flat_map(|service| set(service).instances);
    let entry = |instance: Instance| {
        (
            Key {
                kind: 2,
                id: instance.id.clone(),
            },
            serde_json::to_vec(&instance).expect("an instance"),
        )
    };
    let file = snapshot::encode_whole(&Saved {
        entries: instances.map(entry).collect(),
        revision: 1,
        origin: String::new(),
    });
    group.bench_function("snapshot file of 100000", |bencher| {
        bencher.iter_with_large_drop(|| snapshot::decode(black_box(&file)));
    });
    group.finish();
}

criterion_group!(benches, one_change, the_whole);
criterion_main!(benches);
