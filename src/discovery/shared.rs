//! Between the registry and the app: frames go into the mirror, what they changed is handed to the app one change at a
//! time, and the app's answers decide what is acknowledged and what is kept on disk.
//!
//! Documents and endpoints go on two lanes that do not wait for each other, because compiling documents may take long
//! and an endpoint that is gone must not. While the app works on one change, all that comes meanwhile becomes the next.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tokio::sync::{mpsc, watch};
use tracing::{info, warn};

use super::changes::{Answer, DocumentsChange, EndpointsChange, LaneId, Verdict};
use super::keeper::Keeper;
use super::lane::{DocumentChanges, DocumentsLane, EndpointsLane};
use super::mirror::{Changed, InstanceChange, Listed, Mirror, MirrorError, Position};
use super::saved::{Selection, Unsaved};
use super::status::{Source, Status};
use crate::api::{Rejection, WatchFrame};

/// What the registry is told in each frame.
#[derive(Clone, PartialEq, Debug, Default)]
pub(super) struct Standing {
    /// The newest revision that is in effect here, documents and endpoints.
    pub applied_revision: u64,
    pub rejected: Option<Rejection>,
}

pub(super) struct Shared {
    state: Mutex<State>,
    standing: watch::Sender<Standing>,
    pub keeper: Option<Keeper>,
}

struct State {
    mirror: Mirror,
    selection: Selection,
    /// Nothing is handed out before a registry has answered or has failed to.
    released: bool,
    documents: DocumentsLane,
    endpoints: EndpointsLane,
    status: Status,
}

impl Shared {
    pub fn new(
        mirror: Mirror,
        selection: Selection,
        keeper: Option<Keeper>,
        status: Status,
        documents: mpsc::Sender<DocumentsChange>,
        endpoints: mpsc::Sender<EndpointsChange>,
    ) -> Arc<Self> {
        let documents = DocumentsLane::new(documents, &mirror);
        let endpoints = EndpointsLane::new(endpoints, &mirror);
        let state = State {
            mirror,
            selection,
            released: false,
            documents,
            endpoints,
            status,
        };
        Arc::new(Self {
            state: Mutex::new(state),
            standing: watch::Sender::new(Standing::default()),
            keeper,
        })
    }

    pub fn standing(&self) -> watch::Receiver<Standing> {
        self.standing.subscribe()
    }

    pub fn position(&self) -> Position {
        self.lock().mirror.position().clone()
    }

    pub fn status(&self) -> Status {
        let state = self.lock();
        let standing = state.standing();
        Status {
            revision: state.mirror.position().revision,
            applied_revision: standing.applied_revision,
            rejected: standing.rejected,
            snapshot_problem: self.keeper.as_ref().and_then(Keeper::problem),
            ..state.status.clone()
        }
    }

    /// The snapshot from disk is to be used: no registry has answered in time.
    pub fn release(self: &Arc<Self>) {
        let mut state = self.lock();
        if !state.released && state.mirror.is_known() {
            info!(
                revision = state.mirror.position().revision,
                "Starting from the last good snapshot; no registry has confirmed it yet"
            );
            state.status.source = Source::Disk;
            state.released = true;
            self.settle(state);
        }
    }

    pub fn connected(&self, url: &str) {
        let mut state = self.lock();
        state.status.connected = Some(url.to_owned());
        state.status.connects += 1;
    }

    pub fn disconnected(&self, reason: &str) {
        let mut state = self.lock();
        state.mirror.disconnected();
        state.status.connected = None;
        state.status.last_error = Some(reason.to_owned());
    }

    pub fn events_forgotten(&self, count: u64) {
        if count > 0 {
            self.lock().status.events_forgotten += count;
        }
    }

    pub fn registered(&self, count: usize, problem: Option<String>) {
        let mut state = self.lock();
        state.status.registered = count;
        state.status.registration_problem = problem;
    }

    /// One frame of the watch. After an error the connection is of no use any more.
    pub fn frame(self: &Arc<Self>, frame: WatchFrame) -> Result<(), MirrorError> {
        let mut state = self.lock();
        let confirms = match &frame {
            WatchFrame::Hello {
                store, revision, ..
            } => state.mirror.is_up_to_date(store, *revision),
            WatchFrame::Changes { .. }
            | WatchFrame::Heartbeat { .. }
            | WatchFrame::Synced { .. } => true,
            _ => false,
        };
        let before = state.mirror.position().revision;
        let changed = state.mirror.apply(frame)?;
        if confirms && !state.mirror.is_listing() {
            state.released = true;
            state.status.source = Source::Registry;
        }
        state.take_over(changed, before, self.keeper.as_ref());
        self.settle(state);
        Ok(())
    }

    pub fn answered(self: &Arc<Self>, lane: LaneId, verdict: Verdict) {
        let mut state = self.lock();
        match lane {
            LaneId::Documents => {
                let good = state.documents.answered(verdict);
                if let (Some(good), Some(keeper)) = (good, &self.keeper) {
                    state.save(good, Vec::new(), keeper);
                }
            }
            LaneId::Endpoints => state.endpoints.answered(&verdict),
        }
        self.settle(state);
    }

    /// Writes what the disk does not have yet.
    pub async fn flush(&self) -> Result<(), String> {
        let Some(keeper) = &self.keeper else {
            return Ok(());
        };
        self.lock().save(HashMap::new(), Vec::new(), keeper);
        keeper.flush().await
    }

    /// Hands out what is due, and says where we stand now.
    fn settle(self: &Arc<Self>, mut state: MutexGuard<'_, State>) {
        if state.released {
            state.hand_out(self);
        }
        let standing = state.standing();
        // Still under the lock, so that an older standing never follows a newer one.
        self.standing.send_if_modified(|current| {
            let differs = *current != standing;
            *current = standing;
            differs
        });
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl State {
    fn take_over(&mut self, changed: Changed, before: u64, keeper: Option<&Keeper>) {
        if let Some(listed) = changed.listed {
            self.listed(listed);
        }
        self.documents.add(changed.documents, before);
        self.endpoints.add(changed.services, before);
        if let Some(keeper) = keeper.filter(|_| !changed.instances.is_empty()) {
            self.save(HashMap::new(), changed.instances, keeper);
        }
    }

    fn listed(&mut self, listed: Listed) {
        self.status.listings += 1;
        self.status.documents_kept = listed.documents_kept;
        if listed.documents_kept > 0 {
            warn!(
                documents = listed.documents_kept,
                "The registry has lost its documents; keeping the last good ones. Apply them again"
            );
        }
        if listed.other_store {
            self.documents.begin_again();
            self.endpoints.begin_again();
        }
    }

    fn hand_out(&mut self, shared: &Arc<Shared>) {
        let revision = self.mirror.position().revision;
        self.documents
            .hand_out(revision, || Answer::new(shared, LaneId::Documents));
        self.endpoints
            .hand_out(&self.mirror, || Answer::new(shared, LaneId::Endpoints));
    }

    /// The file's revision is what all of its content has reached, so that a restart misses nothing.
    fn save(&self, documents: DocumentChanges, instances: Vec<InstanceChange>, keeper: &Keeper) {
        let position = self.mirror.position();
        if position.store.is_none() {
            return;
        }
        let mut unsaved = Unsaved {
            documents,
            position: Position {
                store: position.store.clone(),
                revision: self.documents.in_effect(position.revision),
            },
            selection: self.selection.clone(),
            ..Unsaved::default()
        };
        unsaved.add_instances(instances);
        keeper.save(unsaved);
    }

    fn standing(&self) -> Standing {
        let current = self.mirror.position().revision;
        let endpoints = self.endpoints.reached(current);
        Standing {
            applied_revision: self.documents.in_effect(current).min(endpoints),
            rejected: self.documents.rejection(current, endpoints),
        }
    }
}
