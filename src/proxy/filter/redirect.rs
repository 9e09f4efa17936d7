//! RequestRedirect: the client is told another place to ask.

use std::net::IpAddr;
use std::sync::Arc;

use super::Arrival;
use super::path::PathModifier;
use crate::model::{self, RedirectScheme, RouteMatch};
use crate::proxy::http::head::{RequestHead, ResponseHead, Scheme};
use crate::proxy::route::without_port;

/// A [`model::RequestRedirect`], ready.
#[derive(Debug)]
pub struct Redirect {
    scheme: Option<Scheme>,
    hostname: Option<Arc<str>>,
    path: Option<PathModifier>,
    port: Option<u16>,
    status: u16,
}

impl Redirect {
    pub fn compile(model: &model::RequestRedirect, matches: &[RouteMatch]) -> Self {
        let scheme = |scheme| match scheme {
            RedirectScheme::Http => Scheme::Http,
            RedirectScheme::Https => Scheme::Https,
        };
        let path = model.path.as_ref();
        Self {
            scheme: model.scheme.map(scheme),
            hostname: model.hostname.clone(),
            path: path.map(|path| PathModifier::compile(path, matches)),
            port: model.port,
            status: model.status,
        }
    }

    pub fn answer(&self, request: &RequestHead, arrival: Arrival) -> ResponseHead {
        let mut head = ResponseHead::new(self.status);
        let location = self.location(request, arrival);
        head.fields.push(b"location", &location);
        head.fields.push(b"content-length", b"0");
        head
    }

    /// Absolute, so that a path that begins with `//` is not taken for a host.
    fn location(&self, request: &RequestHead, arrival: Arrival) -> Vec<u8> {
        let scheme = self.scheme.unwrap_or(arrival.scheme);
        let mut location = Vec::with_capacity(128);
        location.extend_from_slice(scheme.as_str().as_bytes());
        location.extend_from_slice(b"://");
        match (&self.hostname, without_port(request.authority())) {
            (Some(hostname), _) => location.extend_from_slice(hostname.as_bytes()),
            (None, b"") => location.extend_from_slice(&host_of(arrival.host)),
            (None, host) => location.extend_from_slice(host),
        }
        let port = self.port(arrival);
        if port != well_known_port(scheme) {
            location.extend_from_slice(format!(":{port}").as_bytes());
        }
        match &self.path {
            Some(modifier) => location.extend_from_slice(&modifier.modify(request.path())),
            None => location.extend_from_slice(request.path()),
        }
        if let Some(query) = request.query() {
            location.push(b'?');
            location.extend_from_slice(query);
        }
        location
    }

    /// The one that is said, else that of a scheme that is said, else the listener's.
    fn port(&self, arrival: Arrival) -> u16 {
        let of_scheme = self.scheme.map(well_known_port);
        self.port.or(of_scheme).unwrap_or(arrival.port)
    }
}

fn well_known_port(scheme: Scheme) -> u16 {
    match scheme {
        Scheme::Http => 80,
        Scheme::Https => 443,
    }
}

fn host_of(address: IpAddr) -> Vec<u8> {
    match address.to_canonical() {
        IpAddr::V4(address) => address.to_string().into_bytes(),
        IpAddr::V6(address) => format!("[{address}]").into_bytes(),
    }
}

#[cfg(test)]
mod tests {
    use super::super::path::matching;
    use super::*;

    const SAME: model::RequestRedirect = model::RequestRedirect {
        scheme: None,
        hostname: None,
        path: None,
        port: None,
        status: 302,
    };

    /// Where a request for `/foo/bar?q=1` on `host` is sent that came in so.
    fn location(model: model::RequestRedirect, host: &str, scheme: Scheme, port: u16) -> String {
        let mut request = RequestHead::new();
        request.set_target(b"/foo/bar?q=1").expect("a target");
        request.fields.push(b"Host", host.as_bytes());
        let arrival = Arrival {
            scheme,
            port,
            host: IpAddr::from([192, 0, 2, 1]),
        };
        let head = Redirect::compile(&model, &[matching("/foo")]).answer(&request, arrival);
        assert_eq!(head.status, model.status);
        let location = head.fields.find(b"location").expect("a redirect has one");
        String::from_utf8_lossy(location).into_owned()
    }

    #[test]
    fn the_port_follows_the_standards_rules() {
        let (http, https) = (Some(RedirectScheme::Http), Some(RedirectScheme::Https));
        // Scheme and port of the filter, of the listener, and what comes before the path.
        for (scheme, port, by, at, expected) in [
            (None, None, Scheme::Http, 80, "http://shop"),
            (None, None, Scheme::Http, 8080, "http://shop:8080"),
            (None, None, Scheme::Https, 443, "https://shop"),
            (None, None, Scheme::Https, 80, "https://shop:80"),
            (https, None, Scheme::Http, 80, "https://shop"),
            (https, None, Scheme::Http, 8080, "https://shop"),
            (http, None, Scheme::Https, 443, "http://shop"),
            (https, Some(443), Scheme::Http, 80, "https://shop"),
            (https, Some(80), Scheme::Http, 80, "https://shop:80"),
            (None, Some(80), Scheme::Http, 8080, "http://shop"),
            (None, Some(8443), Scheme::Https, 443, "https://shop:8443"),
        ] {
            let redirect = model::RequestRedirect {
                scheme,
                port,
                ..SAME
            };
            let found = location(redirect, "shop:9", by, at);
            assert_eq!(found, format!("{expected}/foo/bar?q=1"));
        }
    }

    #[test]
    fn the_host_is_the_one_that_is_said_or_asked_for() {
        let said = model::RequestRedirect {
            hostname: Some("example.org".into()),
            ..SAME
        };
        for (redirect, host, expected) in [
            (said, "shop", "http://example.org/foo/bar?q=1"),
            (SAME, "[::1]:80", "http://[::1]/foo/bar?q=1"),
            (SAME, "", "http://192.0.2.1/foo/bar?q=1"),
        ] {
            assert_eq!(location(redirect, host, Scheme::Http, 80), expected);
        }
    }

    #[test]
    fn a_path_is_replaced_and_its_query_stays() {
        for (path, expected) in [
            (model::PathModifier::Full("/x".into()), "/x"),
            (model::PathModifier::Prefix("/x".into()), "/x/bar"),
            (model::PathModifier::Prefix("".into()), "/bar"),
        ] {
            let redirect = model::RequestRedirect {
                path: Some(path),
                status: 308,
                ..SAME
            };
            let found = location(redirect, "shop", Scheme::Http, 80);
            assert_eq!(found, format!("http://shop{expected}?q=1"));
        }
    }
}
