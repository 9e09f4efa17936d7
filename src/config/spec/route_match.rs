use std::collections::HashSet;
use std::sync::Arc;

use crate::config::decode::{Cursor, Fields};
use crate::model::{HeaderMatch, PathMatch, QueryMatch, RouteMatch, ValueMatch};

pub(super) fn route_match(fields: &mut Fields<'_, '_>) -> Option<RouteMatch> {
    let path = fields.optional("path", |cursor| cursor.fields(path));
    let method = fields.optional("method", |c| c.method());
    let headers = header_matches(fields);
    let mut query_names = HashSet::new();
    let queries = fields.list("queryParams", |cursor| {
        let text = |cursor: Cursor<'_>| cursor.filled_text().map(Arc::from);
        let (name, value) = cursor.fields(|fields| named_value(fields, text))?;
        first_of_its_name(cursor, &mut query_names, &name)?;
        Some(QueryMatch { name, value })
    });
    let everything = RouteMatch::everything().path;
    Some(RouteMatch {
        path: path.unwrap_or(everything),
        method,
        headers,
        queries,
    })
}

pub(super) fn header_matches(fields: &mut Fields<'_, '_>) -> Vec<HeaderMatch> {
    let mut names = HashSet::new();
    fields.list("headers", |cursor| {
        let (name, value) = cursor.fields(|fields| named_value(fields, |c| c.header_name()))?;
        let name: Arc<str> = name.to_ascii_lowercase().into();
        first_of_its_name(cursor, &mut names, &name)?;
        Some(HeaderMatch { name, value })
    })
}

/// As the standard says, later matches on the same name are ignored; nobody means that, so it is told.
fn first_of_its_name(
    cursor: Cursor<'_>,
    names: &mut HashSet<Arc<str>>,
    name: &Arc<str>,
) -> Option<()> {
    if names.insert(Arc::clone(name)) {
        return Some(());
    }
    cursor.warning(
        format!("`{name}` is matched above already"),
        "this one is ignored",
    );
    None
}

#[derive(Clone, Copy)]
enum PathKind {
    Exact,
    Prefix,
    Regex,
}

fn path(fields: &mut Fields<'_, '_>) -> Option<PathMatch> {
    let kind = fields.optional("type", |cursor| {
        cursor.choice(&[
            ("Exact", PathKind::Exact),
            ("PathPrefix", PathKind::Prefix),
            ("RegularExpression", PathKind::Regex),
        ])
    });
    let value = fields.optional("value", |cursor| match kind.unwrap_or(PathKind::Prefix) {
        PathKind::Exact => Some(PathMatch::Exact(plain_path(cursor)?.into())),
        PathKind::Prefix => {
            let path = plain_path(cursor)?;
            Some(PathMatch::Prefix(
                path.strip_suffix('/').unwrap_or(path).into(),
            ))
        }
        PathKind::Regex => cursor.regex().map(PathMatch::Regex),
    });
    Some(value.unwrap_or(match kind {
        Some(PathKind::Exact) => PathMatch::Exact("/".into()),
        _ => RouteMatch::everything().path,
    }))
}

/// A path as requests have it after normalisation, so that it can match at all.
pub(super) fn plain_path(cursor: Cursor<'_>) -> Option<&str> {
    let path = cursor.text()?;
    let lower = path.to_ascii_lowercase();
    let problem = match () {
        () if !path.starts_with('/') => Some(("a path begins with `/`", "")),
        () if path.contains('?') => Some(("a path has no query", "use queryParams")),
        () if path.contains('#') => Some(("a path has no fragment", "it is never sent")),
        () if path.contains("//") => Some(("a path has no `//`", "write one `/`")),
        () if lower.contains("%2f") => Some(("a path has no encoded `/`", "write `/`")),
        () if path.split('/').any(|element| matches!(element, "." | "..")) => {
            Some(("a path has no dot segments", "write the path they lead to"))
        }
        () if path
            .bytes()
            .any(|b| b <= b' ' || b == 0x7f || !b.is_ascii()) =>
        {
            Some((
                "a path is ASCII without spaces",
                "percent-encode it, such as %20",
            ))
        }
        () => None,
    };
    match problem {
        Some((message, hint)) => cursor.error(message, hint),
        None => Some(path),
    }
}

fn named_value(
    fields: &mut Fields<'_, '_>,
    read_name: impl FnOnce(Cursor<'_>) -> Option<Arc<str>>,
) -> Option<(Arc<str>, ValueMatch)> {
    let regex = fields.optional("type", |cursor| {
        cursor.choice(&[("Exact", false), ("RegularExpression", true)])
    });
    let name = fields.required("name", read_name);
    let value = fields.required("value", |cursor| match regex {
        Some(true) => cursor.regex().map(ValueMatch::Regex),
        _ => cursor.owned_text().map(ValueMatch::Exact),
    });
    Some((name?, value?))
}
