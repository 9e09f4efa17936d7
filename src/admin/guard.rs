//! Keeps browsers out. A page on the web can make a browser send requests to loopback, by a name that it rebinds to
//! 127.0.0.1 (the Host header shows that name) or by a plain cross-site POST (the Origin header shows the page). And keeps other
//! machines, where the admin address is open to them for probes and scrapers, from changing anything.

use std::net::{IpAddr, SocketAddr};

use http::header::{HOST, ORIGIN};
use http::uri::Authority;
use http::{HeaderMap, Method};

/// Why a request is refused, or nothing. `local` is this connection's own address.
pub(super) fn refusal(method: &Method, headers: &HeaderMap, local: SocketAddr) -> Option<String> {
    let changes = !matches!(*method, Method::GET | Method::HEAD);
    // Off loopback, reading is by whatever name the network gives us: a scraper is not a browser.
    if !local.ip().to_canonical().is_loopback() {
        return changes.then(|| format!("{local} is for reading; send this to 127.0.0.1"));
    }
    let host = headers
        .get(HOST)
        .and_then(|value| value.to_str().ok())
        .unwrap_or_default();
    if !names_loopback(host) {
        return Some(format!(
            "Host {host:?} is not this process; use localhost or 127.0.0.1"
        ));
    }
    let origin = headers.get(ORIGIN)?.to_str().unwrap_or_default();
    (origin != format!("http://{host}"))
        .then(|| format!("requests from pages of {origin:?} are refused"))
}

fn names_loopback(host: &str) -> bool {
    let Ok(authority) = host.parse::<Authority>() else {
        return false;
    };
    if host.contains('@') {
        return false;
    }
    let name = authority
        .host()
        .trim_start_matches('[')
        .trim_end_matches(']');
    match name.parse::<IpAddr>() {
        Ok(address) => address.is_loopback(),
        Err(_) => name.eq_ignore_ascii_case("localhost"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn refused(method: Method, host: &str, origin: Option<&str>, local: &str) -> bool {
        let mut headers = HeaderMap::new();
        headers.insert(HOST, host.parse().expect("a header value"));
        if let Some(origin) = origin {
            headers.insert(ORIGIN, origin.parse().expect("a header value"));
        }
        refusal(&method, &headers, local.parse().expect("an address")).is_some()
    }

    #[test]
    fn loopback_names_pass() {
        for host in [
            "localhost",
            "LOCALHOST:15000",
            "127.0.0.1:15000",
            "[::1]:15000",
            "127.9.9.9",
        ] {
            assert!(
                !refused(Method::POST, host, None, "127.0.0.1:15000"),
                "{host}"
            );
        }
    }

    #[test]
    fn a_rebound_name_is_refused() {
        for host in [
            "evil.example",
            "evil.example:15000",
            "localhost.evil.example",
            "10.0.0.8",
            "",
            "user@localhost:x",
        ] {
            assert!(
                refused(Method::POST, host, None, "127.0.0.1:15000"),
                "{host}"
            );
            assert!(
                refused(Method::GET, host, None, "127.0.0.1:15000"),
                "{host}"
            );
        }
    }

    #[test]
    fn off_loopback_reading_is_free_and_changing_is_not() {
        assert!(!refused(
            Method::GET,
            "cart-0.pods.example",
            None,
            "10.0.0.7:15000"
        ));
        for host in ["cart-0.pods.example", "10.0.0.7:15000", "127.0.0.1"] {
            for local in ["10.0.0.7:15000", "[::ffff:10.0.0.7]:15000"] {
                assert!(refused(Method::POST, host, None, local), "{host}");
            }
        }
    }

    #[test]
    fn a_post_from_another_page_is_refused() {
        assert!(refused(
            Method::POST,
            "localhost:15000",
            Some("http://evil.example"),
            "127.0.0.1:15000"
        ));
        assert!(refused(
            Method::POST,
            "localhost:15000",
            Some("null"),
            "127.0.0.1:15000"
        ));
        assert!(!refused(
            Method::POST,
            "localhost:15000",
            Some("http://localhost:15000"),
            "127.0.0.1:15000"
        ));
    }
}
