//! Answers: JSON for programs, the same indented for people, text where it is asked for.

use std::convert::Infallible;

use bytes::Bytes;
use http::header::{
    ACCEPT, ALLOW, CONTENT_TYPE, HeaderName, HeaderValue, RETRY_AFTER, WWW_AUTHENTICATE,
};
use http::{HeaderMap, Response, StatusCode};
use http_body_util::combinators::UnsyncBoxBody;
use http_body_util::{BodyExt, Full};
use serde::Serialize;

use crate::registry::Refusal;

pub type Body = UnsyncBoxBody<Bytes, Infallible>;

/// What the caller wants to read.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Format {
    /// A program that says so.
    Json,
    /// Whoever takes anything: most likely a human with curl.
    Indented,
    Text,
    Yaml,
}

impl Format {
    pub fn of(headers: &HeaderMap) -> Self {
        let accept = headers
            .get(ACCEPT)
            .and_then(|value| value.to_str().ok())
            .unwrap_or("*/*");
        let first = accept.split([',', ';']).next().unwrap_or_default().trim();
        match first {
            "application/json" => Self::Json,
            "application/yaml" | "application/x-yaml" | "text/yaml" => Self::Yaml,
            text if text.starts_with("text/") => Self::Text,
            _ => Self::Indented,
        }
    }

    pub fn is_text(self) -> bool {
        matches!(self, Self::Text | Self::Yaml)
    }
}

pub fn json(format: Format, value: &impl Serialize) -> Response<Body> {
    json_with_status(StatusCode::OK, format, value)
}

fn json_with_status(status: StatusCode, format: Format, value: &impl Serialize) -> Response<Body> {
    let bytes = match format {
        Format::Json => serde_json::to_vec(value),
        _ => serde_json::to_vec_pretty(value),
    };
    // Wire types have string keys and finite numbers; they always serialize.
    let mut bytes = bytes.unwrap_or_default();
    bytes.push(b'\n');
    full(status, "application/json", bytes)
}

pub fn text(content_type: &'static str, text: impl Into<Bytes>) -> Response<Body> {
    full(StatusCode::OK, content_type, text)
}

fn full(status: StatusCode, content_type: &'static str, bytes: impl Into<Bytes>) -> Response<Body> {
    let mut response = Response::new(Full::new(bytes.into()).boxed_unsync());
    *response.status_mut() = status;
    response
        .headers_mut()
        .insert(CONTENT_TYPE, HeaderValue::from_static(content_type));
    response
}

pub fn refusal(format: Format, refusal: &Refusal) -> Response<Body> {
    let mut response = match format.is_text() {
        true => full(
            refusal.status,
            "text/plain; charset=utf-8",
            format!("{refusal}\n"),
        ),
        false => json_with_status(refusal.status, format, &refusal.body()),
    };
    let more: Option<(HeaderName, &str)> = match refusal.status {
        StatusCode::UNAUTHORIZED => Some((WWW_AUTHENTICATE, "Bearer")),
        StatusCode::SERVICE_UNAVAILABLE | StatusCode::TOO_MANY_REQUESTS => Some((RETRY_AFTER, "1")),
        StatusCode::METHOD_NOT_ALLOWED => refusal
            .detail
            .hint
            .as_deref()
            .and_then(|hint| hint.strip_prefix("it takes "))
            .map(|allowed| (ALLOW, allowed)),
        _ => None,
    };
    if let Some((name, value)) =
        more.and_then(|(name, value)| Some((name, HeaderValue::from_str(value).ok()?)))
    {
        response.headers_mut().insert(name, value);
    }
    response
}

pub fn with_header(
    mut response: Response<Body>,
    name: HeaderName,
    value: impl Into<HeaderValue>,
) -> Response<Body> {
    response.headers_mut().insert(name, value.into());
    response
}
