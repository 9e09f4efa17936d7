//! The sockets of the request path: one stream type over plain TCP, TLS and, in tests, memory.

use std::io::{self, IoSlice};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::ops::Range;
use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::Duration;

use socket2::{Domain, Protocol, SockRef, Socket, TcpKeepalive, Type};
use tokio::io::{AsyncRead, AsyncWrite, DuplexStream, ReadBuf};
use tokio::net::{TcpSocket, TcpStream};
use tokio_rustls::TlsStream;

/// Connections that wait in the kernel for `accept`.
pub const BACKLOG: i32 = 4096;
/// The kernel counts keep-alive times in whole seconds.
const KEEPALIVE_LEAST: Duration = Duration::from_secs(1);
/// Ports of connections made in the name of another host.
const BORROWED_PORTS: Range<u16> = 10_240..32_768;
const BIND_ATTEMPTS_MAX: usize = 32;

/// A byte stream between two peers.
pub enum Stream {
    Tcp(TcpStream),
    Tls(Box<TlsStream<TcpStream>>),
    /// Both ends in this process, for tests with paused time.
    Memory(DuplexStream),
}

impl Stream {
    /// The TCP socket underneath, where there is one.
    pub fn tcp(&self) -> Option<&TcpStream> {
        match self {
            Stream::Tcp(tcp) => Some(tcp),
            Stream::Tls(tls) => Some(tls.get_ref().0),
            Stream::Memory(_) => None,
        }
    }

    pub fn is_tls(&self) -> bool {
        matches!(self, Stream::Tls(_))
    }

    /// Makes closing this socket send RST instead of FIN, so that the peer sees that what it got was cut short.
    pub fn reset_on_close(&self) {
        if let Some(tcp) = self.tcp() {
            // Best effort: if the socket is gone already there is nobody to tell.
            let _ = SockRef::from(tcp).set_linger(Some(Duration::ZERO));
        }
    }

    /// From now on a peer may live and read nothing for as long as it likes: what ends the connection is that keep-alive probes get
    /// no answer, or the kernel's own limit for bytes that are not acknowledged (some 15 minutes).
    pub fn waits_for_its_reader(&self) {
        if let Some(tcp) = self.tcp() {
            // Best effort: if the socket is gone already there is nobody to wait for.
            let _ = SockRef::from(tcp).set_tcp_user_timeout(None);
        }
    }
}

impl AsyncRead for Stream {
    #[inline]
    fn poll_read(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        match self.get_mut() {
            Stream::Tcp(tcp) => Pin::new(tcp).poll_read(cx, buf),
            Stream::Tls(tls) => Pin::new(tls).poll_read(cx, buf),
            Stream::Memory(memory) => Pin::new(memory).poll_read(cx, buf),
        }
    }
}

impl AsyncWrite for Stream {
    #[inline]
    fn poll_write(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &[u8],
    ) -> Poll<io::Result<usize>> {
        match self.get_mut() {
            Stream::Tcp(tcp) => Pin::new(tcp).poll_write(cx, buf),
            Stream::Tls(tls) => Pin::new(tls).poll_write(cx, buf),
            Stream::Memory(memory) => Pin::new(memory).poll_write(cx, buf),
        }
    }

    #[inline]
    fn poll_write_vectored(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        match self.get_mut() {
            Stream::Tcp(tcp) => Pin::new(tcp).poll_write_vectored(cx, bufs),
            Stream::Tls(tls) => Pin::new(tls).poll_write_vectored(cx, bufs),
            Stream::Memory(memory) => Pin::new(memory).poll_write_vectored(cx, bufs),
        }
    }

    fn is_write_vectored(&self) -> bool {
        true
    }

    #[inline]
    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match self.get_mut() {
            // A TCP socket has nothing to flush.
            Stream::Tcp(_) => Poll::Ready(Ok(())),
            Stream::Tls(tls) => Pin::new(tls).poll_flush(cx),
            Stream::Memory(memory) => Pin::new(memory).poll_flush(cx),
        }
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match self.get_mut() {
            Stream::Tcp(tcp) => Pin::new(tcp).poll_shutdown(cx),
            Stream::Tls(tls) => Pin::new(tls).poll_shutdown(cx),
            Stream::Memory(memory) => Pin::new(memory).poll_shutdown(cx),
        }
    }
}

/// How a listening socket differs from the usual.
#[derive(Clone, Copy, Default, Debug)]
pub struct Listening {
    /// The port has an IPv4 socket of its own.
    pub ipv6_only: bool,
    /// It is given connections to other addresses than its own, by tproxy. Needs the capability NET_RAW.
    pub transparent: bool,
}

/// Fails when somebody has this address already, whom [`Bound::new`] would share it with.
pub fn expect_free(address: SocketAddr) -> io::Result<()> {
    let socket = reusable(address)?;
    if address.is_ipv6() {
        socket.set_only_v6(true)?;
    }
    socket.bind(&address.into())
}

/// Where redirected IPv6 connections arrive when IPv4's arrive here; None for an address that rules cannot lead to.
pub fn ipv6_twin(address: SocketAddr) -> Option<SocketAddr> {
    let ip = match address.ip() {
        IpAddr::V4(Ipv4Addr::LOCALHOST) => Ipv6Addr::LOCALHOST,
        IpAddr::V4(Ipv4Addr::UNSPECIFIED) => Ipv6Addr::UNSPECIFIED,
        IpAddr::V4(_) | IpAddr::V6(_) => return None,
    };
    Some(SocketAddr::from((ip, address.port())))
}

/// Binding to an IPv6 address failed because this machine has none.
pub fn means_no_ipv6(error: &io::Error) -> bool {
    matches!(
        error.raw_os_error(),
        Some(libc::EAFNOSUPPORT | libc::EADDRNOTAVAIL)
    )
}

/// After how long without an acknowledgement a peer counts as gone, with its host or the way to it.
///
/// Bytes that are under way count (`TCP_USER_TIMEOUT`, RFC 5482), and where there are none, keep-alive probes (RFC 9293, section 3.8.4)
/// do: the first after half of the time, and three in the rest. The kernel also counts bytes that the peer has no room for.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Liveness(Duration);

impl Liveness {
    pub const fn new(limit: Duration) -> Self {
        Self(limit)
    }

    fn set(self, socket: SockRef<'_>) -> io::Result<()> {
        let keepalive = TcpKeepalive::new()
            .with_time((self.0 / 2).max(KEEPALIVE_LEAST))
            .with_interval((self.0 / 6).max(KEEPALIVE_LEAST));
        socket.set_tcp_keepalive(&keepalive)?;
        socket.set_tcp_user_timeout(Some(self.0))
    }
}

/// A socket that has its address, and that nobody can connect to yet.
pub struct Bound(Socket);

impl Bound {
    /// Several workers may share the address (`SO_REUSEPORT`); `[::]` takes IPv4 too.
    pub fn new(address: SocketAddr, listening: Listening, liveness: Liveness) -> io::Result<Bound> {
        let socket = bind(address, listening)?;
        // Linux hands these on to accepted sockets, which saves five system calls a connection.
        socket.set_tcp_nodelay(true)?;
        liveness.set(SockRef::from(&socket))?;
        Ok(Bound(socket))
    }

    pub fn listen(self) -> io::Result<std::net::TcpListener> {
        self.0.listen(BACKLOG)?;
        Ok(self.0.into())
    }
}

fn bind(address: SocketAddr, listening: Listening) -> io::Result<Socket> {
    let socket = reusable(address)?;
    socket.set_reuse_port(true)?;
    if address.is_ipv6() {
        // Where IPv6-only is forced by the system, IPv6 alone is served.
        let _ = socket.set_only_v6(listening.ipv6_only);
    }
    if listening.transparent {
        make_transparent(&socket, address.is_ipv6())?;
    }
    socket.set_nonblocking(true)?;
    socket.bind(&address.into())?;
    Ok(socket)
}

/// A socket that may be bound although old connections of its address are still ending.
fn reusable(address: SocketAddr) -> io::Result<Socket> {
    let domain = Domain::for_address(address);
    let socket = Socket::new(domain, Type::STREAM, Some(Protocol::TCP))?;
    socket.set_reuse_address(true)?;
    Ok(socket)
}

/// Connects from an address that is not this host's, with a mark by which its answers are known. Needs the capability NET_RAW.
pub async fn connect_from(source: IpAddr, mark: u32, address: SocketAddr) -> io::Result<TcpStream> {
    let domain = Domain::for_address(address);
    let socket = Socket::new(domain, Type::STREAM, Some(Protocol::TCP))?;
    socket.set_nonblocking(true)?;
    make_transparent(&socket, address.is_ipv6())?;
    socket.set_mark(mark)?;
    bind_apart(&socket, source)?;
    TcpSocket::from_std_stream(socket.into())
        .connect(address)
        .await
}

/// Binds to a port that the source itself is unlikely to use: two connections between the same four numbers cannot both be, and
/// hosts take theirs from 32768 up.
fn bind_apart(socket: &Socket, source: IpAddr) -> io::Result<()> {
    let mut bound = Err(io::ErrorKind::AddrInUse.into());
    for _ in 0..BIND_ATTEMPTS_MAX {
        let port = fastrand::u16(BORROWED_PORTS);
        bound = socket.bind(&SocketAddr::new(source, port).into());
        if !matches!(&bound, Err(error) if error.kind() == io::ErrorKind::AddrInUse) {
            break;
        }
    }
    bound
}

fn make_transparent(socket: &Socket, is_ipv6: bool) -> io::Result<()> {
    match is_ipv6 {
        true => socket.set_ip_transparent_v6(true),
        false => socket.set_ip_transparent_v4(true),
    }
}

/// What a connected socket gets: no delay, and an end when its peer is gone.
pub fn prepare(tcp: &TcpStream, liveness: Liveness) -> io::Result<()> {
    tcp.set_nodelay(true)?;
    liveness.set(SockRef::from(tcp))
}
