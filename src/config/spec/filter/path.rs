use std::sync::Arc;

use super::super::route_match::plain_path;
use crate::config::decode::{Cursor, Fields};
use crate::model::{PathMatch, PathModifier, RouteMatch};

#[derive(Clone, Copy)]
enum PathModifierKind {
    Full,
    Prefix,
}

pub(super) fn path_modifier(
    fields: &mut Fields<'_, '_>,
    matches: &[RouteMatch],
) -> Option<PathModifier> {
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
        PathMatch::Exact(_) | PathMatch::Regex(_) | PathMatch::Method(_) => None,
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
