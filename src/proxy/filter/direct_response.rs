//! DirectResponse: the proxy answers with what the route says.

use std::sync::Arc;

use super::FilterAnswer;
use crate::model;
use crate::proxy::http::head::ResponseHead;

/// A [`model::DirectResponse`], ready.
#[derive(Debug)]
pub struct DirectResponse {
    head: ResponseHead,
    body: Arc<str>,
}

impl DirectResponse {
    pub fn compile(model: &model::DirectResponse) -> Self {
        let mut head = ResponseHead::new(model.status);
        if !model.body.is_empty() {
            head.fields
                .push(b"content-type", model.content_type.as_bytes());
        }
        // RFC 9110, section 8.6.
        if !matches!(model.status, 204 | 304) {
            let length = model.body.len().to_string();
            head.fields.push(b"content-length", length.as_bytes());
        }
        Self {
            head,
            body: model.body.clone(),
        }
    }

    pub fn answer(&self) -> FilterAnswer {
        FilterAnswer {
            head: self.head.clone(),
            body: self.body.clone(),
            filter: "DirectResponse",
        }
    }
}
