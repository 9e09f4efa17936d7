//! Between the registry and the app: frames go into the mirror, what they changed is handed to the app one change at a
//! time, and the app's answers decide what is acknowledged and what is kept on disk.
//!
//! Documents and endpoints go on two lanes that do not wait for each other, because compiling documents may take long
//! and an endpoint that is gone must not. While the app works on one change, all that comes meanwhile becomes the next.

use std::collections::{HashMap, HashSet};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tokio::sync::{mpsc, watch};
use tracing::{info, warn};

use crate::api::{Document, DocumentKey, Problem, Rejection, WatchFrame};
use crate::model::Name;

use super::changes::{Answer, DocumentsChange, EndpointsChange};
use super::keeper::Keeper;
use super::mirror::{Changed, Listed, Mirror, MirrorError, Position};
use super::saved::{Selection, Unsaved};
use super::status::{Source, Status};

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum LaneId {
    Documents,
    Endpoints,
}

pub(super) enum Verdict {
    Accepted,
    Rejected(Vec<Problem>),
}

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

type DocumentChanges = HashMap<DocumentKey, Option<Arc<Document>>>;

struct DocumentsLane {
    sender: mpsc::Sender<DocumentsChange>,
    progress: Progress,
    waiting: DocumentChanges,
    in_hand: DocumentChanges,
    /// In effect nowhere and not on disk, until a later change makes them good.
    refused: DocumentChanges,
    /// The last refusal that no accepted change has followed, and the revision in effect before it.
    rejection: Option<(Rejection, u64)>,
}

struct EndpointsLane {
    sender: mpsc::Sender<EndpointsChange>,
    progress: Progress,
    waiting: HashSet<Name>,
}

/// How far a lane is.
struct Progress {
    /// The last revision that the app has answered for, or that did not concern this lane.
    answered: u64,
    /// The revision of the change that the app has in hand.
    in_hand: Option<u64>,
    /// There is something to hand out.
    due: bool,
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
        let documents = DocumentsLane {
            sender: documents,
            progress: Progress::new(),
            waiting: mirror
                .documents()
                .map(|document| (document.key.clone(), Some(document.clone())))
                .collect(),
            in_hand: HashMap::new(),
            refused: HashMap::new(),
            rejection: None,
        };
        let endpoints = EndpointsLane {
            sender: endpoints,
            progress: Progress::new(),
            waiting: mirror.services().cloned().collect(),
        };
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
        if !state.released && !state.mirror.is_empty() {
            info!(
                revision = state.mirror.position().revision,
                "No registry answers; starting from the last good snapshot"
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

    pub fn registered(&self, count: usize, problem: Option<String>) {
        let mut state = self.lock();
        state.status.registered = count;
        state.status.registration_problem = problem;
    }

    /// One frame of the watch. After an error the connection is of no use any more.
    pub fn frame(self: &Arc<Self>, frame: WatchFrame) -> Result<(), MirrorError> {
        let mut state = self.lock();
        let confirms = matches!(
            frame,
            WatchFrame::Changes { .. } | WatchFrame::Heartbeat { .. } | WatchFrame::Synced { .. }
        );
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
            LaneId::Documents => state.documents_answered(verdict, self.keeper.as_ref()),
            LaneId::Endpoints => drop(state.endpoints.progress.answer()),
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
        drop(state);
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
        if !changed.documents.is_empty() {
            self.documents.waiting.extend(changed.documents);
            self.documents.progress.make_due(before);
        }
        if !changed.services.is_empty() {
            self.endpoints.waiting.extend(changed.services);
            self.endpoints.progress.make_due(before);
        }
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
            self.documents.progress.begin_again();
            self.endpoints.progress.begin_again();
            self.documents.rejection = None;
        }
    }

    fn hand_out(&mut self, shared: &Arc<Shared>) {
        let revision = self.mirror.position().revision;
        if self.documents.progress.is_ready() {
            self.documents
                .hand_out(revision, Answer::new(shared, LaneId::Documents));
        }
        if self.endpoints.progress.is_ready() {
            let updates = self
                .endpoints
                .waiting
                .iter()
                .map(|service| self.mirror.endpoints(service))
                .collect();
            let change = EndpointsChange {
                revision,
                updates,
                answer: Answer::new(shared, LaneId::Endpoints),
            };
            if give(&self.endpoints.sender, change) {
                self.endpoints.waiting.clear();
                self.endpoints.progress.hand_out(revision);
            }
        }
    }

    fn documents_answered(&mut self, verdict: Verdict, keeper: Option<&Keeper>) {
        let lane = &mut self.documents;
        let good_before = lane
            .rejection
            .take()
            .map_or(lane.progress.answered, |(_, good)| good);
        let revision = lane.progress.answer();
        let in_hand = std::mem::take(&mut lane.in_hand);
        lane.refused.extend(in_hand);
        match verdict {
            Verdict::Accepted => {
                let good = std::mem::take(&mut lane.refused);
                if let Some(keeper) = keeper {
                    self.save(good, Vec::new(), keeper);
                }
            }
            Verdict::Rejected(problems) => {
                warn!(
                    revision,
                    problems = problems.len(),
                    "Refused the registry's documents; the last good ones keep serving"
                );
                lane.rejection = Some((Rejection { revision, problems }, good_before));
            }
        }
    }

    /// The file's revision is what all of its content has reached, so that a restart misses nothing.
    fn save(
        &self,
        documents: DocumentChanges,
        instances: Vec<super::mirror::InstanceChange>,
        keeper: &Keeper,
    ) {
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
        let endpoints = self.endpoints.progress.reached(current);
        let rejected = self
            .documents
            .rejection
            .as_ref()
            .map(|(rejection, _)| Rejection {
                // What came after the refusal is refused with it, as far as it is dealt with.
                revision: rejection
                    .revision
                    .max(self.documents.progress.reached(current).min(endpoints)),
                problems: rejection.problems.clone(),
            });
        Standing {
            applied_revision: self.documents.in_effect(current).min(endpoints),
            rejected,
        }
    }
}

impl DocumentsLane {
    fn hand_out(&mut self, revision: u64, answer: Answer) {
        let (mut changed, mut removed) = (Vec::new(), Vec::new());
        for (key, document) in &self.waiting {
            match document {
                Some(document) => changed.push(document.clone()),
                None => removed.push(key.clone()),
            }
        }
        if give(
            &self.sender,
            DocumentsChange {
                revision,
                changed,
                removed,
                answer,
            },
        ) {
            self.in_hand = std::mem::take(&mut self.waiting);
            self.progress.hand_out(revision);
        }
    }

    /// The revision up to which the app follows the registry's documents.
    fn in_effect(&self, current: u64) -> u64 {
        match &self.rejection {
            Some((_, good)) => *good,
            None => self.progress.reached(current),
        }
    }
}

/// Whether the app took it. The channel has room whenever nothing is in hand; an app that is gone takes nothing.
fn give<T>(sender: &mpsc::Sender<T>, change: T) -> bool {
    sender.try_send(change).is_ok()
}

impl Progress {
    /// Even an empty state is handed out once, so that the app learns that it is the whole.
    fn new() -> Self {
        Self {
            answered: 0,
            in_hand: None,
            due: true,
        }
    }

    fn is_ready(&self) -> bool {
        self.due && self.in_hand.is_none()
    }

    fn is_idle(&self) -> bool {
        !self.due && self.in_hand.is_none()
    }

    /// Something waits; `before` is the last revision without it.
    fn make_due(&mut self, before: u64) {
        if self.is_idle() {
            self.answered = before;
        }
        self.due = true;
    }

    fn hand_out(&mut self, revision: u64) {
        self.due = false;
        self.in_hand = Some(revision);
    }

    fn answer(&mut self) -> u64 {
        self.answered = self.in_hand.take().unwrap_or(self.answered);
        self.answered
    }

    fn reached(&self, current: u64) -> u64 {
        if self.is_idle() {
            current
        } else {
            self.answered
        }
    }

    /// Revisions from before mean nothing any more.
    fn begin_again(&mut self) {
        self.answered = 0;
        self.in_hand = self.in_hand.map(|_| 0);
        self.due = true;
    }
}
