//! What a request is to the policies that hash (`maglev`, `ring_hash`): a number that follows from the first of the service's keys that
//! the request has.
//!
//! Keys are read from the request as its endpoint will get it, after the filters. An empty value counts as none.

use super::head::{Fields, Known, RequestHead};
use crate::base::hash::xxh64;
use crate::model::{HashKey, Hashing};
use crate::proxy::session::Session;

/// None where the request has none of the keys.
pub fn of_request(hashing: &Hashing, session: &Session, head: &RequestHead) -> Option<u64> {
    let mut keys = hashing.keys.iter();
    let value = keys.find_map(|key| value(key, &session.peer_text, head))?;
    Some(xxh64(value, 0))
}

/// Of bytes nothing is known but where they come from.
pub fn of_connection(hashing: &Hashing, session: &Session) -> Option<u64> {
    let by_source = hashing.keys.contains(&HashKey::SourceAddress);
    by_source.then(|| xxh64(&session.peer_text, 0))
}

fn value<'a>(key: &HashKey, peer: &'a [u8], head: &'a RequestHead) -> Option<&'a [u8]> {
    let value = match key {
        // HTTP/2 has none, but an authority.
        HashKey::Header(name) if name.eq_ignore_ascii_case("host") => Some(head.authority()),
        HashKey::Header(name) => head.fields.find(name.as_bytes()),
        HashKey::Cookie(name) => cookie(&head.fields, name.as_bytes()),
        HashKey::Query(name) => parameter(head.query()?, name.as_bytes()),
        HashKey::Path => Some(head.path()),
        HashKey::SourceAddress => Some(peer),
    };
    value.filter(|value| !value.is_empty())
}

fn cookie<'a>(fields: &'a Fields, name: &[u8]) -> Option<&'a [u8]> {
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
            (HashKey::Cookie("sid".into()), Some("abc=")),
            (HashKey::Cookie("cart".into()), Some("7")),
            (HashKey::Cookie("SID".into()), None),
            (HashKey::Cookie("si".into()), None),
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
            HashKey::Cookie("sid".into()),
        ] {
            assert_eq!(read(key, &head), None);
        }
    }
}
