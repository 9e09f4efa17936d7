use super::RequestView;
use crate::proxy::http::head::RequestHead;

/// A request's head for routing, with its path [normalised](super::normalize()).
#[derive(Clone, Copy, Debug)]
pub struct HeadView<'a> {
    head: &'a RequestHead,
    host: &'a [u8],
    path: &'a [u8],
    method: &'a [u8],
}

impl<'a> HeadView<'a> {
    pub fn new(head: &'a RequestHead, normal_path: &'a [u8]) -> Self {
        Self {
            head,
            host: without_port(head.authority()),
            path: normal_path,
            method: head.method.as_bytes(),
        }
    }
}

impl RequestView for HeadView<'_> {
    fn host(&self) -> &[u8] {
        self.host
    }

    fn path(&self) -> &[u8] {
        self.path
    }

    fn query(&self) -> Option<&[u8]> {
        self.head.query()
    }

    fn method(&self) -> &[u8] {
        self.method
    }

    fn header(&self, lower_name: &str) -> Option<&[u8]> {
        self.head.fields.find(lower_name.as_bytes())
    }
}

/// A connection, of which no more is known than the name that TLS asked for.
#[derive(Clone, Copy, Debug)]
pub struct NameView<'a>(&'a [u8]);

impl<'a> NameView<'a> {
    pub fn new(name: &'a [u8]) -> Self {
        Self(name)
    }
}

impl RequestView for NameView<'_> {
    fn host(&self) -> &[u8] {
        self.0
    }

    fn path(&self) -> &[u8] {
        b""
    }

    fn query(&self) -> Option<&[u8]> {
        None
    }

    fn method(&self) -> &[u8] {
        b""
    }

    fn header(&self, _: &str) -> Option<&[u8]> {
        None
    }
}

/// `[::1]:80` → `[::1]`, `a:80` → `a`.
pub fn without_port(authority: &[u8]) -> &[u8] {
    match memchr::memrchr(b':', authority) {
        Some(colon) if authority[colon + 1..].iter().all(u8::is_ascii_digit) => &authority[..colon],
        _ => authority,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_port_is_no_part_of_the_host() {
        for (authority, host) in [
            ("a:80", "a"),
            ("a", "a"),
            ("a:", "a"),
            ("[::1]:80", "[::1]"),
            ("[::1]", "[::1]"),
            ("", ""),
        ] {
            assert_eq!(without_port(authority.as_bytes()), host.as_bytes());
        }
    }

    #[test]
    fn a_head_is_seen_as_routing_wants_it() {
        let mut head = RequestHead::new();
        head.set_target(b"/a/../b?q=1").expect("a target");
        head.fields.push(b"Host", b"Shop:8080");
        head.fields.push(b"X-Tenant", b"t");
        let path = super::super::normalize(head.path(), Default::default()).expect("no NUL");
        let view = HeadView::new(&head, &path);
        assert_eq!((view.host(), view.path()), (&b"Shop"[..], &b"/b"[..]));
        assert_eq!(
            (view.query(), view.method()),
            (Some(&b"q=1"[..]), &b"GET"[..])
        );
        assert_eq!(view.header("x-tenant"), Some(&b"t"[..]));
    }
}
