//! One request's right to be sent, and what it says of the service in the end.

use std::sync::Arc;

use tokio::time::Instant;

use super::CircuitBreaker;
use super::state::Call;
use crate::proxy::cluster::breaker::Verdict;
use crate::proxy::cluster::lease::Outcome;
use crate::proxy::cluster::time::nanos;

/// The right to send one request through a circuit. Dropping it without a verdict tells nothing, and lets another be the probe
/// where it was one.
#[must_use = "dropping the pass tells the circuit nothing"]
#[derive(Debug)]
pub struct Pass {
    circuit: Arc<CircuitBreaker>,
    /// It is a probe, and of which opening.
    probe: Option<u8>,
    chance: u32,
    judged: Judged,
}

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Judged {
    Not,
    Answered,
    /// For good, and whatever comes after.
    Finally,
}

impl Pass {
    pub(super) fn new(circuit: Arc<CircuitBreaker>, probe: Option<u8>, chance: u32) -> Self {
        Self {
            circuit,
            probe,
            chance,
            judged: Judged::Not,
        }
    }

    /// The head of the answer that the client gets has come, to the request of `start`.
    pub fn answered(&mut self, outcome: Outcome, start: Instant, now: Instant) {
        let verdict = outcome.verdict();
        let failed = verdict.is_failure();
        if failed || verdict == Verdict::Success {
            self.judge(failed, start, now);
        }
    }

    /// The client gets no whole answer, and that is the service's doing.
    pub fn failed(&mut self, start: Instant, now: Instant) {
        match self.judged {
            Judged::Not => self.judge(true, start, now),
            // Its body broke off; as a call it has been counted.
            Judged::Answered => {
                self.judged = Judged::Finally;
                self.circuit
                    .judge_late_failure(self.probe, nanos(now), self.chance);
            }
            Judged::Finally => {}
        }
    }

    fn judge(&mut self, failed: bool, start: Instant, now: Instant) {
        let limit = self.circuit.policy.slow_after;
        let slow = limit.is_some_and(|limit| start + limit < now);
        self.judged = match failed {
            true => Judged::Finally,
            false => Judged::Answered,
        };
        let call = Some(Call { failed, slow });
        self.circuit
            .judge(call, self.probe, nanos(now), self.chance);
    }
}

impl Drop for Pass {
    fn drop(&mut self) {
        if self.judged == Judged::Not && self.probe.is_some() {
            self.circuit.judge(None, self.probe, 0, self.chance);
        }
    }
}
