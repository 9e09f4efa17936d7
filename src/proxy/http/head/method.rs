use std::borrow::Cow;

use smallvec::SmallVec;

/// A request method; compared exactly, so `get` is not `GET`.
#[derive(Clone, PartialEq, Eq, Hash, Debug, Default)]
pub enum Method {
    #[default]
    Get,
    Head,
    Post,
    Put,
    Delete,
    Options,
    Trace,
    Patch,
    Connect,
    /// A token that the proxy attaches no meaning to.
    Other(SmallVec<[u8; 16]>),
}

impl Method {
    /// The method these bytes name. They are taken as they are: the reader checks that they are a token.
    pub fn from_bytes(bytes: &[u8]) -> Self {
        match bytes {
            b"GET" => Method::Get,
            b"HEAD" => Method::Head,
            b"POST" => Method::Post,
            b"PUT" => Method::Put,
            b"DELETE" => Method::Delete,
            b"OPTIONS" => Method::Options,
            b"TRACE" => Method::Trace,
            b"PATCH" => Method::Patch,
            b"CONNECT" => Method::Connect,
            other => Method::Other(SmallVec::from_slice(other)),
        }
    }

    pub fn as_bytes(&self) -> &[u8] {
        match self {
            Method::Get => b"GET",
            Method::Head => b"HEAD",
            Method::Post => b"POST",
            Method::Put => b"PUT",
            Method::Delete => b"DELETE",
            Method::Options => b"OPTIONS",
            Method::Trace => b"TRACE",
            Method::Patch => b"PATCH",
            Method::Connect => b"CONNECT",
            Method::Other(bytes) => bytes,
        }
    }

    /// For logs and metrics.
    pub fn as_str(&self) -> Cow<'_, str> {
        String::from_utf8_lossy(self.as_bytes())
    }

    /// Only reads (RFC 9110, 9.2.1).
    pub fn is_safe(&self) -> bool {
        matches!(
            self,
            Method::Get | Method::Head | Method::Options | Method::Trace
        )
    }

    /// Doing it twice is doing it once (RFC 9110, 9.2.2).
    pub fn is_idempotent(&self) -> bool {
        self.is_safe() || matches!(self, Method::Put | Method::Delete)
    }

    /// Its content has a meaning, so that a request without any says so (RFC 9110, 8.6).
    pub fn expects_content(&self) -> bool {
        matches!(self, Method::Post | Method::Put | Method::Patch)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_method_survives_the_way_through_bytes() {
        for name in [
            "GET",
            "HEAD",
            "POST",
            "PUT",
            "DELETE",
            "OPTIONS",
            "TRACE",
            "PATCH",
            "CONNECT",
            "PROPFIND",
            "get",
            "VERSION-CONTROL-AND-LONGER",
        ] {
            assert_eq!(
                Method::from_bytes(name.as_bytes()).as_bytes(),
                name.as_bytes()
            );
        }
    }

    #[test]
    fn unknown_methods_are_neither_safe_nor_idempotent() {
        assert!(!Method::from_bytes(b"PROPFIND").is_idempotent());
        assert!(!Method::Post.is_idempotent());
        assert!(Method::Delete.is_idempotent());
        assert!(!Method::Delete.is_safe());
    }
}
