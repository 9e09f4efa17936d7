//! What a route does to messages on their way: a closed set of filters, one file each, applied in the order listed.
//!
//! Filters change heads, and some answer in place of a backend. When that is asked for and how an answer is sent is decided by
//! the walk of a request, not here.

mod cors;
mod direct_response;
mod headers;
mod path;
mod redirect;
mod rewrite;

use std::sync::Arc;

use crate::model;
use crate::proxy::http::head::{Fields, RequestHead, ResponseHead, Scheme};
use cors::Cors;
pub use cors::Grant;
use direct_response::DirectResponse;
use headers::HeaderModifier;
use redirect::Redirect;
use rewrite::Rewrite;

/// The filters of one rule or backend.
#[derive(Debug, Default)]
pub struct Chain {
    filters: Box<[Filter]>,
    meets: bool,
    rewrites: bool,
}

#[derive(Debug)]
enum Filter {
    RequestHeaders(HeaderModifier),
    ResponseHeaders(HeaderModifier),
    Redirect(Redirect),
    Rewrite(Rewrite),
    Cors(Cors),
    DirectResponse(DirectResponse),
}

/// Where a request came in, as far as an answer speaks of it.
#[derive(Clone, Copy, Debug)]
pub struct Arrival {
    pub scheme: Scheme,
    /// The listener's, as documents say it.
    pub port: u16,
    /// Stands for the host of a request that names none.
    pub host: std::net::IpAddr,
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
        let compile = |filter: &model::Filter| match filter {
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
        };
        let meets =
            |filter: &model::Filter| filter.answers() || matches!(filter, model::Filter::Cors(_));
        let rewrites = |filter: &model::Filter| matches!(filter, model::Filter::UrlRewrite(_));
        Self {
            filters: filters.iter().map(compile).collect(),
            meets: filters.iter().any(meets),
            rewrites: filters.iter().any(rewrites),
        }
    }

    pub fn is_empty(&self) -> bool {
        self.filters.is_empty()
    }

    /// Whether [`Chain::grant`] and [`Chain::answer`] may have something to say.
    pub fn meets(&self) -> bool {
        self.meets
    }

    /// Whether backends are asked for something else than the client asks for.
    pub fn rewrites(&self) -> bool {
        self.rewrites
    }

    /// What every answer to this request is to tell the browser.
    #[cold]
    pub fn grant(&self, request: &RequestHead) -> Option<Box<Grant>> {
        let grant = self.cors()?.grant(request);
        Some(Box::new(grant))
    }

    /// What the first of the filters that answer says. A preflight is answered before anything else is, as its request is still to
    /// come.
    #[cold]
    pub fn answer(&self, request: &RequestHead, arrival: Arrival) -> Option<Box<FilterAnswer>> {
        if let Some(head) = self.cors().and_then(|cors| cors.answer(request)) {
            return Some(Box::new(FilterAnswer {
                head,
                body: "".into(),
                filter: "CORS",
            }));
        }
        let mut answers = self.filters.iter().filter_map(|filter| match filter {
            Filter::Redirect(redirect) => Some(FilterAnswer {
                head: redirect.answer(request, arrival),
                body: "".into(),
                filter: "RequestRedirect",
            }),
            Filter::DirectResponse(response) => Some(FilterAnswer {
                head: response.head(),
                body: response.body.clone(),
                filter: "DirectResponse",
            }),
            Filter::RequestHeaders(_)
            | Filter::ResponseHeaders(_)
            | Filter::Rewrite(_)
            | Filter::Cors(_) => None,
        });
        answers.next().map(Box::new)
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
                Filter::ResponseHeaders(_)
                | Filter::Redirect(_)
                | Filter::Cors(_)
                | Filter::DirectResponse(_) => {}
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
