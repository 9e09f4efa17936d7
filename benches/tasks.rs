//! Tasks through the registry's HTTP API to instances over sockets: how many a second are accepted, how many are done, and how long one
//! takes that finds everything idle, beside what one `fdatasync` takes on this disk. Prints a table; `PILLION_BENCH_TASKS` makes it
//! smaller or larger.

use std::convert::Infallible;
use std::fs::File;
use std::io::Write;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use bytes::Bytes;
use http_body_util::{BodyExt, Full};
use hyper::body::Incoming;
use hyper::service::service_fn;
use hyper::{Method, Request, Response};
use hyper_util::rt::TokioIo;
use pillion::api::{Client, ClientOptions, InstancePort, Registration, SubmittedTask, Task};
use pillion::app::registry::RegistryProcess;
use pillion::config::RegistryBootstrap;
use tokio::net::TcpListener;
use tokio::time::Instant;

#[global_allocator]
static ALLOCATOR: tikv_jemallocator::Jemalloc = tikv_jemallocator::Jemalloc;

const INSTANCES: usize = 4;
/// Tasks that an instance has at once.
const TASKS_MAX: usize = 64;
/// Lines of one request.
const LINES: usize = 1_000;
/// Tasks that come one by one.
const SINGLE: usize = 200;

fn main() {
    let wanted = std::env::var("PILLION_BENCH_TASKS")
        .ok()
        .and_then(|count| count.parse().ok());
    let tasks: usize = wanted.unwrap_or(20_000);
    let folder = tempfile::tempdir().expect("a folder");
    let sync = fdatasync(&folder.path().join("probe"));
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .expect("a runtime");
    let (url, done) = (start(folder.path()), Arc::new(AtomicUsize::new(0)));
    runtime.block_on(measure(&url, &done, tasks, sync));
}

/// The registry in a thread of its own, as it is a process of its own.
fn start(folder: &std::path::Path) -> String {
    let file = folder.join("registry.yaml");
    std::fs::write(&file, "address: 127.0.0.1:0\ndata: data\n").expect("written");
    let (tell, told) = std::sync::mpsc::channel();
    std::thread::spawn(move || {
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()
            .expect("a runtime");
        runtime.block_on(async {
            let bootstrap = RegistryBootstrap::read(Some(&file), []).expect("settings");
            let process = RegistryProcess::open(&bootstrap).await.expect("a registry");
            tell.send(process.address()).expect("somebody waits");
            process.run(std::future::pending()).await
        })
    });
    format!("http://{}", told.recv().expect("an address"))
}

async fn measure(url: &str, done: &Arc<AtomicUsize>, tasks: usize, sync: Duration) {
    let client = Client::new(&ClientOptions::new(url)).expect("a client");
    for number in 0..INSTANCES {
        let port = InstancePort {
            address: instance(done).await.to_string(),
            port: None,
            protocol: None,
        };
        let mut registration = Registration::new("bench", vec![port]);
        let label = ("pillion.dev/max-tasks".to_owned(), TASKS_MAX.to_string());
        registration.labels.extend([label]);
        registration.critical_after_seconds = Some(3_600);
        registration.removed_after_seconds = Some(3_600);
        let id = format!("bench-{number}");
        client
            .register(&id, &registration)
            .await
            .expect("registered");
    }
    let line = "{\"service\":\"bench\",\"body\":{\"number\":7}}\n";
    let begun = Instant::now();
    for _ in 0..tasks.div_ceil(LINES) {
        let request = client.request(Method::POST, "/v1/tasks:batch", line.repeat(LINES).into());
        let request = request.expect("a request");
        client
            .exchange(request, Duration::from_secs(60))
            .await
            .expect("accepted");
    }
    let accepted = begun.elapsed();
    let all = tasks.div_ceil(LINES) * LINES;
    while done.load(Ordering::Relaxed) < all {
        tokio::time::sleep(Duration::from_millis(1)).await;
    }
    let finished = begun.elapsed();

    let (mut acknowledged, mut ended) = (Vec::new(), Vec::new());
    for _ in 0..SINGLE {
        let begun = Instant::now();
        let task = serde_json::json!({"service": "bench"});
        let submitted: SubmittedTask = client.post("/v1/tasks", &task).await.expect("accepted");
        acknowledged.push(begun.elapsed());
        let path = format!("/v1/tasks/{}?wait=10s", submitted.id);
        let _: Task = client.get(&path).await.expect("done");
        ended.push(begun.elapsed());
    }
    let rate = |time: Duration| all as f64 / time.as_secs_f64();
    println!("fdatasync, median                    {sync:>10.2?}");
    println!(
        "accepted, {LINES} a request           {:>10.0} tasks/s",
        rate(accepted)
    );
    println!(
        "accepted and done                    {:>10.0} tasks/s",
        rate(finished)
    );
    for (name, times) in [
        ("one task acknowledged", &mut acknowledged),
        ("one task acknowledged and done", &mut ended),
    ] {
        times.sort();
        let (half, most) = (times[SINGLE / 2], times[SINGLE * 99 / 100]);
        println!("{name:<36} {half:>10.2?} p50, {most:.2?} p99");
    }
}

/// An application that does nothing with its tasks.
async fn instance(done: &Arc<AtomicUsize>) -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
    let address = listener.local_addr().expect("bound");
    let done = done.clone();
    tokio::spawn(async move {
        while let Ok((stream, _)) = listener.accept().await {
            let done = done.clone();
            let answer = service_fn(move |request: Request<Incoming>| {
                let done = done.clone();
                async move {
                    let _ = request.into_body().collect().await;
                    done.fetch_add(1, Ordering::Relaxed);
                    Ok::<_, Infallible>(Response::new(Full::new(Bytes::new())))
                }
            });
            tokio::spawn(
                hyper::server::conn::http1::Builder::new()
                    .serve_connection(TokioIo::new(stream), answer),
            );
        }
    });
    address
}

fn fdatasync(path: &std::path::Path) -> Duration {
    let mut file = File::create(path).expect("a file");
    let mut times: Vec<Duration> = (0..50)
        .map(|_| {
            file.write_all(&[0; 4096]).expect("written");
            let begun = Instant::now();
            file.sync_data().expect("synced");
            begun.elapsed()
        })
        .collect();
    times.sort();
    times[times.len() / 2]
}
