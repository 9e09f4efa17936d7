//! The path as routes see it: `%2e` is a dot, and dot segments are resolved (RFC 3986, 5.2.4).
//!
//! `%2F`, `\` and `//` stay as they are, since they are data to applications, unless a listener or a service says otherwise.
//! Nothing else is decoded, and nothing twice: no byte that decoding gives is part of another encoded one.

use std::borrow::Cow;

use memchr::{memchr, memchr2_iter, memchr3_iter, memmem};

use crate::model::{PathAction, PathNormalization};

/// Why a path is refused with 400.
#[derive(Clone, Copy, PartialEq, Eq, Debug, thiserror::Error)]
#[error("{}", self.reason())]
pub enum PathRefused {
    /// Plain or encoded.
    Nul,
    EncodedSlash,
    Backslash,
}

impl PathRefused {
    pub fn reason(self) -> &'static str {
        match self {
            PathRefused::Nul => "the path contains NUL",
            PathRefused::EncodedSlash => "the path contains %2F, which is not allowed here",
            PathRefused::Backslash => "the path contains a backslash, which is not allowed here",
        }
    }
}

/// Borrows where the path is already normal; what is owned differs and is what must be forwarded.
pub fn normalize(path: &[u8], wanted: PathNormalization) -> Result<Cow<'_, [u8]>, PathRefused> {
    let mut changes = false;
    for at in memchr3_iter(b'%', b'.', 0, path) {
        changes |= match &path[at..] {
            [0, ..] | [b'%', b'0', b'0', ..] => return Err(PathRefused::Nul),
            [b'%', b'2', b'e' | b'E', ..] => true,
            [b'%', b'2', b'f' | b'F', ..] => {
                changes_by(wanted.encoded_slash, PathRefused::EncodedSlash)?
            }
            [b'%', b'5', b'c' | b'C', ..] => changes_by(wanted.backslash, PathRefused::Backslash)?,
            [b'.', ..] => is_dot_segment_start(path, at),
            _ => false,
        };
    }
    if wanted.backslash != PathAction::Keep && memchr(b'\\', path).is_some() {
        changes |= changes_by(wanted.backslash, PathRefused::Backslash)?;
    }
    changes |= wanted.merge_slashes && memmem::find(path, b"//").is_some();
    if !changes || path.first() != Some(&b'/') {
        return Ok(Cow::Borrowed(path));
    }
    let resolved = resolve(&decode(path, wanted), wanted.merge_slashes);
    Ok(if resolved == path {
        Cow::Borrowed(path)
    } else {
        Cow::Owned(resolved)
    })
}

/// Whether a path with such a part in it becomes another one.
fn changes_by(action: PathAction, refused: PathRefused) -> Result<bool, PathRefused> {
    match action {
        PathAction::Keep => Ok(false),
        PathAction::Reject => Err(refused),
        PathAction::Decode => Ok(true),
    }
}

fn is_dot_segment_start(path: &[u8], at: usize) -> bool {
    at > 0 && path[at - 1] == b'/'
}

/// Dots, and the slashes that are asked for.
fn decode(path: &[u8], wanted: PathNormalization) -> Vec<u8> {
    let mut decoded = Vec::with_capacity(path.len());
    let mut rest = 0;
    for at in memchr2_iter(b'%', b'\\', path) {
        let (length, byte) = match &path[at..] {
            [b'%', b'2', b'e' | b'E', ..] => (3, b'.'),
            [b'%', b'2', b'f' | b'F', ..] if wanted.encoded_slash == PathAction::Decode => {
                (3, b'/')
            }
            [b'%', b'5', b'c' | b'C', ..] if wanted.backslash == PathAction::Decode => (3, b'/'),
            [b'\\', ..] if wanted.backslash == PathAction::Decode => (1, b'/'),
            _ => continue,
        };
        decoded.extend_from_slice(&path[rest..at]);
        decoded.push(byte);
        rest = at + length;
    }
    decoded.extend_from_slice(&path[rest..]);
    decoded
}

/// The path begins with `/`; so does the result. Slashes are merged before dots count, as a file system reads them.
fn resolve(path: &[u8], merge_slashes: bool) -> Vec<u8> {
    let mut resolved = Vec::with_capacity(path.len());
    let mut segments = path[1..].split(|byte| *byte == b'/').peekable();
    while let Some(segment) = segments.next() {
        let last = segments.peek().is_none();
        match segment {
            b"" if merge_slashes && !last => continue,
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

    const DEFAULT: PathNormalization = PathNormalization {
        encoded_slash: PathAction::Keep,
        backslash: PathAction::Keep,
        merge_slashes: false,
    };
    const MERGED: PathNormalization = PathNormalization {
        merge_slashes: true,
        ..DEFAULT
    };

    fn encoded_slash(encoded_slash: PathAction) -> PathNormalization {
        PathNormalization {
            encoded_slash,
            ..DEFAULT
        }
    }

    fn backslash(backslash: PathAction) -> PathNormalization {
        PathNormalization {
            backslash,
            ..DEFAULT
        }
    }

    fn normal_as(path: &str, wanted: PathNormalization) -> String {
        let path = normalize(path.as_bytes(), wanted).expect("nothing to refuse");
        String::from_utf8(path.into_owned()).expect("ASCII in, ASCII out")
    }

    fn normal(path: &str) -> String {
        normal_as(path, DEFAULT)
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
            let result = normalize(path.as_bytes(), DEFAULT);
            assert_eq!(result, Ok(Cow::Borrowed(path.as_bytes())));
            assert!(matches!(result, Ok(Cow::Borrowed(_))), "{path}");
        }
    }

    #[test]
    fn nul_is_refused() {
        assert_eq!(normalize(b"/a%00", DEFAULT), Err(PathRefused::Nul));
        assert_eq!(normalize(b"/a\0b", DEFAULT), Err(PathRefused::Nul));
        assert_eq!(normal("/a%0"), "/a%0");
    }

    #[test]
    fn an_encoded_slash_is_decoded_where_it_is_wanted_and_never_twice() {
        let decode = encoded_slash(PathAction::Decode);
        for (path, expected) in [
            ("/a%2Fb%2fc", "/a/b/c"),
            ("/a%2F..%2Fb", "/b"),
            ("/a%2f%2e%2e/b", "/b"),
            ("/a%2F", "/a/"),
            ("/a%252Fb", "/a%252Fb"),
            ("/a%%2F2Fb", "/a%/2Fb"),
            ("/a%2Fb%5Cc\\d//e", "/a/b%5Cc\\d//e"),
            ("/a%2", "/a%2"),
        ] {
            assert_eq!(normal_as(path, decode), expected, "{path}");
        }
    }

    #[test]
    fn a_backslash_becomes_a_slash_in_either_spelling() {
        let decode = backslash(PathAction::Decode);
        for (path, expected) in [
            ("/a\\b%5Cc%5cd", "/a/b/c/d"),
            ("/a\\..\\b", "/b"),
            ("/a/..%5C..\\b", "/b"),
            ("/a%2Fb//c", "/a%2Fb//c"),
            ("/a%255Cb", "/a%255Cb"),
        ] {
            assert_eq!(normal_as(path, decode), expected, "{path}");
        }
    }

    #[test]
    fn slashes_are_merged_before_dots_count() {
        for (path, expected) in [
            ("//", "/"),
            ("//a///b//", "/a/b/"),
            ("/a//../b", "/b"),
            ("/a/..//b", "/b"),
            ("/a//.", "/a/"),
            ("/a%2F%2Fb", "/a%2F%2Fb"),
        ] {
            assert_eq!(normal_as(path, MERGED), expected, "{path}");
        }
        let all = PathNormalization {
            encoded_slash: PathAction::Decode,
            backslash: PathAction::Decode,
            merge_slashes: true,
        };
        assert_eq!(normal_as("/a%2F\\%5C/..%2F/b", all), "/b");
    }

    #[test]
    fn what_is_to_be_rejected_is_and_nothing_else() {
        for (wanted, refused, paths) in [
            (
                encoded_slash(PathAction::Reject),
                PathRefused::EncodedSlash,
                ["/a%2Fb", "/%2f"],
            ),
            (
                backslash(PathAction::Reject),
                PathRefused::Backslash,
                ["/a\\b", "/a%5cb"],
            ),
        ] {
            for path in paths {
                assert_eq!(normalize(path.as_bytes(), wanted), Err(refused), "{path}");
            }
        }
        assert_eq!(
            normal_as("/a\\b%5C//", encoded_slash(PathAction::Reject)),
            "/a\\b%5C//"
        );
        assert_eq!(
            normal_as("/a%2Fb//", backslash(PathAction::Reject)),
            "/a%2Fb//"
        );
    }

    #[test]
    fn what_needs_no_rewriting_is_borrowed_under_every_rule() {
        let all = PathNormalization {
            encoded_slash: PathAction::Decode,
            backslash: PathAction::Decode,
            merge_slashes: true,
        };
        for path in ["/", "*", "", "/a/b.c/", "/100%25/%zz"] {
            let result = normalize(path.as_bytes(), all);
            assert!(matches!(result, Ok(Cow::Borrowed(_))), "{path}");
        }
    }

    fn any() -> impl proptest::strategy::Strategy<Value = PathNormalization> {
        use proptest::strategy::Strategy;
        let action = || proptest::sample::select(&PathAction::ALL[..]);
        let parts = (action(), action(), proptest::bool::ANY);
        parts.prop_map(
            |(encoded_slash, backslash, merge_slashes)| PathNormalization {
                encoded_slash,
                backslash,
                merge_slashes,
            },
        )
    }

    proptest::proptest! {
        #[test]
        fn normalising_twice_changes_nothing_more(
            path in r"/([a./%2eEfF5cC\\]{0,4}/){0,6}[.%2eF\\]{0,4}", wanted in any()
        ) {
            if let Ok(once) = normalize(path.as_bytes(), wanted) {
                proptest::prop_assert!(once.starts_with(b"/"));
                let twice = normalize(&once, wanted);
                proptest::prop_assert_eq!(twice.as_deref(), Ok(&*once));
            }
        }

        /// Nobody behind the proxy finds what was to be decoded, merged or resolved.
        #[test]
        fn nothing_that_servers_read_differently_is_left(
            path in r"/([a./%2eEfF5cC\\]{0,4}/){0,6}[.%2eF\\]{0,4}", wanted in any()
        ) {
            if let Ok(normal) = normalize(path.as_bytes(), wanted) {
                let text = String::from_utf8_lossy(&normal).to_ascii_lowercase();
                let gone = |action: PathAction, part: &str| action == PathAction::Keep || !text.contains(part);
                proptest::prop_assert!(gone(wanted.encoded_slash, "%2f"), "{}", text);
                proptest::prop_assert!(gone(wanted.backslash, "%5c"), "{}", text);
                proptest::prop_assert!(gone(wanted.backslash, "\\"), "{}", text);
                proptest::prop_assert!(!wanted.merge_slashes || !text.contains("//"), "{}", text);
                proptest::prop_assert!(!text.contains("%2e"), "{}", text);
                proptest::prop_assert!(!text.split('/').any(|segment| matches!(segment, "." | "..")), "{}", text);
            }
        }
    }
}
