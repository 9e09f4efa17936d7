use std::ops::Range;

use super::{Fields, Known, Method, Version, scan, valid_authority};

/// A request's head.
#[derive(Clone, Debug, Default)]
pub struct RequestHead {
    pub method: Method,
    pub version: Version,
    pub fields: Fields,
    target: Target,
    /// What `:authority` or a rewrite says; empty leaves it to the target and to `Host`.
    authority: Vec<u8>,
    scheme: Option<Scheme>,
}

/// What a request line asks for (RFC 9112, 3.2).
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub enum TargetForm {
    /// `/path?query`
    #[default]
    Origin,
    /// `http://host/path?query`
    Absolute,
    /// `host:port`, with CONNECT only.
    Authority,
    /// `*`, with OPTIONS only.
    Asterisk,
}

#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub enum Scheme {
    Http,
    Https,
}

impl Scheme {
    pub fn as_str(self) -> &'static str {
        match self {
            Scheme::Http => "http",
            Scheme::Https => "https",
        }
    }
}

/// Why bytes are no request target.
#[derive(Clone, Copy, PartialEq, Eq, Debug, thiserror::Error)]
#[error("{}", self.reason())]
pub enum TargetError {
    Empty,
    Byte,
    Form,
    Scheme,
    Authority,
}

impl TargetError {
    pub fn reason(self) -> &'static str {
        match self {
            TargetError::Empty => "the request target is empty",
            TargetError::Byte => {
                "the request target has a space, a control character or a fragment in it"
            }
            TargetError::Form => "the request target fits no form of its method",
            TargetError::Scheme => {
                "the scheme of an absolute request target is neither http nor https"
            }
            TargetError::Authority => "the authority in the request target is malformed",
        }
    }
}

/// The target as it came, and where its parts lie; `bytes` may go on behind the target with a path that had no slash.
#[derive(Clone, Debug, Default)]
struct Target {
    bytes: Vec<u8>,
    form: TargetForm,
    authority: Range<usize>,
    path: Range<usize>,
    /// Where the `?` stands.
    question: Option<usize>,
}

impl RequestHead {
    pub fn new() -> Self {
        Self::default()
    }

    /// Makes it as good as new and keeps the memory.
    pub fn clear(&mut self) {
        self.method = Method::Get;
        self.version = Version::default();
        self.fields.clear();
        self.target.bytes.clear();
        self.target.form = TargetForm::Origin;
        self.target.authority = 0..0;
        self.target.path = 0..0;
        self.target.question = None;
        self.authority.clear();
        self.scheme = None;
    }

    /// What an origin server is asked for: the bytes of the target as they came, for an absolute target those after its
    /// authority (`/` when there are none). `*` is kept; CONNECT has `host:port` here.
    pub fn path_and_query(&self) -> &[u8] {
        &self.target.bytes[self.target.path.clone()]
    }

    pub fn path(&self) -> &[u8] {
        let Range { start, end } = self.target.path;
        &self.target.bytes[start..self.target.question.unwrap_or(end)]
    }

    /// What follows the first `?`, without it.
    pub fn query(&self) -> Option<&[u8]> {
        let question = self.target.question?;
        Some(&self.target.bytes[question + 1..self.target.path.end])
    }

    /// Whom the request is for: an authority set by [`RequestHead::set_authority`], else the target's, else `Host`.
    /// Empty when an HTTP/1.0 request names nobody.
    pub fn authority(&self) -> &[u8] {
        if !self.authority.is_empty() {
            return &self.authority;
        }
        if !self.target.authority.is_empty() {
            return &self.target.bytes[self.target.authority.clone()];
        }
        self.fields.get(Known::Host).unwrap_or_default()
    }

    /// As an absolute target or `:scheme` says it.
    pub fn scheme(&self) -> Option<Scheme> {
        self.scheme
    }

    pub fn target_form(&self) -> TargetForm {
        self.target.form
    }

    /// Whether [`RequestHead::set_authority`] has been used.
    pub fn has_own_authority(&self) -> bool {
        !self.authority.is_empty()
    }

    /// From now on the authority, whatever target and `Host` say; writing the head makes `Host` agree.
    pub fn set_authority(&mut self, authority: &[u8]) {
        self.authority.clear();
        self.authority.extend_from_slice(authority);
    }

    /// Makes `Host` say what a target with an authority says.
    pub fn set_host_from_target(&mut self) {
        let authority = &self.target.bytes[self.target.authority.clone()];
        if self.fields.get(Known::Host) != Some(authority) {
            self.fields.set(b"Host", authority);
        }
    }

    /// Another path for the same query and authority.
    pub fn set_path(&mut self, path: &[u8]) -> Result<(), TargetError> {
        let mut target = path.to_vec();
        if let Some(query) = self.query() {
            target.push(b'?');
            target.extend_from_slice(query);
        }
        if self.target.form == TargetForm::Absolute {
            let authority = self.authority().to_vec();
            self.set_authority(&authority);
        }
        self.set_target(&target)
    }

    pub fn set_scheme(&mut self, scheme: Option<Scheme>) {
        self.scheme = scheme;
    }

    /// Takes the target apart; `method` must be set before, since CONNECT and OPTIONS have forms of their own.
    /// After an error the head has no target.
    pub fn set_target(&mut self, target: &[u8]) -> Result<(), TargetError> {
        let set = self.try_set_target(target);
        if set.is_err() {
            self.target = Target::default();
        }
        set
    }

    fn try_set_target(&mut self, target: &[u8]) -> Result<(), TargetError> {
        let question = check_target_bytes(target)?;
        self.target.bytes.clear();
        self.target.bytes.extend_from_slice(target);
        self.target.authority = 0..0;
        self.target.path = 0..target.len();
        self.target.question = question;
        self.target.form = match (target[0], &self.method) {
            (_, Method::Connect) => self.set_connect_target(target)?,
            (b'/', _) => TargetForm::Origin,
            (b'*', Method::Options) if target.len() == 1 => TargetForm::Asterisk,
            _ => self.set_absolute_target(target)?,
        };
        Ok(())
    }

    /// `host:port`, both needed.
    fn set_connect_target(&mut self, target: &[u8]) -> Result<TargetForm, TargetError> {
        let has_port = target
            .iter()
            .rposition(|byte| *byte == b':')
            .is_some_and(|colon| {
                colon + 1 < target.len() && target[colon + 1..].iter().all(u8::is_ascii_digit)
            });
        if !has_port || !valid_authority(target) {
            return Err(TargetError::Authority);
        }
        self.target.authority = 0..target.len();
        Ok(TargetForm::Authority)
    }

    fn set_absolute_target(&mut self, target: &[u8]) -> Result<TargetForm, TargetError> {
        let scheme_len = target
            .windows(3)
            .position(|window| window == b"://")
            .ok_or(TargetError::Form)?;
        self.scheme = match &target[..scheme_len] {
            scheme if scheme.eq_ignore_ascii_case(b"http") => Some(Scheme::Http),
            scheme if scheme.eq_ignore_ascii_case(b"https") => Some(Scheme::Https),
            _ => return Err(TargetError::Scheme),
        };
        let start = scheme_len + 3;
        let end = target[start..]
            .iter()
            .position(|byte| matches!(byte, b'/' | b'?'))
            .map_or(target.len(), |length| start + length);
        if !valid_authority(&target[start..end]) {
            return Err(TargetError::Authority);
        }
        self.target.authority = start..end;
        self.target.path = end..target.len();
        if target.get(end) != Some(&b'/') {
            self.add_missing_path(end);
        }
        Ok(TargetForm::Absolute)
    }

    /// An absolute target without a path asks for `/`, or with OPTIONS for `*` (RFC 9112, 3.2.4).
    fn add_missing_path(&mut self, query_start: usize) {
        let bytes = &mut self.target.bytes;
        let target_len = bytes.len();
        let whole_server = self.method == Method::Options && query_start == target_len;
        bytes.push(if whole_server { b'*' } else { b'/' });
        bytes.extend_from_within(query_start..target_len);
        self.target.path = target_len..bytes.len();
        self.target.question = (query_start < target_len).then_some(target_len + 1);
    }
}

/// Visible bytes only, and no fragment; where the first `?` stands. Bytes beyond ASCII are kept, as many clients send them.
#[inline]
fn check_target_bytes(target: &[u8]) -> Result<Option<usize>, TargetError> {
    if target.is_empty() {
        return Err(TargetError::Empty);
    }
    let mut question = None;
    let mut from = 0;
    while let Some(mark) = scan::target_mark(target, from) {
        if target[mark] != b'?' {
            return Err(TargetError::Byte);
        }
        question = question.or(Some(mark));
        from = mark + 1;
    }
    Ok(question)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn head(method: &str, target: &str) -> Result<RequestHead, TargetError> {
        let mut head = RequestHead::new();
        head.method = Method::from_bytes(method.as_bytes());
        head.set_target(target.as_bytes()).map(|()| head)
    }

    #[test]
    fn targets_of_every_form_are_taken_apart() {
        // method, target, form, path and query, path, query, authority
        let table = [
            ("GET", "/", TargetForm::Origin, "/", "/", None, ""),
            (
                "GET",
                "/a?b=c?d",
                TargetForm::Origin,
                "/a?b=c?d",
                "/a",
                Some("b=c?d"),
                "",
            ),
            ("GET", "/a?", TargetForm::Origin, "/a?", "/a", Some(""), ""),
            (
                "GET",
                "//a//b",
                TargetForm::Origin,
                "//a//b",
                "//a//b",
                None,
                "",
            ),
            ("OPTIONS", "*", TargetForm::Asterisk, "*", "*", None, ""),
            (
                "GET",
                "http://h/a?q",
                TargetForm::Absolute,
                "/a?q",
                "/a",
                Some("q"),
                "h",
            ),
            (
                "GET",
                "HTTP://h:80",
                TargetForm::Absolute,
                "/",
                "/",
                None,
                "h:80",
            ),
            (
                "GET",
                "https://h?q",
                TargetForm::Absolute,
                "/?q",
                "/",
                Some("q"),
                "h",
            ),
            (
                "GET",
                "http://h/?http://x/",
                TargetForm::Absolute,
                "/?http://x/",
                "/",
                Some("http://x/"),
                "h",
            ),
            (
                "OPTIONS",
                "http://h",
                TargetForm::Absolute,
                "*",
                "*",
                None,
                "h",
            ),
            (
                "OPTIONS",
                "http://h?q",
                TargetForm::Absolute,
                "/?q",
                "/",
                Some("q"),
                "h",
            ),
            (
                "CONNECT",
                "h:443",
                TargetForm::Authority,
                "h:443",
                "h:443",
                None,
                "h:443",
            ),
            (
                "CONNECT",
                "[::1]:443",
                TargetForm::Authority,
                "[::1]:443",
                "[::1]:443",
                None,
                "[::1]:443",
            ),
        ];
        for (method, target, form, path_and_query, path, query, authority) in table {
            let head = head(method, target).unwrap_or_else(|error| panic!("{target}: {error}"));
            assert_eq!(head.target_form(), form, "{target}");
            assert_eq!(head.path_and_query(), path_and_query.as_bytes(), "{target}");
            assert_eq!(head.path(), path.as_bytes(), "{target}");
            assert_eq!(head.query(), query.map(str::as_bytes), "{target}");
            assert_eq!(head.authority(), authority.as_bytes(), "{target}");
        }
    }

    #[test]
    fn bytes_that_are_no_target_are_refused() {
        let table = [
            ("GET", "", TargetError::Empty),
            ("GET", "a", TargetError::Form),
            ("GET", "*", TargetError::Form),
            ("OPTIONS", "*a", TargetError::Form),
            ("GET", "/a b", TargetError::Byte),
            ("GET", "/a\0", TargetError::Byte),
            ("GET", "/a\u{7f}", TargetError::Byte),
            ("GET", "/a#b", TargetError::Byte),
            ("GET", "ftp://h/", TargetError::Scheme),
            ("GET", "http://", TargetError::Authority),
            ("GET", "http:///a", TargetError::Authority),
            ("GET", "http://u@h/", TargetError::Authority),
            ("GET", "http://h\\a/", TargetError::Authority),
            ("GET", "?a", TargetError::Form),
            ("CONNECT", "h", TargetError::Authority),
            ("CONNECT", "h:", TargetError::Authority),
            ("CONNECT", "/a", TargetError::Authority),
            ("CONNECT", "[::1]", TargetError::Authority),
            ("CONNECT", "http://h:443", TargetError::Authority),
        ];
        for (method, target, error) in table {
            assert_eq!(head(method, target).err(), Some(error), "{target:?}");
        }
    }

    #[test]
    fn an_own_authority_wins_over_the_target_and_that_over_host() {
        let mut head = RequestHead::new();
        head.set_target(b"/").expect("a target");
        assert_eq!(head.authority(), b"");
        head.fields.push(b"host", b"a");
        assert_eq!(head.authority(), b"a");
        head.set_target(b"http://b/").expect("a target");
        assert_eq!(head.authority(), b"b");
        head.set_authority(b"c");
        assert_eq!(head.authority(), b"c");
        head.clear();
        assert_eq!(
            (head.authority(), head.path(), head.scheme()),
            (&b""[..], &b""[..], None)
        );
    }
}
