use std::sync::Arc;
use std::time::Duration;

use crate::base::buckets::Buckets;

use super::{ClusterKey, Cors, HostPattern, Name};

/// An `HTTPRoute`, checked.
#[derive(Clone, Debug)]
pub struct Route {
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

#[derive(Clone, Debug)]
pub enum PathMatch {
    /// Byte equality.
    Exact(Arc<str>),
    /// Whole `/`-separated elements; kept without a trailing `/`, so the catch-all is the empty string.
    Prefix(Arc<str>),
    /// Matches the whole path.
    Regex(regex::bytes::Regex),
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
}

/// Another service that gets copies of requests (`RequestMirror`).
#[derive(Clone, Debug)]
pub struct Mirror {
    pub target: BackendTarget,
    /// Of requests, 0 to 1.
    pub share: f64,
}

#[derive(Clone, PartialEq, Eq, Debug)]
pub enum BackendTarget {
    Cluster(ClusterKey),
    /// The reference does not resolve; its share of the traffic gets 500 with this reason.
    Invalid(Arc<str>),
}

#[derive(Clone, Debug)]
pub enum Filter {
    RequestHeaders(HeaderModifier),
    ResponseHeaders(HeaderModifier),
    /// Of a rule without backends: the proxy answers.
    RequestRedirect(RequestRedirect),
    UrlRewrite(UrlRewrite),
    Cors(Cors),
    /// Of a rule without backends: the proxy answers.
    DirectResponse(DirectResponse),
    FaultInjection(FaultInjection),
    RateLimit(RateLimit),
    /// The longest body of a request, in bytes.
    RequestSizeLimit(u64),
}

impl Filter {
    /// The `type` it is written with.
    pub fn kind(&self) -> &'static str {
        match self {
            Filter::RequestHeaders(_) => "RequestHeaderModifier",
            Filter::ResponseHeaders(_) => "ResponseHeaderModifier",
            Filter::RequestRedirect(_) => "RequestRedirect",
            Filter::UrlRewrite(_) => "URLRewrite",
            Filter::Cors(_) => "CORS",
            Filter::DirectResponse(_) => "DirectResponse",
            Filter::FaultInjection(_) => "FaultInjection",
            Filter::RateLimit(_) => "RateLimit",
            Filter::RequestSizeLimit(_) => "RequestSizeLimit",
        }
    }

    /// Whether it answers every request in place of a backend.
    pub fn answers(&self) -> bool {
        matches!(self, Filter::RequestRedirect(_) | Filter::DirectResponse(_))
    }

    pub fn rewrites_path(&self) -> bool {
        matches!(self, Filter::UrlRewrite(UrlRewrite { path: Some(_), .. }))
    }
}

/// Where a client is sent instead. What is None stays as it was asked for; the port follows the standard's rules.
#[derive(Clone, Debug)]
pub struct RequestRedirect {
    pub scheme: Option<RedirectScheme>,
    pub hostname: Option<Arc<str>>,
    pub path: Option<PathModifier>,
    pub port: Option<u16>,
    /// 301, 302, 303, 307 or 308.
    pub status: u16,
}

/// What backends are asked for instead. What is None stays as the client has asked.
#[derive(Clone, Debug)]
pub struct UrlRewrite {
    pub hostname: Option<Arc<str>>,
    pub path: Option<PathModifier>,
}

/// What the proxy answers itself.
#[derive(Clone, Debug)]
pub struct DirectResponse {
    /// 200..=599.
    pub status: u16,
    pub content_type: Arc<str>,
    /// Empty where the status has none.
    pub body: Arc<str>,
}

/// Troubles made on purpose, to see what callers make of them.
#[derive(Clone, Debug)]
pub struct FaultInjection {
    pub delay: Option<Fault<Duration>>,
    /// The status that a request is refused with, 400..=599.
    pub abort: Option<Fault<u16>>,
}

/// A trouble and who meets it.
#[derive(Clone, Debug)]
pub struct Fault<T> {
    pub what: What<T>,
    /// Of requests, 0 to 100.
    pub percent: f64,
}

#[derive(Clone, Debug)]
pub enum What<T> {
    Fixed(T),
    /// The request says it itself in this field; without it nothing happens.
    Said(Arc<str>),
}

/// How many requests come through. The buckets are shared by all workers, and stay while the document stays as it is.
#[derive(Clone, Debug)]
pub struct RateLimit {
    pub key: RateLimitKey,
    pub buckets: Arc<Buckets>,
}

/// Whose requests are counted together.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum RateLimitKey {
    All,
    /// Those with the same value of this field; those without it together.
    Header(Arc<str>),
    /// Those of one client's address.
    Source,
}

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum RedirectScheme {
    Http,
    Https,
}

/// How a path becomes another one; the query stays.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum PathModifier {
    /// Begins with `/`.
    Full(Arc<str>),
    /// In place of the prefix that the rule has matched; every match of the rule is one, and which of them a path has is told by
    /// the path. Kept without a trailing `/`, so it may be empty.
    Prefix(Arc<str>),
}

/// Applied in the order set, add, remove. Names keep the case they were written in; they compare without case.
#[derive(Clone, Debug, Default)]
pub struct HeaderModifier {
    pub set: Vec<(Arc<str>, Arc<str>)>,
    pub add: Vec<(Arc<str>, Arc<str>)>,
    pub remove: Vec<Arc<str>>,
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
