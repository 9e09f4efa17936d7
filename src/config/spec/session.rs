//! `sessionPersistence` of a rule (GEP-1619): requests of one client stay with one endpoint.

use std::sync::Arc;

use crate::config::decode::{Cursor, Fields};
use crate::model::{PathMatch, RouteMatch, SessionCarrier, SessionPersistence};

#[derive(Clone, Copy, PartialEq, Eq)]
enum Kind {
    Cookie,
    Header,
}

pub(super) fn session_persistence(
    fields: &mut Fields<'_, '_>,
    matches: &[RouteMatch],
) -> Option<SessionPersistence> {
    let kind = fields.optional("type", |cursor| {
        cursor.choice(&[("Cookie", Kind::Cookie), ("Header", Kind::Header)])
    });
    let kind = kind.unwrap_or(Kind::Cookie);
    let name = fields.optional("sessionName", |cursor| match kind {
        Kind::Cookie => cookie_name(cursor),
        Kind::Header => cursor.header_name(),
    });
    let absolute_timeout = fields.optional("absoluteTimeout", |c| c.nonzero_duration());
    let idle_timeout = fields.optional("idleTimeout", |c| c.nonzero_duration());
    let permanent = fields.optional("cookieConfig", |cursor| {
        if kind == Kind::Header {
            return cursor.error("a header has no `cookieConfig`", "leave it out");
        }
        cursor.fields(lifetime)
    });
    let permanent = permanent.unwrap_or(false);
    let here = fields.cursor();
    if permanent && !fields.has("absoluteTimeout") {
        let hint = "say how long the cookie is kept, such as absoluteTimeout: 24h";
        return here.error("a permanent cookie needs `absoluteTimeout`", hint);
    }
    if kind == Kind::Header && !fields.has("sessionName") {
        return here.error(
            "a session in a header needs `sessionName`",
            "sessionName: x-session",
        );
    }
    Some(SessionPersistence {
        carrier: match kind {
            Kind::Header => SessionCarrier::Header,
            Kind::Cookie => SessionCarrier::Cookie {
                permanent,
                path: path(matches),
            },
        },
        name,
        absolute_timeout,
        idle_timeout,
    })
}

fn lifetime(fields: &mut Fields<'_, '_>) -> Option<bool> {
    let permanent = fields.optional("lifetimeType", |cursor| {
        cursor.choice(&[("Session", false), ("Permanent", true)])
    });
    Some(permanent.unwrap_or(false))
}

/// A token (RFC 6265, section 4.1.1), which is what header names are too.
fn cookie_name(cursor: Cursor<'_>) -> Option<Arc<str>> {
    let text = cursor.filled_text()?;
    match http::HeaderName::from_bytes(text.as_bytes()) {
        Ok(_) => Some(text.into()),
        Err(_) => cursor.error(
            format!("`{text}` is not a name for a cookie"),
            "letters, digits, `-` and `_`, such as cart-session",
        ),
    }
}

/// Where all matches are below one path, browsers need not send the cookie elsewhere.
fn path(matches: &[RouteMatch]) -> Arc<str> {
    let written = |conditions: &RouteMatch| match &conditions.path {
        PathMatch::Exact(path) | PathMatch::Prefix(path) => Some(Arc::clone(path)),
        PathMatch::Regex(_) | PathMatch::Method(_) => None,
    };
    let mut paths = matches.iter().map(written);
    let first = paths.next().flatten();
    let same = first.filter(|first| paths.all(|path| path.as_ref() == Some(first)));
    same.filter(|path| !path.is_empty() && !path.contains(';'))
        .unwrap_or_else(|| "/".into())
}
