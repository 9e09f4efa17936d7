//! The whole state in bounded lines, by walking the view as it is from key to key.

use std::fmt::Write;
use std::ops::Bound;
use std::sync::Arc;

use crate::api::DocumentKey;
use crate::model::Name;
use crate::registry::view::{Selector, State};

/// A line ends behind the entry that reaches this.
const LINE_BYTES: usize = 48 << 10;

/// How far a listing has come.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Cursor {
    Documents {
        after: Option<DocumentKey>,
    },
    Services {
        after: Option<Name>,
    },
    /// Within a service that is too large for one line.
    Instances {
        service: Name,
        after: Arc<str>,
    },
    Done,
}

impl Default for Cursor {
    fn default() -> Self {
        Self::Documents { after: None }
    }
}

/// The next `snapshot` line; empty when this step had nothing to say.
pub fn step(state: &State, selector: &Selector, cursor: &mut Cursor) -> String {
    match std::mem::replace(cursor, Cursor::Done) {
        Cursor::Documents { after } => documents(state, after, cursor),
        Cursor::Services { after } => services(state, selector, after, cursor),
        Cursor::Instances { service, after } => {
            instances(state, service, Some(after), String::new(), cursor)
        }
        Cursor::Done => String::new(),
    }
}

fn documents(state: &State, after: Option<DocumentKey>, cursor: &mut Cursor) -> String {
    let from = after.as_ref().map_or(Bound::Unbounded, Bound::Excluded);
    let mut list = String::new();
    *cursor = Cursor::Services { after: None };
    for (key, document) in state.documents.range((from, Bound::Unbounded)) {
        separate(&mut list);
        list.push_str(&serde_json::to_string(&**document).unwrap_or_default());
        if list.len() >= LINE_BYTES {
            *cursor = Cursor::Documents {
                after: Some(key.clone()),
            };
            break;
        }
    }
    match list.is_empty() {
        true => list,
        false => format!("{{\"type\":\"snapshot\",\"documents\":[{list}]}}\n"),
    }
}

fn services(
    state: &State,
    selector: &Selector,
    after: Option<Name>,
    cursor: &mut Cursor,
) -> String {
    let from = after.as_ref().map_or(Bound::Unbounded, Bound::Excluded);
    let mut list = String::new();
    for (service, _) in state.services.range((from, Bound::Unbounded)) {
        if !selector.contains(service) {
            continue;
        }
        if list.len() >= LINE_BYTES / 2 {
            return line(&list);
        }
        let mut within = Cursor::Services {
            after: Some(service.clone()),
        };
        list = instances(state, service.clone(), None, list, &mut within);
        *cursor = within;
        if matches!(cursor, Cursor::Instances { .. }) {
            return line(&list);
        }
    }
    *cursor = Cursor::Done;
    line(&list)
}

/// Appends a service's set, or the part of it behind `after`, to the list; a continued one is a line by itself.
fn instances(
    state: &State,
    service: Name,
    after: Option<Arc<str>>,
    mut list: String,
    cursor: &mut Cursor,
) -> String {
    let continued = after.is_some();
    *cursor = Cursor::Services {
        after: Some(service.clone()),
    };
    let Some(set) = state.services.get(&service) else {
        return String::new();
    };
    separate(&mut list);
    let [namespace, name] = [&service.namespace, &service.name]
        .map(|text| serde_json::to_string(&**text).unwrap_or_default());
    // Writing to a String does not fail.
    let _ = write!(
        list,
        "{{\"namespace\":{namespace},\"name\":{name},\"instances\":["
    );
    let begin = list.len();
    let from = after.map_or(Bound::Unbounded, Bound::Excluded);
    for (id, entry) in set.entries.range::<Arc<str>, _>((from, Bound::Unbounded)) {
        if list.len() > begin {
            list.push(',');
        }
        list.push_str(&entry.json);
        if list.len() >= LINE_BYTES {
            *cursor = Cursor::Instances {
                service,
                after: id.clone(),
            };
            break;
        }
    }
    list.push_str("]}");
    match continued {
        true => line(&list),
        false => list,
    }
}

fn line(services: &str) -> String {
    match services.is_empty() {
        true => String::new(),
        false => format!("{{\"type\":\"snapshot\",\"services\":[{services}]}}\n"),
    }
}

fn separate(list: &mut String) {
    if !list.is_empty() {
        list.push(',');
    }
}
