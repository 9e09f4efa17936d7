//! Heads between the `h2` crate's form and ours, in both directions.

use std::cell::RefCell;

use bytes::Bytes;
use http::header::{CONTENT_LENGTH, HeaderMap, HeaderName, HeaderValue};
use http::{Method as HttpMethod, StatusCode, Uri, uri};

use crate::proxy::http::head::{
    Field, Fields, Known, Method, RequestHead, ResponseHead, Scheme, Version, valid_authority,
};

/// Reads a request that `h2` has accepted as well-formed; an error is what is wrong with it beyond that.
pub fn read_request(
    parts: &http::request::Parts,
    head: &mut RequestHead,
) -> Result<(), &'static str> {
    head.clear();
    head.version = Version::Http2;
    head.method = Method::from_bytes(parts.method.as_str().as_bytes());
    read_fields(&parts.headers, &mut head.fields);
    let target = match parts.uri.path_and_query() {
        _ if head.method == Method::Connect => parts
            .uri
            .authority()
            .map_or("", |authority| authority.as_str()),
        // `http` reads a path that is not there as `/` where there is no authority either.
        Some(path) if !parts.uri.path().is_empty() => path.as_str(),
        _ => return Err("no :path"),
    };
    if parts
        .headers
        .get_all(CONTENT_LENGTH)
        .iter()
        .nth(1)
        .is_some()
    {
        return Err("more than one content-length");
    }
    head.set_target(target.as_bytes())
        .map_err(|_| "malformed :path")?;
    head.set_scheme(match parts.uri.scheme_str() {
        Some("https") => Some(Scheme::Https),
        Some(_) => Some(Scheme::Http),
        None => None,
    });
    match parts.uri.authority() {
        Some(authority) if !valid_authority(authority.as_str().as_bytes()) => {
            return Err("malformed :authority");
        }
        Some(authority) => {
            // `:authority` wins (RFC 9113, section 8.3.1); one Host that agrees is what goes on.
            head.fields.remove(Known::Host);
            head.set_authority(authority.as_str().as_bytes());
        }
        None => {
            let mut hosts = head.fields.get_all(Known::Host);
            match (hosts.next(), hosts.next()) {
                (Some(host), None) if valid_authority(host) && !host.is_empty() => {}
                _ => return Err("neither :authority nor one valid host"),
            }
        }
    }
    Ok(())
}

/// Builds the request for the upstream; hop-by-hop fields have been removed already.
pub fn write_request(
    head: &RequestHead,
    scheme: Scheme,
) -> Result<http::Request<()>, &'static str> {
    let path = head.path_and_query();
    const UNFIT: &str = "a target that HTTP/2 cannot carry";
    let mut parts = uri::Parts::default();
    parts.scheme = Some(match scheme {
        Scheme::Http => uri::Scheme::HTTP,
        Scheme::Https => uri::Scheme::HTTPS,
    });
    parts.authority = Some(authority(head.authority()).ok_or(UNFIT)?);
    parts.path_and_query = Some(uri::PathAndQuery::try_from(path).map_err(|_| UNFIT)?);
    let uri = Uri::from_parts(parts).map_err(|_| UNFIT)?;
    let mut request = http::Request::new(());
    *request.method_mut() =
        HttpMethod::from_bytes(head.method.as_bytes()).map_err(|_| "bad method")?;
    *request.uri_mut() = uri;
    *request.version_mut() = http::Version::HTTP_2;
    write_fields(&head.fields, &[Known::Host], request.headers_mut());
    Ok(request)
}

/// Requests of one thread tend to be for the same host as the one before, which then need not be parsed again.
fn authority(bytes: &[u8]) -> Option<uri::Authority> {
    thread_local! {
        static LAST: RefCell<Option<uri::Authority>> = const { RefCell::new(None) };
    }
    LAST.with_borrow_mut(|last| {
        if last
            .as_ref()
            .is_none_or(|last| last.as_str().as_bytes() != bytes)
        {
            *last = Some(uri::Authority::try_from(bytes).ok()?);
        }
        last.clone()
    })
}

pub fn read_response(parts: &http::response::Parts, head: &mut ResponseHead) {
    head.clear();
    head.version = Version::Http2;
    head.status = parts.status.as_u16();
    read_fields(&parts.headers, &mut head.fields);
}

pub fn write_response(head: &ResponseHead) -> http::Response<()> {
    let mut response = http::Response::new(());
    // The codec lets only 100 to 599 in, all of which are valid.
    *response.status_mut() = StatusCode::from_u16(head.status).unwrap_or(StatusCode::BAD_GATEWAY);
    write_fields(&head.fields, &[], response.headers_mut());
    response
}

/// Trailers as they arrived, less those that must not be there (RFC 9110, section 6.5.1).
pub fn fields_of_trailers(map: &HeaderMap) -> Fields {
    let mut fields = Fields::new();
    read_fields(map, &mut fields);
    fields.retain(|field| !field.known.is_forbidden_in_trailers());
    fields
}

pub fn header_map_of_trailers(fields: &Fields) -> HeaderMap {
    let mut map = HeaderMap::new();
    write_fields(fields, &[], &mut map);
    map
}

fn read_fields(map: &HeaderMap, fields: &mut Fields) {
    let mut cookie: Option<Vec<u8>> = None;
    for (name, value) in map {
        if name != http::header::COOKIE {
            fields.push(name.as_str().as_bytes(), value.as_bytes());
            continue;
        }
        // Cookie crumbs become one field again (RFC 9113, section 8.2.3).
        match &mut cookie {
            Some(cookie) => {
                cookie.extend_from_slice(b"; ");
                cookie.extend_from_slice(value.as_bytes());
            }
            None => cookie = Some(value.as_bytes().to_vec()),
        }
    }
    if let Some(cookie) = cookie {
        fields.push(b"cookie", &cookie);
    }
}

fn write_fields(fields: &Fields, skipped: &[Known], map: &mut HeaderMap) {
    map.reserve(fields.len());
    // All values share one copy of the arena.
    let arena = fields.arena();
    let shared = Bytes::copy_from_slice(arena);
    for field in fields.iter() {
        if skipped.contains(&field.known) || is_connection_specific(field.known) {
            continue;
        }
        let start = field.value.as_ptr() as usize - arena.as_ptr() as usize;
        let value = HeaderValue::from_maybe_shared(shared.slice(start..start + field.value.len()));
        // Names and values have been checked by the codec they came through, so neither fails.
        if let (Some(name), Ok(value)) = (header_name(&field), value) {
            map.append(name, value);
        }
    }
}

/// Names that `http` does not know are spared being copied where nearly every request has them.
fn header_name(field: &Field<'_>) -> Option<HeaderName> {
    match field.known {
        Known::XForwardedFor => Some(X_FORWARDED_FOR.clone()),
        Known::XForwardedProto => Some(X_FORWARDED_PROTO.clone()),
        _ => HeaderName::from_bytes(field.name).ok(),
    }
}

static X_FORWARDED_FOR: HeaderName = HeaderName::from_static("x-forwarded-for");
static X_FORWARDED_PROTO: HeaderName = HeaderName::from_static("x-forwarded-proto");

/// Fields that HTTP/2 has no place for (RFC 9113, section 8.2.2).
fn is_connection_specific(known: Known) -> bool {
    matches!(
        known,
        Known::Connection
            | Known::KeepAlive
            | Known::ProxyConnection
            | Known::TransferEncoding
            | Known::Upgrade
            | Known::Http2Settings
    )
}
