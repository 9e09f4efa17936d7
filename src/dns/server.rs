//! The sockets, and the thread that serves them.

use std::cell::Cell;
use std::convert::Infallible;
use std::io;
use std::net::SocketAddr;
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use arc_swap::ArcSwap;
use hickory_proto::op::ResponseCode;
use socket2::{Domain, Protocol, Socket, Type};
use tokio::net::{TcpListener, TcpStream, UdpSocket};
use tokio::runtime::LocalOptions;
use tokio::sync::{OwnedSemaphorePermit, Semaphore, oneshot};
use tokio::task::spawn_local;
use tokio::time::{sleep, timeout};

use super::answer::{self, Reaction};
use super::counts::{Counts, Outcome};
use super::forward::{Forwarder, Transport, read_message, write_message};
use super::names::Names;
use super::upstreams::{Servers, Upstreams};
use crate::base::net;
use crate::telemetry::metrics::Registry;

/// Queries that wait for an upstream at once; more are answered that it failed.
const QUERIES_MAX: usize = 4096;
/// A longer query is none, over UDP.
const QUERY_BYTES_MAX: usize = 4096;
const CONNECTIONS_MAX: usize = 128;
/// A TCP connection between two queries, and the time to take one answer.
const IDLE_TIMEOUT: Duration = Duration::from_secs(10);
/// Queries that arrive while the thread is at another wait in the kernel, which allows less where it is set to.
const RECEIVE_BUFFER: usize = 1 << 20;
/// The wait after a socket failed, so that a lasting failure does not spin.
const PAUSE: Duration = Duration::from_millis(20);
/// How often the machine's list of name servers is looked at.
const LOOK: Duration = Duration::from_secs(5);

/// Why the name server could not start.
#[derive(Debug, thiserror::Error)]
#[error("name server on {address}: {error}; choose another with dns.address")]
pub struct StartError {
    pub address: SocketAddr,
    pub error: io::Error,
}

/// A running name server; dropping it ends it.
pub struct Server {
    names: Arc<ArcSwap<Names>>,
    _serving: oneshot::Sender<Infallible>,
}

impl Server {
    /// What the mesh is from now on.
    pub fn set_names(&self, names: Names) {
        self.names.store(Arc::new(names));
    }
}

/// The sockets of this address, and of `::1` too where it is IPv4's loopback and the machine has IPv6: those that were inherited
/// for it, and else new ones.
pub fn bind(address: SocketAddr, mut inherited: Vec<Sockets>) -> Result<Vec<Sockets>, StartError> {
    let mut bind = |address| {
        let mut of_it = inherited.extract_if(.., |sockets| sockets.address == address);
        match of_it.next() {
            Some(sockets) => Ok(sockets),
            None => Sockets::bind(address),
        }
    };
    let mut sockets = vec![bind(address).map_err(|error| StartError { address, error })?];
    let Some(address) = net::ipv6_twin(address) else {
        return Ok(sockets);
    };
    match bind(address) {
        Ok(both) => sockets.push(both),
        Err(error) if net::means_no_ipv6(&error) => {
            tracing::info!(%address, %error, "No IPv6 here");
        }
        Err(error) => return Err(StartError { address, error }),
    }
    Ok(sockets)
}

/// Serves names on these sockets; without any names until it is told some.
pub fn start(
    sockets: Vec<Sockets>,
    upstreams: Upstreams,
    metrics: &Registry,
) -> io::Result<Server> {
    let names = Arc::<ArcSwap<Names>>::default();
    let (served, counts) = (names.clone(), Counts::registered(metrics));
    let (serving, ended) = oneshot::channel();
    std::thread::Builder::new()
        .name("dns".to_owned())
        .spawn(move || {
            if let Err(error) = run(sockets, upstreams, served, counts, ended) {
                tracing::error!(%error, "Name server ended");
            }
        })?;
    Ok(Server {
        names,
        _serving: serving,
    })
}

/// Both sockets of one address.
pub struct Sockets {
    address: SocketAddr,
    udp: std::net::UdpSocket,
    tcp: std::net::TcpListener,
}

impl Sockets {
    /// Of the process before this one.
    pub fn inherited(udp: std::net::UdpSocket, tcp: std::net::TcpListener) -> io::Result<Self> {
        let address = udp.local_addr()?;
        Ok(Self { address, udp, tcp })
    }

    /// The same sockets once more, for the process after this one.
    pub fn duplicate(&self) -> io::Result<Self> {
        Ok(Self {
            address: self.address,
            udp: self.udp.try_clone()?,
            tcp: self.tcp.try_clone()?,
        })
    }

    pub fn udp(&self) -> &std::net::UdpSocket {
        &self.udp
    }

    pub fn tcp(&self) -> &std::net::TcpListener {
        &self.tcp
    }

    fn bind(address: SocketAddr) -> io::Result<Self> {
        let domain = Domain::for_address(address);
        let udp = Socket::new(domain, Type::DGRAM, Some(Protocol::UDP))?;
        let tcp = Socket::new(domain, Type::STREAM, Some(Protocol::TCP))?;
        // Best effort: with less, a burst may lose queries, which are then asked again.
        let _ = udp.set_recv_buffer_size(RECEIVE_BUFFER);
        tcp.set_reuse_address(true)?;
        tcp.set_tcp_nodelay(true)?;
        for socket in [&udp, &tcp] {
            if address.is_ipv6() {
                socket.set_only_v6(true)?;
            }
            socket.set_nonblocking(true)?;
            socket.bind(&address.into())?;
        }
        tcp.listen(CONNECTIONS_MAX as i32)?;
        Ok(Self {
            address,
            udp: udp.into(),
            tcp: tcp.into(),
        })
    }
}

fn run(
    sockets: Vec<Sockets>,
    upstreams: Upstreams,
    names: Arc<ArcSwap<Names>>,
    counts: Counts,
    mut ended: oneshot::Receiver<Infallible>,
) -> io::Result<()> {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build_local(LocalOptions::default())?;
    runtime.block_on(async move {
        let own = sockets.iter().map(|sockets| sockets.address).collect();
        let service = Rc::new(Service {
            names,
            forwarder: Forwarder::new(Servers::new(upstreams, own)),
            queries: Arc::new(Semaphore::new(QUERIES_MAX)),
            connections: Arc::new(Semaphore::new(CONNECTIONS_MAX)),
            counts,
            loop_was_told: Cell::new(false),
        });
        for Sockets { udp, tcp, .. } in sockets {
            let udp = Rc::new(UdpSocket::from_std(udp)?);
            spawn_local(serve_udp(service.clone(), udp));
            spawn_local(serve_tcp(service.clone(), TcpListener::from_std(tcp)?));
        }
        while timeout(LOOK, &mut ended).await.is_err() {
            service.forwarder.servers().reload_if_changed();
        }
        Ok(())
    })
}

struct Service {
    names: Arc<ArcSwap<Names>>,
    forwarder: Forwarder,
    queries: Arc<Semaphore>,
    connections: Arc<Semaphore>,
    counts: Counts,
    /// Once is enough: each query would say it.
    loop_was_told: Cell<bool>,
}

/// What is to be done about a query.
enum Step {
    Send(Vec<u8>),
    /// An upstream knows; the permit is for asking it.
    Forward(OwnedSemaphorePermit),
    Nothing,
}

impl Service {
    fn step(&self, query: &[u8], peer: SocketAddr) -> Step {
        match self.reaction(query, peer) {
            Reaction::Answer(answer, outcome) => {
                self.counts.count(outcome);
                Step::Send(answer)
            }
            Reaction::Ignore => {
                self.counts.count(Outcome::Malformed);
                Step::Nothing
            }
            Reaction::Forward => match self.queries.clone().try_acquire_owned() {
                Ok(permit) => Step::Forward(permit),
                Err(_) => self.refuse(query, Outcome::Overflow),
            },
        }
    }

    fn reaction(&self, query: &[u8], peer: SocketAddr) -> Reaction {
        if !self.forwarder.is_asking(peer) {
            return answer::react(query, &self.names.load());
        }
        if !self.loop_was_told.replace(true) {
            tracing::warn!(%peer, "Own name query came back: the redirect rules must leave the sidecar's user alone (--uid)");
        }
        answer::error(query, ResponseCode::Refused, Outcome::Loop)
    }

    fn refuse(&self, query: &[u8], outcome: Outcome) -> Step {
        self.counts.count(outcome);
        match answer::error(query, ResponseCode::ServFail, outcome) {
            Reaction::Answer(answer, _) => Step::Send(answer),
            Reaction::Forward | Reaction::Ignore => Step::Nothing,
        }
    }

    /// The upstream's answer, or that there was none.
    async fn forward(
        &self,
        query: &[u8],
        transport: Transport,
        _permit: OwnedSemaphorePermit,
    ) -> Option<Vec<u8>> {
        self.counts.under_way.add(1);
        let answer = self.forwarder.ask(query, transport).await;
        self.counts.under_way.add(-1);
        match answer {
            Some(answer) => {
                self.counts.count(Outcome::Forwarded);
                Some(answer)
            }
            None => match self.refuse(query, Outcome::Failed) {
                Step::Send(answer) => Some(answer),
                Step::Forward(_) | Step::Nothing => None,
            },
        }
    }
}

async fn serve_udp(service: Rc<Service>, socket: Rc<UdpSocket>) {
    // One more, to know a longer one by.
    let mut buffer = vec![0; QUERY_BYTES_MAX + 1];
    loop {
        let (length, peer) = match socket.recv_from(&mut buffer).await {
            Ok(received) => received,
            Err(error) => {
                tracing::debug!(%error, "Name queries cannot be received");
                sleep(PAUSE).await;
                continue;
            }
        };
        let query = &buffer[..length];
        if length > QUERY_BYTES_MAX {
            service.counts.count(Outcome::Malformed);
            continue;
        }
        match service.step(query, peer) {
            Step::Nothing => {}
            Step::Send(answer) => send(&socket, &answer, peer).await,
            Step::Forward(permit) => {
                let (service, socket) = (service.clone(), socket.clone());
                let query = query.to_vec();
                spawn_local(async move {
                    if let Some(answer) = service.forward(&query, Transport::Udp, permit).await {
                        send(&socket, &answer, peer).await;
                    }
                });
            }
        }
    }
}

async fn send(socket: &UdpSocket, answer: &[u8], peer: SocketAddr) {
    if let Err(error) = socket.send_to(answer, peer).await {
        tracing::debug!(%peer, %error, "Answer to a name query not sent");
    }
}

async fn serve_tcp(service: Rc<Service>, listener: TcpListener) {
    loop {
        // Never closed, so there is always a permit some time; until then clients wait in the kernel.
        let permit = service.connections.clone().acquire_owned().await;
        match listener.accept().await {
            Ok((stream, peer)) => {
                let service = service.clone();
                spawn_local(async move {
                    if let Err(error) = serve_connection(&service, stream, peer).await {
                        tracing::debug!(%peer, %error, "Connection for name queries ended");
                    }
                    drop(permit);
                });
            }
            Err(error) => {
                tracing::warn!(%error, "Connections for name queries cannot be accepted");
                sleep(PAUSE).await;
            }
        }
    }
}

/// One query after the other, until the client has no more.
async fn serve_connection(
    service: &Service,
    mut stream: TcpStream,
    peer: SocketAddr,
) -> io::Result<()> {
    while let Some(query) = timeout(IDLE_TIMEOUT, read_message(&mut stream)).await?? {
        let answer = match service.step(&query, peer) {
            Step::Send(answer) => Some(answer),
            Step::Forward(permit) => service.forward(&query, Transport::Tcp, permit).await,
            Step::Nothing => None,
        };
        let Some(answer) = answer else {
            return Ok(());
        };
        timeout(IDLE_TIMEOUT, write_message(&mut stream, &answer)).await??;
    }
    Ok(())
}
