//! Checks over real sockets: what passes, what does not, and what comes of it for picks.

use std::net::SocketAddr;
use std::sync::atomic::{AtomicU16, Ordering};

use bytes::Bytes;
use http::{HeaderMap, Request, Response};
use http_body_util::{BodyExt, Full, StreamBody};
use hyper::body::{Frame, Incoming};
use hyper::service::service_fn;
use hyper_util::rt::{TokioExecutor, TokioIo};
use hyper_util::server::conn::auto;
use rcgen::{CertificateParams, KeyPair};
use tokio::net::TcpListener;
use tokio::task::JoinHandle;

use super::*;
use crate::identity::ServerTls;
use crate::model::{
    Address, Certificate, Endpoint, EndpointUpdate, HealthCheck, Name, Pem, Port, Service,
    Snapshot, UpstreamTls,
};
use crate::proxy::cluster::plan::Standing;
use crate::proxy::cluster::testing::{endpoint, key, service};
use crate::proxy::cluster::{Cluster, PickError};

/// Far beyond anything that is waited for here.
const HANG_GUARD: Duration = Duration::from_secs(60);

/// A server that answers as it is told, over HTTP/1 and HTTP/2.
struct Server {
    address: SocketAddr,
    /// The status of every answer; as gRPC, the serving status.
    status: Arc<AtomicU16>,
    task: JoinHandle<()>,
}

impl Server {
    async fn start(status: u16) -> Self {
        Self::serve(status, None).await
    }

    async fn serve(status: u16, tls: Option<Arc<ServerTls>>) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let status = Arc::new(AtomicU16::new(status));
        let shown = status.clone();
        let task = tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                let (tls, status) = (tls.clone(), shown.clone());
                tokio::spawn(async move {
                    let answer = service_fn(move |request| answer(request, status.clone()));
                    let server = auto::Builder::new(TokioExecutor::new());
                    // How a connection ends is the prober's business.
                    match tls {
                        None => drop(server.serve_connection(TokioIo::new(stream), answer).await),
                        Some(tls) => {
                            let acceptor = tokio_rustls::TlsAcceptor::from(tls.config().clone());
                            if let Ok(stream) = acceptor.accept(stream).await {
                                let io = TokioIo::new(stream);
                                drop(server.serve_connection(io, answer).await);
                            }
                        }
                    }
                });
            }
        });
        Self {
            address,
            status,
            task,
        }
    }

    fn endpoint(&self) -> Endpoint {
        at(self.address)
    }

    fn says(&self, status: u16) {
        self.status.store(status, Ordering::Relaxed);
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        self.task.abort();
    }
}

type Body = http_body_util::combinators::UnsyncBoxBody<Bytes, std::convert::Infallible>;

async fn answer(
    request: Request<Incoming>,
    status: Arc<AtomicU16>,
) -> Result<Response<Body>, http::Error> {
    let status = status.load(Ordering::Relaxed);
    if request.uri().path() != "/grpc.health.v1.Health/Check" {
        let host = request.headers().get("host").cloned();
        let named = request.uri().authority().is_some()
            || host.is_some_and(|host| host == "shop.test" || host.as_bytes().contains(&b':'));
        let status = if named { status } else { 400 };
        return Response::builder()
            .status(status)
            .body(Full::default().boxed_unsync());
    }
    let mut trailers = HeaderMap::new();
    trailers.insert("grpc-status", http::HeaderValue::from_static("0"));
    let message = Bytes::from(vec![0, 0, 0, 0, 2, 8, status as u8]);
    let frames = [Ok(Frame::data(message)), Ok(Frame::trailers(trailers))];
    Response::builder()
        .header("content-type", "application/grpc")
        .body(StreamBody::new(futures_util::stream::iter(frames)).boxed_unsync())
}

fn at(address: SocketAddr) -> Endpoint {
    Endpoint {
        address: Address::Socket(address),
        ..endpoint(1)
    }
}

fn http(path: &str, host: Option<&str>) -> HealthProbe {
    HealthProbe::Http {
        path: path.into(),
        host: host.map(Into::into),
        statuses: vec![200..=399],
    }
}

fn grpc() -> HealthProbe {
    HealthProbe::Grpc {
        service: "shop.Cart".into(),
    }
}

fn checked(probe: HealthProbe) -> Service {
    let check = HealthCheck {
        probe,
        interval: Duration::from_millis(10),
        timeout: HANG_GUARD,
        healthy_threshold: 2,
        unhealthy_threshold: 2,
    };
    Service {
        health: Some(Arc::new(check)),
        ..service()
    }
}

/// A cluster whose endpoints are checked until it is dropped.
struct Scene {
    clusters: Arc<Clusters>,
    cluster: Arc<Cluster>,
    prober: JoinHandle<()>,
}

impl Scene {
    fn new(service: Service, endpoints: Vec<Endpoint>) -> Self {
        let clusters = Clusters::new(None);
        let cluster = clusters.get_or_create(&key());
        let named = (service.name.clone(), Arc::new(service));
        clusters.apply(&Snapshot {
            services: [named].into(),
            ..Snapshot::default()
        });
        let prober = tokio::spawn(run(clusters.clone(), Arc::default()));
        let scene = Self {
            clusters,
            cluster,
            prober,
        };
        scene.has(endpoints);
        scene
    }

    fn has(&self, endpoints: Vec<Endpoint>) {
        self.clusters.set_endpoints(EndpointUpdate {
            service: Name::local("reviews"),
            endpoints,
        });
    }

    fn endpoint(&self, address: SocketAddr) -> Option<Arc<crate::proxy::cluster::Endpoint>> {
        let set = self.cluster.endpoints();
        let mut endpoints = set.endpoints.iter();
        endpoints.find(|one| one.address == address).cloned()
    }

    fn health(&self, address: SocketAddr) -> Arc<super::super::Health> {
        let endpoint = self.endpoint(address).expect("an endpoint");
        endpoint.health.clone().expect("a checked endpoint")
    }

    async fn becomes(&self, address: SocketAddr, state: State) {
        eventually(|| self.health(address).state() == state).await;
    }

    /// Who gets the next requests.
    fn picked(&self) -> Vec<SocketAddr> {
        let mut rng = rng::for_test();
        let picks = (0..200).map(|_| {
            let lease = self.cluster.pick(&[], Instant::now(), &mut rng).unwrap();
            lease.endpoint().address
        });
        let mut picked: Vec<SocketAddr> = picks.collect();
        picked.sort();
        picked.dedup();
        picked
    }
}

impl Drop for Scene {
    fn drop(&mut self) {
        self.prober.abort();
    }
}

async fn eventually(check: impl Fn() -> bool) {
    let until = Instant::now() + HANG_GUARD;
    while !check() {
        assert!(Instant::now() < until, "waited in vain");
        tokio::time::sleep(Duration::from_millis(2)).await;
    }
}

/// A loopback address that nothing listens on.
async fn nobody() -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    listener.local_addr().unwrap()
}

#[tokio::test]
async fn an_endpoint_that_fails_its_check_gets_nothing_until_it_passes_again() {
    let (well, ill) = (Server::start(200).await, Server::start(200).await);
    let endpoints = vec![well.endpoint(), ill.endpoint()];
    let scene = Scene::new(checked(http("/healthz", None)), endpoints);
    scene.becomes(ill.address, State::Passing).await;
    ill.says(503);
    scene.becomes(ill.address, State::Failing).await;
    assert_eq!(scene.picked(), [well.address]);
    let health = scene.health(ill.address);
    let obstacle = health.obstacle().expect("a reason");
    assert_eq!(&*obstacle, "GET /healthz was answered with 503");
    assert!(health.failures() >= 2 && health.checks() > health.failures());
    ill.says(200);
    scene.becomes(ill.address, State::Passing).await;
    assert_eq!(scene.picked().len(), 2);
    let events = scene.clusters.events().since(0, 9).events;
    let told: Vec<_> = events
        .iter()
        .map(|event| (&*event.cause, &*event.action, event.evidence.as_str()))
        .collect();
    let expected = [
        ("health_check", "taken out", &*obstacle),
        ("health_check", "returned", "its health check passes"),
    ];
    assert_eq!(told, expected);
}

#[tokio::test]
async fn where_every_check_fails_nobody_is_used_and_the_answer_says_so() {
    let ill = Server::start(500).await;
    let scene = Scene::new(checked(http("/healthz", None)), vec![ill.endpoint()]);
    scene.becomes(ill.address, State::Failing).await;
    let picked = scene.cluster.pick(&[], Instant::now(), &mut rng::fresh());
    let none = PickError::NoneHealthy {
        draining: 0,
        weightless: 0,
        failing: 1,
    };
    assert_eq!(picked.err(), Some(none));
}

#[tokio::test]
async fn a_newcomer_is_used_once_it_has_passed() {
    let (old, new) = (Server::start(200).await, Server::start(503).await);
    let scene = Scene::new(checked(http("/healthz", None)), vec![old.endpoint()]);
    scene.becomes(old.address, State::Passing).await;
    scene.has(vec![old.endpoint(), new.endpoint()]);
    assert_eq!(scene.health(new.address).state(), State::Unproven);
    assert_eq!(scene.picked(), [old.address]);
    scene.becomes(new.address, State::Failing).await;
    new.says(204);
    scene.becomes(new.address, State::Passing).await;
    assert_eq!(scene.picked().len(), 2);
}

#[tokio::test]
async fn a_connection_is_enough_for_tcp() {
    let (well, gone) = (Server::start(500).await, nobody().await);
    let scene = Scene::new(checked(HealthProbe::Tcp), vec![well.endpoint(), at(gone)]);
    scene.becomes(well.address, State::Passing).await;
    scene.becomes(gone, State::Failing).await;
    let obstacle = scene.health(gone).obstacle().expect("a reason");
    assert_eq!(&*obstacle, "connection refused");
}

#[tokio::test]
async fn grpc_servers_are_asked_by_grpc() {
    let (serving, not_serving) = (Server::start(1).await, Server::start(2).await);
    let endpoints = vec![serving.endpoint(), not_serving.endpoint()];
    let scene = Scene::new(checked(grpc()), endpoints);
    scene.becomes(serving.address, State::Passing).await;
    scene.becomes(not_serving.address, State::Failing).await;
    let obstacle = scene.health(not_serving.address).obstacle();
    let obstacle = obstacle.expect("a reason");
    assert_eq!(&*obstacle, "the health service answered NOT_SERVING");
}

#[tokio::test]
async fn the_port_says_which_http_is_spoken_and_the_check_which_host_is_asked_for() {
    for protocol in [Protocol::Http, Protocol::Http2] {
        for (host, state) in [
            (Some("shop.test"), State::Passing),
            (None, State::Passing),
            (Some("other.test"), State::Failing),
        ] {
            if protocol == Protocol::Http2 && state == State::Failing {
                continue;
            }
            let server = Server::start(200).await;
            let service = Service {
                ports: vec![Port {
                    port: 80,
                    name: None,
                    protocol: Some(protocol),
                    tls: None,
                }],
                ..checked(http("/", host))
            };
            let scene = Scene::new(service, vec![server.endpoint()]);
            scene.becomes(server.address, state).await;
        }
    }
}

#[tokio::test]
async fn a_service_with_tls_is_asked_over_tls() {
    let folder = tempfile::tempdir().unwrap();
    let key = KeyPair::generate().unwrap();
    let params = CertificateParams::new(vec!["shop.test".to_owned()]).unwrap();
    let certificate = params.self_signed(&key).unwrap();
    let files = Certificate {
        chain: Pem::File(folder.path().join("cert.pem")),
        key: Pem::File(folder.path().join("cert.key")),
    };
    std::fs::write(folder.path().join("cert.pem"), certificate.pem()).unwrap();
    std::fs::write(folder.path().join("cert.key"), key.serialize_pem()).unwrap();
    let tls = |sni: &str| UpstreamTls {
        sni: Some(sni.into()),
        ca: Some(files.chain.clone()),
        ..UpstreamTls::default()
    };
    let server = ServerTls::new(std::slice::from_ref(&files), alpn(None)).unwrap();
    let server = Server::serve(200, Some(Arc::new(server))).await;
    let checked = |probe, sni| Service {
        tls: Some(tls(sni)),
        ..checked(probe)
    };
    for probe in [http("/", None), HealthProbe::Tcp] {
        let scene = Scene::new(checked(probe, "shop.test"), vec![server.endpoint()]);
        scene.becomes(server.address, State::Passing).await;
    }
    let scene = Scene::new(
        checked(http("/", None), "bank.test"),
        vec![server.endpoint()],
    );
    scene.becomes(server.address, State::Failing).await;
    let obstacle = scene.health(server.address).obstacle().expect("a reason");
    assert!(obstacle.starts_with("TLS: "), "{obstacle}");
    server.says(1);
    let scene = Scene::new(checked(grpc(), "shop.test"), vec![server.endpoint()]);
    scene.becomes(server.address, State::Passing).await;
}

#[tokio::test]
async fn an_endpoint_that_says_nothing_fails_when_the_time_is_up() {
    let silent = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = silent.local_addr().unwrap();
    let mut service = checked(http("/", None));
    let check = service.health.take().map(Arc::unwrap_or_clone).unwrap();
    let check = HealthCheck {
        timeout: Duration::from_millis(30),
        ..check
    };
    let service = Service {
        health: Some(Arc::new(check)),
        ..service
    };
    let scene = Scene::new(service, vec![at(address)]);
    scene.becomes(address, State::Failing).await;
    let obstacle = scene.health(address).obstacle().expect("a reason");
    assert_eq!(&*obstacle, "no answer within 30ms");
}

#[tokio::test]
async fn an_endpoint_that_leaves_is_not_asked_any_more() {
    let (stays, leaves) = (Server::start(200).await, Server::start(200).await);
    let endpoints = vec![stays.endpoint(), leaves.endpoint()];
    let scene = Scene::new(checked(http("/", None)), endpoints);
    scene.becomes(leaves.address, State::Passing).await;
    let (left, health) = (scene.health(leaves.address), scene.health(stays.address));
    scene.has(vec![stays.endpoint()]);
    assert!(scene.endpoint(leaves.address).is_none());
    // What was under way may end; from then on only the other one is asked.
    let checks = health.checks();
    eventually(|| health.checks() > checks + 2).await;
    let (left_before, stays_before) = (left.checks(), health.checks());
    eventually(|| health.checks() > stays_before + 20).await;
    assert_eq!(left.checks(), left_before);
}

#[tokio::test]
async fn one_address_is_asked_once_however_many_clusters_have_it() {
    let server = Server::start(500).await;
    let scene = Scene::new(checked(http("/", None)), vec![server.endpoint()]);
    let other = scene.clusters.get_or_create(&crate::model::ClusterKey {
        port: Some(80),
        ..key()
    });
    scene.becomes(server.address, State::Failing).await;
    let one = scene.health(server.address);
    let set = other.endpoints();
    assert!(Arc::ptr_eq(&one, set.endpoints[0].health.as_ref().unwrap()));
    let report = other.report(Instant::now());
    assert_eq!(report.endpoints[0].standing, Standing::Failing);
}
