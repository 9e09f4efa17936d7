use std::sync::Arc;
use std::time::Duration;

use super::{ClusterKey, Filter, HostPattern, Name};
use crate::base::rng::Chance;

/// A route of any kind, checked.
#[derive(Clone, Debug)]
pub struct Route {
    pub kind: RouteKind,
    pub name: Name,
    /// Empty matches every host.
    pub hostnames: Vec<HostPattern>,
    /// The services whose outbound traffic it applies to, whatever the host (`parentRefs` of kind `Service`). In
    /// `Snapshot::mesh_routes`, a route without any applies by its hostnames, which are not empty then.
    pub parents: Vec<ServiceParent>,
    /// Age, for precedence among equals: lower is older. From `creationTimestamp`, else the registry's revision, else 0.
    pub created: i64,
    pub rules: Vec<Rule>,
}

/// What a route is for. Routes of different kinds never share a host of a listener, nor a service.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Debug)]
pub enum RouteKind {
    Http,
    /// Calls of gRPC, whose service and method are the path.
    Grpc,
    /// Connections by the name that TLS asks for.
    Tls,
    /// Connections.
    Tcp,
}

impl RouteKind {
    pub const ALL: [RouteKind; 4] = [
        RouteKind::Http,
        RouteKind::Grpc,
        RouteKind::Tls,
        RouteKind::Tcp,
    ];

    /// As documents write it.
    pub fn as_str(self) -> &'static str {
        match self {
            RouteKind::Http => "HTTPRoute",
            RouteKind::Grpc => "GRPCRoute",
            RouteKind::Tls => "TLSRoute",
            RouteKind::Tcp => "TCPRoute",
        }
    }
}

/// A service that a route is attached to. A route of another namespace than the service's counts only for callers of its own.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct ServiceParent {
    pub service: Name,
    /// None applies to every port of the service.
    pub port: Option<u16>,
}

#[derive(Clone, Debug)]
pub struct Rule {
    pub name: Option<Arc<str>>,
    /// Any of these; never empty (a rule without `matches` has the prefix `/`).
    pub matches: Vec<RouteMatch>,
    pub filters: Vec<Filter>,
    pub backends: Vec<Backend>,
    pub mirrors: Vec<Mirror>,
    pub timeouts: Timeouts,
    pub retry: Option<Retry>,
    pub hedge: Option<Hedge>,
    /// Whether requests of one client stay with one endpoint.
    pub session: Option<SessionPersistence>,
}

/// Requests of one client stay with the endpoint that answered its first, whatever the weights.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct SessionPersistence {
    pub carrier: SessionCarrier,
    /// Of the cookie or header; None is one of the rule's own.
    pub name: Option<Arc<str>>,
    /// How long a session lasts; None has no end.
    pub absolute_timeout: Option<Duration>,
    /// How long after its last request one still lasts; None has no end. It may end an eighth earlier.
    pub idle_timeout: Option<Duration>,
}

/// What a client says its session in.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum SessionCarrier {
    Cookie {
        /// It outlives the browser, for as long as the session lasts.
        permanent: bool,
        path: Arc<str>,
    },
    /// Answers have it, and whoever wants to stay says it again.
    Header,
}

/// All of these must hold.
#[derive(Clone, Debug)]
pub struct RouteMatch {
    pub path: PathMatch,
    /// Upper case, compared exactly.
    pub method: Option<Arc<str>>,
    pub headers: Vec<HeaderMatch>,
    pub queries: Vec<QueryMatch>,
}

impl RouteMatch {
    /// What a rule without `matches` matches.
    pub fn everything() -> Self {
        Self {
            path: PathMatch::Prefix("".into()),
            method: None,
            headers: Vec::new(),
            queries: Vec::new(),
        }
    }
}

#[derive(Clone, Debug)]
pub enum PathMatch {
    /// Byte equality.
    Exact(Arc<str>),
    /// Whole `/`-separated elements; kept without a trailing `/`, so the catch-all is the empty string.
    Prefix(Arc<str>),
    /// Matches the whole path.
    Regex(regex::bytes::Regex),
    /// A method of any gRPC service: the second of two elements.
    Method(Arc<str>),
}

#[derive(Clone, Debug)]
pub struct HeaderMatch {
    /// Lower case.
    pub name: Arc<str>,
    pub value: ValueMatch,
}

#[derive(Clone, Debug)]
pub struct QueryMatch {
    pub name: Arc<str>,
    pub value: ValueMatch,
}

#[derive(Clone, Debug)]
pub enum ValueMatch {
    Exact(Arc<str>),
    /// Matches the whole value.
    Regex(regex::bytes::Regex),
}

#[derive(Clone, Debug)]
pub struct Backend {
    pub target: BackendTarget,
    /// A share of the sum over the rule's backends; 0 gets nothing.
    pub weight: u32,
    pub filters: Vec<Filter>,
    /// Of the requests that it gets, beside those of the rule.
    pub mirrors: Vec<Mirror>,
}

/// Another service that gets copies of requests (`RequestMirror`).
#[derive(Clone, Debug)]
pub struct Mirror {
    pub target: BackendTarget,
    /// Of each request.
    pub chance: Chance,
}

#[derive(Clone, PartialEq, Eq, Debug)]
pub enum BackendTarget {
    Cluster(ClusterKey),
    /// The reference does not resolve; its share of the traffic gets 500 with this reason.
    Invalid(Arc<str>),
}

#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Timeouts {
    /// From the request's head to the answer's last byte, retries included. None: no limit.
    pub request: Option<Duration>,
    /// Each attempt. None: no limit but `request`.
    pub backend_request: Option<Duration>,
}

#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Retry {
    /// Retries after the first try.
    pub attempts_max: u32,
    /// Statuses that are tried again, for idempotent or keyed requests.
    pub codes: Vec<u16>,
    /// Methods that `codes` apply to although they are not idempotent; upper case.
    pub methods: Vec<Arc<str>>,
    /// The least wait before a retry; it grows exponentially, with jitter above.
    pub backoff: Duration,
}

/// Idempotent requests without a body go to a second endpoint too, where the first is slow; the first answer counts.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Hedge {
    pub after: HedgeAfter,
    /// The most requests that go to a second endpoint, in percent of those of the last 10 s.
    pub extra_percent: u8,
}

/// How long the first endpoint is waited for.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum HedgeAfter {
    /// Until 95 % of the answers have come, as far as was seen; nobody is hedged before that is known.
    P95,
    Fixed(Duration),
}
