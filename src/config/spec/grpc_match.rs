//! What a rule of a `GRPCRoute` asks of a call: service and method, which are the path of its request, and headers.
//!
//! Paths are `/service/method`, as in the gRPC protocol over HTTP/2.

use std::sync::Arc;

use regex::bytes::Regex;

use super::route_match::header_matches;
use crate::config::decode::{Cursor, Fields};
use crate::model::{PathMatch, RouteMatch};

pub(super) fn grpc_match(fields: &mut Fields<'_, '_>) -> Option<RouteMatch> {
    let path = fields.optional("method", |cursor| cursor.fields(method));
    Some(RouteMatch {
        path: path.unwrap_or_else(|| RouteMatch::everything().path),
        headers: header_matches(fields),
        ..RouteMatch::everything()
    })
}

fn method(fields: &mut Fields<'_, '_>) -> Option<PathMatch> {
    let regex = fields.optional("type", |cursor| {
        cursor.choice(&[("Exact", false), ("RegularExpression", true)])
    });
    match regex.unwrap_or(false) {
        false => exact(fields),
        true => regular_expression(fields),
    }
}

fn exact(fields: &mut Fields<'_, '_>) -> Option<PathMatch> {
    let service = fields.optional("service", |cursor| plain(cursor, is_service, "shop.Cart"));
    let method = fields.optional("method", |cursor| plain(cursor, is_identifier, "AddItem"));
    let left_out = !fields.has("service") && !fields.has("method");
    match (service, method) {
        (Some(service), Some(method)) => {
            Some(PathMatch::Exact(format!("/{service}/{method}").into()))
        }
        (Some(service), None) => Some(PathMatch::Prefix(format!("/{service}").into())),
        (None, Some(method)) => Some(PathMatch::Method(method)),
        (None, None) if left_out => neither(fields),
        (None, None) => None,
    }
}

fn regular_expression(fields: &mut Fields<'_, '_>) -> Option<PathMatch> {
    let element = |fields: &mut Fields<'_, '_>, key| {
        // Judged by itself first, so that what is wrong is told at its place.
        fields.optional(key, |cursor| cursor.regex().and(cursor.owned_text()))
    };
    let (service, method) = (element(fields, "service"), element(fields, "method"));
    if service.is_none() && method.is_none() {
        return match fields.has("service") || fields.has("method") {
            true => None,
            false => neither(fields),
        };
    }
    let any = || Arc::from("[^/]+");
    let (service, method) = (service.unwrap_or_else(any), method.unwrap_or_else(any));
    match Regex::new(&format!(r"\A/(?:{service})/(?:{method})\z")) {
        Ok(regex) => Some(PathMatch::Regex(regex)),
        Err(_) => fields.cursor().error(
            "both regular expressions together are too large",
            "use smaller repetitions",
        ),
    }
}

fn neither(fields: &Fields<'_, '_>) -> Option<PathMatch> {
    let hint = "leave `method` out to match every call";
    fields
        .cursor()
        .error("`service` or `method` is missing", hint)
}

fn plain(cursor: Cursor<'_>, fits: fn(&str) -> bool, example: &str) -> Option<Arc<str>> {
    let text = cursor.filled_text()?;
    if fits(text) {
        return Some(text.into());
    }
    let hint = format!("such as {example}, as its .proto file has it");
    cursor.error(format!("`{text}` is no name of gRPC"), hint)
}

/// Package and service, divided by dots.
fn is_service(text: &str) -> bool {
    text.split('.').all(is_identifier)
}

fn is_identifier(text: &str) -> bool {
    let word = |byte: u8| byte.is_ascii_alphanumeric() || byte == b'_';
    !text.is_empty() && !text.as_bytes()[0].is_ascii_digit() && text.bytes().all(word)
}
