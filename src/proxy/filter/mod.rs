//! What a route does to messages on their way: a closed set of filters, one file each, applied in the order listed.
//!
//! Filters change heads only. Whether an exchange goes on is decided by the walk of a request, not here.

mod headers;

use crate::model;
use crate::proxy::http::head::{Fields, RequestHead};
use headers::HeaderModifier;

/// The filters of one rule or backend.
#[derive(Debug, Default)]
pub struct Chain {
    filters: Box<[Filter]>,
}

#[derive(Debug)]
enum Filter {
    RequestHeaders(HeaderModifier),
    ResponseHeaders(HeaderModifier),
}

impl Chain {
    pub fn compile(filters: &[model::Filter]) -> Self {
        let compile = |filter: &model::Filter| match filter {
            model::Filter::RequestHeaders(modifier) => {
                Filter::RequestHeaders(HeaderModifier::compile(modifier))
            }
            model::Filter::ResponseHeaders(modifier) => {
                Filter::ResponseHeaders(HeaderModifier::compile(modifier))
            }
        };
        Self {
            filters: filters.iter().map(compile).collect(),
        }
    }

    pub fn is_empty(&self) -> bool {
        self.filters.is_empty()
    }

    /// On the way up, before an endpoint is chosen.
    pub fn on_request(&self, head: &mut RequestHead) {
        for filter in &self.filters {
            match filter {
                Filter::RequestHeaders(modifier) => modifier.modify_request(head),
                Filter::ResponseHeaders(_) => {}
            }
        }
    }

    /// On the way down, for the upstream's answers as for those made here.
    pub fn on_response(&self, fields: &mut Fields) {
        for filter in &self.filters {
            match filter {
                Filter::RequestHeaders(_) => {}
                Filter::ResponseHeaders(modifier) => modifier.modify(fields),
            }
        }
    }
}
