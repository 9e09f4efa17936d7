//! The path as routes see it: `%2e` is a dot, and dot segments are resolved (RFC 3986, 5.2.4).
//!
//! `%2F`, `\` and `//` stay as they are: they are data to applications. Nothing else is decoded.

use std::borrow::Cow;

use memchr::{memchr_iter, memchr3_iter};

/// The path has a NUL, plain or encoded; the request is refused with 400.
#[derive(Clone, Copy, PartialEq, Eq, Debug, thiserror::Error)]
#[error("the path contains NUL")]
pub struct NulInPath;

/// Borrows where the path is already normal; what is owned differs and is what must be forwarded.
pub fn normalize(path: &[u8]) -> Result<Cow<'_, [u8]>, NulInPath> {
    let mut dots = false;
    for at in memchr3_iter(b'%', b'.', 0, path) {
        match &path[at..] {
            [0, ..] | [b'%', b'0', b'0', ..] => return Err(NulInPath),
            [b'%', b'2', b'e' | b'E', ..] => dots = true,
            [b'.', ..] => dots |= is_dot_segment_start(path, at),
            _ => {}
        }
    }
    if !dots || path.first() != Some(&b'/') {
        return Ok(Cow::Borrowed(path));
    }
    let resolved = resolve(&decode_dots(path));
    Ok(if resolved == path {
        Cow::Borrowed(path)
    } else {
        Cow::Owned(resolved)
    })
}

fn is_dot_segment_start(path: &[u8], at: usize) -> bool {
    at > 0 && path[at - 1] == b'/'
}

fn decode_dots(path: &[u8]) -> Vec<u8> {
    let mut decoded = Vec::with_capacity(path.len());
    let mut rest = path;
    for at in memchr_iter(b'%', path) {
        if path[at..].len() >= 3 && path[at..at + 3].eq_ignore_ascii_case(b"%2e") {
            let before = at - (path.len() - rest.len());
            decoded.extend_from_slice(&rest[..before]);
            decoded.push(b'.');
            rest = &path[at + 3..];
        }
    }
    decoded.extend_from_slice(rest);
    decoded
}

/// The path begins with `/`; so does the result.
fn resolve(path: &[u8]) -> Vec<u8> {
    let mut resolved = Vec::with_capacity(path.len());
    let mut segments = path[1..].split(|byte| *byte == b'/').peekable();
    while let Some(segment) = segments.next() {
        let last = segments.peek().is_none();
        match segment {
            b"." => {}
            b".." => resolved.truncate(memchr::memrchr(b'/', &resolved).unwrap_or(0)),
            _ => {
                resolved.push(b'/');
                resolved.extend_from_slice(segment);
                continue;
            }
        }
        if last {
            resolved.push(b'/');
        }
    }
    resolved
}

#[cfg(test)]
mod tests {
    use super::*;

    fn normal(path: &str) -> String {
        let path = normalize(path.as_bytes()).expect("no NUL");
        String::from_utf8(path.into_owned()).expect("ASCII in, ASCII out")
    }

    #[test]
    fn dot_segments_are_resolved_as_the_rfc_says() {
        for (path, expected) in [
            ("/a/b/c/./../../g", "/a/g"),
            ("/a/..", "/"),
            ("/a/.", "/a/"),
            ("/..", "/"),
            ("/.", "/"),
            ("/../../etc/passwd", "/etc/passwd"),
            ("/a/%2e%2E/b", "/b"),
            ("/a/.%2e/b", "/b"),
            ("/a%2etxt", "/a.txt"),
            ("/a//../b", "/a/b"),
            ("/%2e", "/"),
        ] {
            assert_eq!(normal(path), expected, "{path}");
        }
    }

    #[test]
    fn what_is_normal_is_borrowed() {
        for path in [
            "/",
            "*",
            "/a.b/c..d/.well-known/...",
            "/a%2Fb",
            "/a\\..\\b",
            "//a//b/",
            "/a%2",
            "/%",
            "",
            "../a",
            "/100%25/%zz",
        ] {
            let result = normalize(path.as_bytes());
            assert_eq!(result, Ok(Cow::Borrowed(path.as_bytes())));
            assert!(matches!(result, Ok(Cow::Borrowed(_))), "{path}");
        }
    }

    #[test]
    fn nul_is_refused() {
        assert_eq!(normalize(b"/a%00"), Err(NulInPath));
        assert_eq!(normalize(b"/a\0b"), Err(NulInPath));
        assert_eq!(normal("/a%0"), "/a%0");
    }

    proptest::proptest! {
        #[test]
        fn normalising_twice_changes_nothing_more(path in "/([a./%2eE]{0,3}/){0,6}[.%2e]{0,4}") {
            if let Ok(once) = normalize(path.as_bytes()) {
                proptest::prop_assert!(once.starts_with(b"/"));
                let twice = normalize(&once);
                proptest::prop_assert_eq!(twice.as_deref(), Ok(&*once));
            }
        }
    }
}
