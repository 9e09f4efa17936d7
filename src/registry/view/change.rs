use std::collections::BTreeMap;
use std::collections::BTreeSet;
use std::fmt::Write;

use bytes::Bytes;

use crate::api::{Document, DocumentKey};
use crate::model::Name;
use crate::store::Revision;

/// Whose instances a watch wants.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Selector {
    All,
    Services(BTreeSet<Name>),
}

impl Selector {
    pub fn contains(&self, service: &Name) -> bool {
        match self {
            Self::All => true,
            Self::Services(services) => services.contains(service),
        }
    }
}

/// What one revision changed, as lines of the watch: made once, shared by every watcher.
#[derive(Debug)]
pub struct Change {
    revision: Revision,
    /// `"documents":[…],"documents_deleted":[…]`, or empty.
    documents: String,
    /// An `InstancesChange` as JSON for each service it touches.
    services: Vec<(Name, String)>,
    /// With everything.
    whole: Bytes,
}

impl Change {
    /// Changes that are not known: only ever pushed to make everything before it unreachable.
    pub fn gap() -> Self {
        Self {
            revision: 0,
            documents: String::new(),
            services: Vec::new(),
            whole: Bytes::new(),
        }
    }

    /// The line for who wants `selector`; None when it does not concern them.
    pub fn line(&self, selector: &Selector) -> Option<Bytes> {
        let wanted = self
            .services
            .iter()
            .filter(|(service, _)| selector.contains(service));
        let count = wanted.clone().count();
        if count == self.services.len() {
            return Some(self.whole.clone());
        }
        if count == 0 && self.documents.is_empty() {
            return None;
        }
        Some(line(
            self.revision,
            &self.documents,
            wanted.map(|(_, json)| json.as_str()),
        ))
    }

    /// About what it holds in memory.
    pub fn cost(&self) -> usize {
        let services: usize = self.services.iter().map(|(_, json)| json.len() + 64).sum();
        128 + self.documents.len() + services + self.whole.len()
    }
}

fn line<'a>(revision: Revision, documents: &str, services: impl Iterator<Item = &'a str>) -> Bytes {
    let mut line = format!("{{\"type\":\"changes\",\"revision\":{revision}");
    if !documents.is_empty() {
        line.push(',');
        line.push_str(documents);
    }
    let services = join(services);
    if !services.is_empty() {
        // Writing to a String cannot fail.
        let _ = write!(line, ",\"instances\":[{services}]");
    }
    line.push_str("}\n");
    line.into()
}

pub(super) fn join<'a>(parts: impl Iterator<Item = &'a str>) -> String {
    let mut joined = String::new();
    for part in parts {
        if !joined.is_empty() {
            joined.push(',');
        }
        joined.push_str(part);
    }
    joined
}

#[derive(Default)]
pub struct ChangeBuilder {
    documents: Vec<String>,
    documents_deleted: Vec<String>,
    services: BTreeMap<Name, Instances>,
}

#[derive(Default)]
struct Instances {
    upserts: Vec<String>,
    removals: Vec<String>,
}

impl ChangeBuilder {
    pub fn document(&mut self, document: &Document) {
        self.documents.push(json(document));
    }

    pub fn document_deleted(&mut self, key: &DocumentKey) {
        self.documents_deleted.push(json(key));
    }

    pub fn upsert(&mut self, service: &Name, instance: &str) {
        self.services
            .entry(service.clone())
            .or_default()
            .upserts
            .push(instance.to_owned());
    }

    pub fn removal(&mut self, service: &Name, id: &str) {
        self.services
            .entry(service.clone())
            .or_default()
            .removals
            .push(json(&id));
    }

    pub fn build(self, revision: Revision) -> Option<Change> {
        let sections = [
            ("documents", &self.documents),
            ("documents_deleted", &self.documents_deleted),
        ];
        let sections: Vec<String> = sections
            .iter()
            .filter(|(_, parts)| !parts.is_empty())
            .map(|(name, parts)| format!("\"{name}\":[{}]", join(parts.iter().map(String::as_str))))
            .collect();
        let documents = sections.join(",");
        let services: Vec<(Name, String)> = self
            .services
            .into_iter()
            .map(|(service, instances)| {
                let json = instances.json(&service);
                (service, json)
            })
            .collect();
        if documents.is_empty() && services.is_empty() {
            return None;
        }
        let whole = line(
            revision,
            &documents,
            services.iter().map(|(_, json)| json.as_str()),
        );
        Some(Change {
            revision,
            documents,
            services,
            whole,
        })
    }
}

impl Instances {
    fn json(&self, service: &Name) -> String {
        let list = |parts: &[String]| join(parts.iter().map(String::as_str));
        format!(
            "{{\"namespace\":{},\"service\":{},\"upserts\":[{}],\"removals\":[{}]}}",
            json(&&*service.namespace),
            json(&&*service.name),
            list(&self.upserts),
            list(&self.removals),
        )
    }
}

/// Strings and string-keyed structs always serialize.
fn json(value: &impl serde::Serialize) -> String {
    serde_json::to_string(value).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::api::WatchFrame;

    fn two_services() -> Change {
        let mut builder = ChangeBuilder::default();
        builder.removal(&Name::local("cart"), "cart-\"1\"");
        builder.removal(&Name::local("shop"), "shop-1");
        builder.build(7).unwrap()
    }

    fn parse(line: &[u8]) -> WatchFrame {
        serde_json::from_slice(line).unwrap()
    }

    #[test]
    fn a_watcher_gets_only_the_services_it_selects() {
        let change = two_services();
        let select = |name| Selector::Services([Name::local(name)].into());
        let WatchFrame::Changes {
            revision,
            instances,
            documents,
            ..
        } = parse(&change.line(&select("cart")).unwrap())
        else {
            panic!("not a change");
        };
        assert_eq!((revision, documents.len(), instances.len()), (7, 0, 1));
        assert_eq!(instances[0].removals, ["cart-\"1\""]);
        assert_eq!(change.line(&select("other")), None);
        let WatchFrame::Changes { instances, .. } = parse(&change.line(&Selector::All).unwrap())
        else {
            panic!("not a change");
        };
        assert_eq!(instances.len(), 2);
    }

    #[test]
    fn documents_concern_everyone() {
        let key = DocumentKey {
            kind: "Service".into(),
            namespace: "default".into(),
            name: "a".into(),
        };
        let mut builder = ChangeBuilder::default();
        builder.document_deleted(&key);
        builder.removal(&Name::local("cart"), "1");
        let change = builder.build(3).unwrap();
        let line = change.line(&Selector::Services(BTreeSet::new())).unwrap();
        let WatchFrame::Changes {
            documents_deleted,
            instances,
            ..
        } = parse(&line)
        else {
            panic!("not a change")
        };
        assert_eq!((documents_deleted, instances.len()), (vec![key], 0));
    }

    #[test]
    fn a_revision_that_shows_nothing_is_no_change() {
        assert!(ChangeBuilder::default().build(1).is_none());
    }
}
