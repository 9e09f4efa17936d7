//! Who serves what: registering, states, heartbeats, deregistering.
//!
//! A registration or a changed state is a write to the store and has a revision; a frame or heartbeat that only says "still here" is a
//! note in memory. What happens to an instance that falls silent is in [`expiry`].

mod check;
pub mod expiry;
mod probe;
mod sweep;

use std::collections::HashMap;
use std::hash::{BuildHasher, RandomState};
use std::sync::{Mutex, MutexGuard};

use tokio::time::Instant;

use super::view::{Entry, State};
use super::{Refusal, Registry, keys};
use crate::api::{
    Frame, FrameAnswer, FrameInstance, Instance, InstanceState, Load, Registered, Registration,
};
use crate::model::Name;
use crate::store::{Compare, Operation, Revision, Txn};
use expiry::Removals;

/// Writes about one instance go one after the other; those about different ones share a commit.
const STRIPES: usize = 1_024;

pub struct Instances {
    writing: Vec<tokio::sync::Mutex<()>>,
    hasher: RandomState,
    sweep: Mutex<SweepState>,
}

/// What the sweep remembers from one second to the next.
struct SweepState {
    last: Instant,
    removals: HashMap<Name, Removals>,
}

impl Instances {
    pub fn new(now: Instant) -> Self {
        Self {
            writing: (0..STRIPES).map(|_| tokio::sync::Mutex::new(())).collect(),
            hasher: RandomState::new(),
            sweep: Mutex::new(SweepState {
                last: now,
                removals: HashMap::new(),
            }),
        }
    }

    fn sweep(&self) -> MutexGuard<'_, SweepState> {
        // Nothing panics while it is held.
        self.sweep
            .lock()
            .unwrap_or_else(|poisoned| poisoned.into_inner())
    }

    async fn writing(&self, id: &str) -> tokio::sync::MutexGuard<'_, ()> {
        let stripe = self.hasher.hash_one(id) as usize % STRIPES;
        self.writing[stripe].lock().await
    }
}

/// What of an instance's state in the store a writer has seen.
struct Seen {
    service: Name,
    modified: Revision,
    instance: Instance,
}

impl Registry {
    /// Registers an instance, or renews it when nothing changed (which costs no write).
    pub async fn register(
        &self,
        id: &str,
        registration: Registration,
    ) -> Result<Registered, Refusal> {
        check::id("instance id", id)?;
        let instance = check::registration(id, registration, &self.limits)?;
        let service = Name::new(&instance.namespace, &instance.service);
        let _writing = self.instances.writing(id).await;
        let before = self.seen(id);
        if let Some(before) = &before
            && before.instance == instance
        {
            self.heard(id, None, Instant::now());
            return Ok(Registered {
                id: id.to_owned(),
                revision: before.modified,
            });
        }
        if before.is_none() {
            self.check_room(&service)?;
        }
        let mut operations = vec![Operation::put(
            keys::instance(&service, id),
            json(&instance),
        )];
        if let Some(before) = before.filter(|before| before.service != service) {
            // It serves another service now: gone from the one is its own word.
            operations.push(Operation::Delete(keys::instance(&before.service, id)));
            operations.push(Operation::put(keys::gone(&before.service), ""));
        }
        let revision = self.store.txn(Txn::of(operations)).await?.revision;
        self.shown(revision).await?;
        self.heard(id, None, Instant::now());
        Ok(Registered {
            id: id.to_owned(),
            revision,
        })
    }

    /// Removes an instance by its own word: the one removal that may empty a service without further question.
    pub async fn deregister(&self, id: &str) -> Result<Registered, Refusal> {
        let _writing = self.instances.writing(id).await;
        let Some(seen) = self.seen(id) else {
            return Err(Refusal::not_found(format_args!("instance {id}")));
        };
        let operations = vec![
            Operation::Delete(keys::instance(&seen.service, id)),
            Operation::put(keys::gone(&seen.service), ""),
        ];
        let revision = self.store.txn(Txn::of(operations)).await?.revision;
        self.shown(revision).await?;
        Ok(Registered {
            id: id.to_owned(),
            revision,
        })
    }

    /// Sets what an instance says of itself; it counts as heard.
    pub async fn set_state(&self, id: &str, state: InstanceState) -> Result<Registered, Refusal> {
        self.heard(id, None, Instant::now());
        match self.report(id, Some(state)).await? {
            Some(revision) => Ok(Registered {
                id: id.to_owned(),
                revision,
            }),
            None => Err(Refusal::not_found(format_args!("instance {id}"))
                .hint("register it again; it may have been removed after its silence")),
        }
    }

    /// "Still here", from an instance without a sidecar.
    pub async fn heartbeat(&self, id: &str, load: Option<Load>) -> Result<Registered, Refusal> {
        self.heard(id, load, Instant::now());
        match self.report(id, None).await? {
            Some(revision) => Ok(Registered {
                id: id.to_owned(),
                revision,
            }),
            None => Err(Refusal::not_found(format_args!("instance {id}"))
                .hint("register it again; it may have been removed after its silence")),
        }
    }

    /// A sidecar's frame: renews its instances, and notes what it has in effect.
    pub async fn frame(&self, sidecar: &str, frame: Frame) -> Result<FrameAnswer, Refusal> {
        check::id("sidecar id", sidecar)?;
        self.metrics
            .frames
            .fetch_add(1, std::sync::atomic::Ordering::Relaxed);
        let mut unknown = Vec::new();
        let now = Instant::now();
        for FrameInstance { id, state, load } in frame.instances {
            self.heard(&id, load, now);
            if self.report(&id, Some(state)).await?.is_none() {
                unknown.push(id);
            }
        }
        self.note_events(sidecar, frame.events);
        self.sidecars
            .acknowledge(sidecar, frame.applied_revision, frame.rejected);
        Ok(FrameAnswer {
            revision: self.revision(),
            unknown,
        })
    }

    /// Makes the store agree with what an instance says of itself (None: as before), which also ends a `critical` that was our
    /// own. Gives the revision of its entry; None when it is unknown.
    async fn report(
        &self,
        id: &str,
        state: Option<InstanceState>,
    ) -> Result<Option<Revision>, Refusal> {
        let agreed = |entry: &Entry| {
            let reported = state.unwrap_or(entry.reported);
            (entry.state == reported && entry.reported == reported).then_some(entry.modified)
        };
        {
            let view = self.view.state();
            let Some((_, entry)) = view.find(id) else {
                return Ok(None);
            };
            if let Some(modified) = agreed(entry) {
                return Ok(Some(modified));
            }
        }
        let _writing = self.instances.writing(id).await;
        let Some(mut seen) = self.seen(id) else {
            return Ok(None);
        };
        let reported = seen.instance.reported.take().unwrap_or(seen.instance.state);
        seen.instance.state = state.unwrap_or(reported);
        self.replace(id, seen).await.map(Some)
    }

    /// Writes an instance over what was seen of it, unless it has changed since.
    async fn replace(&self, id: &str, seen: Seen) -> Result<Revision, Refusal> {
        let key = keys::instance(&seen.service, id);
        let txn = Txn {
            compares: vec![Compare::Modified(
                key.clone(),
                std::cmp::Ordering::Equal,
                seen.modified,
            )],
            then: vec![Operation::put(key, json(&seen.instance))],
            otherwise: Vec::new(),
        };
        let outcome = self.store.txn(txn).await?;
        self.shown(outcome.revision).await?;
        match outcome.succeeded {
            true => Ok(outcome.revision),
            false => Err(
                Refusal::conflict(format!("instance {id} was changed by someone else"))
                    .hint("try again"),
            ),
        }
    }

    fn seen(&self, id: &str) -> Option<Seen> {
        let view = self.view.state();
        let (known, entry) = view.find(id)?;
        let instance = entry.instance(None)?;
        Some(Seen {
            service: known.service.clone(),
            modified: entry.modified,
            instance,
        })
    }

    fn heard(&self, id: &str, load: Option<Load>, now: Instant) {
        let mut view = self.view.state();
        if let Some(known) = view.instances.get_mut(id) {
            known.heard = now;
            known.held_until = None;
            if let Some(load) = load {
                known.load = Some(Box::new(load));
            }
        }
    }

    fn check_room(&self, service: &Name) -> Result<(), Refusal> {
        let view = self.view.state();
        let State {
            instances,
            services,
            ..
        } = &*view;
        if instances.len() >= self.limits.instances_max {
            return Err(Refusal::limit(format!(
                "there are {} instances, the most this registry takes",
                instances.len()
            )));
        }
        if services.len() >= self.limits.services_max && !services.contains_key(service) {
            return Err(Refusal::limit(format!(
                "there are {} services, the most this registry takes",
                services.len()
            )));
        }
        Ok(())
    }
}

/// An instance always serializes: its maps have string keys.
fn json(instance: &Instance) -> Vec<u8> {
    serde_json::to_vec(instance).unwrap_or_default()
}
