//! What a route does to messages on their way: a closed set of filters, one file each, applied in the order listed.

use crate::model;

/// The filters of one rule or backend, by direction.
#[derive(Debug, Default)]
pub struct Chain {
    request: Vec<model::HeaderModifier>,
    response: Vec<model::HeaderModifier>,
}

impl Chain {
    pub fn compile(filters: &[model::Filter]) -> Self {
        let mut chain = Self::default();
        for filter in filters {
            match filter {
                model::Filter::RequestHeaders(modifier) => chain.request.push(modifier.clone()),
                model::Filter::ResponseHeaders(modifier) => chain.response.push(modifier.clone()),
            }
        }
        chain
    }

    pub fn is_empty(&self) -> bool {
        self.request.is_empty() && self.response.is_empty()
    }
}
