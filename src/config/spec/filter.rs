use std::collections::HashSet;
use std::sync::Arc;

use super::route_match::plain_path;
use crate::config::decode::{Cursor, Fields};
use crate::config::defaults;
use crate::model::{
    Filter, HeaderModifier, PathMatch, PathModifier, RedirectScheme, RequestRedirect, RouteMatch,
};

/// The kinds of filter, and the key that holds each one's settings.
#[derive(Clone, Copy)]
enum FilterKind {
    RequestHeaders,
    ResponseHeaders,
    RequestRedirect,
}

/// Where a list of filters stands.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Place {
    /// In a rule without backends, so that a filter has to answer.
    RuleAlone,
    /// In a rule that has backends.
    Rule,
    Backend,
}

/// The filters of a rule with these matches, or of one of its backends.
pub(super) fn filters(
    fields: &mut Fields<'_, '_>,
    place: Place,
    matches: &[RouteMatch],
) -> Vec<Filter> {
    let mut seen = HashSet::new();
    fields.list("filters", |cursor| {
        let filter = cursor.fields(|fields| filter(fields, matches))?;
        if matches!(filter, Filter::RequestRedirect(_)) && place != Place::RuleAlone {
            let message = "a redirect is answered here, so no backend gets the request";
            return cursor.error(message, "leave out `backendRefs`, or write a rule for each");
        }
        // The standard allows each kind once in a list.
        if !seen.insert(std::mem::discriminant(&filter)) {
            return cursor.error("this type of filter is here already", "write both as one");
        }
        Some(filter)
    })
}

fn filter(fields: &mut Fields<'_, '_>, matches: &[RouteMatch]) -> Option<Filter> {
    let kind = fields.required("type", filter_kind);
    let Some(kind) = kind else {
        fields.ignore_rest();
        return None;
    };
    let read = |cursor: Cursor<'_>| cursor.fields(header_modifier);
    match kind {
        FilterKind::RequestHeaders => fields
            .required("requestHeaderModifier", read)
            .map(Filter::RequestHeaders),
        FilterKind::ResponseHeaders => fields
            .required("responseHeaderModifier", read)
            .map(Filter::ResponseHeaders),
        FilterKind::RequestRedirect => fields
            .required("requestRedirect", |cursor| {
                cursor.fields(|fields| redirect(fields, matches))
            })
            .map(Filter::RequestRedirect),
    }
}

fn filter_kind(cursor: Cursor<'_>) -> Option<FilterKind> {
    match cursor.text()? {
        "RequestMirror" | "URLRewrite" | "CORS" | "ExtensionRef" | "ExternalAuth" => cursor.error(
            "this filter is not built yet",
            "RequestHeaderModifier, ResponseHeaderModifier and RequestRedirect are",
        ),
        _ => cursor.choice(&[
            ("RequestHeaderModifier", FilterKind::RequestHeaders),
            ("ResponseHeaderModifier", FilterKind::ResponseHeaders),
            ("RequestRedirect", FilterKind::RequestRedirect),
        ]),
    }
}

fn redirect(fields: &mut Fields<'_, '_>, matches: &[RouteMatch]) -> Option<RequestRedirect> {
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

#[derive(Clone, Copy)]
enum PathModifierKind {
    Full,
    Prefix,
}

fn path_modifier(fields: &mut Fields<'_, '_>, matches: &[RouteMatch]) -> Option<PathModifier> {
    let kind = fields.required("type", |cursor| {
        cursor.choice(&[
            ("ReplaceFullPath", PathModifierKind::Full),
            ("ReplacePrefixMatch", PathModifierKind::Prefix),
        ])
    });
    let Some(kind) = kind else {
        fields.ignore_rest();
        return None;
    };
    match kind {
        PathModifierKind::Full => fields
            .required("replaceFullPath", |c| plain_path(c).map(Arc::from))
            .map(PathModifier::Full),
        PathModifierKind::Prefix => {
            let prefix = fields.required("replacePrefixMatch", prefix_replacement)?;
            prefixes_are_told_by_the_path(fields.cursor(), matches)?;
            Some(PathModifier::Prefix(prefix))
        }
    }
}

/// It may be empty, and a slash at its end counts for nothing.
fn prefix_replacement(cursor: Cursor<'_>) -> Option<Arc<str>> {
    let prefix = match cursor.text()? {
        "" => "",
        _ => plain_path(cursor)?,
    };
    Some(prefix.strip_suffix('/').unwrap_or(prefix).into())
}

/// What is replaced must be known from the path alone.
fn prefixes_are_told_by_the_path(cursor: Cursor<'_>, matches: &[RouteMatch]) -> Option<()> {
    let prefix = |conditions: &RouteMatch| match &conditions.path {
        PathMatch::Prefix(prefix) => Some(prefix.clone()),
        PathMatch::Exact(_) | PathMatch::Regex(_) => None,
    };
    let Some(prefixes) = matches.iter().map(prefix).collect::<Option<Vec<_>>>() else {
        let message = "ReplacePrefixMatch needs every match of the rule to be a PathPrefix";
        let hint = "write a rule for the others, or ReplaceFullPath";
        return cursor.error(message, hint);
    };
    let ambiguous = matches.iter().zip(&prefixes).any(|(conditions, longer)| {
        let conditional = conditions.method.is_some()
            || !(conditions.headers.is_empty() && conditions.queries.is_empty());
        let is_below = |prefix: &Arc<str>| {
            let rest = longer.strip_prefix(&**prefix);
            rest.is_some_and(|rest| rest.starts_with('/'))
        };
        conditional && prefixes.iter().any(is_below)
    });
    if ambiguous {
        let message = "which prefix is replaced depends on more than the path here";
        return cursor.error(message, "write a rule for each prefix");
    }
    Some(())
}

fn header_modifier(fields: &mut Fields<'_, '_>) -> Option<HeaderModifier> {
    let mut names = HashSet::new();
    let modifier = HeaderModifier {
        set: fields.list("set", |cursor| header(cursor, &mut names)),
        add: fields.list("add", |cursor| header(cursor, &mut names)),
        remove: fields.list("remove", |cursor| modified_name(cursor, &mut names)),
    };
    if modifier.set.is_empty() && modifier.add.is_empty() && modifier.remove.is_empty() {
        fields
            .cursor()
            .warning("this modifier changes nothing", "say set, add or remove");
    }
    Some(modifier)
}

fn header(cursor: Cursor<'_>, names: &mut HashSet<String>) -> Option<(Arc<str>, Arc<str>)> {
    cursor.fields(|fields| {
        let name = fields.required("name", |cursor| modified_name(cursor, names));
        let value = fields.required("value", |c| c.header_value());
        Some((name?, value?))
    })
}

/// The same name set, added and removed at once would have no order a reader could guess.
fn modified_name(cursor: Cursor<'_>, names: &mut HashSet<String>) -> Option<Arc<str>> {
    const OURS: [&str; 8] = [
        "connection",
        "content-length",
        "host",
        "keep-alive",
        "te",
        "trailer",
        "transfer-encoding",
        "upgrade",
    ];
    let name = cursor.header_name()?;
    let lower = name.to_ascii_lowercase();
    if OURS.contains(&&*lower) {
        let message = format!("`{name}` cannot be modified");
        return cursor.error(
            message,
            "the proxy itself decides how a message is framed and sent",
        );
    }
    if !names.insert(lower) {
        return cursor.error(
            format!("`{name}` is modified twice"),
            "set, add or remove it once",
        );
    }
    Some(name)
}
