//! RequestHeaderModifier and ResponseHeaderModifier: set, then add, then remove.

use std::sync::Arc;

use crate::model;
use crate::proxy::http::head::{Fields, Known, RequestHead};

/// A [`model::HeaderModifier`] without the fields that belong to the connection or to the body's framing: those are the
/// wire's own, and `config` reports them. `Host` is the request's authority.
#[derive(Debug)]
pub struct HeaderModifier {
    set: Vec<Pair>,
    add: Vec<Pair>,
    remove: Vec<Arc<str>>,
    authority: Option<Arc<str>>,
}

/// Name and value.
type Pair = (Arc<str>, Arc<str>);

impl HeaderModifier {
    pub fn compile(model: &model::HeaderModifier) -> Self {
        let pairs = |pairs: &[Pair]| -> Vec<Pair> {
            let ours = pairs.iter().filter(|(name, _)| is_ours(name));
            ours.cloned().collect()
        };
        let names = model.remove.iter().filter(|name| is_ours(name));
        let mut written = model.set.iter().chain(&model.add).rev();
        let host = written.find(|(name, _)| name.eq_ignore_ascii_case("host"));
        Self {
            set: pairs(&model.set),
            add: pairs(&model.add),
            remove: names.cloned().collect(),
            authority: host.map(|(_, value)| value.clone()),
        }
    }

    pub fn modify_request(&self, head: &mut RequestHead) {
        if let Some(authority) = &self.authority {
            head.set_authority(authority.as_bytes());
        }
        self.modify(&mut head.fields);
    }

    pub fn modify(&self, fields: &mut Fields) {
        for (name, value) in &self.set {
            fields.set(name.as_bytes(), value.as_bytes());
        }
        for (name, value) in &self.add {
            fields.push(name.as_bytes(), value.as_bytes());
        }
        for name in &self.remove {
            fields.remove_name(name.as_bytes());
        }
    }
}

fn is_ours(name: &str) -> bool {
    !matches!(
        Known::from_name(name.as_bytes()),
        Known::Host
            | Known::Connection
            | Known::ContentLength
            | Known::TransferEncoding
            | Known::Te
            | Known::Trailer
            | Known::Upgrade
            | Known::KeepAlive
            | Known::ProxyConnection
            | Known::Http2Settings
    )
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    type Pairs<'a> = &'a [(&'a str, &'a str)];

    fn modifier(set: Pairs, add: Pairs, remove: &[&str]) -> HeaderModifier {
        let pairs = |pairs: Pairs| {
            let pairs = pairs.iter();
            pairs
                .map(|(name, value)| ((*name).into(), (*value).into()))
                .collect()
        };
        HeaderModifier::compile(&model::HeaderModifier {
            set: pairs(set),
            add: pairs(add),
            remove: remove.iter().map(|name| (*name).into()).collect(),
        })
    }

    #[test]
    fn set_replaces_add_appends_remove_takes_all_of_any_case() {
        let mut found = Fields::of(&[
            ("X-A", "1"),
            ("x-a", "2"),
            ("x-b", "1"),
            ("X-C", "1"),
            ("x-c", "2"),
        ]);
        modifier(
            &[("x-a", "set"), ("new", "1")],
            &[("X-B", "2")],
            &["X-c", "absent"],
        )
        .modify(&mut found);
        let expected = [("x-a", "set"), ("x-b", "1"), ("new", "1"), ("X-B", "2")];
        assert_eq!(found, Fields::of(&expected));
    }

    #[test]
    fn what_frames_the_message_stays() {
        let mut found = Fields::of(&[("Content-Length", "3"), ("Connection", "close")]);
        modifier(
            &[("content-length", "5"), ("Transfer-Encoding", "chunked")],
            &[("te", "gzip")],
            &["connection"],
        )
        .modify(&mut found);
        assert_eq!(
            found,
            Fields::of(&[("Content-Length", "3"), ("Connection", "close")])
        );
    }

    #[test]
    fn host_is_the_authority() {
        let mut head = RequestHead::new();
        head.fields.push(b"Host", b"before");
        modifier(&[("host", "after")], &[], &["HOST"]).modify_request(&mut head);
        assert_eq!(head.authority(), b"after");
    }

    /// The standard's words, on a list.
    fn plainly(
        mut list: Vec<(String, String)>,
        set: Pairs,
        add: Pairs,
        remove: &[&str],
    ) -> Vec<(String, String)> {
        let named = |name: &str, field: &(String, String)| field.0.eq_ignore_ascii_case(name);
        for (name, value) in set {
            let first = list.iter().position(|field| named(name, field));
            let new = (name.to_string(), value.to_string());
            match first {
                Some(first) => {
                    list[first] = new;
                    let mut place = 0;
                    list.retain(|field| {
                        place += 1;
                        place <= first + 1 || !named(name, field)
                    });
                }
                None => list.push(new),
            }
        }
        list.extend(
            add.iter()
                .map(|(name, value)| (name.to_string(), value.to_string())),
        );
        for name in remove {
            list.retain(|field| !named(name, field));
        }
        list
    }

    fn name() -> impl Strategy<Value = &'static str> {
        prop::sample::select(vec!["x-a", "X-A", "X-b", "x-B", "Server", "server", "x-c"])
    }

    fn pairs() -> impl Strategy<Value = Vec<(&'static str, &'static str)>> {
        let value = prop::sample::select(vec!["", "1", "two words"]);
        prop::collection::vec((name(), value), 0..5)
    }

    proptest! {
        #[test]
        fn fields_come_out_as_from_a_plain_list(
            before in pairs(), set in pairs(), add in pairs(), remove in prop::collection::vec(name(), 0..3),
        ) {
            let mut found = Fields::of(&before);
            modifier(&set, &add, &remove).modify(&mut found);
            let list = before.iter().map(|(name, value)| (name.to_string(), value.to_string())).collect();
            let expected = plainly(list, &set, &add, &remove);
            let expected: Vec<_> = expected.iter().map(|(name, value)| (&**name, &**value)).collect();
            prop_assert_eq!(found, Fields::of(&expected));
        }
    }
}
