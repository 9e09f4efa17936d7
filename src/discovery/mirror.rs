//! What the registry has told us, as data: fed with watch frames, it says what each of them changed. No IO, no clock.

use std::collections::btree_map::Entry;
use std::collections::{BTreeMap, HashMap, HashSet};
use std::sync::Arc;

use crate::api::{Document, DocumentKey, Instance, InstancesChange, ServiceSet, WatchFrame};
use crate::model::{Endpoint, EndpointUpdate, Name};

use super::endpoints::{Converter, Endpoints};

/// Instances and documents that may change while a listing is under way; beyond it the watch begins again.
const CHANGES_DURING_LISTING_MAX: usize = 1_000_000;

/// The documents and instances as of one revision.
#[derive(Default)]
pub struct Mirror {
    position: Position,
    /// The store that the present connection serves; None before its hello.
    greeted: Option<String>,
    documents: HashMap<DocumentKey, Arc<Document>>,
    /// A service that is known to have no instances is an empty map.
    services: HashMap<Name, BTreeMap<Arc<str>, Endpoints>>,
    listing: Option<Listing>,
    converter: Converter,
}

/// Where a watch goes on.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Position {
    /// The registry's store that the revision belongs to; None before the first listing.
    pub store: Option<String>,
    pub revision: u64,
}

/// What a frame changed.
#[derive(Debug, Default)]
pub struct Changed {
    /// None is a deleted document.
    pub documents: HashMap<DocumentKey, Option<Arc<Document>>>,
    pub services: HashSet<Name>,
    /// For the disk, in the order in which they hold.
    pub instances: Vec<InstanceChange>,
    pub listed: Option<Listed>,
}

/// A listing was finished: the mirror is whole.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Listed {
    /// Revisions from before do not compare with those from now on.
    pub other_store: bool,
    /// Documents of another store that an empty listing did not replace.
    pub documents_kept: usize,
}

#[derive(Debug)]
pub struct InstanceChange {
    pub service: Name,
    pub id: String,
    /// None when it is gone.
    pub instance: Option<Box<Instance>>,
}

#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
pub enum MirrorError {
    #[error("the registry sent {0} where its place is after a hello and inside a listing")]
    OutOfPlace(&'static str),
    #[error("the registry went on from a revision of another store")]
    OtherStore,
    #[error("more than {CHANGES_DURING_LISTING_MAX} changes came during one listing")]
    TooManyChanges,
}

/// What a reset began: gathered beside the mirror until `synced` swaps it in.
#[derive(Default)]
struct Listing {
    documents: HashMap<DocumentKey, Arc<Document>>,
    services: HashMap<Name, BTreeMap<String, Instance>>,
    /// Made meanwhile; they hold over what is listed, whichever came first.
    changes: Vec<Delta>,
    change_count: usize,
}

/// The content of `changes`.
struct Delta {
    revision: u64,
    documents: Vec<Document>,
    documents_deleted: Vec<DocumentKey>,
    instances: Vec<InstancesChange>,
}

impl Mirror {
    /// The state that was on disk. It is stale until the registry says otherwise.
    pub fn restore(
        position: Position,
        documents: impl IntoIterator<Item = Document>,
        instances: impl IntoIterator<Item = Instance>,
    ) -> Self {
        let documents = documents
            .into_iter()
            .map(|document| (document.key.clone(), Arc::new(document)));
        let mut mirror = Self {
            position,
            documents: documents.collect(),
            ..Self::default()
        };
        for instance in instances {
            let endpoints = mirror.converter.endpoints(&instance);
            let service = Name::new(&instance.namespace, &instance.service);
            mirror
                .services
                .entry(service)
                .or_default()
                .insert(instance.id.into(), endpoints);
        }
        mirror
    }

    /// It is the state of some registry at some time, and be it an empty one.
    pub fn is_known(&self) -> bool {
        self.position.store.is_some() || !self.documents.is_empty() || !self.services.is_empty()
    }

    pub fn is_listing(&self) -> bool {
        self.listing.is_some()
    }

    pub fn position(&self) -> &Position {
        &self.position
    }

    pub fn documents(&self) -> impl Iterator<Item = &Arc<Document>> {
        self.documents.values()
    }

    pub fn services(&self) -> impl Iterator<Item = &Name> {
        self.services.keys()
    }

    /// The endpoints of one service, in the order of their instances' ids.
    pub fn endpoints(&self, service: &Name) -> EndpointUpdate {
        let instances = self
            .services
            .get(service)
            .into_iter()
            .flat_map(BTreeMap::values);
        let endpoints: Vec<Endpoint> = instances.flatten().cloned().collect();
        EndpointUpdate {
            service: service.clone(),
            endpoints,
        }
    }

    /// Whether a registry that greets like this has nothing newer than what is here.
    pub fn is_up_to_date(&self, store: &str, revision: u64) -> bool {
        self.position.store.as_deref() == Some(store) && self.position.revision == revision
    }

    /// A connection has ended: what it had not finished listing is void.
    pub fn disconnected(&mut self) {
        self.greeted = None;
        self.listing = None;
    }

    pub fn apply(&mut self, frame: WatchFrame) -> Result<Changed, MirrorError> {
        match frame {
            WatchFrame::Hello { store, .. } => self.greeted = Some(store),
            WatchFrame::Reset { .. } if self.greeted.is_none() => {
                return Err(MirrorError::OutOfPlace("a reset"));
            }
            WatchFrame::Reset { .. } => self.listing = Some(Listing::default()),
            WatchFrame::Snapshot {
                documents,
                services,
            } => match &mut self.listing {
                Some(listing) => listing.add(documents, services),
                None => return Err(MirrorError::OutOfPlace("a snapshot")),
            },
            WatchFrame::Synced { revision } => match self.listing.take() {
                Some(listing) => return Ok(self.swap(listing, revision)),
                None => return Err(MirrorError::OutOfPlace("synced")),
            },
            WatchFrame::Changes {
                revision,
                documents,
                documents_deleted,
                instances,
            } => {
                let delta = Delta {
                    revision,
                    documents,
                    documents_deleted,
                    instances,
                };
                if let Some(listing) = &mut self.listing {
                    listing.postpone(delta)?;
                    return Ok(Changed::default());
                }
                self.check_continues()?;
                let mut changed = Changed::default();
                self.change(delta, &mut changed);
                return Ok(changed);
            }
            WatchFrame::Heartbeat { revision } if self.listing.is_none() => {
                self.check_continues()?;
                self.position.revision = self.position.revision.max(revision);
            }
            WatchFrame::Heartbeat { .. } | WatchFrame::Unknown => {}
        }
        Ok(Changed::default())
    }

    fn check_continues(&self) -> Result<(), MirrorError> {
        match &self.greeted {
            None => Err(MirrorError::OutOfPlace("a change")),
            greeted if *greeted != self.position.store => Err(MirrorError::OtherStore),
            Some(_) => Ok(()),
        }
    }

    fn swap(&mut self, listing: Listing, revision: u64) -> Changed {
        let other_store = self.position.store != self.greeted;
        let lost_documents =
            listing.documents.is_empty() && other_store && self.position.store.is_some();
        let mut listed = Listed {
            other_store,
            documents_kept: 0,
        };
        let mut changed = Changed::default();
        match lost_documents {
            true => listed.documents_kept = self.documents.len(),
            false => self.swap_documents(listing.documents, &mut changed),
        }
        for (service, instances) in listing.services {
            self.swap_service(service, instances, &mut changed);
        }
        self.position = Position {
            store: self.greeted.clone(),
            revision,
        };
        for delta in listing.changes {
            self.change(delta, &mut changed);
        }
        changed.listed = Some(listed);
        changed
    }

    fn swap_documents(
        &mut self,
        documents: HashMap<DocumentKey, Arc<Document>>,
        changed: &mut Changed,
    ) {
        let before = std::mem::replace(&mut self.documents, documents);
        let gone = before
            .keys()
            .filter(|key| !self.documents.contains_key(key))
            .map(|key| (key.clone(), None));
        changed.documents.extend(gone);
        let new = self
            .documents
            .iter()
            .filter(|(key, document)| before.get(key) != Some(document));
        changed
            .documents
            .extend(new.map(|(key, document)| (key.clone(), Some(document.clone()))));
    }

    fn swap_service(
        &mut self,
        service: Name,
        instances: BTreeMap<String, Instance>,
        changed: &mut Changed,
    ) {
        let known = self.services.entry(service.clone()).or_default();
        let gone: Vec<String> = known
            .keys()
            .filter(|id| !instances.contains_key(id.as_ref()))
            .map(|id| id.to_string())
            .collect();
        let change = InstancesDelta {
            service,
            upserts: instances.into_values().collect(),
            removals: gone,
        };
        self.change_instances(change, changed);
    }

    fn change(&mut self, delta: Delta, changed: &mut Changed) {
        for key in delta.documents_deleted {
            self.documents.remove(&key);
            changed.documents.insert(key, None);
        }
        for document in delta.documents {
            let document = Arc::new(document);
            self.documents
                .insert(document.key.clone(), document.clone());
            changed
                .documents
                .insert(document.key.clone(), Some(document));
        }
        for change in delta.instances {
            self.change_instances(change.into(), changed);
        }
        self.position.revision = self.position.revision.max(delta.revision);
    }

    fn change_instances(&mut self, change: InstancesDelta, changed: &mut Changed) {
        let InstancesDelta {
            service,
            upserts,
            removals,
        } = change;
        let known = self.services.entry(service.clone()).or_default();
        let before = changed.instances.len();
        for id in removals {
            if known.remove(id.as_str()).is_some() {
                changed.instances.push(InstanceChange {
                    service: service.clone(),
                    id,
                    instance: None,
                });
            }
        }
        for instance in upserts {
            let endpoints = self.converter.endpoints(&instance);
            let id = instance.id.clone();
            let is_new = match known.entry(id.as_str().into()) {
                Entry::Occupied(mut entry) => {
                    std::mem::replace(entry.get_mut(), endpoints) != *entry.get()
                }
                Entry::Vacant(entry) => {
                    entry.insert(endpoints);
                    true
                }
            };
            if is_new {
                changed.instances.push(InstanceChange {
                    service: service.clone(),
                    id,
                    instance: Some(Box::new(instance)),
                });
            }
        }
        if changed.instances.len() > before {
            changed.services.insert(service);
        }
    }
}

/// The changed instances of one service; a removal holds before an upsert of the same id.
struct InstancesDelta {
    service: Name,
    upserts: Vec<Instance>,
    removals: Vec<String>,
}

impl From<InstancesChange> for InstancesDelta {
    fn from(change: InstancesChange) -> Self {
        Self {
            service: Name::new(&change.namespace, &change.service),
            upserts: change.upserts,
            removals: change.removals,
        }
    }
}

impl Listing {
    fn add(&mut self, documents: Vec<Document>, services: Vec<ServiceSet>) {
        self.documents.extend(
            documents
                .into_iter()
                .map(|document| (document.key.clone(), Arc::new(document))),
        );
        for set in services {
            let service = self
                .services
                .entry(Name::new(&set.namespace, &set.name))
                .or_default();
            service.extend(
                set.instances
                    .into_iter()
                    .map(|instance| (instance.id.clone(), instance)),
            );
        }
    }

    fn postpone(&mut self, delta: Delta) -> Result<(), MirrorError> {
        let instances = delta
            .instances
            .iter()
            .map(|change| change.upserts.len() + change.removals.len());
        self.change_count +=
            1 + delta.documents.len() + delta.documents_deleted.len() + instances.sum::<usize>();
        if self.change_count > CHANGES_DURING_LISTING_MAX {
            return Err(MirrorError::TooManyChanges);
        }
        self.changes.push(delta);
        Ok(())
    }
}

#[cfg(test)]
#[path = "tests/mirror.rs"]
mod tests;
