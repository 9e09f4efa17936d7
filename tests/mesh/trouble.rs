//! One of three endpoints is in trouble, of one sort after another, under a load of requests that may be repeated and of ones that may not.

use std::collections::HashMap;
use std::net::{Shutdown, SocketAddr};
use std::pin::pin;
use std::sync::atomic::{AtomicBool, AtomicU8, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use bytes::Bytes;
use http_body_util::{BodyExt, Full};
use hyper::body::Incoming;
use hyper::service::service_fn;
use hyper::{Method, Request, Response, StatusCode};
use hyper_util::rt::{TokioExecutor, TokioIo};
use hyper_util::server::conn::auto;
use socket2::SockRef;
use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinSet;
use tokio::time::Instant;

use crate::failover::gateway_to_addresses;
use crate::harness::{Answer, Client, Mesh, Service, Sidecar, Target, eventually};

/// What an endpoint does to its clients.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Trouble {
    None,
    /// Resets the connection instead of answering.
    Resets,
    /// Answers everything with 503.
    Fails,
    /// Takes a hundred times as long.
    IsSlow,
    /// Closes connections that have nothing under way, at any moment.
    ClosesIdle,
    /// Closes its own half of them, and goes on reading.
    HalfCloses,
}

const WORK: Duration = Duration::from_millis(2);

/// Clients that repeat GET, and clients that POST what must arrive once at most.
const READERS: usize = 6;
const WRITERS: usize = 4;

/// Failures in a row that eject an endpoint, by default.
const CONSECUTIVE: usize = 5;
/// The first ejection; the n-th lasts n times as long.
const BASE_EJECTION: Duration = Duration::from_millis(200);

#[tokio::test]
async fn http1_endpoints_in_trouble_fail_no_request_that_may_be_repeated() {
    let mut world = World::start("http").await;
    for trouble in [
        Trouble::Resets,
        Trouble::Fails,
        Trouble::IsSlow,
        Trouble::ClosesIdle,
        Trouble::HalfCloses,
    ] {
        world.passes(trouble).await;
    }
    world.expect_no_post_twice();
}

#[tokio::test]
async fn http2_endpoints_in_trouble_fail_no_request_that_may_be_repeated() {
    let mut world = World::start("http2").await;
    for trouble in [
        Trouble::Resets,
        Trouble::Fails,
        Trouble::IsSlow,
        Trouble::ClosesIdle,
    ] {
        world.passes(trouble).await;
    }
    world.expect_no_post_twice();
}

/// All three close their idle connections at random moments; `RACE_REQUESTS=50000` is the long form.
#[tokio::test]
async fn endpoints_that_close_idle_connections_at_any_moment_fail_nothing() {
    let requests = std::env::var("RACE_REQUESTS").ok();
    let requests = requests.map_or(5_000, |requests| requests.parse().expect("a number"));
    let world = World::start("http").await;
    for endpoint in &world.endpoints {
        endpoint.falls_into(Trouble::ClosesIdle);
    }
    let load = world.load();
    for _ in 0..requests / 1_000 {
        load.goes_on(1_000).await;
    }
    let failures = load.stop().await;
    assert!(failures.is_empty(), "{failures:?}");
    world.expect_no_post_twice();
}

#[tokio::test]
async fn an_endpoint_that_stands_still_for_a_while_fails_no_request_that_may_be_repeated() {
    let mesh = Mesh::new();
    let mut services = Vec::new();
    for name in ["a", "b", "c"] {
        services.push(Service::spawn(name, mesh.folder()).await);
    }
    let addresses: Vec<_> = services.iter().map(|service| service.address).collect();
    let gateway = mesh.gateway(|gateway| documents(&addresses, "http", gateway));
    let gateway = gateway.await;
    let target = Target::direct(gateway.gateway, "shop.test");
    let load = crate::harness::Load::start(&target, "/", 8);
    load.asks(500).await;
    services[1].stands_still(true);
    let stopped = Instant::now();
    eventually("ten seconds to pass", async || {
        load.asks(50).await;
        (stopped.elapsed() > Duration::from_secs(10)).then_some(())
    })
    .await;
    services[1].stands_still(false);
    let before = load.answers_of("b");
    eventually("it answers again", async || {
        (load.answers_of("b") > before + 50).then_some(())
    })
    .await;
    load.stop().await.expect_no_failure();
}

/// Whatever a route can do for requests that may be repeated.
fn documents(endpoints: &[SocketAddr], protocol: &str, gateway: SocketAddr) -> String {
    let more = "outlier: {base_ejection: 200ms}\nbalance: {policy: least_request, slow_start: 0s}\n\
                circuit: {retries: {budget_percent: 100, min_per_second: 1000}}\n";
    gateway_to_addresses(endpoints, more, gateway)
        .replace(
            "rules: [{",
            "rules: [{timeouts: {backendRequest: 3s}, retry: {attempts: 3, codes: [502, 503, 504]}, ",
        )
        .replace(
            "port: 80, protocol: http}",
            &format!("port: 80, protocol: {protocol}}}"),
        )
}

/// A gateway to three endpoints.
struct World {
    _mesh: Mesh,
    gateway: Sidecar,
    endpoints: Vec<Arc<Endpoint>>,
    posted: Arc<Mutex<HashMap<Bytes, usize>>>,
}

impl World {
    async fn start(protocol: &str) -> Self {
        let mesh = Mesh::new();
        let posted = Arc::default();
        let mut endpoints = Vec::new();
        for _ in 0..3 {
            endpoints.push(Endpoint::start(&posted).await);
        }
        let addresses: Vec<_> = endpoints.iter().map(|endpoint| endpoint.address).collect();
        let gateway = mesh.gateway(|gateway| documents(&addresses, protocol, gateway));
        let gateway = gateway.await;
        Self {
            _mesh: mesh,
            gateway,
            endpoints,
            posted,
        }
    }

    /// One endpoint falls into trouble, gets out of it, and is used again.
    async fn passes(&mut self, trouble: Trouble) {
        let load = self.load();
        load.goes_on(300).await;
        self.endpoints[0].falls_into(trouble);
        let began = Instant::now();
        load.goes_on(600).await;
        self.endpoints[0].falls_into(Trouble::None);
        self.endpoints[0]
            .is_used(&format!("after {trouble:?}"))
            .await;
        let lasted = began.elapsed();
        let failures = load.stop().await;
        println!(
            "{trouble:?}: {} requests failed: {failures:?}",
            failures.len()
        );
        assert!(
            failures.iter().all(|failure| failure.starts_with("POST")),
            "{trouble:?}: {failures:?}"
        );
        let most = match trouble {
            // Those until it is ejected, those under way then, and one for each time that it was tried again.
            Trouble::Resets | Trouble::Fails => CONSECUTIVE + WRITERS + probes(lasted),
            // Each writer may meet the first close of an endpoint that kept its connections until then.
            Trouble::ClosesIdle | Trouble::HalfCloses => WRITERS,
            Trouble::None | Trouble::IsSlow => 0,
        };
        assert!(failures.len() <= most, "{trouble:?}: {failures:?}");
    }

    fn load(&self) -> Load {
        let target = Target::direct(self.gateway.gateway, "shop.test");
        let mut load = Load::default();
        for number in 0..READERS + WRITERS {
            let writes = number < WRITERS;
            let client = Client::new(target.clone());
            let asking = ask_until_stopped(client, writes, load.shared.clone());
            load.clients.spawn(asking);
        }
        load
    }

    fn expect_no_post_twice(&self) {
        let posted = self.posted.lock().expect("no holder panics");
        assert!(!posted.is_empty());
        let twice = posted.values().filter(|times| **times > 1).count();
        assert_eq!(twice, 0, "of {} bodies", posted.len());
    }
}

/// How often an endpoint that goes on failing can have come back within this time, at most.
fn probes(lasted: Duration) -> usize {
    let mut until = Duration::ZERO;
    let ends = (1..).map(|number| {
        until += BASE_EJECTION * number;
        until
    });
    ends.take_while(|end| *end < lasted).count()
}

#[derive(Default)]
struct Load {
    shared: Arc<Shared>,
    clients: JoinSet<()>,
}

#[derive(Default)]
struct Shared {
    stopping: AtomicBool,
    asked: AtomicUsize,
    failures: Mutex<Vec<String>>,
}

impl Load {
    async fn goes_on(&self, more: usize) {
        let goal = self.shared.asked.load(Ordering::Relaxed) + more;
        eventually("the load goes on", async || {
            (self.shared.asked.load(Ordering::Relaxed) >= goal).then_some(())
        })
        .await;
    }

    async fn stop(mut self) -> Vec<String> {
        self.shared.stopping.store(true, Ordering::Relaxed);
        while let Some(ended) = self.clients.join_next().await {
            ended.expect("a client does not panic");
        }
        std::mem::take(&mut *self.shared.failures.lock().expect("no holder panics"))
    }
}

async fn ask_until_stopped(mut client: Client, writes: bool, shared: Arc<Shared>) {
    static NUMBERS: AtomicUsize = AtomicUsize::new(0);
    while !shared.stopping.load(Ordering::Relaxed) {
        let number = NUMBERS.fetch_add(1, Ordering::Relaxed).to_string();
        let (method, body) = match writes {
            true => (Method::POST, &*number),
            false => (Method::GET, ""),
        };
        let failure = match client.send(method.clone(), "/", body).await {
            Ok(Answer { status: 200, .. }) => None,
            Ok(answer) => Some(format!("{method} {} {}", answer.status, answer.body)),
            Err(error) => Some(format!("{method} {error}")),
        };
        shared.asked.fetch_add(1, Ordering::Relaxed);
        let mut failures = shared.failures.lock().expect("no holder panics");
        failures.extend(failure);
    }
}

struct Endpoint {
    address: SocketAddr,
    trouble: AtomicU8,
    answered: AtomicUsize,
    /// How often each body that was posted has come.
    posted: Arc<Mutex<HashMap<Bytes, usize>>>,
}

impl Endpoint {
    async fn start(posted: &Arc<Mutex<HashMap<Bytes, usize>>>) -> Arc<Self> {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
        let endpoint = Arc::new(Self {
            address: listener.local_addr().expect("it is bound"),
            trouble: AtomicU8::new(Trouble::None as u8),
            answered: AtomicUsize::new(0),
            posted: posted.clone(),
        });
        tokio::spawn(endpoint.clone().serve(listener));
        endpoint
    }

    fn falls_into(&self, trouble: Trouble) {
        self.trouble.store(trouble as u8, Ordering::Relaxed);
    }

    /// Waits for further answers of it.
    async fn is_used(&self, when: &str) {
        let goal = self.answered.load(Ordering::Relaxed) + 50;
        eventually(&format!("the endpoint is used {when}"), async || {
            (self.answered.load(Ordering::Relaxed) >= goal).then_some(())
        })
        .await;
    }

    fn is(&self, trouble: Trouble) -> bool {
        self.trouble.load(Ordering::Relaxed) == trouble as u8
    }

    async fn serve(self: Arc<Self>, listener: TcpListener) {
        loop {
            let (stream, _) = listener.accept().await.expect("a connection");
            tokio::spawn(self.clone().connection(stream));
        }
    }

    async fn connection(self: Arc<Self>, stream: TcpStream) {
        let _ = stream.set_nodelay(true);
        let std = stream.into_std().expect("an open socket");
        let handle = std.try_clone().expect("a second handle");
        let stream = TcpStream::from_std(std).expect("the same socket");
        let [begun, ended] = [(); 2].map(|()| Arc::new(AtomicUsize::new(0)));
        let (endpoint, counts) = (self.clone(), [begun.clone(), ended.clone()]);
        let answer = service_fn(move |request| {
            let (endpoint, [begun, ended]) = (endpoint.clone(), counts.clone());
            async move {
                begun.fetch_add(1, Ordering::SeqCst);
                let answer = endpoint.answer(request).await;
                ended.fetch_add(1, Ordering::SeqCst);
                answer
            }
        });
        let server = auto::Builder::new(TokioExecutor::new());
        let mut connection = pin!(server.serve_connection(TokioIo::new(stream), answer));
        loop {
            let later = Duration::from_micros(fastrand::u64(200..20_000));
            tokio::select! {
                _ = connection.as_mut() => return,
                () = tokio::time::sleep(later) => {}
            }
            // Whoever waits for its first request is not idle.
            let answered = ended.load(Ordering::SeqCst);
            if answered == 0 || answered < begun.load(Ordering::SeqCst) {
                continue;
            }
            if self.is(Trouble::ClosesIdle) {
                connection.as_mut().graceful_shutdown();
            }
            if self.is(Trouble::HalfCloses) {
                let _ = handle.shutdown(Shutdown::Write);
            }
            if self.is(Trouble::Resets) {
                let _ = SockRef::from(&handle).set_linger(Some(Duration::ZERO));
            }
        }
    }

    async fn answer(&self, request: Request<Incoming>) -> Result<Response<Full<Bytes>>, Refusal> {
        if self.is(Trouble::Resets) {
            return Err(Refusal);
        }
        let is_post = request.method() == Method::POST;
        let body = request.into_body().collect().await.map_err(|_| Refusal)?;
        if is_post {
            let mut posted = self.posted.lock().expect("no holder panics");
            *posted.entry(body.to_bytes()).or_default() += 1;
        }
        let slow = self.is(Trouble::IsSlow);
        tokio::time::sleep(if slow { WORK * 100 } else { WORK }).await;
        self.answered.fetch_add(1, Ordering::Relaxed);
        let mut response = Response::new(Full::from("done"));
        if self.is(Trouble::Fails) {
            *response.status_mut() = StatusCode::SERVICE_UNAVAILABLE;
        }
        Ok(response)
    }
}

/// What makes hyper break the connection off.
#[derive(Debug, thiserror::Error)]
#[error("no answer")]
struct Refusal;
