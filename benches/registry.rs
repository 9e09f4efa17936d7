//! The registry at 10,000 services with 100,000 instances: what registering costs, what one instance holds in memory, and that telling
//! one change costs the same however much there is. Prints a table; `PILLION_BENCH_INSTANCES` makes it smaller or larger.

use std::fs;
use std::sync::Arc;
use tokio::time::Instant;

use futures_util::{StreamExt, stream};
use pillion::api::{InstancePort, InstanceState, Registration};
use pillion::registry::view::Selector;
use pillion::registry::{Limits, Registry};
use pillion::store::embedded::{Embedded, Options};

#[global_allocator]
static ALLOCATOR: tikv_jemallocator::Jemalloc = tikv_jemallocator::Jemalloc;

const PER_SERVICE: usize = 10;
/// Registrations that are on their way at the same time; they share commits.
const AT_ONCE: usize = 1_000;
const CHANGES: usize = 200;

fn main() {
    let wanted = std::env::var("PILLION_BENCH_INSTANCES")
        .ok()
        .and_then(|count| count.parse().ok());
    let most: usize = wanted.unwrap_or(100_000);
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .unwrap();
    println!("instances  register/s  B/instance  change→frame µs  frame B");
    for instances in [most / 100, most / 10, most] {
        runtime.block_on(measure(instances.max(PER_SERVICE)));
    }
}

async fn measure(instances: usize) {
    let folder = tempfile::tempdir().unwrap();
    let store = Embedded::open(&Options::new(folder.path().join("registry.redb"))).unwrap();
    let registry = Registry::open(Arc::new(store), Limits::default())
        .await
        .unwrap();
    let running = tokio::spawn({
        let registry = registry.clone();
        async move { registry.run().await }
    });
    let before = anonymous_bytes();
    let start = Instant::now();
    let registrations = (0..instances).map(|n| {
        let registry = registry.clone();
        async move {
            registry
                .register(&format!("instance-{n}"), registration(n))
                .await
                .unwrap()
        }
    });
    stream::iter(registrations)
        .buffer_unordered(AT_ONCE)
        .for_each(async |_| {})
        .await;
    let per_second = instances as f64 / start.elapsed().as_secs_f64();
    let held = anonymous_bytes().saturating_sub(before) / instances;
    let (micros, frame) = change(&registry).await;
    println!("{instances:>9}  {per_second:>10.0}  {held:>10}  {micros:>15.0}  {frame:>7}");
    running.abort();
}

/// From the request of a state change (fsync included) to the frame in a watcher's hand; the median.
async fn change(registry: &Arc<Registry>) -> (f64, usize) {
    let from = registry.revision();
    let store = Some(registry.store_id().to_owned());
    let mut watch = registry
        .watch(Some("bench"), Selector::All, from, store)
        .unwrap();
    watch.next().await.unwrap();
    let states = [InstanceState::Warning, InstanceState::Passing];
    let mut taken = Vec::with_capacity(CHANGES);
    let mut length = 0;
    for n in 0..CHANGES {
        let start = Instant::now();
        registry
            .set_state("instance-1", states[n % 2])
            .await
            .unwrap();
        length = watch.next().await.unwrap().len();
        taken.push(start.elapsed().as_secs_f64() * 1e6);
    }
    taken.sort_by(f64::total_cmp);
    (taken[CHANGES / 2], length)
}

fn registration(n: usize) -> Registration {
    let address = format!("10.{}.{}.{}:8080", n >> 16, (n >> 8) & 255, n & 255);
    let port = InstancePort {
        address,
        port: Some(80),
        protocol: None,
    };
    let mut registration = Registration::new(&format!("service-{}", n / PER_SERVICE), vec![port]);
    registration.labels.insert("version".into(), "v1".into());
    registration.zone = Some("a".into());
    registration
}

/// This process's own memory, without what is mapped from files.
fn anonymous_bytes() -> usize {
    let status = fs::read_to_string("/proc/self/status").unwrap_or_default();
    let line = status
        .lines()
        .find_map(|line| line.strip_prefix("RssAnon:"));
    line.and_then(|line| line.split_whitespace().next()?.parse::<usize>().ok())
        .unwrap_or(0)
        << 10
}
