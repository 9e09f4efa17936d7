//! What discovery hands to the app, and how the app answers.

use std::sync::{Arc, Weak};

use crate::api::{Document, DocumentKey, Problem};
use crate::model::EndpointUpdate;

use super::shared::Shared;

/// A refusal's problems are sent with each frame, which the registry takes up to 64 KiB of.
const PROBLEMS_MAX: usize = 100;
const PROBLEMS_BYTES_MAX: usize = 32 * 1024;

/// Mesh documents that were applied or deleted. The next one comes when this one is answered; dropping it unanswered
/// counts as a refusal. It may be empty: the registry is another one, or has nothing, and asks whether what there is holds.
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
        self.answer.give(Verdict::Rejected(shortened(problems)));
    }
}

impl EndpointsChange {
    /// Every worker uses them: no new request goes to an endpoint that is not in them.
    pub fn applied(self) {
        self.answer.give(Verdict::Accepted);
    }
}

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum LaneId {
    Documents,
    Endpoints,
}

#[derive(Debug)]
pub(super) enum Verdict {
    Accepted,
    Rejected(Vec<Problem>),
}

/// The app's way to answer a change. Dropping it answers with a refusal.
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

    /// The app never got the change, so nobody waits for an answer.
    pub fn withdraw(mut self) {
        self.given = true;
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
            let dropped = problem("the change was dropped without an answer".to_owned());
            self.send(Verdict::Rejected(vec![dropped]));
        }
    }
}

/// As many as a frame has room for, and how many more there are.
fn shortened(mut problems: Vec<Problem>) -> Vec<Problem> {
    let mut bytes = 0;
    let room = problems.iter().take(PROBLEMS_MAX).take_while(|problem| {
        bytes += serde_json::to_vec(problem).map_or(0, |json| json.len());
        bytes <= PROBLEMS_BYTES_MAX
    });
    let kept = room.count();
    let beyond = problems.len() - kept;
    if beyond > 0 {
        problems.truncate(kept);
        problems.push(problem(format!("and {beyond} more problems")));
    }
    problems
}

fn problem(message: String) -> Problem {
    Problem {
        message,
        ..Problem::default()
    }
}
