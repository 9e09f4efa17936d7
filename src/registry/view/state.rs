use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;

use serde::{Deserialize, Serialize};
use tokio::time::Instant;
use tracing::warn;

use super::change::{Change, ChangeBuilder};
use crate::api::{Document, DocumentKey, Instance, InstanceState, Load};
use crate::model::Name;
use crate::registry::keys::{self, Meaning};
use crate::store::{Event, EventGroup, KeyValue, Revision};

/// Everything at one revision.
#[derive(Default)]
pub struct State {
    pub documents: BTreeMap<DocumentKey, Arc<Document>>,
    /// Of the last change of documents.
    pub documents_revision: Revision,
    /// Also the services whose instances were all removed on purpose.
    pub services: BTreeMap<Name, InstanceSet>,
    /// By instance id, which is unique in the mesh.
    pub instances: HashMap<Arc<str>, Known>,
}

#[derive(Default)]
pub struct InstanceSet {
    pub entries: BTreeMap<Arc<str>, Entry>,
    /// The revision of its last change; what a long-poll waits for.
    pub changed: Revision,
    /// Since when it is empty.
    pub emptied: Option<Instant>,
}

/// An instance as the store has it.
pub struct Entry {
    /// [`Instance`] as JSON: kept as text, since it is read far less often than held, and it goes into frames as it is.
    pub json: Box<str>,
    pub modified: Revision,
    pub state: InstanceState,
    /// What it says of itself.
    pub reported: InstanceState,
    pub critical_after_seconds: u32,
    pub removed_after_seconds: u32,
}

/// What is known of an instance beside the store.
pub struct Known {
    pub service: Name,
    /// When its last frame, heartbeat or registration came.
    pub heard: Instant,
    /// Until then the guard keeps it although it is silent.
    pub held_until: Option<Instant>,
    pub load: Option<Box<Load>>,
}

/// A document in the store; its revisions are the key's.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct StoredDocument {
    pub text: String,
    pub author: String,
    pub time: String,
}

impl Entry {
    /// The instance with what only this process knows of it.
    pub fn instance(&self, known: Option<&Known>) -> Option<Instance> {
        let mut instance: Instance = serde_json::from_str(&self.json).ok()?;
        instance.load = known.and_then(|known| known.load.as_deref().copied());
        Some(instance)
    }
}

impl State {
    /// The set and entry of an instance.
    pub fn find(&self, id: &str) -> Option<(&Known, &Entry)> {
        let known = self.instances.get(id)?;
        let entry = self.services.get(&known.service)?.entries.get(id)?;
        Some((known, entry))
    }

    /// Takes an entry of the store as it stands.
    pub fn load(&mut self, entry: &KeyValue, now: Instant) {
        let mut change = ChangeBuilder::default();
        self.take(&entry.key, Some(entry), entry.modified, now, &mut change);
    }

    /// Applies what one transaction did; None when nothing of it shows.
    pub fn apply(&mut self, group: &EventGroup, now: Instant) -> Option<Change> {
        let mut change = ChangeBuilder::default();
        for Event {
            key, now: entry, ..
        } in &group.events
        {
            self.take(key, entry.as_ref(), group.revision, now, &mut change);
        }
        change.build(group.revision)
    }

    /// What is known of instances that are in both.
    pub fn keep_heard(&mut self, before: &State) {
        for (id, known) in &mut self.instances {
            if let Some(earlier) = before.instances.get(id) {
                known.heard = earlier.heard;
                known.load = earlier.load.clone();
            }
        }
    }

    fn take(
        &mut self,
        key: &[u8],
        entry: Option<&KeyValue>,
        revision: Revision,
        now: Instant,
        change: &mut ChangeBuilder,
    ) {
        match (keys::meaning(key), entry) {
            (Meaning::Document(key), Some(entry)) => {
                if let Some(document) = decode_document(&key, entry) {
                    change.document(&document);
                    self.documents.insert(key, Arc::new(document));
                }
            }
            (Meaning::Document(key), None) => {
                self.documents.remove(&key);
                change.document_deleted(&key);
            }
            (Meaning::DocumentsHead, _) => self.documents_revision = revision,
            (Meaning::Instance { service, id }, Some(entry)) => {
                if let Some(decoded) = decode_instance(entry) {
                    change.upsert(&service, &decoded.json);
                    self.insert(service, id.into(), decoded, now);
                }
            }
            (Meaning::Instance { service, id }, None) => {
                self.remove(&service, &id, revision, now);
                change.removal(&service, &id);
            }
            (Meaning::Gone(service), Some(_)) => {
                let set = self.services.entry(service).or_default();
                set.changed = set.changed.max(revision);
                set.emptied.get_or_insert(now);
            }
            (Meaning::Gone(service), None) => {
                if self
                    .services
                    .get(&service)
                    .is_some_and(|set| set.entries.is_empty())
                {
                    self.services.remove(&service);
                }
            }
            (Meaning::Other, _) => {}
        }
    }

    fn insert(&mut self, service: Name, id: Arc<str>, entry: Entry, now: Instant) {
        let moved = self
            .instances
            .get(&id)
            .filter(|known| known.service != service);
        if let Some(before) = moved.map(|known| known.service.clone()) {
            self.remove(&before, &id, entry.modified, now);
        }
        let known = Known {
            service: service.clone(),
            heard: now,
            held_until: None,
            load: None,
        };
        self.instances.entry(id.clone()).or_insert(known);
        let set = self.services.entry(service).or_default();
        set.changed = set.changed.max(entry.modified);
        set.emptied = None;
        set.entries.insert(id, entry);
    }

    fn remove(&mut self, service: &Name, id: &str, revision: Revision, now: Instant) {
        if let Some(set) = self.services.get_mut(service) {
            set.entries.remove(id);
            set.changed = revision;
            if set.entries.is_empty() {
                set.emptied = Some(now);
            }
        }
        if self
            .instances
            .get(id)
            .is_some_and(|known| known.service == *service)
        {
            self.instances.remove(id);
        }
    }
}

fn decode_document(key: &DocumentKey, entry: &KeyValue) -> Option<Document> {
    match serde_json::from_slice::<StoredDocument>(&entry.value) {
        Ok(stored) => Some(Document {
            key: key.clone(),
            revision: entry.modified,
            created: entry.created,
            time: stored.time,
            author: stored.author,
            text: stored.text,
        }),
        Err(error) => {
            warn!(document = %key, %error, "A stored document cannot be read and is left out");
            None
        }
    }
}

fn decode_instance(entry: &KeyValue) -> Option<Entry> {
    let decoded = serde_json::from_slice::<Instance>(&entry.value);
    let text = std::str::from_utf8(&entry.value);
    match (decoded, text) {
        (Ok(instance), Ok(json)) => Some(Entry {
            json: json.into(),
            modified: entry.modified,
            state: instance.state,
            reported: instance.reported.unwrap_or(instance.state),
            critical_after_seconds: instance.critical_after_seconds,
            removed_after_seconds: instance.removed_after_seconds,
        }),
        _ => {
            warn!(key = %String::from_utf8_lossy(&entry.key), "A stored instance cannot be read and is left out");
            None
        }
    }
}
