use std::sync::Arc;
use std::time::Duration;

use super::{Compression, Cors};
use crate::base::buckets::Buckets;
use crate::base::rng::Chance;

/// What a rule or backend does to its messages.
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
    Compression(Compression),
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
            Filter::Compression(_) => "Compression",
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
    /// Of each request.
    pub chance: Chance,
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
