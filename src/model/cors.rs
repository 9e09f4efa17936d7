use std::sync::Arc;

/// Which scripts of other origins may ask, and for what (Fetch standard, section 3.2, with the words of the Gateway API).
#[derive(Clone, Debug)]
pub struct Cors {
    pub origins: Vec<OriginPattern>,
    /// Cookies and the like may be sent along.
    pub credentials: bool,
    /// Empty leaves the field out, so that only GET, HEAD and POST are allowed.
    pub methods: AnyOf,
    pub request_headers: AnyOf,
    /// Fields of answers that scripts may read beyond those that they always may.
    pub exposed_headers: AnyOf,
    /// How long a preflight's answer counts, in seconds.
    pub max_age: u32,
}

/// `*`, or a list.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum AnyOf {
    Any,
    /// Joined as it is sent.
    Listed(Arc<str>),
}

/// Whom a request's `Origin` may name.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum OriginPattern {
    /// `*`, which `null` matches too.
    Any,
    Like {
        /// Lower case.
        scheme: Box<str>,
        host: OriginHost,
        /// The scheme's own where none is written.
        port: u16,
    },
}

/// In lower case.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum OriginHost {
    Any,
    Exact(Box<str>),
    /// Of `*.example.com`: `.example.com`. Any number of labels may stand before it.
    Ending(Box<str>),
}

impl OriginPattern {
    /// `*`, or `scheme://host` with `http` or `https`, where the host may be `*` or begin with `*.`, and perhaps a port.
    pub fn parse(text: &str) -> Option<Self> {
        if text == "*" {
            return Some(OriginPattern::Any);
        }
        let lower = text.to_ascii_lowercase();
        let Parts { scheme, host, port } = Parts::of(&lower)?;
        let host = match host.strip_prefix('*') {
            Some("") => OriginHost::Any,
            Some(ending) if is_host(ending.strip_prefix('.')?) => OriginHost::Ending(ending.into()),
            None if is_host(host) => OriginHost::Exact(host.into()),
            _ => return None,
        };
        Some(OriginPattern::Like {
            scheme: scheme.into(),
            host,
            port,
        })
    }

    pub fn matches(&self, origin: &[u8]) -> bool {
        let OriginPattern::Like { scheme, host, port } = self else {
            return true;
        };
        let Ok(origin) = std::str::from_utf8(origin) else {
            return false;
        };
        let lower = origin.to_ascii_lowercase();
        let Some(origin) = Parts::of(&lower) else {
            return false;
        };
        let is_host = match host {
            OriginHost::Any => true,
            OriginHost::Exact(host) => **host == *origin.host,
            OriginHost::Ending(ending) => {
                let labels = origin.host.strip_suffix(&**ending);
                labels.is_some_and(|labels| !labels.is_empty())
            }
        };
        is_host && **scheme == *origin.scheme && *port == origin.port
    }
}

struct Parts<'a> {
    scheme: &'a str,
    host: &'a str,
    port: u16,
}

impl<'a> Parts<'a> {
    /// The parts of an origin (RFC 6454, section 6.1) in lower case.
    fn of(origin: &'a str) -> Option<Self> {
        let (scheme, rest) = origin.split_once("://")?;
        let default = match scheme {
            "http" => 80,
            "https" => 443,
            _ => return None,
        };
        let bracketed = rest.starts_with('[').then(|| rest.split_once(']'));
        let (host, port) = match bracketed {
            Some(address) => {
                let (address, port) = address?;
                (&rest[..address.len() + 1], port)
            }
            None => rest.split_at(rest.find(':').unwrap_or(rest.len())),
        };
        let port = match port {
            "" => default,
            port => number(port.strip_prefix(':')?)?,
        };
        (!host.is_empty()).then_some(Self { scheme, host, port })
    }
}

/// Digits only, and not 0.
fn number(text: &str) -> Option<u16> {
    let is_digits = text.bytes().all(|byte| byte.is_ascii_digit());
    text.parse().ok().filter(|port| is_digits && *port != 0)
}

/// A name, or an address, that of IPv6 in brackets.
fn is_host(text: &str) -> bool {
    let address = text
        .strip_prefix('[')
        .and_then(|rest| rest.strip_suffix(']'));
    if let Some(address) = address {
        return address.parse::<std::net::Ipv6Addr>().is_ok();
    }
    let is_label = |label: &str| {
        let is_inner = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_');
        !label.is_empty() && label.bytes().all(is_inner)
    };
    text.split('.').all(is_label)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn matches(pattern: &str, origin: &str) -> bool {
        let pattern = OriginPattern::parse(pattern).expect("a pattern");
        pattern.matches(origin.as_bytes())
    }

    #[test]
    fn an_origin_is_scheme_host_and_port() {
        for (pattern, origin) in [
            ("*", "https://a.com"),
            ("*", "null"),
            ("https://a.com", "https://a.com"),
            ("https://a.com", "HTTPS://A.com:443"),
            ("http://a.com:80", "http://a.com"),
            ("http://localhost:3000", "http://localhost:3000"),
            ("http://[::1]:3000", "http://[::1]:3000"),
            ("https://*.a.com", "https://b.a.com"),
            ("https://*.a.com", "https://c.b.a.com"),
            ("https://*", "https://a.com"),
            ("http://*:8080", "http://10.0.0.1:8080"),
        ] {
            assert!(matches(pattern, origin), "{pattern} {origin}");
        }
    }

    #[test]
    fn others_are_told_apart() {
        for (pattern, origin) in [
            ("https://a.com", "http://a.com"),
            ("https://a.com", "https://a.com:8443"),
            ("https://a.com", "https://b.a.com"),
            ("https://a.com", "https://a.com.evil.org"),
            ("https://a.com", "https://a.com/"),
            ("https://a.com", "null"),
            ("https://a.com", ""),
            ("https://*.a.com", "https://a.com"),
            ("https://*.a.com", "https://.a.com"),
            ("https://*.a.com", "https://ba.com"),
            ("https://*.a.com", "https://b.a.com:444"),
            ("https://*", "http://a.com"),
            ("https://*", "https://a.com:444"),
            ("http://a.com", "http://a.com:+80"),
            ("http://[::1]", "http://[::1"),
        ] {
            assert!(!matches(pattern, origin), "{pattern} {origin}");
        }
    }

    #[test]
    fn what_is_no_origin_is_no_pattern() {
        for text in [
            "",
            "a.com",
            "ftp://a.com",
            "https://",
            "https://a.com/",
            "https://a.com:0",
            "https://a.com:99999",
            "https://a.*.com",
            "https://*a.com",
            "https://*.",
            "https://a..com",
            "https://[::1",
            "https://a b",
            "**",
        ] {
            assert_eq!(OriginPattern::parse(text), None, "{text}");
        }
    }
}
