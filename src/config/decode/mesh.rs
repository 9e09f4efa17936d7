//! Values of the mesh's own kinds: names, hosts, headers, methods, endpoint addresses, labels.

use std::collections::BTreeMap;
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;

use super::Cursor;
use crate::model::{Address, HostPattern, Protocol};

impl<'a> Cursor<'a> {
    /// The name of a document, listener or subset.
    pub fn name(self) -> Option<Arc<str>> {
        let text = self.filled_text()?;
        if is_dns_name(text) {
            return Some(text.into());
        }
        let lower = text.to_lowercase().replace('_', "-");
        let hint = if is_dns_name(&lower) {
            format!("did you mean `{lower}`?")
        } else {
            "use a-z, 0-9, `-` and `.`, beginning and ending with a letter or digit".to_owned()
        };
        self.error(format!("`{text}` is not a name"), hint)
    }

    pub fn namespace(self) -> Option<Arc<str>> {
        let text = self.filled_text()?;
        if is_dns_label(text) {
            return Some(text.into());
        }
        let hint = "use a-z, 0-9 and `-`, at most 63 characters";
        self.error(format!("`{text}` is not a namespace"), hint)
    }

    /// `example.com` or `*.example.com`.
    pub fn host_pattern(self) -> Option<HostPattern> {
        let text = self.filled_text()?;
        let host = text.strip_suffix('.').unwrap_or(text).to_lowercase();
        if host.parse::<IpAddr>().is_ok() {
            return self.error(format!("`{text}` is an address, not a host name"), "");
        }
        let (wildcard, name) = match host.strip_prefix("*.") {
            Some(name) => (true, name),
            None => (false, &*host),
        };
        if is_host(name) {
            let name = Arc::from(name);
            let wild = HostPattern::Wildcard;
            return Some(if wildcard {
                wild(name)
            } else {
                HostPattern::Exact(name)
            });
        }
        let hint = match () {
            () if text.contains("://") => "leave out the scheme",
            () if text.contains(':') => "leave out the port; it is not compared",
            () if text == "*" => "leave `hostnames` out to match every host",
            () if text.contains('*') => "a wildcard is the whole first label: *.example.com",
            () => "such as example.com or *.example.com",
        };
        self.error(format!("`{text}` is not a host name"), hint)
    }

    /// `example.com`: one host, and no address.
    pub fn precise_hostname(self) -> Option<Arc<str>> {
        match self.host_pattern()? {
            HostPattern::Exact(host) => Some(host),
            HostPattern::Wildcard(_) => {
                self.error("one host is meant here", "write all of its name")
            }
        }
    }

    pub fn header_name(self) -> Option<Arc<str>> {
        let text = self.text()?;
        match http::HeaderName::from_bytes(text.as_bytes()) {
            Ok(_) => Some(text.into()),
            Err(_) => self.error(
                format!("`{text}` is not a header name"),
                "letters, digits and `-`, such as x-version",
            ),
        }
    }

    pub fn header_value(self) -> Option<Arc<str>> {
        let text = self.text()?;
        let trimmed = text.trim_matches([' ', '\t']) == text;
        if trimmed && http::HeaderValue::from_str(text).is_ok() {
            return Some(text.into());
        }
        let hint = "visible characters, without line breaks or spaces at the ends";
        self.error("not a header value", hint)
    }

    pub fn method(self) -> Option<Arc<str>> {
        const METHODS: [&str; 9] = [
            "GET", "HEAD", "POST", "PUT", "DELETE", "CONNECT", "OPTIONS", "TRACE", "PATCH",
        ];
        self.choice(&METHODS.map(|method| (method, method)))
            .map(Arc::from)
    }

    pub fn protocol(self) -> Option<Protocol> {
        self.choice(&[
            ("http", Protocol::Http),
            ("http2", Protocol::Http2),
            ("grpc", Protocol::Grpc),
            ("tcp", Protocol::Tcp),
        ])
    }

    /// The path of a request, such as `/healthz`.
    pub fn absolute_path(self) -> Option<Arc<str>> {
        let text = self.filled_text()?;
        match text.starts_with('/') && text.bytes().all(|byte| byte.is_ascii_graphic()) {
            true => Some(text.into()),
            false => self.error(format!("`{text}` is no path"), "such as /healthz"),
        }
    }

    /// `10.0.0.7:8080`, `[::1]:8080` or `db.example.com:5432`.
    pub fn endpoint_address(self) -> Option<Address> {
        let text = self.text()?;
        if let Ok(address) = text.parse::<SocketAddr>() {
            if address.port() == 0 {
                return self.error("port 0 cannot be connected to", "");
            }
            return Some(Address::Socket(address));
        }
        let named = text.rsplit_once(':').and_then(|(host, port)| {
            let port = port.parse::<u16>().ok().filter(|port| *port > 0)?;
            let host = host.strip_suffix('.').unwrap_or(host).to_lowercase();
            is_host(&host).then(|| Address::Name {
                host: host.into(),
                port,
            })
        });
        if named.is_some() {
            return named;
        }
        let hint = match () {
            () if text.contains("://") => "leave out the scheme: host:port",
            () if !text.contains(':') => "say the port: host:port",
            () => "such as 10.0.0.7:8080, [::1]:8080 or cart.example.com:8080",
        };
        self.error(format!("`{text}` is not an address with a port"), hint)
    }

    pub fn labels(self) -> Option<BTreeMap<Arc<str>, Arc<str>>> {
        let labels = self.entries(|key, value| Some((Arc::from(key), value.owned_text()?)))?;
        Some(labels.into_iter().collect())
    }
}

/// A host name in lower case; the last label is no number, so it cannot be a badly written address.
fn is_host(text: &str) -> bool {
    let label = |label: &str| is_label(label, true);
    let last = text.rsplit('.').next().unwrap_or_default();
    let number = last.bytes().all(|byte| byte.is_ascii_digit());
    text.len() <= 253 && text.split('.').all(label) && !number
}

/// Labels between dots, as Kubernetes names are.
pub fn is_dns_name(text: &str) -> bool {
    text.len() <= 253 && text.split('.').all(|label| is_label(label, false))
}

fn is_dns_label(text: &str) -> bool {
    is_label(text, false)
}

fn is_label(label: &str, underscore: bool) -> bool {
    let inner = |b: u8| {
        b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'-' || (underscore && b == b'_')
    };
    let edge = |byte: Option<&u8>| byte.is_some_and(|b| *b != b'-');
    let bytes = label.as_bytes();
    bytes.len() <= 63 && edge(bytes.first()) && edge(bytes.last()) && label.bytes().all(inner)
}
