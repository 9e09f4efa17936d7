//! What a route does to messages on their way: a closed set of filters, one file each, applied in the order listed.
//!
//! First they meet the request ([`Chain::meet`]): one may answer or refuse it in place of a backend. Then they change heads, on the
//! way up and on the way down. When that is asked for, how an answer is sent, and how a body's size is watched, is decided by the
//! walk of a request, not here.

mod compression;
mod cors;
mod direct_response;
mod fault;
mod headers;
mod path;
mod rate_limit;
mod redirect;
mod rewrite;

use std::cell::RefCell;
use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use crate::model;
use crate::proxy::failure::Failure;
use crate::proxy::http::head::{Fields, RequestHead, ResponseHead, Scheme};
pub use compression::decide as decide_compression;
use cors::Cors;
pub use cors::Grant;
use direct_response::DirectResponse;
use headers::HeaderModifier;
use redirect::Redirect;
use rewrite::Rewrite;

/// The filters of one rule or backend.
#[derive(Debug)]
pub struct Chain {
    filters: Box<[Filter]>,
    meets: bool,
    rewrites: bool,
    /// The longest body of a request, in bytes.
    body_max: u64,
    /// Whether and how answers are compressed.
    compression: Option<Box<model::Compression>>,
}

#[derive(Debug)]
enum Filter {
    RequestHeaders(HeaderModifier),
    ResponseHeaders(HeaderModifier),
    Redirect(Redirect),
    Rewrite(Rewrite),
    Cors(Cors),
    DirectResponse(DirectResponse),
    FaultInjection(model::FaultInjection),
    RateLimit(model::RateLimit),
    RequestSizeLimit(u64),
    Compression,
}

/// What filters ask of a request beside its head.
pub struct Visit<'a> {
    pub arrival: Arrival,
    /// The client, or the one that a trusted proxy forwards for.
    pub source: IpAddr,
    /// In nanoseconds.
    pub now: u64,
    pub rng: &'a RefCell<fastrand::Rng>,
}

/// Where a request came in, as far as an answer speaks of it.
#[derive(Clone, Copy, Debug)]
pub struct Arrival {
    pub scheme: Scheme,
    /// The listener's, as documents say it.
    pub port: u16,
    /// Stands for the host of a request that names none.
    pub host: IpAddr,
}

/// What filters make of a request before a backend is chosen.
#[derive(Debug, Default)]
pub struct Met {
    /// What every answer is to tell the browser.
    pub grant: Option<Box<Grant>>,
    /// How long the request is held back on purpose.
    pub delay: Option<Duration>,
    pub verdict: Option<Verdict>,
}

/// No backend is asked.
#[derive(Debug)]
pub enum Verdict {
    Answer(Box<FilterAnswer>),
    Refuse(Failure),
}

/// What a filter answers in place of a backend.
#[derive(Debug)]
pub struct FilterAnswer {
    pub head: ResponseHead,
    pub body: Arc<str>,
    /// Which filter, for the log.
    pub filter: &'static str,
}

impl Chain {
    /// The filters of a rule with these matches, or of one of its backends.
    pub fn compile(filters: &[model::Filter], matches: &[model::RouteMatch]) -> Self {
        let compile = |filter: &model::Filter| Filter::compile(filter, matches);
        let compression = filters.iter().find_map(|filter| match filter {
            model::Filter::Compression(compression) => Some(Box::new(compression.clone())),
            _ => None,
        });
        let filters: Box<[Filter]> = filters.iter().map(compile).collect();
        let body_max = filters.iter().filter_map(|filter| match filter {
            Filter::RequestSizeLimit(max) => Some(*max),
            _ => None,
        });
        Self {
            body_max: body_max.min().unwrap_or(u64::MAX),
            meets: filters.iter().any(Filter::meets),
            rewrites: filters.iter().any(|f| matches!(f, Filter::Rewrite(_))),
            compression,
            filters,
        }
    }

    pub fn is_empty(&self) -> bool {
        self.filters.is_empty()
    }

    /// Whether [`Chain::meet`] may have something to say.
    pub fn meets(&self) -> bool {
        self.meets
    }

    /// Whether backends are asked for something else than the client asks for.
    pub fn rewrites(&self) -> bool {
        self.rewrites
    }

    /// The longest body of a request, in bytes.
    pub fn body_max(&self) -> u64 {
        self.body_max
    }

    /// Whether and how answers are compressed.
    pub fn compression(&self) -> Option<&model::Compression> {
        self.compression.as_deref()
    }

    /// Asks each filter in the order listed, until one has a verdict. A preflight is answered before all of them, as its request
    /// is still to come.
    #[cold]
    pub fn meet(&self, request: &RequestHead, visit: &Visit<'_>) -> Met {
        let mut met = Met::default();
        if let Some(cors) = self.cors() {
            met.grant = Some(Box::new(cors.grant(request)));
            if let Some(head) = cors.answer(request) {
                met.verdict = Some(Verdict::answer(head, "CORS"));
            }
        }
        for filter in &self.filters {
            if met.verdict.is_some() {
                break;
            }
            filter.meet(request, visit, &mut met);
        }
        met
    }

    fn cors(&self) -> Option<&Cors> {
        self.filters.iter().find_map(|filter| match filter {
            Filter::Cors(cors) => Some(cors),
            _ => None,
        })
    }

    /// On the way up, before an endpoint is chosen.
    pub fn on_request(&self, head: &mut RequestHead) {
        for filter in &self.filters {
            match filter {
                Filter::RequestHeaders(modifier) => modifier.modify_request(head),
                Filter::Rewrite(rewrite) => rewrite.modify(head),
                _ => {}
            }
        }
    }

    /// On the way down, for the upstream's answers as for those made here.
    pub fn on_response(&self, fields: &mut Fields) {
        for filter in &self.filters {
            if let Filter::ResponseHeaders(modifier) = filter {
                modifier.modify(fields);
            }
        }
    }
}

impl Filter {
    fn compile(filter: &model::Filter, matches: &[model::RouteMatch]) -> Self {
        match filter {
            model::Filter::RequestHeaders(modifier) => {
                Filter::RequestHeaders(HeaderModifier::compile(modifier))
            }
            model::Filter::ResponseHeaders(modifier) => {
                Filter::ResponseHeaders(HeaderModifier::compile(modifier))
            }
            model::Filter::RequestRedirect(redirect) => {
                Filter::Redirect(Redirect::compile(redirect, matches))
            }
            model::Filter::UrlRewrite(rewrite) => {
                Filter::Rewrite(Rewrite::compile(rewrite, matches))
            }
            model::Filter::Cors(cors) => Filter::Cors(Cors::compile(cors)),
            model::Filter::DirectResponse(response) => {
                Filter::DirectResponse(DirectResponse::compile(response))
            }
            model::Filter::FaultInjection(fault) => Filter::FaultInjection(fault.clone()),
            model::Filter::RateLimit(limit) => Filter::RateLimit(limit.clone()),
            model::Filter::RequestSizeLimit(max) => Filter::RequestSizeLimit(*max),
            model::Filter::Compression(_) => Filter::Compression,
        }
    }

    fn meets(&self) -> bool {
        match self {
            Filter::RequestHeaders(_)
            | Filter::ResponseHeaders(_)
            | Filter::Rewrite(_)
            | Filter::Compression => false,
            Filter::Redirect(_)
            | Filter::Cors(_)
            | Filter::DirectResponse(_)
            | Filter::FaultInjection(_)
            | Filter::RateLimit(_)
            | Filter::RequestSizeLimit(_) => true,
        }
    }

    fn meet(&self, request: &RequestHead, visit: &Visit<'_>, met: &mut Met) {
        let verdict = match self {
            Filter::Redirect(redirect) => {
                let head = redirect.answer(request, visit.arrival);
                Some(Verdict::answer(head, "RequestRedirect"))
            }
            Filter::DirectResponse(response) => Some(Verdict::Answer(Box::new(response.answer()))),
            Filter::FaultInjection(fault) => {
                let rng = &mut visit.rng.borrow_mut();
                met.delay = fault::delay(fault, request, rng);
                let status = fault::abort(fault, request, rng);
                status.map(|status| Verdict::Refuse(Failure::FaultInjected { status }))
            }
            Filter::RateLimit(limit) => {
                let taken = rate_limit::take(limit, request, visit.source, visit.now);
                let refused = |wait| Verdict::Refuse(Failure::RateLimited { wait });
                taken.err().map(refused)
            }
            Filter::RequestSizeLimit(max) => {
                let too_large =
                    (request.fields.content_length()).is_some_and(|length| length > *max);
                too_large.then_some(Verdict::Refuse(Failure::BodyTooLarge { max: *max }))
            }
            Filter::RequestHeaders(_)
            | Filter::ResponseHeaders(_)
            | Filter::Rewrite(_)
            | Filter::Cors(_)
            | Filter::Compression => None,
        };
        met.verdict = verdict;
    }
}

impl Verdict {
    /// Without a body.
    fn answer(head: ResponseHead, filter: &'static str) -> Self {
        let body = "".into();
        Verdict::Answer(Box::new(FilterAnswer { head, body, filter }))
    }
}
