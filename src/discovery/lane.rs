//! A lane hands changes to the app, one at a time; what comes while the app has one in hand becomes the next.

use std::collections::{HashMap, HashSet};
use std::sync::Arc;

use tokio::sync::mpsc;
use tracing::warn;

use super::changes::{Answer, DocumentsChange, EndpointsChange, Verdict};
use super::mirror::Mirror;
use crate::api::{Document, DocumentKey, Rejection};
use crate::model::Name;

/// None is a deleted document.
pub(super) type DocumentChanges = HashMap<DocumentKey, Option<Arc<Document>>>;

pub(super) struct DocumentsLane {
    sender: mpsc::Sender<DocumentsChange>,
    progress: Progress,
    waiting: DocumentChanges,
    in_hand: DocumentChanges,
    /// In effect nowhere and not on disk, until a later change makes them good.
    refused: DocumentChanges,
    rejection: Option<Refusal>,
}

/// The last refusal that no accepted change has followed.
struct Refusal {
    rejection: Rejection,
    /// The revision that stays in effect.
    in_effect: u64,
}

pub(super) struct EndpointsLane {
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

impl DocumentsLane {
    pub fn new(sender: mpsc::Sender<DocumentsChange>, mirror: &Mirror) -> Self {
        let known = mirror
            .documents()
            .map(|document| (document.key.clone(), Some(document.clone())));
        Self {
            sender,
            progress: Progress::new(),
            waiting: known.collect(),
            in_hand: HashMap::new(),
            refused: HashMap::new(),
            rejection: None,
        }
    }

    /// `before` is the last revision without these changes.
    pub fn add(&mut self, changes: DocumentChanges, before: u64) {
        if !changes.is_empty() {
            self.waiting.extend(changes);
            self.progress.make_due(before);
        }
    }

    pub fn hand_out(&mut self, revision: u64, answer: impl FnOnce() -> Answer) {
        if !self.progress.is_ready() {
            return;
        }
        let (mut changed, mut removed) = (Vec::new(), Vec::new());
        for (key, document) in &self.waiting {
            match document {
                Some(document) => changed.push(document.clone()),
                None => removed.push(key.clone()),
            }
        }
        let change = DocumentsChange {
            revision,
            changed,
            removed,
            answer: answer(),
        };
        match self.sender.try_send(change) {
            Ok(()) => {
                self.in_hand = std::mem::take(&mut self.waiting);
                self.progress.hand_out(revision);
            }
            Err(error) => error.into_inner().answer.withdraw(),
        }
    }

    /// What is good now and belongs on disk; None after a refusal.
    pub fn answered(&mut self, verdict: Verdict) -> Option<DocumentChanges> {
        let in_effect = self
            .rejection
            .take()
            .map_or(self.progress.answered, |refusal| refusal.in_effect);
        let revision = self.progress.answer();
        self.refused.extend(std::mem::take(&mut self.in_hand));
        match verdict {
            Verdict::Accepted => Some(std::mem::take(&mut self.refused)),
            Verdict::Rejected(problems) => {
                warn!(
                    revision,
                    problems = problems.len(),
                    "Refused the registry's documents; the last good ones keep serving"
                );
                self.rejection = Some(Refusal {
                    rejection: Rejection { revision, problems },
                    in_effect,
                });
                None
            }
        }
    }

    /// The revision up to which the app follows the registry's documents.
    pub fn in_effect(&self, current: u64) -> u64 {
        match &self.rejection {
            Some(refusal) => refusal.in_effect,
            None => self.progress.reached(current),
        }
    }

    /// What came after the refusal is refused with it, as far as both lanes have dealt with it.
    pub fn rejection(&self, current: u64, endpoints_reached: u64) -> Option<Rejection> {
        let rejection = &self.rejection.as_ref()?.rejection;
        let dealt_with = self.progress.reached(current).min(endpoints_reached);
        Some(Rejection {
            revision: rejection.revision.max(dealt_with),
            problems: rejection.problems.clone(),
        })
    }

    pub fn begin_again(&mut self) {
        self.progress.begin_again();
        self.rejection = None;
    }
}

impl EndpointsLane {
    pub fn new(sender: mpsc::Sender<EndpointsChange>, mirror: &Mirror) -> Self {
        Self {
            sender,
            progress: Progress::new(),
            waiting: mirror.services().cloned().collect(),
        }
    }

    /// `before` is the last revision without these changes.
    pub fn add(&mut self, services: HashSet<Name>, before: u64) {
        if !services.is_empty() {
            self.waiting.extend(services);
            self.progress.make_due(before);
        }
    }

    pub fn hand_out(&mut self, mirror: &Mirror, answer: impl FnOnce() -> Answer) {
        if !self.progress.is_ready() {
            return;
        }
        let revision = mirror.position().revision;
        let updates = self
            .waiting
            .iter()
            .map(|service| mirror.endpoints(service))
            .collect();
        match self.sender.try_send(EndpointsChange {
            revision,
            updates,
            answer: answer(),
        }) {
            Ok(()) => {
                // A first listing leaves a large set, which no later change needs.
                self.waiting = HashSet::new();
                self.progress.hand_out(revision);
            }
            Err(error) => error.into_inner().answer.withdraw(),
        }
    }

    pub fn answered(&mut self, verdict: &Verdict) {
        if matches!(verdict, Verdict::Rejected(_)) {
            warn!("An endpoints change was dropped without an answer; it counts as applied");
        }
        self.progress.answer();
    }

    pub fn reached(&self, current: u64) -> u64 {
        self.progress.reached(current)
    }

    pub fn begin_again(&mut self) {
        self.progress.begin_again();
    }
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
