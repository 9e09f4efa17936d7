//! From an accepted socket to the engine that serves it: TLS, the original destination, the protocol.

use std::cell::Cell;
use std::future::{Future, poll_fn};
use std::io;
use std::net::SocketAddr;
use std::pin::pin;
use std::rc::Rc;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use tokio::net::{TcpListener, TcpStream};
use tokio::sync::oneshot;
use tokio::time::{Instant, timeout};
use tokio_rustls::TlsAcceptor;

use super::by_address;
use super::cluster::Outcome;
use super::destination::Destination;
use super::detect::{Detected, detect};
use super::entry::{Entry, Role, Routing};
use super::failure::Failure;
use super::http::exchange::Exchange;
use super::http::head::RequestHead;
use super::http::plan;
use super::http::tunnel::{self, Tunnel};
use super::http1::conn::Conn;
use super::route::{BackendChoice, Found, Listeners, NameView};
use super::server_name::server_name;
use super::session::Session;
use super::worker::{Admitted, Worker};
use super::{http1, http2};
use crate::base::buffer::Buffer;
use crate::base::net::{BACKLOG, Stream};
use crate::base::timer::Timer;
use crate::identity::ServerTls;
use crate::intercept::{kept_dst, original_dst};
use crate::model::InboundMode;
use crate::telemetry::metrics::RequestSeries;

/// The wait after a failed accept; it doubles up to the maximum while accepting keeps failing.
const BACKOFF_MIN: Duration = Duration::from_millis(5);
const BACKOFF_MAX: Duration = Duration::from_secs(1);
/// Idle downstream connections that are closed when descriptors are short.
const SHED: usize = 64;
/// A client that has said nothing for so long may be waiting for the server to speak first.
const SERVER_FIRST_AFTER: Duration = Duration::from_millis(5);

/// Accepts connections on one socket until the sender of `ended` is gone, and then what waits there.
pub async fn accept(
    worker: Rc<Worker>,
    socket: std::net::TcpListener,
    entry: Arc<Entry>,
    mut ended: oneshot::Receiver<()>,
) {
    let listener = match TcpListener::from_std(socket) {
        Ok(listener) => listener,
        Err(error) => return tracing::error!(address = %entry.address, %error, "Cannot listen"),
    };
    let _accepting = worker.listens();
    let mut backoff = BACKOFF_MIN;
    loop {
        let accepted = tokio::select! {
            biased;
            _ = &mut ended => break,
            accepted = listener.accept() => accepted,
        };
        match accepted {
            Ok((tcp, peer)) => {
                backoff = BACKOFF_MIN;
                begin(&worker, &entry, tcp, peer);
            }
            Err(error) if is_of_one_connection(&error) => {}
            Err(error) => {
                tracing::warn!(address = %entry.address, %error, "Accept failed; idle connections are closed");
                worker.shed(SHED);
                tokio::time::sleep(backoff).await;
                backoff = (backoff * 2).min(BACKOFF_MAX);
            }
        }
    }
    if let Err(error) = accept_waiting(&worker, listener, &entry) {
        tracing::warn!(address = %entry.address, %error, "Connections may have been reset that were waiting");
    }
}

/// The kernel has greeted these clients in our name, and would reset them with the socket.
fn accept_waiting(
    worker: &Rc<Worker>,
    listener: TcpListener,
    entry: &Arc<Entry>,
) -> io::Result<()> {
    let socket = listener.into_std()?;
    for _ in 0..BACKLOG {
        match socket.accept() {
            Ok((tcp, peer)) => {
                tcp.set_nonblocking(true)?;
                begin(worker, entry, TcpStream::from_std(tcp)?, peer);
            }
            Err(error) if is_of_one_connection(&error) => {}
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => break,
            Err(error) => return Err(error),
        }
    }
    Ok(())
}

fn begin(worker: &Rc<Worker>, entry: &Arc<Entry>, tcp: TcpStream, peer: SocketAddr) {
    let Some(admitted) = worker.admit() else {
        tracing::warn!(%peer, "Connection refused: limits.downstream_connections_max is reached");
        worker.shed(SHED);
        return;
    };
    let connection = connection(admitted, worker.clone(), entry.clone(), tcp, peer);
    tokio::task::spawn_local(connection);
}

/// The connection was gone before it was accepted; the next one may be fine.
fn is_of_one_connection(error: &io::Error) -> bool {
    matches!(
        error.kind(),
        io::ErrorKind::ConnectionAborted
            | io::ErrorKind::ConnectionReset
            | io::ErrorKind::Interrupted
    )
}

async fn connection(
    admitted: Admitted,
    worker: Rc<Worker>,
    entry: Arc<Entry>,
    tcp: TcpStream,
    peer: SocketAddr,
) {
    admitted.wakes_this_task().await;
    let original = match entry.role {
        Role::Gateway => None,
        Role::Outbound | Role::Inbound(InboundMode::Redirect) => original_dst(&tcp).ok().flatten(),
        Role::Inbound(InboundMode::Tproxy) => kept_dst(&tcp, entry.address).ok().flatten(),
    };
    let trusted_networks = &worker.settings.trusted_networks;
    let trusted = trusted_networks
        .iter()
        .any(|network| network.has(peer.ip()));
    let mut session = Session {
        worker,
        peer,
        local: entry.address,
        entry,
        original_dst: original.as_ref().map(|original| original.0),
        tls: false,
        http2: false,
        server_name: None,
        peer_text: Session::peer_text(peer.ip()),
        trusted,
        load_told: Cell::new(0),
    };
    if session
        .original_dst
        .is_some_and(|address| session.is_own(address))
    {
        // Somebody dialled our own port through the redirect: going there would come back here for ever.
        tracing::warn!(%peer, destination = ?session.original_dst, "Connection to the proxy's own port refused");
        return;
    }
    // An idle connection is a task for as long as it lasts, so what is large and passes is kept apart.
    let tcp = match &*session.entry.passthrough.load_full() {
        None => tcp,
        Some(listeners) => match Box::pin(pass_through(&mut session, listeners, tcp)).await {
            Some(tcp) => tcp,
            None => return,
        },
    };
    let stream = match (&*session.entry.tls.load_full(), session.entry.role) {
        (Some(tls), _) => {
            let Some(stream) = Box::pin(handshake(&mut session, tls, tcp)).await else {
                return;
            };
            stream
        }
        (None, Role::Gateway) => Stream::Tcp(tcp),
        (None, Role::Outbound | Role::Inbound(_)) => return Box::pin(sniffed(session, tcp)).await,
    };
    plain(session, stream).await;
}

/// Passes a connection through by the name that its client asks for; one that is to be read here is given back.
async fn pass_through(
    session: &mut Session,
    listeners: &Listeners<Arc<Destination>>,
    tcp: TcpStream,
) -> Option<TcpStream> {
    let limit = session.worker.settings.tls_handshake_timeout;
    match timeout(limit, server_name(&tcp)).await {
        Ok(Ok(name)) => session.server_name = name,
        Ok(Err(error)) => {
            tracing::debug!(peer = %session.peer, %error, "A client does not begin with TLS");
            return None;
        }
        Err(_) => return None,
    }
    let name = session.server_name.as_deref().unwrap_or_default();
    let found = listeners.find(name.as_bytes());
    if found.is_none_or(|found| !found.listener.passes_through()) {
        return Some(tcp);
    }
    by_name(session, Stream::Tcp(tcp), listeners).await;
    None
}

/// TLS towards the client. None where it failed.
async fn handshake(session: &mut Session, tls: &ServerTls, tcp: TcpStream) -> Option<Stream> {
    let limit = session.worker.settings.tls_handshake_timeout;
    let accepted = timeout(limit, TlsAcceptor::from(tls.config().clone()).accept(tcp)).await;
    let stream = match accepted {
        Ok(Ok(stream)) => stream,
        Ok(Err(error)) => {
            tracing::debug!(peer = %session.peer, %error, "TLS handshake failed");
            return None;
        }
        Err(_) => return None,
    };
    session.tls = true;
    session.server_name = stream.get_ref().1.server_name().map(Into::into);
    session.http2 = stream.get_ref().1.alpn_protocol() == Some(b"h2");
    Some(Stream::Tls(Box::new(stream.into())))
}

/// A gateway's connection: declared to be HTTP, or bytes.
async fn plain(session: Session, stream: Stream) {
    let routing = session.entry.routing.load_full();
    if let Routing::Opaque(listeners) = &*routing {
        return Box::pin(by_name(&session, stream, listeners)).await;
    }
    drop(routing);
    if session.http2 {
        return Box::pin(http2::server::serve(session, stream, Buffer::default())).await;
    }
    let mut conn = Conn::new(stream);
    // An idle connection costs nothing while its first byte is awaited.
    match Box::pin(first_bytes(&session, &mut conn)).await {
        Detected::Http2 => {
            let (stream, before) = conn.into_parts();
            Box::pin(http2::server::serve(session, stream, before)).await;
        }
        Detected::Undecided => {}
        // The engine says what is wrong with anything else.
        _ => http1::server::serve(session, conn).await,
    }
}

/// Reads until the first bytes tell the protocol; `Undecided` when they do not come, or not in time.
async fn first_bytes(session: &Session, conn: &mut Conn) -> Detected {
    let mut quiet = Quiet::new();
    let reading = poll_fn(|cx| {
        loop {
            let detected = detect(conn.unread());
            if detected != Detected::Undecided {
                return Poll::Ready(detected);
            }
            match conn.poll_fill(cx) {
                Poll::Ready(Ok(count)) if count > 0 => {}
                Poll::Ready(_) if conn.has_unread() => return Poll::Ready(Detected::Http1),
                Poll::Ready(_) => return Poll::Ready(Detected::Undecided),
                Poll::Pending if conn.has_unread() => return Poll::Pending,
                Poll::Pending => {
                    let quiet = quiet.poll(cx, session);
                    return quiet.map(|()| Detected::Undecided);
                }
            }
        }
    });
    // The first byte may take as long as an idle connection, the rest as long as a head.
    let limit = session.worker.settings.header_timeout;
    timeout(limit, reading).await.unwrap_or(Detected::Undecided)
}

/// Ends a connection on which nothing has come, while its worker drains.
struct Quiet {
    since: Instant,
    timer: Timer,
}

impl Quiet {
    fn new() -> Self {
        Self {
            since: Instant::now(),
            timer: Timer::default(),
        }
    }

    fn poll(&mut self, cx: &mut Context<'_>, session: &Session) -> Poll<()> {
        match session.worker.quiet_at(self.since) {
            Some(deadline) => self.timer.poll(cx, deadline),
            None => Poll::Pending,
        }
    }
}

/// A sidecar's connection: anything the application speaks.
async fn sniffed(session: Session, tcp: TcpStream) {
    if is_declared_opaque(&session) {
        return opaque_or_refused(&session, Stream::Tcp(tcp), Buffer::default()).await;
    }
    let mut conn = Conn::new(Stream::Tcp(tcp));
    match detect_beside_server(&session, &mut conn).await {
        Sniffed::Protocol(Detected::Http1) => http1::server::serve(session, conn).await,
        Sniffed::Protocol(Detected::Http2) => {
            let (stream, before) = conn.into_parts();
            Box::pin(http2::server::serve(session, stream, before)).await;
        }
        Sniffed::Protocol(Detected::Tls | Detected::Opaque) => {
            let (stream, before) = conn.into_parts();
            opaque_or_refused(&session, stream, before).await;
        }
        Sniffed::Protocol(Detected::Undecided) => {}
        Sniffed::ServerFirst(server) => {
            let (stream, before) = conn.into_parts();
            server.run(&session, stream, before).await;
        }
    }
}

enum Sniffed {
    Protocol(Detected),
    /// The server spoke before the client did, on this connection to it.
    ServerFirst(Box<Tunnel>),
}

/// Reads the client's first bytes; while it is silent, the server is asked whether it speaks first.
async fn detect_beside_server(session: &Session, conn: &mut Conn) -> Sniffed {
    let settings = &session.worker.settings;
    let started = Instant::now();
    let mut server = pin!(server_first(session, started));
    let mut server_done = session.original_dst.is_none();
    let deadline = started + settings.detection_timeout;
    let mut silence = pin!(tokio::time::sleep_until(deadline));
    let mut quiet = Quiet::new();
    poll_fn(|cx| {
        loop {
            let detected = detect(conn.unread());
            if detected != Detected::Undecided {
                return Poll::Ready(Sniffed::Protocol(detected));
            }
            match conn.poll_fill(cx) {
                Poll::Ready(Ok(count)) if count > 0 => continue,
                Poll::Ready(_) if conn.has_unread() => {
                    return Poll::Ready(Sniffed::Protocol(Detected::Opaque));
                }
                Poll::Ready(_) => return Poll::Ready(Sniffed::Protocol(Detected::Undecided)),
                Poll::Pending if conn.has_unread() => break,
                Poll::Pending if quiet.poll(cx, session).is_ready() => {
                    return Poll::Ready(Sniffed::Protocol(Detected::Undecided));
                }
                Poll::Pending => break,
            }
        }
        if !server_done
            && !conn.has_unread()
            && let Poll::Ready(found) = server.as_mut().poll(cx)
        {
            server_done = true;
            if let Some(tunnel) = found {
                return Poll::Ready(Sniffed::ServerFirst(Box::new(tunnel)));
            }
        }
        if session.original_dst.is_some() {
            // Then opaque; without a destination to go to, a silent client may stay as it is.
            return silence
                .as_mut()
                .poll(cx)
                .map(|()| Sniffed::Protocol(Detected::Opaque));
        }
        Poll::Pending
    })
    .await
}

/// Connects to the original destination and waits for it to speak.
async fn server_first(session: &Session, started: Instant) -> Option<Tunnel> {
    tokio::time::sleep_until(started + SERVER_FIRST_AFTER).await;
    let (destination, requests) = opaque_destination(session)?.ok()?;
    let mut exchange = begin_opaque(session, &destination, &requests);
    let opened = tunnel::open(session, &destination, &mut exchange).await;
    let (stream, permit, lease) = opened.ok()?;
    let spoke = match &stream {
        Stream::Tcp(tcp) => tcp.readable().await.is_ok(),
        _ => false,
    };
    if !spoke {
        lease.settle(Outcome::Success, started.elapsed(), Instant::now());
        return None;
    }
    let mut tunnel = Tunnel::new(stream, Buffer::default(), Some(permit), lease);
    tunnel.record = Some((exchange, RequestHead::default()));
    Some(tunnel)
}

/// Whether the connection is for a service whose bytes are not looked at.
fn is_declared_opaque(session: &Session) -> bool {
    let routing = session.entry.routing.load();
    match (&**routing, session.original_dst) {
        (Routing::Mesh(mesh), Some(address)) => by_address::is_declared_opaque(mesh, address),
        _ => false,
    }
}

/// Where bytes that are not HTTP go, or why they go nowhere; None where nothing says so.
fn opaque_destination(session: &Session) -> Option<Result<by_address::Found, Failure>> {
    let routing = session.entry.routing.load_full();
    let passthrough = |address| {
        session
            .worker
            .passthrough
            .at(address, &session.worker.settings)
    };
    match &*routing {
        Routing::App(app) => match plan::app_destination(session, app) {
            Some(found) => Some(Ok((found.destination.clone(), found.requests.clone()))),
            None => {
                let destination = passthrough(session.original_dst?);
                Some(Ok((destination, app.requests.unrouted().clone())))
            }
        },
        Routing::Mesh(mesh) => Some(by_address::opaque(session, mesh, session.original_dst?)),
        _ => None,
    }
}

/// Carries bytes to where they were going, if that is anywhere.
async fn opaque_or_refused(session: &Session, stream: Stream, before: Buffer) {
    match opaque_destination(session) {
        Some(Ok((destination, requests))) => {
            opaque(session, stream, before, &destination, &requests).await;
        }
        Some(Err(failure)) => {
            let mut exchange = session.begin();
            exchange.endpoint = session.original_dst;
            exchange.series = match &*session.entry.routing.load_full() {
                Routing::Mesh(mesh) => Some(mesh.requests.unrouted().clone()),
                _ => None,
            };
            let head = RequestHead::default();
            refuse_opaque(session, &stream, exchange, &head, &failure);
        }
        None => {}
    }
}

/// Carries bytes to where the name leads that TLS asked for; without TLS, there is none.
async fn by_name(session: &Session, stream: Stream, listeners: &Listeners<Arc<Destination>>) {
    let name = session.server_name.as_deref().unwrap_or_default();
    let mut head = RequestHead::default();
    if !name.is_empty() {
        head.fields.push(b"Host", name.as_bytes());
    }
    let mut exchange = session.begin();
    let chosen = choose(session, listeners, name.as_bytes(), &mut exchange);
    let opened = match chosen {
        Ok(destination) => tunnel::open(session, &destination, &mut exchange).await,
        Err(failure) => Err(failure),
    };
    match opened {
        Ok((server, permit, lease)) => {
            let mut tunnel = Tunnel::new(server, Buffer::default(), Some(permit), lease);
            tunnel.record = Some((exchange, head));
            tunnel.run(session, stream, Buffer::default()).await;
        }
        Err(failure) => refuse_opaque(session, &stream, exchange, &head, &failure),
    }
}

fn choose(
    session: &Session,
    listeners: &Listeners<Arc<Destination>>,
    name: &[u8],
    exchange: &mut Exchange,
) -> Result<Arc<Destination>, Failure> {
    let listener = listeners.find(name);
    let listener = listener.ok_or(Failure::NoRoute { host: false })?;
    exchange.series = Some(listener.requests.unrouted().clone());
    let rule = match listener.table.find(&NameView::new(name)) {
        Found::Rule { rule, .. } => rule,
        Found::NoHost | Found::NoRule => return Err(Failure::NoRoute { host: false }),
    };
    exchange.route = Some(rule.label.clone());
    exchange.series = Some(rule.requests.clone());
    match rule.pick_backend(&mut session.worker.rng.borrow_mut()) {
        BackendChoice::Cluster(backend) => {
            exchange.series = Some(backend.requests.clone());
            exchange.service = Some(backend.target.label.clone());
            Ok(backend.target.clone())
        }
        BackendChoice::Invalid(reason) => Err(Failure::InvalidBackend {
            reason: reason.to_string(),
        }),
        BackendChoice::None => Err(Failure::NoBackend),
    }
}

fn begin_opaque(
    session: &Session,
    destination: &Destination,
    requests: &Arc<RequestSeries>,
) -> Exchange {
    let mut exchange = session.begin();
    exchange.series = Some(requests.clone());
    exchange.service = Some(destination.label.clone());
    exchange
}

/// Bytes get no answer but a reset; the record says why.
fn refuse_opaque(
    session: &Session,
    stream: &Stream,
    mut exchange: Exchange,
    head: &RequestHead,
    failure: &Failure,
) {
    let answer = failure.answer();
    exchange.flag(answer.flag);
    exchange.details = answer.message;
    stream.reset_on_close();
    session.finish(&exchange, head);
}

/// Carries bytes to a destination, and leaves a record of it.
async fn opaque(
    session: &Session,
    stream: Stream,
    before: Buffer,
    destination: &Destination,
    requests: &Arc<RequestSeries>,
) {
    let mut exchange = begin_opaque(session, destination, requests);
    match tunnel::open(session, destination, &mut exchange).await {
        Ok((server, permit, lease)) => {
            let mut tunnel = Tunnel::new(server, Buffer::default(), Some(permit), lease);
            tunnel.record = Some((exchange, RequestHead::default()));
            tunnel.run(session, stream, before).await;
        }
        Err(failure) => {
            let head = RequestHead::default();
            refuse_opaque(session, &stream, exchange, &head, &failure);
        }
    }
}
