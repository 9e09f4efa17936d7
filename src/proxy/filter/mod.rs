//! What a route does to messages on their way: a closed set of filters, one file each, applied in the order listed.
//!
//! Filters change heads, and some answer in place of a backend. When that is asked for and how an answer is sent is decided by
//! the walk of a request, not here.

mod headers;
mod path;
mod redirect;
mod rewrite;

use crate::model;
use crate::proxy::http::head::{Fields, RequestHead, ResponseHead, Scheme};
use headers::HeaderModifier;
use redirect::Redirect;
use rewrite::Rewrite;

/// The filters of one rule or backend.
#[derive(Debug, Default)]
pub struct Chain {
    filters: Box<[Filter]>,
    rewrites: bool,
}

#[derive(Debug)]
enum Filter {
    RequestHeaders(HeaderModifier),
    ResponseHeaders(HeaderModifier),
    Redirect(Redirect),
    Rewrite(Rewrite),
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
    /// Of an answer without a body.
    pub head: ResponseHead,
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
        };
        let rewrites = |filter: &model::Filter| matches!(filter, model::Filter::UrlRewrite(_));
        Self {
            filters: filters.iter().map(compile).collect(),
            rewrites: filters.iter().any(rewrites),
        }
    }

    pub fn is_empty(&self) -> bool {
        self.filters.is_empty()
    }

    /// Whether backends are asked for something else than the client asks for.
    pub fn rewrites(&self) -> bool {
        self.rewrites
    }

    /// What the first of the filters that answer says, with what those for responses make of it. Asked where a rule has no
    /// backend.
    #[cold]
    pub fn answer(&self, request: &RequestHead, arrival: Arrival) -> Option<Box<FilterAnswer>> {
        let mut answers = self.filters.iter().filter_map(|filter| match filter {
            Filter::Redirect(redirect) => Some(FilterAnswer {
                head: redirect.answer(request, arrival),
                filter: "RequestRedirect",
            }),
            Filter::RequestHeaders(_) | Filter::ResponseHeaders(_) | Filter::Rewrite(_) => None,
        });
        let mut answer = Box::new(answers.next()?);
        self.on_response(&mut answer.head.fields);
        Some(answer)
    }

    /// On the way up, before an endpoint is chosen.
    pub fn on_request(&self, head: &mut RequestHead) {
        for filter in &self.filters {
            match filter {
                Filter::RequestHeaders(modifier) => modifier.modify_request(head),
                Filter::Rewrite(rewrite) => rewrite.modify(head),
                Filter::ResponseHeaders(_) | Filter::Redirect(_) => {}
            }
        }
    }

    /// On the way down, for the upstream's answers as for those made here.
    pub fn on_response(&self, fields: &mut Fields) {
        for filter in &self.filters {
            match filter {
                Filter::RequestHeaders(_) | Filter::Redirect(_) | Filter::Rewrite(_) => {}
                Filter::ResponseHeaders(modifier) => modifier.modify(fields),
            }
        }
    }
}
