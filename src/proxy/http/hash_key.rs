//! What a request is to the policies that hash (`maglev`, `ring_hash`): a number that follows from the first of the service's keys that
//! the request has.
//!
//! Keys are read from the request as its endpoint will get it, after the filters. An empty value counts as none.
//!
//! A client without a cookie that the proxy is to give gets one whose value follows from its address and the request's arrival. So it
//! can be worked out again when the answer has come, and nothing has to be kept in between.

use tokio::time::Instant;

use super::head::{Fields, Known, RequestHead};
use crate::base::hash::xxh64;
use crate::model::{HashKey, Hashing, IssuedCookie};
use crate::proxy::cluster::nanos;
use crate::proxy::session::Session;

/// What a request is hashed by.
enum Key<'a> {
    Given(&'a [u8]),
    /// Of this name, given with the answer.
    Issued(&'a str, &'a IssuedCookie),
}

/// None where the request has none of the keys. `start` is when it arrived.
pub fn of_request(
    hashing: &Hashing,
    session: &Session,
    head: &RequestHead,
    start: Instant,
) -> Option<u64> {
    Some(match first(hashing, &session.peer_text, head)? {
        Key::Given(value) => xxh64(value, 0),
        Key::Issued(..) => xxh64(new_value(session, start).as_bytes(), 0),
    })
}

/// Gives the client the cookie that its request was hashed by, where it had none. The application's own cookies stay.
#[cold]
pub fn issue(
    hashing: &Hashing,
    session: &Session,
    head: &RequestHead,
    start: Instant,
    answer: &mut Fields,
) {
    if let Some(Key::Issued(name, cookie)) = first(hashing, &session.peer_text, head) {
        let value = new_value(session, start);
        let field = set_cookie(name, &value, cookie, session.tls);
        answer.push_known(Known::SetCookie, b"Set-Cookie", field.as_bytes());
    }
}

fn new_value(session: &Session, start: Instant) -> String {
    let arrival = nanos(start).rotate_left(16) ^ u64::from(session.peer.port());
    format!("{:016x}", xxh64(&session.peer_text, arrival))
}

pub fn set_cookie(name: &str, value: &str, cookie: &IssuedCookie, tls: bool) -> String {
    let mut field = format!("{name}={value}; Path={}", cookie.path);
    if !cookie.ttl.is_zero() {
        let seconds = cookie.ttl.as_millis().div_ceil(1_000);
        field.push_str(&format!("; Max-Age={seconds}"));
    }
    field.push_str(if tls {
        "; Secure; HttpOnly"
    } else {
        "; HttpOnly"
    });
    field
}

/// Of bytes nothing is known but where they come from.
pub fn of_connection(hashing: &Hashing, session: &Session) -> Option<u64> {
    let by_source = hashing.keys.contains(&HashKey::SourceAddress);
    by_source.then(|| xxh64(&session.peer_text, 0))
}

fn first<'a>(hashing: &'a Hashing, peer: &'a [u8], head: &'a RequestHead) -> Option<Key<'a>> {
    let key = |key: &'a HashKey| {
        let given = value(key, peer, head).map(Key::Given);
        given.or_else(|| to_issue(key))
    };
    hashing.keys.iter().find_map(key)
}

fn to_issue(key: &HashKey) -> Option<Key<'_>> {
    match key {
        HashKey::Cookie {
            name,
            issued: Some(cookie),
        } => Some(Key::Issued(name, cookie)),
        _ => None,
    }
}

fn value<'a>(key: &HashKey, peer: &'a [u8], head: &'a RequestHead) -> Option<&'a [u8]> {
    let value = match key {
        // HTTP/2 has none, but an authority.
        HashKey::Header(name) if name.eq_ignore_ascii_case("host") => Some(head.authority()),
        HashKey::Header(name) => head.fields.find(name.as_bytes()),
        HashKey::Cookie { name, .. } => cookie(&head.fields, name.as_bytes()),
        HashKey::Query(name) => parameter(head.query()?, name.as_bytes()),
        HashKey::Path => Some(head.path()),
        HashKey::SourceAddress => Some(peer),
    };
    value.filter(|value| !value.is_empty())
}

pub fn cookie<'a>(fields: &'a Fields, name: &[u8]) -> Option<&'a [u8]> {
    fields
        .get_all(Known::Cookie)
        .flat_map(|field| field.split(|byte| *byte == b';'))
        .find_map(|pair| value_of(pair.trim_ascii(), name))
}

fn parameter<'a>(query: &'a [u8], name: &[u8]) -> Option<&'a [u8]> {
    query
        .split(|byte| *byte == b'&')
        .find_map(|pair| value_of(pair, name))
}

fn value_of<'a>(pair: &'a [u8], name: &[u8]) -> Option<&'a [u8]> {
    pair.strip_prefix(name)?.strip_prefix(b"=")
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    fn head(target: &str, fields: &[(&str, &str)]) -> RequestHead {
        let mut head = RequestHead::new();
        head.fields = Fields::of(fields);
        head.set_target(target.as_bytes()).expect("a target");
        head
    }

    fn read(key: HashKey, head: &RequestHead) -> Option<String> {
        let value = value(&key, b"192.0.2.1", head)?;
        Some(String::from_utf8(value.to_vec()).expect("ASCII"))
    }

    fn cookie_named(name: &str) -> HashKey {
        HashKey::Cookie {
            name: name.into(),
            issued: None,
        }
    }

    #[test]
    fn each_key_is_read_from_its_place() {
        let fields = [
            ("Host", "shop.example.com"),
            ("X-User", "alice"),
            ("x-user", "bob"),
            ("Cookie", "a=1; sid=abc=; b=2"),
            ("cookie", "cart=7"),
        ];
        let head = head("/a/b?x=1&user=a%20b&user=c&flag", &fields);
        let table = [
            (HashKey::Header("x-USER".into()), Some("alice")),
            (HashKey::Header("host".into()), Some("shop.example.com")),
            (HashKey::Header("x-other".into()), None),
            (cookie_named("sid"), Some("abc=")),
            (cookie_named("cart"), Some("7")),
            (cookie_named("SID"), None),
            (cookie_named("si"), None),
            (HashKey::Query("user".into()), Some("a%20b")),
            (HashKey::Query("flag".into()), None),
            (HashKey::Path, Some("/a/b")),
            (HashKey::SourceAddress, Some("192.0.2.1")),
        ];
        for (key, expected) in table {
            assert_eq!(read(key.clone(), &head).as_deref(), expected, "{key:?}");
        }
    }

    #[test]
    fn an_empty_value_is_none() {
        let head = head("/?user=", &[("X-User", ""), ("Cookie", "sid=; sid=x")]);
        for key in [
            HashKey::Header("x-user".into()),
            HashKey::Query("user".into()),
            cookie_named("sid"),
        ] {
            assert_eq!(read(key, &head), None);
        }
    }

    #[test]
    fn the_first_key_that_is_there_counts_and_a_cookie_that_can_be_given_is_always_there() {
        let issued = IssuedCookie {
            ttl: Duration::from_secs(60),
            path: "/".into(),
        };
        let home = HashKey::Cookie {
            name: "home".into(),
            issued: Some(issued),
        };
        let hashing = Hashing {
            keys: vec![HashKey::Header("x-user".into()), home, HashKey::Path],
            ..Hashing::default()
        };
        let found = |fields: &[(&str, &str)]| match first(&hashing, b"", &head("/a", fields)) {
            Some(Key::Given(value)) => String::from_utf8_lossy(value).into_owned(),
            Some(Key::Issued(name, _)) => format!("a new {name}"),
            None => String::new(),
        };
        assert_eq!(found(&[("Cookie", "home=7"), ("X-User", "alice")]), "alice");
        assert_eq!(found(&[("Cookie", "home=7")]), "7");
        assert_eq!(found(&[]), "a new home");
    }

    #[test]
    fn a_cookie_says_how_long_and_for_what_it_is_kept() {
        let field = |millis, path: &str, tls| {
            let cookie = IssuedCookie {
                ttl: Duration::from_millis(millis),
                path: path.into(),
            };
            set_cookie("home", "7f", &cookie, tls)
        };
        assert_eq!(field(0, "/", false), "home=7f; Path=/; HttpOnly");
        let expected = "home=7f; Path=/cart; Max-Age=61; Secure; HttpOnly";
        assert_eq!(field(60_500, "/cart", true), expected);
    }
}
