//! The fields that say where a request came from.

use super::head::{RequestHead, Scheme};
use crate::proxy::entry::Role;
use crate::proxy::session::Session;

/// At the edge of the mesh the request is told who sent it and how; between sidecars it is left as it is.
pub fn forwarded(head: &mut RequestHead, session: &Session) {
    if session.entry.role == Role::Gateway {
        head.fields
            .append_to_list(b"X-Forwarded-For", &session.peer_text);
        let scheme = if session.tls {
            Scheme::Https
        } else {
            Scheme::Http
        };
        head.fields
            .set(b"X-Forwarded-Proto", scheme.as_str().as_bytes());
    }
}
