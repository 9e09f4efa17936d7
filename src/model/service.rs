use std::collections::BTreeMap;
use std::fmt;
use std::ops::RangeInclusive;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use super::{Endpoint, Gray, HealthCheck, Lane, Name, PathNormalization, Pem};

/// A `Service`: its ports, its endpoints, and how traffic to it is treated.
#[derive(Clone, Debug)]
pub struct Service {
    pub name: Name,
    pub ports: Vec<Port>,
    /// Endpoints written in the document; the registry's come on top as [`super::EndpointUpdate`]s.
    pub endpoints: Vec<Endpoint>,
    pub subsets: Vec<Subset>,
    pub balance: Balance,
    /// None asks nobody: an endpoint is as good as its last requests.
    pub health: Option<Arc<HealthCheck>>,
    pub outlier: Outlier,
    pub circuit: Circuit,
    /// In front of its application, at its own sidecar; None lets everything in at once.
    pub lane: Option<Lane>,
    /// In front of the service, at each of its callers and at gateways; None sends everything at once.
    pub outbound_lane: Option<Lane>,
    /// How requests and instances name traffic lanes; None has none.
    pub gray: Option<Arc<Gray>>,
    /// Who gets its requests while none of its endpoints is healthy.
    pub failover: Option<ClusterKey>,
    /// For requests whose host names it, at the client's sidecar, and for those to its application, at its own.
    pub path: PathNormalization,
    /// TLS towards the endpoints; None speaks plain.
    pub tls: Option<UpstreamTls>,
    /// The files that declare its operations, for whoever judges routes; no request is looked at by them.
    pub api: Vec<PathBuf>,
}

impl Service {
    /// A service of which nothing but its name is known.
    pub fn new(name: Name) -> Self {
        Self {
            name,
            ports: Vec::new(),
            endpoints: Vec::new(),
            subsets: Vec::new(),
            balance: Balance::default(),
            health: None,
            outlier: Outlier::default(),
            circuit: Circuit::default(),
            lane: None,
            outbound_lane: None,
            gray: None,
            failover: None,
            path: PathNormalization::default(),
            tls: None,
            api: Vec::new(),
        }
    }

    /// Its traffic lanes, for all of it or one subset; a subset that selects by their label is one itself.
    pub fn gray_of(&self, subset: Option<&str>) -> Option<&Gray> {
        let gray = self.gray.as_deref()?;
        let mut subsets = self.subsets.iter();
        let subset = subset.and_then(|name| subsets.find(|one| *one.name == *name));
        let selected = subset.is_some_and(|subset| subset.labels.contains_key(&gray.label));
        (!selected).then_some(gray)
    }

    /// TLS towards the endpoints of a port; None of its name is every port.
    pub fn tls_of(&self, port: Option<u16>) -> Option<&UpstreamTls> {
        let mut ports = self.ports.iter();
        let own = ports.find(|known| Some(known.port) == port);
        own.and_then(|port| port.tls.as_ref()).or(self.tls.as_ref())
    }
}

#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Port {
    pub port: u16,
    pub name: Option<Arc<str>>,
    /// None is detected per connection downstream, and follows the downstream's version upstream.
    pub protocol: Option<Protocol>,
    /// TLS of this port alone; None is the service's.
    pub tls: Option<UpstreamTls>,
}

/// What a port speaks.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub enum Protocol {
    /// HTTP/1.1 towards the endpoints.
    Http,
    /// HTTP/2, with prior knowledge where TLS does not negotiate it.
    Http2,
    /// HTTP/2, and answers made here are gRPC statuses.
    Grpc,
    /// Bytes.
    Tcp,
}

impl Protocol {
    /// As documents write it.
    pub fn as_str(self) -> &'static str {
        match self {
            Protocol::Http => "http",
            Protocol::Http2 => "http2",
            Protocol::Grpc => "grpc",
            Protocol::Tcp => "tcp",
        }
    }
}

/// The endpoints of a service that carry all these labels.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Subset {
    pub name: Arc<str>,
    pub labels: BTreeMap<Arc<str>, Arc<str>>,
}

/// What a backend reference resolves to: a service or one of its subsets, at a port.
#[derive(Clone, PartialEq, Eq, Hash, PartialOrd, Ord, Debug)]
pub struct ClusterKey {
    pub service: Name,
    pub subset: Option<Arc<str>>,
    /// None takes the endpoints' addresses as they are.
    pub port: Option<u16>,
}

/// `namespace/name`, with `:port` and `/subset` where it is narrowed to one.
impl fmt::Display for ClusterKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.service.fmt(f)?;
        if let Some(port) = self.port {
            write!(f, ":{port}")?;
        }
        match &self.subset {
            Some(subset) => write!(f, "/{subset}"),
            None => Ok(()),
        }
    }
}

#[derive(Clone, PartialEq, Debug, Default)]
pub struct Balance {
    pub policy: Policy,
    /// How an endpoint that comes back gets its share again.
    pub slow_start: SlowStart,
    /// For `LeastRequest`.
    pub least_request: LeastRequest,
    /// For policies that hash; None is its default there.
    pub hashing: Option<Arc<Hashing>>,
}

impl Balance {
    /// How it hashes; None where the policy does not.
    pub fn hashing(&self) -> Option<Arc<Hashing>> {
        let hashing = || self.hashing.clone().unwrap_or_default();
        self.policy.hashes().then(hashing)
    }
}

/// How `Policy::LeastRequest` compares.
#[derive(Clone, Copy, PartialEq, Debug)]
pub struct LeastRequest {
    /// How many endpoints of equal weights are compared; at least 2.
    pub choices: u8,
    /// With unequal weights, how strongly requests in flight count against the weight; 0 leaves the weight alone.
    pub bias: f64,
}

impl Default for LeastRequest {
    fn default() -> Self {
        Self {
            choices: 2,
            bias: 1.0,
        }
    }
}

/// How `Policy::Maglev` and `Policy::RingHash` choose.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Hashing {
    /// What is hashed: the first of these that a request has. Who has none is balanced by chance.
    pub keys: Vec<HashKey>,
    /// An endpoint that holds this many percent of the mean of requests in flight is passed over; None lets it have what falls to it.
    pub bounded_load_percent: Option<u32>,
    /// The places of the table of `Maglev`; a prime.
    pub table_size: u32,
    /// The points on the ring of `RingHash`.
    pub ring_size: RangeInclusive<u32>,
}

impl Default for Hashing {
    fn default() -> Self {
        Self {
            keys: vec![HashKey::SourceAddress],
            bounded_load_percent: None,
            table_size: 65_537,
            ring_size: 1_024..=8_388_608,
        }
    }
}

/// A part of a request.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum HashKey {
    /// The first value of the header with this name.
    Header(Arc<str>),
    /// The value of the cookie with this name.
    Cookie {
        name: Arc<str>,
        /// How the proxy gives one to who has none; None leaves it to others.
        issued: Option<IssuedCookie>,
    },
    /// The first value of this parameter, as it is written.
    Query(Arc<str>),
    /// The path that the endpoint is asked for, without the query.
    Path,
    /// The address that the connection comes from, without the port.
    SourceAddress,
}

/// What a client is told of a cookie that the proxy gives it.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct IssuedCookie {
    /// How long it is kept; 0 is until the browser closes.
    pub ttl: Duration,
    pub path: Arc<str>,
}

/// An endpoint that comes back gets its weight × max(10 %, time since ÷ window).
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct SlowStart {
    /// 0 gives it its whole share at once.
    pub window: Duration,
}

impl Default for SlowStart {
    fn default() -> Self {
        Self {
            window: Duration::from_secs(10),
        }
    }
}

#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug, Default)]
pub enum Policy {
    /// By chance, in proportion to the weights.
    Random,
    RoundRobin,
    WeightedRoundRobin,
    /// By weights that follow from what the endpoints report of their load.
    AutoWeightedRoundRobin,
    LeastRequest,
    LeastConnections,
    #[default]
    PeakEwma,
    /// As `PeakEwma`, of two that are drawn by the weights of `AutoWeightedRoundRobin`.
    LoadFactor,
    /// Whoever has reported the lowest load.
    LowestLoad,
    /// What is alike goes to the same endpoint, by a table.
    Maglev,
    /// What is alike goes to the same endpoint, by a ring.
    RingHash,
}

impl Policy {
    /// As documents write it.
    pub fn as_str(self) -> &'static str {
        match self {
            Policy::Random => "random",
            Policy::RoundRobin => "round_robin",
            Policy::WeightedRoundRobin | Policy::AutoWeightedRoundRobin => "weighted_round_robin",
            Policy::LeastRequest => "least_request",
            Policy::LeastConnections => "least_connections",
            Policy::PeakEwma => "peak_ewma",
            Policy::LoadFactor => "load_factor",
            Policy::LowestLoad => "lowest_load",
            Policy::Maglev => "maglev",
            Policy::RingHash => "ring_hash",
        }
    }

    /// It goes by what endpoints report of their load; for others nothing is reported.
    pub fn needs_load(self) -> bool {
        self.weighs_by_load() || self == Policy::LowestLoad
    }

    /// It goes by what a request is.
    pub fn hashes(self) -> bool {
        matches!(self, Policy::Maglev | Policy::RingHash)
    }

    /// Its weights follow from the reports.
    pub fn weighs_by_load(self) -> bool {
        matches!(self, Policy::AutoWeightedRoundRobin | Policy::LoadFactor)
    }
}

/// Passive ejection of an endpoint: closed → open → half-open → closed.
#[derive(Clone, PartialEq, Debug)]
pub struct Outlier {
    /// Failures in a row of any sort (5xx, connect failures, resets, timeouts) that eject; 0 switches it off.
    pub consecutive_5xx: u32,
    /// Answers of 502, 503 and 504 in a row that eject; 0 switches it off.
    pub consecutive_gateway: u32,
    /// Connect failures, resets and timeouts in a row that eject; 0 switches it off.
    pub consecutive_local: u32,
    /// How often endpoints are compared.
    pub interval: Duration,
    /// A larger share of failures ejects, in percent; 100 switches it off.
    pub failure_percent: u8,
    /// Endpoints are compared by their success rates.
    pub success_rate: bool,
    /// Who takes this many times as long as the median is ejected; 0 switches it off.
    pub slow_factor: u32,
    /// The first ejection's length; the n-th lasts n times as long.
    pub base_ejection: Duration,
    /// The longest ejection.
    pub ejection_max: Duration,
    /// The share of endpoints that may be ejected at once, in percent; at least one always may.
    pub max_ejection_percent: u8,
}

impl Outlier {
    /// Nobody is ejected.
    pub fn none() -> Self {
        Self {
            consecutive_5xx: 0,
            consecutive_gateway: 0,
            consecutive_local: 0,
            failure_percent: 100,
            success_rate: false,
            slow_factor: 0,
            ..Self::default()
        }
    }
}

impl Default for Outlier {
    fn default() -> Self {
        Self {
            consecutive_5xx: 5,
            consecutive_gateway: 5,
            consecutive_local: 5,
            interval: Duration::from_secs(10),
            failure_percent: 85,
            success_rate: true,
            slow_factor: 5,
            base_ejection: Duration::from_secs(30),
            ejection_max: Duration::from_secs(300),
            max_ejection_percent: 10,
        }
    }
}

/// Circuit limits of a service in this proxy; what is beyond is refused at once.
#[derive(Clone, PartialEq, Debug)]
pub struct Circuit {
    /// None never opens the circuit.
    pub breaker: Option<CircuitBreaker>,
    /// Open connections, idle ones included.
    pub connections_max: u32,
    pub endpoint_connections_max: u32,
    /// Requests until their last byte.
    pub requests_max: u32,
    pub endpoint_requests_max: u32,
    /// Requests that wait for a connection.
    pub pending_max: u32,
    pub endpoint_pending_max: u32,
    /// Retries that wait for their turn or for the head of their answer.
    pub retries_max: u32,
    /// Retries at most, in percent of the requests that were answered well in the last 10 s …
    pub retry_budget_percent: u32,
    /// … plus this many a second.
    pub retry_budget_min_per_second: u32,
}

impl Default for Circuit {
    fn default() -> Self {
        Self {
            breaker: None,
            connections_max: 10_000,
            endpoint_connections_max: 1_024,
            requests_max: 10_000,
            endpoint_requests_max: 10_000,
            pending_max: 1_024,
            endpoint_pending_max: 1_024,
            retries_max: 1_024,
            retry_budget_percent: 20,
            retry_budget_min_per_second: 10,
        }
    }
}

/// When a service's circuit opens, so that requests to it are refused at once, and how it closes again. A request counts once, by what
/// its client got.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct CircuitBreaker {
    /// Failures in a row (5xx, no connection, a connection that broke, a timeout) that open it; 0 switches it off.
    pub consecutive_failures: u16,
    /// A larger share of failures in the window opens it, in percent; 100 switches it off.
    pub failure_percent: u8,
    /// A larger share of requests in the window that took longer than `slow_after` opens it, in percent; 100 switches it off.
    pub slow_percent: u8,
    /// From a request's arrival to the head of its answer; None takes no request for slow.
    pub slow_after: Option<Duration>,
    /// Requests in the window from which shares count.
    pub requests_min: u32,
    /// How far back shares reach; it moves by tenths.
    pub window: Duration,
    /// How long it is open for the first time, and up to a tenth longer; each time that it opens again while it is tried, or
    /// less than `open_max` after it has closed, lasts twice as long.
    pub open: Duration,
    /// It is open for this long at most, and up to a tenth longer.
    pub open_max: Duration,
    /// Requests that try it at once when it is half-open; when as many were answered well it closes, and the first that is not
    /// opens it again.
    pub half_open_requests: u8,
}

/// Hystrix's thresholds, for the shares (<https://github.com/Netflix/Hystrix/wiki/Configuration>).
impl Default for CircuitBreaker {
    fn default() -> Self {
        Self {
            consecutive_failures: 10,
            failure_percent: 50,
            slow_percent: 100,
            slow_after: None,
            requests_min: 20,
            window: Duration::from_secs(10),
            open: Duration::from_secs(5),
            open_max: Duration::from_secs(60),
            half_open_requests: 3,
        }
    }
}

/// A subject alternative name of a certificate.
#[derive(Clone, PartialEq, Eq, Hash, Debug)]
pub enum SubjectName {
    /// A host name, or a wildcard as certificates have it.
    Hostname(Arc<str>),
    /// Such as a SPIFFE ID.
    Uri(Arc<str>),
}

/// TLS origination.
#[derive(Clone, PartialEq, Eq, Hash, Debug, Default)]
pub struct UpstreamTls {
    /// The name that is sent and verified; None takes the endpoint's host name, or else the service's name.
    pub sni: Option<Arc<str>>,
    /// One of these has to be in the certificate, in place of the name that is sent; empty verifies that name.
    pub subjects: Vec<SubjectName>,
    /// None trusts the system's roots.
    pub ca: Option<Pem>,
    /// The client certificate to present when asked.
    pub certificate: Option<super::Certificate>,
}
