//! A real `pillion proxy` between scripted peers: bytes in, bytes out, nothing in between that would correct them.

use std::io::{self, Read, Write};
use std::net::{Ipv4Addr, Shutdown, SocketAddr, TcpListener, TcpStream};
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicU16, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::thread;
use std::time::Duration;

use socket2::SockRef;
use tempfile::TempDir;
use tokio::time::Instant;

/// No test waits longer than this for anything; only a broken one waits so long.
pub const HANG_GUARD: Duration = Duration::from_secs(30);

/// What an upstream does with its connection after an answer.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Then {
    /// Waits for the next request.
    Keep,
    Close,
    /// Ends it by a reset.
    Reset,
}

/// A proxy with one listener, and the one upstream behind it. It is the sidecar of that upstream too, and of whoever calls it.
pub struct Mesh {
    proxy: Child,
    ports: Ports,
    heads: Arc<Mutex<Vec<String>>>,
    folder: TempDir,
    upstreams: Arc<Upstreams>,
}

/// Where a proxy listens.
#[derive(Clone, Copy)]
struct Ports {
    gateway: u16,
    admin: u16,
    /// What an application sends to services by their names.
    outbound: u16,
    /// Of the application's port, as others reach it.
    app: u16,
    inbound: u16,
}

/// Connections that the proxy has made to the upstream.
#[derive(Default)]
struct Upstreams {
    all: AtomicUsize,
    open: AtomicUsize,
}

/// What a test's proxy has beyond what all have, as YAML.
#[derive(Default)]
pub struct Extra {
    /// Further keys of the only listener, each after a comma.
    pub listener: &'static str,
    /// Further keys of the only rule, likewise.
    pub rule: &'static str,
    /// Further keys of `limits`, likewise.
    pub limits: &'static str,
    /// Further lines of the only service.
    pub service: &'static str,
    /// Further lines of the bootstrap file.
    pub bootstrap: &'static str,
}

impl Mesh {
    /// The upstream hands each request's head to `answer`, which reads and writes what it likes.
    pub fn start(answer: impl Fn(&mut Peer, &str) -> Then + Send + Sync + 'static) -> Self {
        Self::start_with(&Extra::default(), answer)
    }

    pub fn start_with(
        extra: &Extra,
        answer: impl Fn(&mut Peer, &str) -> Then + Send + Sync + 'static,
    ) -> Self {
        let heads = Arc::new(Mutex::new(Vec::new()));
        let upstreams = Arc::<Upstreams>::default();
        let upstream = serve(answer, heads.clone(), upstreams.clone());
        let folder = tempfile::tempdir().expect("a temporary folder");
        let [gateway, admin, outbound, app, inbound] = free_ports();
        let ports = Ports {
            gateway,
            admin,
            outbound,
            app,
            inbound,
        };
        let write = |name: &str, text: String| {
            std::fs::write(folder.path().join(name), text).expect("the folder can be written to");
        };
        write("mesh.yaml", mesh_yaml(gateway, upstream, extra));
        write("proxy.yaml", proxy_yaml(ports, upstream, extra));
        let proxy = Command::new(env!("CARGO_BIN_EXE_pillion"))
            .args(["proxy", "--config"])
            .arg(folder.path().join("proxy.yaml"))
            .stdin(Stdio::null())
            .spawn()
            .expect("the proxy is built");
        let mut mesh = Self {
            proxy,
            ports,
            heads,
            folder,
            upstreams,
        };
        mesh.wait_until_it_serves();
        mesh
    }

    pub fn connect(&self) -> Peer {
        connect(self.ports.gateway)
    }

    /// To where an application sends what it asks services by their names; the only one is `app`.
    pub fn connect_outbound(&self) -> Peer {
        connect(self.ports.outbound)
    }

    /// To the sidecar beside the upstream.
    pub fn connect_inbound(&self) -> Peer {
        connect(self.ports.app)
    }

    /// Sends the bytes on a connection of their own, and reads until the proxy closes it.
    pub fn exchange(&self, bytes: &[u8]) -> String {
        let mut client = self.connect();
        client.send(bytes);
        client.read_to_end()
    }

    /// The heads of all requests that have reached the upstream.
    pub fn heads(&self) -> Vec<String> {
        self.heads.lock().expect("no holder panics").clone()
    }

    /// The head of the only request that has reached the upstream.
    pub fn only_head(&self) -> String {
        let heads = self.heads();
        assert_eq!(heads.len(), 1, "{heads:?}");
        heads[0].clone()
    }

    /// The lines of the access log, once there are so many.
    pub fn access_log(&self, count: usize) -> Vec<String> {
        let mut lines = Vec::new();
        eventually("so many lines of the access log", || {
            let log = std::fs::read_to_string(self.folder.path().join("access.log"));
            lines = log.unwrap_or_default().lines().map(str::to_owned).collect();
            lines.len() >= count
        });
        lines
    }

    pub fn address(&self) -> SocketAddr {
        loopback(self.ports.gateway)
    }

    /// All connections that the proxy has ever made to the upstream.
    pub fn upstream_connections(&self) -> usize {
        self.upstreams.all.load(Ordering::SeqCst)
    }

    /// Those that it has not yet ended.
    pub fn open_upstream_connections(&self) -> usize {
        self.upstreams.open.load(Ordering::SeqCst)
    }

    /// What the proxy holds in memory, in bytes.
    pub fn memory(&self) -> usize {
        let status = std::fs::read_to_string(format!("/proc/{}/status", self.proxy.id()))
            .expect("the proxy runs");
        let kilobytes: usize = status
            .lines()
            .find_map(|line| line.strip_prefix("VmRSS:")?.strip_suffix("kB"))
            .and_then(|count| count.trim().parse().ok())
            .expect("Linux says so");
        kilobytes * 1024
    }

    /// Asks the proxy to end, and waits until it has. How long that took.
    pub fn terminate(&mut self) -> Duration {
        let begun = Instant::now();
        // SAFETY: the child has not been waited for, so its id is still its own.
        let sent = unsafe { libc::kill(self.proxy.id() as i32, libc::SIGTERM) };
        assert_eq!(sent, 0, "SIGTERM");
        let mut status = None;
        eventually("the proxy ends", || {
            status = self.proxy.try_wait().expect("it is our child");
            status.is_some()
        });
        assert!(status.is_some_and(|status| status.success()), "{status:?}");
        begun.elapsed()
    }

    fn wait_until_it_serves(&mut self) {
        // The admin socket comes last.
        let admin = loopback(self.ports.admin);
        eventually("the proxy listens", || {
            let ended = self.proxy.try_wait().expect("the proxy is our child");
            assert_eq!(ended, None, "the proxy has ended");
            TcpStream::connect(admin).is_ok()
        });
    }
}

/// Polls until it is so.
pub fn eventually(what: &str, mut is_so: impl FnMut() -> bool) {
    let begun = Instant::now();
    while !is_so() {
        assert!(begun.elapsed() < HANG_GUARD, "it never comes: {what}");
        thread::sleep(Duration::from_millis(5));
    }
}

fn loopback(port: u16) -> SocketAddr {
    (Ipv4Addr::LOCALHOST, port).into()
}

fn connect(port: u16) -> Peer {
    Peer::new(TcpStream::connect(loopback(port)).expect("the proxy listens"))
}

impl Drop for Mesh {
    fn drop(&mut self) {
        let _ = self.proxy.kill();
        let _ = self.proxy.wait();
    }
}

fn mesh_yaml(port: u16, upstream: SocketAddr, extra: &Extra) -> String {
    let Extra {
        listener,
        rule,
        service,
        ..
    } = extra;
    format!(
        "kind: Gateway\n\
         name: edge\n\
         address: 127.0.0.1\n\
         listeners: [{{name: web, port: {port}, protocol: HTTP{listener}}}]\n\
         ---\n\
         kind: HTTPRoute\n\
         name: all\n\
         rules: [{{backendRefs: [{{name: app, port: 80}}]{rule}}}]\n\
         ---\n\
         kind: Service\n\
         name: app\n\
         ports: [{{port: 80, protocol: http}}]\n\
         endpoints: [{{address: '{upstream}'}}]\n\
         outlier: {{consecutive_5xx: 0}}\n\
         {service}\n"
    )
}

fn proxy_yaml(ports: Ports, upstream: SocketAddr, extra: &Extra) -> String {
    let Extra {
        limits, bootstrap, ..
    } = extra;
    let Ports {
        admin,
        outbound,
        app,
        inbound,
        ..
    } = ports;
    format!(
        "admin: {{address: '127.0.0.1:{admin}'}}\n\
         access_log: {{path: access.log}}\n\
         mesh: mesh.yaml\n\
         outbound: {{address: '127.0.0.1:{outbound}'}}\n\
         inbound: {{address: '127.0.0.1:{inbound}'}}\n\
         apps: [{{service: app, port: 80, app: '{upstream}', protocol: http, listen: '127.0.0.1:{app}'}}]\n\
         workers: 1\n\
         log: {{level: error}}\n\
         limits: {{header_timeout: 1s, header_bytes_max: 16KiB, headers_max: 32{limits}}}\n\
         {bootstrap}\n"
    )
}

/// Ports that nobody listens on at this moment. They are below those that the system gives to clients, or else a client
/// that tries one before the proxy listens there could reach itself.
fn free_ports<const COUNT: usize>() -> [u16; COUNT] {
    const RANGE: std::ops::Range<u16> = 20_000..32_000;
    static NEXT: AtomicU16 = AtomicU16::new(0);
    let first = u16::try_from(std::process::id() * 97 % 12_000).expect("it is below 12,000");
    std::array::from_fn(|_| {
        loop {
            let offset = (first + NEXT.fetch_add(1, Ordering::Relaxed) % 12_000) % 12_000;
            let port = RANGE.start + offset;
            if TcpListener::bind((Ipv4Addr::LOCALHOST, port)).is_ok() {
                return port;
            }
        }
    })
}

/// An upstream that lives as long as the process.
fn serve(
    answer: impl Fn(&mut Peer, &str) -> Then + Send + Sync + 'static,
    heads: Arc<Mutex<Vec<String>>>,
    upstreams: Arc<Upstreams>,
) -> SocketAddr {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).expect("loopback has free ports");
    let address = listener.local_addr().expect("it is bound");
    let answer = Arc::new(answer);
    thread::spawn(move || {
        for stream in listener.incoming().flatten() {
            let (answer, heads, upstreams) = (answer.clone(), heads.clone(), upstreams.clone());
            upstreams.all.fetch_add(1, Ordering::SeqCst);
            upstreams.open.fetch_add(1, Ordering::SeqCst);
            thread::spawn(move || {
                answer_all(Peer::new(stream), &*answer, &heads);
                upstreams.open.fetch_sub(1, Ordering::SeqCst);
            });
        }
    });
    address
}

fn answer_all(
    mut peer: Peer,
    answer: &dyn Fn(&mut Peer, &str) -> Then,
    heads: &Mutex<Vec<String>>,
) {
    while let Some(head) = peer.try_read_head() {
        heads.lock().expect("no holder panics").push(head.clone());
        match answer(&mut peer, &head) {
            Then::Keep => {}
            Then::Close => return,
            Then::Reset => return peer.reset(),
        }
    }
}

/// One side of a connection, and what has been read from it beyond what was asked for. Bytes are shown as Latin-1, so that
/// every byte is a character.
pub struct Peer {
    stream: TcpStream,
    read: Vec<u8>,
}

impl Peer {
    fn new(stream: TcpStream) -> Self {
        let _ = stream.set_read_timeout(Some(HANG_GUARD));
        let _ = stream.set_write_timeout(Some(HANG_GUARD));
        let _ = stream.set_nodelay(true);
        Self {
            stream,
            read: Vec::new(),
        }
    }

    /// Sends what the other side may no longer want, which is its right.
    pub fn send(&mut self, bytes: &[u8]) {
        let _ = self.stream.write_all(bytes);
    }

    /// Each byte in a packet of its own.
    pub fn send_slowly(&mut self, bytes: &[u8]) {
        for byte in bytes {
            self.send(&[*byte]);
        }
    }

    /// Ends our direction only.
    pub fn finish(&mut self) {
        let _ = self.stream.shutdown(Shutdown::Write);
    }

    pub fn reset(self) {
        let _ = SockRef::from(&self.stream).set_linger(Some(Duration::ZERO));
    }

    /// Up to and with the empty line.
    pub fn read_head(&mut self) -> String {
        self.try_read_head()
            .expect("the connection ended before a head had come")
    }

    /// Nothing where the connection ends first.
    pub fn try_read_head(&mut self) -> Option<String> {
        self.try_read_until("\r\n\r\n").ok()
    }

    /// Up to and with these bytes.
    pub fn read_until(&mut self, end: &str) -> String {
        self.try_read_until(end).unwrap_or_else(|error| {
            panic!(
                "{end:?} does not come ({error}), but {:?}",
                latin1(&self.read)
            )
        })
    }

    fn try_read_until(&mut self, end: &str) -> io::Result<String> {
        loop {
            if let Some(at) = memchr::memmem::find(&self.read, end.as_bytes()) {
                return Ok(self.take(at + end.len()));
            }
            if self.fill()? == 0 {
                return Err(io::ErrorKind::UnexpectedEof.into());
            }
        }
    }

    pub fn read_exact(&mut self, count: usize) -> String {
        while self.read.len() < count {
            let filled = self.fill();
            assert!(
                matches!(filled, Ok(1..)),
                "{filled:?} after {:?}",
                latin1(&self.read)
            );
        }
        self.take(count)
    }

    /// All that comes until the other side ends its direction, in whatever way.
    pub fn read_to_end(&mut self) -> String {
        self.read_to_end_or_reset().0
    }

    /// The same, and whether it ended as it should, without a reset.
    pub fn read_to_end_or_reset(&mut self) -> (String, bool) {
        loop {
            match self.fill() {
                Ok(0) => return (self.take(self.read.len()), true),
                Ok(_) => {}
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                    panic!("the connection stays open after {:?}", latin1(&self.read))
                }
                Err(_) => return (self.take(self.read.len()), false),
            }
        }
    }

    /// What has been read and not asked for.
    pub fn unread(&self) -> String {
        latin1(&self.read)
    }

    /// Reads what comes next; false once the other side has ended its direction, in whatever way.
    pub fn reads_more(&mut self) -> bool {
        matches!(self.fill(), Ok(1..))
    }

    fn fill(&mut self) -> io::Result<usize> {
        let mut chunk = [0; 16 * 1024];
        let count = self.stream.read(&mut chunk)?;
        self.read.extend_from_slice(&chunk[..count]);
        Ok(count)
    }

    fn take(&mut self, count: usize) -> String {
        let rest = self.read.split_off(count);
        latin1(&std::mem::replace(&mut self.read, rest))
    }
}

fn latin1(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| char::from(*byte)).collect()
}

/// The status of an answer's head.
pub fn status(answer: &str) -> u16 {
    answer
        .strip_prefix("HTTP/1.1 ")
        .and_then(|rest| rest.get(..3))
        .and_then(|digits| digits.parse().ok())
        .unwrap_or_else(|| panic!("no status line: {answer:?}"))
}

/// The value of a field in a head, by its name in lower case.
pub fn field<'a>(head: &'a str, name: &str) -> Option<&'a str> {
    head.lines().find_map(|line| {
        let (found, value) = line.split_once(": ")?;
        found.eq_ignore_ascii_case(name).then_some(value)
    })
}
