//! What discovery hands to the app, and how the app answers.

use std::sync::{Arc, Weak};

use crate::api::{Document, DocumentKey, Problem};
use crate::model::EndpointUpdate;

use super::shared::{LaneId, Shared, Verdict};

/// Mesh documents that were applied or deleted. The next one comes when this one is answered; dropping it unanswered
/// counts as a refusal.
#[derive(Debug)]
pub struct DocumentsChange {
    /// The newest of the registry's revisions in it.
    pub revision: u64,
    /// New and changed ones, whole.
    pub changed: Vec<Arc<Document>>,
    pub removed: Vec<DocumentKey>,
    pub(super) answer: Answer,
}

/// Services whose endpoints changed, each with all of its endpoints. The next one comes when this one is answered.
#[derive(Debug)]
pub struct EndpointsChange {
    pub revision: u64,
    pub updates: Vec<EndpointUpdate>,
    pub(super) answer: Answer,
}

impl DocumentsChange {
    /// The documents are in effect: requests from now on follow them.
    pub fn accepted(self) {
        self.answer.give(Verdict::Accepted);
    }

    /// The documents do not compile, and the last good ones keep serving.
    pub fn rejected(self, problems: Vec<Problem>) {
        self.answer.give(Verdict::Rejected(problems));
    }
}

impl EndpointsChange {
    /// Every worker uses them: no new request goes to an endpoint that is not in them.
    pub fn applied(self) {
        self.answer.give(Verdict::Accepted);
    }
}

#[derive(Debug)]
pub(super) struct Answer {
    shared: Weak<Shared>,
    lane: LaneId,
    given: bool,
}

impl Answer {
    pub fn new(shared: &Arc<Shared>, lane: LaneId) -> Self {
        Self {
            shared: Arc::downgrade(shared),
            lane,
            given: false,
        }
    }

    fn give(mut self, verdict: Verdict) {
        self.send(verdict);
    }

    fn send(&mut self, verdict: Verdict) {
        self.given = true;
        if let Some(shared) = self.shared.upgrade() {
            shared.answered(self.lane, verdict);
        }
    }
}

impl Drop for Answer {
    fn drop(&mut self) {
        if !self.given {
            let message = "the change was dropped without an answer".to_owned();
            self.send(Verdict::Rejected(vec![Problem {
                message,
                ..Problem::default()
            }]));
        }
    }
}
