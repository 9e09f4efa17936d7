//! ReplaceFullPath and ReplacePrefixMatch: one path becomes another. The query is no part of it.

use std::borrow::Cow;
use std::sync::Arc;

use crate::model::{self, PathMatch, RouteMatch};

/// A [`model::PathModifier`], with what it replaces.
#[derive(Debug)]
pub enum PathModifier {
    Full(Arc<str>),
    Prefix {
        replacement: Arc<str>,
        /// The prefixes of the rule, longest first, none with a trailing `/`.
        matched: Box<[Arc<str>]>,
    },
}

impl PathModifier {
    pub fn compile(model: &model::PathModifier, matches: &[RouteMatch]) -> Self {
        match model {
            model::PathModifier::Full(path) => PathModifier::Full(path.clone()),
            model::PathModifier::Prefix(replacement) => PathModifier::Prefix {
                replacement: replacement.clone(),
                matched: prefixes(matches),
            },
        }
    }

    /// What is no path, as the `*` of OPTIONS, stays.
    pub fn modify<'p>(&'p self, path: &'p [u8]) -> Cow<'p, [u8]> {
        if path.first() != Some(&b'/') {
            return path.into();
        }
        match self {
            PathModifier::Full(replacement) => replacement.as_bytes().into(),
            PathModifier::Prefix {
                replacement,
                matched,
            } => {
                let mut rests = matched.iter().filter_map(|prefix| rest(path, prefix));
                rests.next().map_or(path.into(), |rest| {
                    joined(replacement.as_bytes(), rest).into()
                })
            }
        }
    }
}

fn prefixes(matches: &[RouteMatch]) -> Box<[Arc<str>]> {
    let prefixes = matches
        .iter()
        .filter_map(|conditions| match &conditions.path {
            PathMatch::Prefix(prefix) => Some(prefix.clone()),
            PathMatch::Exact(_) | PathMatch::Regex(_) | PathMatch::Method(_) => None,
        });
    let mut prefixes: Vec<_> = prefixes.collect();
    prefixes.sort_by_key(|prefix| std::cmp::Reverse(prefix.len()));
    prefixes.into()
}

/// What follows a prefix of whole elements: nothing, or what begins with `/`.
fn rest<'p>(path: &'p [u8], prefix: &str) -> Option<&'p [u8]> {
    let rest = path.strip_prefix(prefix.as_bytes())?;
    matches!(rest.first(), None | Some(b'/')).then_some(rest)
}

/// A path is never empty.
fn joined(replacement: &[u8], rest: &[u8]) -> Vec<u8> {
    match [replacement, rest].concat() {
        empty if empty.is_empty() => b"/".to_vec(),
        path => path,
    }
}

#[cfg(test)]
pub(super) fn matching(prefix: &str) -> RouteMatch {
    RouteMatch {
        path: PathMatch::Prefix(prefix.trim_end_matches('/').into()),
        method: None,
        headers: Vec::new(),
        queries: Vec::new(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn replaced(path: &str, prefixes: &[&str], replacement: &str) -> String {
        let matches: Vec<_> = prefixes.iter().map(|prefix| matching(prefix)).collect();
        let kept = replacement.strip_suffix('/').unwrap_or(replacement);
        let modifier = PathModifier::compile(&model::PathModifier::Prefix(kept.into()), &matches);
        String::from_utf8_lossy(&modifier.modify(path.as_bytes())).into_owned()
    }

    #[test]
    fn a_prefix_is_replaced_as_the_standard_says() {
        for (path, prefix, replacement, expected) in [
            ("/foo/bar", "/foo", "/xyz", "/xyz/bar"),
            ("/foo/bar", "/foo", "/xyz/", "/xyz/bar"),
            ("/foo/bar", "/foo/", "/xyz", "/xyz/bar"),
            ("/foo/bar", "/foo/", "/xyz/", "/xyz/bar"),
            ("/foo", "/foo", "/xyz", "/xyz"),
            ("/foo/", "/foo", "/xyz", "/xyz/"),
            ("/foo/bar", "/foo", "", "/bar"),
            ("/foo/", "/foo", "", "/"),
            ("/foo", "/foo", "", "/"),
            ("/foo/", "/foo", "/", "/"),
            ("/foo", "/foo", "/", "/"),
            // Beyond its table.
            ("/foo/bar", "/foo", "/", "/bar"),
            ("/bar", "/", "/xyz", "/xyz/bar"),
            ("/foo//bar", "/foo", "/xyz", "/xyz//bar"),
            ("/foobar", "/foo", "/xyz", "/foobar"),
            ("*", "/", "/xyz", "*"),
        ] {
            let found = replaced(path, &[prefix], replacement);
            assert_eq!(found, expected, "{path} {prefix} {replacement}");
        }
    }

    #[test]
    fn of_several_prefixes_the_longest_counts() {
        let prefixes = ["/a", "/a/b", "/c"];
        for (path, expected) in [("/a/b/c", "/x/c"), ("/a/c", "/x/c"), ("/c", "/x")] {
            assert_eq!(replaced(path, &prefixes, "/x"), expected, "{path}");
        }
    }

    #[test]
    fn a_full_path_replaces_all_of_it() {
        let modifier = PathModifier::compile(&model::PathModifier::Full("/x/".into()), &[]);
        assert_eq!(&*modifier.modify(b"/a/b"), b"/x/");
        assert_eq!(&*modifier.modify(b"*"), b"*");
    }
}
