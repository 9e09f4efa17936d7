use std::sync::Arc;

use crate::config::decode::{Cursor, Fields};
use crate::config::defaults;
use crate::model::{AnyOf, Cors, OriginPattern, RouteMatch};

pub(super) fn cors(fields: &mut Fields<'_, '_>, matches: &[RouteMatch]) -> Option<Cors> {
    let origins = fields.optional("allowOrigins", origins);
    let credentials = fields.optional("allowCredentials", |c| c.boolean());
    let methods = fields.optional("allowMethods", |cursor| {
        any_of(cursor, |cursor| cursor.method())
    });
    let headers = |cursor: Cursor<'_>| any_of(cursor, |cursor| cursor.header_name());
    let request_headers = fields.optional("allowHeaders", headers);
    let exposed_headers = fields.optional("exposeHeaders", headers);
    let max_age = fields.optional("maxAge", |c| c.number(1..=i32::MAX as u64));
    let cors = Cors {
        origins: origins.unwrap_or_default(),
        credentials: credentials.unwrap_or_default(),
        methods: methods.unwrap_or_else(nothing),
        request_headers: request_headers.unwrap_or_else(nothing),
        exposed_headers: exposed_headers.unwrap_or_else(nothing),
        max_age: max_age.unwrap_or(defaults::CORS_MAX_AGE_SECONDS),
    };
    warn_of_what_is_in_vain(fields, &cors, matches);
    Some(cors)
}

fn nothing() -> AnyOf {
    AnyOf::Listed("".into())
}

fn origins(cursor: Cursor<'_>) -> Option<Vec<OriginPattern>> {
    let origins = cursor.list(|cursor| {
        let text = cursor.text()?;
        OriginPattern::parse(text).map_or_else(
            || {
                let message = format!("`{text}` is not an origin");
                let hint = "such as https://shop.example.com, https://*.example.com or http://localhost:3000, without a path";
                cursor.error(message, hint)
            },
            Some,
        )
    })?;
    if origins.len() > 1 && origins.contains(&OriginPattern::Any) {
        return cursor.error("`*` allows every origin", "leave out the others, or `*`");
    }
    Some(origins)
}

/// `["*"]`, or a list.
fn any_of(cursor: Cursor<'_>, read: impl Fn(Cursor<'_>) -> Option<Arc<str>>) -> Option<AnyOf> {
    let listed = cursor.list(|cursor| match cursor.text()? {
        "*" => Some("*".into()),
        _ => read(cursor),
    })?;
    let any = listed.iter().any(|one| &**one == "*");
    if any && listed.len() > 1 {
        return cursor.error("`*` allows all of them", "leave out the others, or `*`");
    }
    Some(match any {
        true => AnyOf::Any,
        false => AnyOf::Listed(listed.join(", ").into()),
    })
}

fn warn_of_what_is_in_vain(fields: &Fields<'_, '_>, cors: &Cors, matches: &[RouteMatch]) {
    let here = fields.cursor();
    if cors.origins.is_empty() {
        here.warning("no other origin may ask", "say `allowOrigins`");
    }
    if cors.credentials && cors.exposed_headers == AnyOf::Any {
        let message =
            "browsers do not take `*` of `exposeHeaders` for all where credentials are allowed";
        here.warning(message, "list the names");
    }
    let is_other = |method: &str| method != "OPTIONS";
    let methods = matches
        .iter()
        .map(|conditions| conditions.method.as_deref());
    if methods.clone().count() > 0 && methods.into_iter().all(|m| m.is_some_and(is_other)) {
        let message = "browsers ask with OPTIONS first, which no match of this rule takes";
        here.warning(message, "leave out `method`, or add a match for OPTIONS");
    }
}
