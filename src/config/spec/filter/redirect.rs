use super::path::path_modifier;
use crate::config::decode::{Cursor, Fields};
use crate::config::defaults;
use crate::model::{RedirectScheme, RequestRedirect, RouteMatch};

pub(super) fn redirect(
    fields: &mut Fields<'_, '_>,
    matches: &[RouteMatch],
) -> Option<RequestRedirect> {
    const CHANGES: [&str; 4] = ["scheme", "hostname", "path", "port"];
    let scheme = fields.optional("scheme", |cursor| {
        cursor.choice(&[
            ("http", RedirectScheme::Http),
            ("https", RedirectScheme::Https),
        ])
    });
    let hostname = fields.optional("hostname", |c| c.precise_hostname());
    let path = fields.optional("path", |cursor| {
        cursor.fields(|fields| path_modifier(fields, matches))
    });
    let port = fields.optional("port", |c| c.port());
    let status = fields.optional("statusCode", redirect_status);
    if !CHANGES.iter().any(|key| fields.has(key)) {
        fields.cursor().warning(
            "this redirect leads where the client is already",
            "say scheme, hostname, path or port",
        );
    }
    Some(RequestRedirect {
        scheme,
        hostname,
        path,
        port,
        status: status.unwrap_or(defaults::REDIRECT_STATUS),
    })
}

fn redirect_status(cursor: Cursor<'_>) -> Option<u16> {
    match cursor.number(300..=399)? {
        status @ (301 | 302 | 303 | 307 | 308) => Some(status),
        other => cursor.error(
            format!("{other} does not redirect"),
            "301, 302, 303, 307 or 308",
        ),
    }
}
