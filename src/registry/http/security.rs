//! Who may come in.

use std::hint::black_box;
use std::net::SocketAddr;

use http::header::{AUTHORIZATION, ORIGIN};
use http::{HeaderMap, Method, StatusCode};

use crate::registry::Refusal;

/// A token and who holds it; the name is the author of what it changes, unless the request says another.
#[derive(Clone)]
pub struct Token {
    pub name: String,
    pub value: String,
}

impl std::fmt::Debug for Token {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Token")
            .field("name", &self.name)
            .finish_non_exhaustive()
    }
}

/// Whoever shows one of these may do everything; without any, everyone may.
#[derive(Clone, Debug, Default)]
pub struct Security {
    tokens: Vec<Token>,
}

#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
pub enum SecurityError {
    #[error(
        "{0} can be reached from other machines, and there is no {1}: give one (tls, token_file), serve on 127.0.0.1, or say insecure: true where the network is trusted"
    )]
    Open(SocketAddr, &'static str),
    #[error(
        "the token of {0} has only {1} characters; use at least 16, such as `openssl rand -hex 16` gives"
    )]
    WeakToken(String, usize),
}

const TOKEN_LENGTH_MIN: usize = 16;

impl Security {
    /// Refuses to offer the mesh's steering to a network without proof of who asks.
    pub fn new(
        tokens: Vec<Token>,
        address: SocketAddr,
        tls: bool,
        insecure: bool,
    ) -> Result<Self, SecurityError> {
        for token in &tokens {
            if token.value.len() < TOKEN_LENGTH_MIN {
                return Err(SecurityError::WeakToken(
                    token.name.clone(),
                    token.value.len(),
                ));
            }
        }
        if !address.ip().is_loopback() && !insecure {
            if !tls {
                return Err(SecurityError::Open(address, "TLS certificate"));
            }
            if tokens.is_empty() {
                return Err(SecurityError::Open(address, "token"));
            }
        }
        Ok(Self { tokens })
    }

    /// The name of the token shown; None when none is needed.
    pub fn admit(&self, method: &Method, headers: &HeaderMap) -> Result<Option<&str>, Refusal> {
        // A web page in some browser on this machine can send requests here too, but not without this header.
        if method != Method::GET && headers.contains_key(ORIGIN) {
            return Err(Refusal::new(
                StatusCode::FORBIDDEN,
                "cross_origin",
                "web pages may not change the mesh",
            )
            .hint("send the request without the header Origin"));
        }
        if self.tokens.is_empty() {
            return Ok(None);
        }
        let shown = headers.get(AUTHORIZATION).map(|value| value.as_bytes());
        let shown = shown
            .and_then(|value| value.strip_prefix(b"Bearer "))
            .unwrap_or_default();
        // Every token is compared, so that the time does not tell which one came close.
        let mut found = None;
        for token in &self.tokens {
            if same(shown, token.value.as_bytes()) {
                found = Some(token.name.as_str());
            }
        }
        found.map(Some).ok_or_else(|| {
            Refusal::new(
                StatusCode::UNAUTHORIZED,
                "unauthorized",
                "a valid token is needed",
            )
            .hint("send it as `authorization: Bearer TOKEN` (--token-file, PILLION_REGISTRY_TOKEN)")
        })
    }
}

/// Compares in a time that depends on the lengths only.
fn same(a: &[u8], b: &[u8]) -> bool {
    if a.len() != b.len() {
        return false;
    }
    let difference = a
        .iter()
        .zip(b)
        .fold(0, |difference, (a, b)| black_box(difference | (a ^ b)));
    difference == 0
}

#[cfg(test)]
mod tests {
    use super::*;

    const LONG: &str = "0123456789abcdef";

    fn token() -> Vec<Token> {
        vec![Token {
            name: "ci".into(),
            value: LONG.into(),
        }]
    }

    #[test]
    fn only_loopback_is_open_without_tls_and_a_token() {
        let loopback: SocketAddr = "127.0.0.1:0".parse().unwrap();
        let world: SocketAddr = "0.0.0.0:0".parse().unwrap();
        let allowed =
            |tokens, address, tls, insecure| Security::new(tokens, address, tls, insecure).is_ok();
        assert!(allowed(vec![], loopback, false, false));
        assert!(!allowed(vec![], world, false, false));
        assert!(!allowed(vec![], world, true, false));
        assert!(!allowed(token(), world, false, false));
        assert!(allowed(token(), world, true, false));
        assert!(allowed(vec![], world, false, true));
        let short = vec![Token {
            name: "x".into(),
            value: "short".into(),
        }];
        assert!(!allowed(short, loopback, true, true));
    }

    #[test]
    fn the_right_token_and_only_it_is_admitted() {
        let security = Security { tokens: token() };
        let admit = |value: &str| {
            let mut headers = HeaderMap::new();
            headers.insert(AUTHORIZATION, value.parse().unwrap());
            security
                .admit(&Method::GET, &headers)
                .map(|name| name.map(str::to_owned))
                .ok()
        };
        assert_eq!(
            admit(&format!("Bearer {LONG}")),
            Some(Some("ci".to_owned()))
        );
        for wrong in [
            "",
            "Bearer ",
            "Bearer 0123456789abcdeX",
            LONG,
            &format!("Basic {LONG}"),
            &format!("Bearer {LONG}0"),
        ] {
            assert_eq!(admit(wrong), None, "{wrong}");
        }
    }

    #[test]
    fn a_web_page_cannot_change_anything() {
        let mut headers = HeaderMap::new();
        headers.insert(ORIGIN, "http://evil.example".parse().unwrap());
        assert!(Security::default().admit(&Method::POST, &headers).is_err());
        assert!(Security::default().admit(&Method::GET, &headers).is_ok());
    }
}
