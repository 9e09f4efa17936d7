use std::collections::BTreeMap;
use std::net::{IpAddr, SocketAddr};
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use super::Paths;
use super::app::app;
use super::log::{LogSettings, log};
use crate::base::cidr::Cidr;
use crate::config::decode::{Cursor, Fields};
use crate::config::defaults;
use crate::model::{AppPort, InboundMode, Name};
use crate::telemetry::access_log::{self, Field, Output};

/// `sidecar.yaml`, of a sidecar or a gateway.
#[derive(Clone, PartialEq, Debug)]
pub struct SidecarBootstrap {
    /// Names of services without a namespace are of this one.
    pub namespace: Arc<str>,
    /// The service this instance belongs to, where `apps` do not say another.
    pub service: Option<Name>,
    /// What this instance is called in the registry; None is made up from the host and the service.
    pub instance: Option<Arc<str>>,
    /// The application's ports; none for a gateway.
    pub apps: Vec<AppPort>,
    /// Traffic of the application; None for a gateway.
    pub outbound: Option<Outbound>,
    /// Where traffic to the application is taken; None for a gateway.
    pub inbound: Option<Inbound>,
    pub admin: SocketAddr,
    /// A file whose content lets its holder have requests explained (`x-mesh-explain`).
    pub admin_token_file: Option<PathBuf>,
    /// Threads that serve traffic; None is two for a sidecar, and every CPU for a gateway.
    pub workers: Option<usize>,
    pub zone: Option<Arc<str>>,
    pub labels: BTreeMap<Arc<str>, Arc<str>>,
    /// This instance's share against the others of its service.
    pub weight: u32,
    /// The host or address that others reach this instance by; None is found out.
    pub advertise: Option<Arc<str>>,
    /// None takes its mesh from `mesh` alone, and registers nowhere.
    pub registry: Option<RegistryClient>,
    /// A file or folder of mesh documents, watched; it wins over the registry.
    pub mesh: Option<PathBuf>,
    /// Where the last good snapshot is kept for a start without a registry.
    pub snapshot: Option<PathBuf>,
    /// None writes no access log.
    pub access_log: Option<access_log::Settings>,
    pub log: LogSettings,
    pub drain: Drain,
    pub limits: Limits,
    /// The peers of Gateway listeners whose `X-Forwarded-*` and `Forwarded` are believed; empty believes nobody.
    pub trusted_networks: Vec<Cidr>,
    /// The name of a process: once it has been seen and has ended, the sidecar drains and ends too.
    pub exit_with: Option<Arc<str>>,
    /// Redirect rules lead traffic here (`pillion intercept apply`), so original destinations are looked up.
    pub intercept: bool,
    /// The name server for the application; None runs none.
    pub dns: Option<Dns>,
    /// The Unix socket at which another process of this user takes over from this one; None lets none.
    pub handover: Option<PathBuf>,
    /// How the instance's load is measured.
    pub load: Load,
}

#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Outbound {
    pub address: SocketAddr,
    pub passthrough: Passthrough,
}

#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Dns {
    /// A loopback address: it is no name server for other machines.
    pub address: SocketAddr,
    /// Who is asked for names outside the mesh; empty asks those of `/etc/resolv.conf`.
    pub upstreams: Vec<SocketAddr>,
}

/// What is measured to tell callers and the registry how busy the instance is.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Load {
    /// The folder in which `proc` and `sys` are.
    pub root: PathBuf,
    /// The control group of the application, from the top of the hierarchy; None is the one above our own, or else the machine.
    pub cgroup: Option<PathBuf>,
}

#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Inbound {
    pub address: SocketAddr,
    pub mode: InboundMode,
}

/// What happens to traffic for a destination that no service knows.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub enum Passthrough {
    #[default]
    Allow,
    RegisteredOnly,
}

#[derive(Clone, PartialEq, Eq, Debug)]
pub struct RegistryClient {
    /// Base URLs, such as `http://127.0.0.1:15010`; any of them will do.
    pub addresses: Vec<String>,
    pub token_file: Option<PathBuf>,
    /// A PEM bundle to trust for `https` addresses; None trusts the system's roots.
    pub ca: Option<PathBuf>,
    /// Which services to watch: `*`, `namespace/*`, `name` or `namespace/name`.
    pub services: Vec<String>,
}

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Drain {
    /// How long requests that have begun may take to finish.
    pub timeout: Duration,
    /// How long to keep serving until every peer has seen this instance leave.
    pub acknowledge_timeout: Duration,
}

/// Limits of the process, each with its default in `config::defaults`.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Limits {
    /// From the first byte of a request, or an accepted connection, to the end of its head.
    pub header_timeout: Duration,
    pub tls_handshake_timeout: Duration,
    /// How long a connection may leave open what it speaks.
    pub detection_timeout: Duration,
    /// Connecting to endpoints of the mesh.
    pub connect_timeout: Duration,
    /// Connecting to destinations outside of it.
    pub passthrough_connect_timeout: Duration,
    /// A downstream connection between two requests.
    pub idle_timeout: Duration,
    /// A pooled upstream connection between two requests, at most.
    pub upstream_idle_timeout: Duration,
    /// An HTTP exchange in which no byte moves.
    pub stream_idle_timeout: Duration,
    /// A peer that acknowledges nothing for so long is gone, with its host or the way to it: 1 s to 1 h.
    pub dead_peer_timeout: Duration,
    pub downstream_connections_max: u32,
    /// Bytes of a request's or response's head.
    pub header_bytes_max: usize,
    /// Fields of a head.
    pub headers_max: u32,
}

impl Default for Drain {
    fn default() -> Self {
        Self {
            timeout: defaults::DRAIN_TIMEOUT,
            acknowledge_timeout: defaults::ACKNOWLEDGE_TIMEOUT,
        }
    }
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            header_timeout: defaults::HEADER_TIMEOUT,
            tls_handshake_timeout: defaults::TLS_HANDSHAKE_TIMEOUT,
            detection_timeout: defaults::DETECTION_TIMEOUT,
            connect_timeout: defaults::CONNECT_TIMEOUT,
            passthrough_connect_timeout: defaults::PASSTHROUGH_CONNECT_TIMEOUT,
            idle_timeout: defaults::IDLE_TIMEOUT,
            upstream_idle_timeout: defaults::UPSTREAM_IDLE_TIMEOUT,
            stream_idle_timeout: defaults::STREAM_IDLE_TIMEOUT,
            dead_peer_timeout: defaults::DEAD_PEER_TIMEOUT,
            downstream_connections_max: defaults::DOWNSTREAM_CONNECTIONS_MAX,
            header_bytes_max: defaults::HEADER_BYTES_MAX as usize,
            headers_max: defaults::HEADERS_MAX,
        }
    }
}

pub(super) fn read(fields: &mut Fields<'_, '_>, paths: &Paths<'_>) -> Option<SidecarBootstrap> {
    let namespace = fields.optional("namespace", |c| c.namespace());
    let namespace = namespace.unwrap_or_else(|| Name::DEFAULT_NAMESPACE.into());
    let named = |name: Arc<str>| Name {
        namespace: Arc::clone(&namespace),
        name,
    };
    let service = fields.optional("service", |c| c.name()).map(named);
    let apps = fields.list("apps", |cursor| {
        cursor.fields(|fields| app(fields, &namespace, service.as_ref()))
    });
    // A gateway has no application, so nothing of one is listened for.
    let sidecar = ["apps", "service", "outbound", "inbound"]
        .iter()
        .any(|key| fields.has(key));
    let outbound = fields.optional("outbound", |cursor| cursor.fields(outbound));
    let inbound = fields.optional("inbound", |cursor| cursor.fields(inbound));
    let mut file = |key| {
        fields.optional(key, |cursor| {
            cursor.fields(|fields| fields.required("path", |c| c.path()))
        })
    };
    let (snapshot, handover) = (file("snapshot"), file("handover"));
    let (admin, admin_token_file) = admin(fields, paths);
    let bootstrap = SidecarBootstrap {
        instance: fields.optional("instance", |c| c.name()),
        outbound: sidecar.then(|| outbound.unwrap_or_default()),
        inbound: sidecar.then(|| inbound.unwrap_or_default()),
        admin,
        admin_token_file,
        workers: fields.optional("workers", |cursor| cursor.number(1..=defaults::WORKERS_MAX)),
        zone: fields.optional("zone", |c| c.owned_text()),
        labels: fields
            .optional("labels", |c| c.labels())
            .unwrap_or_default(),
        weight: weight(fields),
        advertise: fields.optional("advertise", host),
        registry: fields.optional("registry", |c| c.fields(|fields| registry(fields, paths))),
        mesh: fields
            .optional("mesh", |c| c.path())
            .map(|path| paths.resolve("mesh", path)),
        snapshot: snapshot.map(|path| paths.resolve("snapshot.path", path)),
        access_log: fields.optional("access_log", |c| {
            c.fields(|fields| access_log(fields, paths))
        }),
        log: fields
            .optional("log", |cursor| cursor.fields(log))
            .unwrap_or_default(),
        drain: fields
            .optional("drain", |cursor| cursor.fields(drain))
            .unwrap_or_default(),
        limits: fields
            .optional("limits", |cursor| cursor.fields(limits))
            .unwrap_or_default(),
        trusted_networks: fields.list("trusted_networks", |c| c.network()),
        exit_with: fields.optional("exit_with", process_name),
        intercept: fields
            .optional("intercept", |c| c.boolean())
            .unwrap_or(false),
        dns: fields.optional("dns", |cursor| cursor.fields(dns)),
        handover: handover.map(|path| paths.resolve("handover.path", path)),
        load: fields
            .optional("load", |cursor| cursor.fields(load))
            .unwrap_or_default(),
        namespace,
        service,
        apps,
    };
    check(&bootstrap, fields);
    Some(bootstrap)
}

fn check(bootstrap: &SidecarBootstrap, fields: &Fields<'_, '_>) {
    if bootstrap.registry.is_none() && bootstrap.mesh.is_none() && !fields.has("registry") {
        let hint = "say `mesh: mesh.yaml`, or `registry: {addresses: [http://127.0.0.1:15010]}`";
        fields
            .cursor()
            .error::<()>("neither `mesh` nor `registry` says what the mesh is", hint);
    }
    if bootstrap.dns.is_some() && (bootstrap.outbound.is_none() || !bootstrap.intercept) {
        fields.cursor().error::<()>(
            "`dns` answers with addresses that only redirected connections of an application reach",
            "say `intercept: true`, and the application's `service`; then `pillion intercept apply --dns`",
        );
    }
    let mode = bootstrap.inbound.as_ref().map(|inbound| inbound.mode);
    if mode == Some(InboundMode::Tproxy) && !bootstrap.intercept {
        let hint = "say `intercept: true`, and apply rules with `pillion intercept apply --inbound-mode tproxy`";
        fields
            .cursor()
            .error::<()>("`inbound.mode: tproxy` without interception", hint);
    }
}

fn dns(fields: &mut Fields<'_, '_>) -> Option<Dns> {
    let address = fields.optional("address", |cursor| {
        let address = cursor.socket_address()?;
        if address.ip().is_loopback() {
            return Some(address);
        }
        cursor.error(
            format!("{address} can be reached from other machines"),
            "write a loopback address, such as 127.0.0.1:15053",
        )
    });
    Some(Dns {
        address: address.unwrap_or(defaults::DNS_ADDRESS),
        upstreams: fields.list("upstreams", upstream),
    })
}

/// `10.0.0.2`, or `10.0.0.2:5353`.
fn upstream(cursor: Cursor<'_>) -> Option<SocketAddr> {
    match cursor.text()?.parse::<IpAddr>() {
        Ok(address) => Some(SocketAddr::new(address, defaults::DNS_PORT)),
        Err(_) => cursor.socket_address(),
    }
}

impl Default for Load {
    fn default() -> Self {
        Self {
            root: PathBuf::from(defaults::LOAD_ROOT),
            cgroup: None,
        }
    }
}

fn load(fields: &mut Fields<'_, '_>) -> Option<Load> {
    let mut folder = |key| {
        fields.optional(key, |cursor| {
            let path = cursor.path()?;
            if path.is_absolute() {
                return Some(path);
            }
            let hint = "begin at the top, such as /kubepods/pod7";
            cursor.error(format!("`{}` is a relative path", path.display()), hint)
        })
    };
    Some(Load {
        root: folder("root").unwrap_or(PathBuf::from(defaults::LOAD_ROOT)),
        cgroup: folder("cgroup"),
    })
}

impl Default for Outbound {
    fn default() -> Self {
        Self {
            address: defaults::OUTBOUND_ADDRESS,
            passthrough: Passthrough::Allow,
        }
    }
}

impl Default for Inbound {
    fn default() -> Self {
        Self {
            address: defaults::INBOUND_ADDRESS,
            mode: InboundMode::default(),
        }
    }
}

fn outbound(fields: &mut Fields<'_, '_>) -> Option<Outbound> {
    let address = fields.optional("address", |c| c.socket_address());
    let passthrough = fields.optional("passthrough", |cursor| {
        cursor.choice(&[
            ("allow", Passthrough::Allow),
            ("registered-only", Passthrough::RegisteredOnly),
        ])
    });
    Some(Outbound {
        address: address.unwrap_or(defaults::OUTBOUND_ADDRESS),
        passthrough: passthrough.unwrap_or_default(),
    })
}

fn inbound(fields: &mut Fields<'_, '_>) -> Option<Inbound> {
    let address = fields.optional("address", |c| c.socket_address());
    let mode = fields.optional("mode", |cursor| {
        cursor.choice(&[
            ("redirect", InboundMode::Redirect),
            ("tproxy", InboundMode::Tproxy),
        ])
    });
    Some(Inbound {
        address: address.unwrap_or(defaults::INBOUND_ADDRESS),
        mode: mode.unwrap_or_default(),
    })
}

fn admin(fields: &mut Fields<'_, '_>, paths: &Paths<'_>) -> (SocketAddr, Option<PathBuf>) {
    let given = fields.optional("admin", |cursor| {
        cursor.fields(|fields| {
            let address = fields.optional("address", |c| c.socket_address());
            let token = fields.optional("token_file", |c| c.path());
            Some((address, token))
        })
    });
    let (address, token) = given.unwrap_or_default();
    (
        address.unwrap_or(defaults::ADMIN_ADDRESS),
        token.map(|path| paths.resolve("admin.token_file", path)),
    )
}

fn weight(fields: &mut Fields<'_, '_>) -> u32 {
    let given = fields.optional("weight", |cursor| cursor.number(0..=defaults::WEIGHT_MAX));
    given.unwrap_or(defaults::ENDPOINT_WEIGHT)
}

/// As in `ps -o comm`, or the file that the process was started from.
fn process_name(cursor: Cursor<'_>) -> Option<Arc<str>> {
    let text = cursor.filled_text()?;
    match text.contains('/') {
        true => cursor.error(
            format!("`{text}` is a path"),
            "only the name, such as python3",
        ),
        false => Some(text.into()),
    }
}

/// An address, or a name that others resolve.
fn host(cursor: Cursor<'_>) -> Option<Arc<str>> {
    let text = cursor.filled_text()?;
    if text.parse::<IpAddr>().is_ok() || crate::config::decode::is_dns_name(text) {
        return Some(text.into());
    }
    cursor.error(
        format!("`{text}` is neither an address nor a host name"),
        "leave out the port",
    )
}

fn registry(fields: &mut Fields<'_, '_>, paths: &Paths<'_>) -> Option<RegistryClient> {
    let addresses = fields.list("addresses", url);
    let token_file = fields.optional("token_file", |c| c.path());
    let ca = fields.optional("ca", |c| c.path());
    let services = fields.list("services", service_selector);
    Some(RegistryClient {
        addresses: or_default(addresses, defaults::REGISTRY_URL),
        token_file: token_file.map(|path| paths.resolve("registry.token_file", path)),
        ca: ca.map(|path| paths.resolve("registry.ca", path)),
        services: or_default(services, "*"),
    })
}

fn or_default(given: Vec<String>, default: &str) -> Vec<String> {
    if given.is_empty() {
        vec![default.to_owned()]
    } else {
        given
    }
}

fn url(cursor: Cursor<'_>) -> Option<String> {
    let text = cursor.text()?;
    let parsed = text.parse::<http::Uri>().ok().filter(|uri| {
        let scheme = matches!(uri.scheme_str(), Some("http" | "https"));
        scheme && uri.host().is_some_and(|host| !host.is_empty()) && matches!(uri.path(), "" | "/")
    });
    match parsed {
        Some(_) => Some(text.trim_end_matches('/').to_owned()),
        None => cursor.error(
            format!("`{text}` is not a registry's address"),
            "such as http://127.0.0.1:15010 or https://registry.example.com:15010",
        ),
    }
}

fn service_selector(cursor: Cursor<'_>) -> Option<String> {
    let text = cursor.filled_text()?;
    let (namespace, name) = text.split_once('/').unwrap_or(("default", text));
    let named = crate::config::decode::is_dns_name;
    if named(namespace) && (name == "*" || named(name)) {
        return Some(text.to_owned());
    }
    let hint = "write *, namespace/*, name or namespace/name";
    cursor.error(format!("`{text}` does not select services"), hint)
}

fn access_log(fields: &mut Fields<'_, '_>, paths: &Paths<'_>) -> Option<access_log::Settings> {
    let defaults = access_log::Settings::default();
    let output = fields.optional("path", |cursor| {
        Some(match cursor.filled_text()? {
            "stdout" | "-" => Output::Stdout,
            path => Output::File(paths.resolve("access_log.path", PathBuf::from(path))),
        })
    });
    let names: Vec<_> = Field::ALL
        .iter()
        .map(|field| (field.name(), *field))
        .collect();
    let chosen = fields.list("fields", |cursor| cursor.choice(&names));
    let sample = fields.optional("sample", |c| c.percent());
    Some(access_log::Settings {
        output: output.unwrap_or(defaults.output),
        fields: if chosen.is_empty() {
            defaults.fields
        } else {
            chosen
        },
        sampling: sample.map_or(defaults.sampling, |percent| percent / 100.0),
    })
}

fn drain(fields: &mut Fields<'_, '_>) -> Option<Drain> {
    let timeout = fields.optional("timeout", |c| c.duration());
    let acknowledge = fields.optional("acknowledge_timeout", |c| c.duration());
    Some(Drain {
        timeout: timeout.unwrap_or(defaults::DRAIN_TIMEOUT),
        acknowledge_timeout: acknowledge.unwrap_or(defaults::ACKNOWLEDGE_TIMEOUT),
    })
}

fn limits(fields: &mut Fields<'_, '_>) -> Option<Limits> {
    let defaults = Limits::default();
    let mut time = |key, default| {
        fields
            .optional(key, |c| c.nonzero_duration())
            .unwrap_or(default)
    };
    let times = Limits {
        header_timeout: time("header_timeout", defaults.header_timeout),
        tls_handshake_timeout: time("tls_handshake_timeout", defaults.tls_handshake_timeout),
        detection_timeout: time("detection_timeout", defaults.detection_timeout),
        connect_timeout: time("connect_timeout", defaults.connect_timeout),
        passthrough_connect_timeout: time(
            "passthrough_connect_timeout",
            defaults.passthrough_connect_timeout,
        ),
        idle_timeout: time("idle_timeout", defaults.idle_timeout),
        upstream_idle_timeout: time("upstream_idle_timeout", defaults.upstream_idle_timeout),
        stream_idle_timeout: time("stream_idle_timeout", defaults.stream_idle_timeout),
        ..defaults
    };
    let dead_peer = fields.optional("dead_peer_timeout", dead_peer_timeout);
    let connections = fields.optional("downstream_connections_max", |c| c.number(1..=10_000_000));
    let bytes = fields.optional("header_bytes_max", header_bytes);
    let headers = fields.optional("headers_max", |cursor| cursor.number(16..=4096));
    Some(Limits {
        dead_peer_timeout: dead_peer.unwrap_or(times.dead_peer_timeout),
        downstream_connections_max: connections.unwrap_or(times.downstream_connections_max),
        header_bytes_max: bytes.unwrap_or(times.header_bytes_max),
        headers_max: headers.unwrap_or(times.headers_max),
        ..times
    })
}

fn dead_peer_timeout(cursor: Cursor<'_>) -> Option<Duration> {
    const LEAST: Duration = Duration::from_secs(1);
    const MOST: Duration = Duration::from_secs(3600);
    let duration = cursor.duration()?;
    match (LEAST..=MOST).contains(&duration) {
        true => Some(duration),
        false => cursor.error("out of range", "write 1s to 1h"),
    }
}

fn header_bytes(cursor: Cursor<'_>) -> Option<usize> {
    const LEAST: u64 = 4 << 10;
    const MOST: u64 = 1 << 20;
    match cursor.size()? {
        bytes @ LEAST..=MOST => usize::try_from(bytes).ok(),
        _ => cursor.error("out of range", "write 4KiB to 1MiB"),
    }
}
