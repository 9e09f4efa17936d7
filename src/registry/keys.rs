//! Where things are in the store. Each part of a key is percent-encoded, so that `/` only ever separates.
//!
//! ```text
//! doc/<kind>/<namespace>/<name>        a mesh document as it stands
//! hist/<sequence>/<part>               one change of documents: who, when, and what was there before
//! documents                            the head of the documents: the next sequence; every change of documents compares and writes it
//! svc/<namespace>/<service>/<id>       an instance
//! gone/<namespace>/<service>           a service whose instances were removed on purpose: empty, as opposed to unknown
//! ```

use percent_encoding::percent_decode;

use crate::api::DocumentKey;
use crate::api::client::segment;
use crate::model::Name;
use crate::store::{Key, KeyRange};

pub const DOCUMENTS_HEAD: &str = "documents";
pub const DOCUMENTS: &str = "doc/";
pub const HISTORY: &str = "hist/";
pub const INSTANCES: &str = "svc/";
pub const GONE: &str = "gone/";

/// What a key of the registry stands for.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Meaning {
    Document(DocumentKey),
    DocumentsHead,
    Instance {
        service: Name,
        id: String,
    },
    Gone(Name),
    /// Nothing a view shows: history, or another part's.
    Other,
}

/// Every key that a view may show; what the work plane writes comes after them.
pub fn shown() -> KeyRange {
    KeyRange {
        start: Key::new(),
        end: Some("t".into()),
    }
}

pub fn document(key: &DocumentKey) -> Key {
    let [kind, namespace, name] = [&key.kind, &key.namespace, &key.name].map(|part| segment(part));
    format!("{DOCUMENTS}{kind}/{namespace}/{name}").into()
}

pub fn instance(service: &Name, id: &str) -> Key {
    format!("{INSTANCES}{}/{}", service_path(service), segment(id)).into()
}

pub fn gone(service: &Name) -> Key {
    format!("{GONE}{}", service_path(service)).into()
}

pub fn history(sequence: u64, part: usize) -> Key {
    format!("{HISTORY}{sequence:016x}/{part:02x}").into()
}

/// All parts of the changes `from` up to just before `to`.
pub fn history_range(from: u64, to: u64) -> KeyRange {
    KeyRange {
        start: format!("{HISTORY}{from:016x}/").into(),
        end: Some(format!("{HISTORY}{to:016x}/").into()),
    }
}

pub fn meaning(key: &[u8]) -> Meaning {
    if key == DOCUMENTS_HEAD.as_bytes() {
        return Meaning::DocumentsHead;
    }
    let parts: Vec<String> = key
        .split(|byte| *byte == b'/')
        .map(|part| percent_decode(part).decode_utf8_lossy().into_owned())
        .collect();
    match &parts[..] {
        [tag, kind, namespace, name] if tag == "doc" => Meaning::Document(DocumentKey {
            kind: kind.clone(),
            namespace: namespace.clone(),
            name: name.clone(),
        }),
        [tag, namespace, service, id] if tag == "svc" => Meaning::Instance {
            service: Name::new(namespace, service),
            id: id.clone(),
        },
        [tag, namespace, service] if tag == "gone" => Meaning::Gone(Name::new(namespace, service)),
        _ => Meaning::Other,
    }
}

fn service_path(service: &Name) -> String {
    format!("{}/{}", segment(&service.namespace), segment(&service.name))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_say_what_they_stand_for_whatever_is_in_the_names() {
        let key = DocumentKey {
            kind: "v1.Service".into(),
            namespace: "a/b".into(),
            name: "ü%".into(),
        };
        assert_eq!(meaning(&document(&key)), Meaning::Document(key));
        let service = Name::new("default", "cart");
        let expected = Meaning::Instance {
            service: service.clone(),
            id: "cart/1@host:80".into(),
        };
        assert_eq!(meaning(&instance(&service, "cart/1@host:80")), expected);
        assert_eq!(meaning(&gone(&service)), Meaning::Gone(service));
        assert_eq!(meaning(&history(7, 0)), Meaning::Other);
    }

    #[test]
    fn history_sorts_by_sequence() {
        let range = history_range(9, 17);
        assert!(range.contains(&history(9, 0)) && range.contains(&history(16, 255)));
        assert!(!range.contains(&history(8, 1)) && !range.contains(&history(17, 0)));
    }
}
