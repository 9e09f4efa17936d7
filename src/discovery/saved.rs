//! What the entries of the snapshot file mean, and which of them make a mirror again.

use std::collections::{HashMap, HashSet};
use std::sync::Arc;

use serde::{Deserialize, Serialize};

use super::mirror::{InstanceChange, Mirror, Position};
use super::snapshot::{Batch, Key, Saved};
use crate::api::{Document, DocumentKey, Instance};
use crate::model::Name;

const DOCUMENT: u8 = 1;
const INSTANCE: u8 = 2;

/// Which services are watched; None is all.
pub(super) type Selection = Option<Vec<Name>>;

/// Changes on their way to the file. They become bytes only on the writing thread.
#[derive(Debug, Default)]
pub struct Unsaved {
    pub documents: HashMap<DocumentKey, Option<Arc<Document>>>,
    pub instances: HashMap<(Name, String), Option<Box<Instance>>>,
    /// What the file has reached with these changes.
    pub position: Position,
    pub selection: Selection,
}

/// Whose revision the file holds. Another store's or another selection's is no place to go on from.
#[derive(Serialize, Deserialize)]
struct Origin {
    store: Option<String>,
    #[serde(default)]
    services: Option<Vec<String>>,
}

impl Unsaved {
    /// Nothing changed, and not even a registry's revision is known.
    pub fn is_empty(&self) -> bool {
        self.documents.is_empty() && self.instances.is_empty() && self.position.store.is_none()
    }

    pub fn add_instances(&mut self, changes: Vec<InstanceChange>) {
        self.instances.extend(
            changes
                .into_iter()
                .map(|change| ((change.service, change.id), change.instance)),
        );
    }

    /// Adds what changed after this; where both say something, the later holds.
    pub fn merge(&mut self, later: Unsaved) {
        if later.is_empty() {
            return;
        }
        self.documents.extend(later.documents);
        self.instances.extend(later.instances);
        self.position = later.position;
        self.selection = later.selection;
    }

    pub fn to_batch(&self) -> Batch {
        let documents = self
            .documents
            .iter()
            .map(|(key, document)| (document_key(key), document.as_deref().map(to_json)));
        let instances = self.instances.iter().map(|((service, id), instance)| {
            (instance_key(service, id), instance.as_deref().map(to_json))
        });
        Batch {
            entries: documents.chain(instances).collect(),
            revision: self.position.revision,
            origin: String::from_utf8_lossy(&to_json(&Origin::new(
                &self.position.store,
                &self.selection,
            )))
            .into_owned(),
        }
    }
}

impl Origin {
    fn new(store: &Option<String>, selection: &Selection) -> Self {
        let services = selection.as_ref().map(|names| {
            let mut names: Vec<String> = names.iter().map(Name::to_string).collect();
            names.sort();
            names
        });
        Self {
            store: store.clone(),
            services,
        }
    }
}

/// The mirror as it was on disk, and how many entries could not be read.
pub(super) fn restore(saved: Saved, selection: &Selection) -> (Mirror, usize) {
    let wanted: Option<HashSet<&Name>> = selection.as_ref().map(|names| names.iter().collect());
    let (mut documents, mut instances, mut unreadable) = (Vec::new(), Vec::new(), 0);
    for (key, value) in &saved.entries {
        match key.kind {
            DOCUMENT => match serde_json::from_slice::<Document>(value) {
                Ok(document) => documents.push(document),
                Err(_) => unreadable += 1,
            },
            INSTANCE => match serde_json::from_slice::<Instance>(value) {
                Ok(instance) => instances.push(instance),
                Err(_) => unreadable += 1,
            },
            _ => {}
        }
    }
    instances.retain(|instance| {
        let service = Name::new(&instance.namespace, &instance.service);
        wanted
            .as_ref()
            .is_none_or(|wanted| wanted.contains(&service))
    });
    let mut position = position(&saved, selection);
    if unreadable > 0 {
        position.revision = 0;
    }
    (Mirror::restore(position, documents, instances), unreadable)
}

fn position(saved: &Saved, selection: &Selection) -> Position {
    let Ok(origin) = serde_json::from_str::<Origin>(&saved.origin) else {
        return Position::default();
    };
    let same_selection = origin.services == Origin::new(&None, selection).services;
    Position {
        store: origin.store,
        revision: if same_selection { saved.revision } else { 0 },
    }
}

fn document_key(key: &DocumentKey) -> Key {
    Key {
        kind: DOCUMENT,
        id: format!("{}/{}/{}", key.kind, key.namespace, key.name),
    }
}

fn instance_key(service: &Name, id: &str) -> Key {
    Key {
        kind: INSTANCE,
        id: format!("{service}/{id}"),
    }
}

fn to_json(value: &impl Serialize) -> Vec<u8> {
    // These types have string keys and no failing serializers, which is all that JSON can refuse.
    serde_json::to_vec(value).unwrap_or_default()
}
