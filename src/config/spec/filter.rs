use std::collections::HashSet;
use std::sync::Arc;

use crate::config::decode::{Cursor, Fields};
use crate::model::{Filter, HeaderModifier};

/// The kinds of filter, and the key that holds each one's settings.
#[derive(Clone, Copy)]
enum FilterKind {
    RequestHeaders,
    ResponseHeaders,
}

pub(super) fn filters(fields: &mut Fields<'_, '_>) -> Vec<Filter> {
    let mut seen = HashSet::new();
    fields.list("filters", |cursor| {
        let filter = cursor.fields(filter)?;
        // The standard allows each kind once in a list.
        if !seen.insert(std::mem::discriminant(&filter)) {
            return cursor.error("this type of filter is here already", "write both as one");
        }
        Some(filter)
    })
}

fn filter(fields: &mut Fields<'_, '_>) -> Option<Filter> {
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
    }
}

fn filter_kind(cursor: Cursor<'_>) -> Option<FilterKind> {
    match cursor.text()? {
        "RequestMirror" | "RequestRedirect" | "URLRewrite" | "CORS" | "ExtensionRef"
        | "ExternalAuth" => cursor.error(
            "this filter is not built yet",
            "RequestHeaderModifier and ResponseHeaderModifier are",
        ),
        _ => cursor.choice(&[
            ("RequestHeaderModifier", FilterKind::RequestHeaders),
            ("ResponseHeaderModifier", FilterKind::ResponseHeaders),
        ]),
    }
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
