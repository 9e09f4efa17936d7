//! The fields that say where a request came from.

use super::head::{Fields, Known, RequestHead, Scheme};
use crate::proxy::entry::Role;
use crate::proxy::session::Session;

/// What a client can say of those it forwards for, of how important they are, of how long they will wait, and of
/// how often they have tried. `grpc-timeout` is not among them: it is the client's own.
const OF_CLIENT: [Known; 10] = [
    Known::XForwardedFor,
    Known::XForwardedProto,
    Known::XForwardedHost,
    Known::XForwardedPort,
    Known::XForwardedPrefix,
    Known::Forwarded,
    Known::XMeshClass,
    Known::XMeshTimeoutMs,
    Known::XMeshAttempt,
    Known::XEnvoyExpectedRqTimeoutMs,
];

/// At the edge of the mesh the request is told who sent it and how; between sidecars it is left as it is.
pub fn forwarded(head: &mut RequestHead, session: &Session) {
    if session.entry.role != Role::Gateway {
        return;
    }
    let scheme = if session.tls {
        Scheme::Https
    } else {
        Scheme::Http
    };
    tell(
        &mut head.fields,
        &session.peer_text,
        scheme,
        session.trusted,
    );
}

/// A trusted peer's fields go on, with itself at the end of the list; nothing that any other has said does.
fn tell(fields: &mut Fields, peer: &[u8], scheme: Scheme, trusted: bool) {
    if !trusted {
        fields.remove_all(&OF_CLIENT);
    }
    fields.append_to_list(b"X-Forwarded-For", peer);
    if !has_one_scheme(fields) {
        fields.set(b"X-Forwarded-Proto", scheme.as_str().as_bytes());
    }
}

/// Whether `X-Forwarded-Proto` is there once, and says something that can be.
fn has_one_scheme(fields: &Fields) -> bool {
    let mut values = fields.get_all(Known::XForwardedProto);
    let is_scheme = |value: &[u8]| {
        [Scheme::Http, Scheme::Https]
            .iter()
            .any(|scheme| value.eq_ignore_ascii_case(scheme.as_str().as_bytes()))
    };
    values.next().is_some_and(is_scheme) && values.next().is_none()
}

#[cfg(test)]
mod tests {
    use super::*;

    const CLIENTS: [(&str, &str); 12] = [
        ("X-Forwarded-For", "192.0.2.1"),
        ("x-forwarded-for", "192.0.2.2, 192.0.2.3"),
        ("X-Forwarded-Host", "shop.example.com"),
        ("X-Forwarded-Port", "8443"),
        ("X-Forwarded-Prefix", "/shop"),
        ("Forwarded", "for=192.0.2.1"),
        ("x-mesh-class", "critical"),
        ("x-mesh-timeout-ms", "300"),
        ("X-Envoy-Expected-Rq-Timeout-Ms", "300"),
        ("x-mesh-attempt", "2"),
        ("grpc-timeout", "1S"),
        ("X-Other", "kept"),
    ];

    fn told(clients: &[(&str, &str)], trusted: bool) -> Vec<String> {
        let mut fields = Fields::of(clients);
        tell(&mut fields, b"203.0.113.9", Scheme::Http, trusted);
        let mut out = Vec::new();
        fields.write_except(&[], &mut out);
        let out = String::from_utf8(out).expect("ASCII in, ASCII out");
        out.lines().map(str::to_owned).collect()
    }

    #[test]
    fn what_an_untrusted_client_says_is_replaced_by_what_is_seen() {
        let expected = [
            "grpc-timeout: 1S",
            "X-Other: kept",
            "X-Forwarded-For: 203.0.113.9",
            "X-Forwarded-Proto: http",
        ];
        assert_eq!(told(&CLIENTS, false), expected);
        assert_eq!(
            told(&[("X-Forwarded-Proto", "https")], false),
            expected[2..]
        );
    }

    #[test]
    fn a_trusted_peer_is_believed_and_added() {
        let expected = [
            "X-Forwarded-For: 192.0.2.1, 192.0.2.2, 192.0.2.3, 203.0.113.9",
            "X-Forwarded-Host: shop.example.com",
            "X-Forwarded-Port: 8443",
            "X-Forwarded-Prefix: /shop",
            "Forwarded: for=192.0.2.1",
            "x-mesh-class: critical",
            "x-mesh-timeout-ms: 300",
            "X-Envoy-Expected-Rq-Timeout-Ms: 300",
            "x-mesh-attempt: 2",
            "grpc-timeout: 1S",
            "X-Other: kept",
            "X-Forwarded-Proto: http",
        ];
        assert_eq!(told(&CLIENTS, true), expected);
    }

    #[test]
    fn a_trusted_peers_scheme_is_kept_only_where_it_is_one() {
        for (clients, expected) in [
            (&["https"][..], "https"),
            (&["HTTPS"], "HTTPS"),
            (&["ftp"], "http"),
            (&[""], "http"),
            (&["https, http"], "http"),
            (&["https", "https"], "http"),
            (&[], "http"),
        ] {
            let fields: Vec<_> = clients
                .iter()
                .map(|scheme| ("X-Forwarded-Proto", *scheme))
                .collect();
            let told = told(&fields, true);
            let schemes: Vec<_> = told
                .iter()
                .filter_map(|line| line.strip_prefix("X-Forwarded-Proto: "))
                .collect();
            assert_eq!(schemes, [expected], "{clients:?}");
        }
    }
}
