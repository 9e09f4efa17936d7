//! The circuit of a service, as a pure state machine in one word.
//!
//! closed → open → half-open → closed, or open again for longer (Michael Nygard, "Release It!", 2nd edition, "Circuit Breaker"). The
//! word is swapped as a whole ([`super::CircuitBreaker`] does that), so that of all threads exactly one makes each transition.

use std::fmt;

use crate::base::backoff::Backoff;
use crate::model;
use crate::proxy::cluster::breaker::{PROBE_WAIT, jittered};
use crate::proxy::cluster::time::{Tick, nanos_of, tick, tick_after};

const OPENINGS_MAX: u8 = (1 << 6) - 1;

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Phase {
    /// Everybody may pass.
    Closed {
        /// Failed calls in a row.
        failures: u16,
    },
    /// Nobody may pass until the time is up.
    Open,
    /// A few calls try whether the service answers again.
    HalfOpen {
        /// Probes let in, those that told nothing left out.
        granted: u8,
        /// Probes that were answered well.
        answered: u8,
    },
}

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct State {
    pub phase: Phase,
    /// Openings that followed closely on each other; each doubles how long the next lasts.
    pub openings: u8,
    /// Open: until when. Half-open: when one more probe is let in. Closed: since when.
    until: Tick,
}

impl Default for State {
    fn default() -> Self {
        Self {
            phase: Phase::Closed { failures: 0 },
            openings: 0,
            until: 0,
        }
    }
}

/// What a call that comes now may do.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Entry {
    Free,
    /// It is one of the probes, and this is the state with it.
    Probe(State),
    Refused,
}

/// How a call ended that says something of the service.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Call {
    pub failed: bool,
    /// It took longer than `slow_after`.
    pub slow: bool,
}

/// The calls of the sliding window.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Counts {
    pub requests: u64,
    pub failures: u64,
    pub slow: u64,
}

/// A call that has ended, with what is needed to judge it.
#[derive(Clone, Copy, Debug)]
pub struct Observation {
    /// None told nothing: refused for want of capacity, or given up by its client.
    pub call: Option<Call>,
    /// It was a probe, let in at this number of openings.
    pub probe: Option<u8>,
    /// This call included.
    pub window: Counts,
    /// In nanoseconds.
    pub now: u64,
    /// Random bits, for jitter.
    pub chance: u32,
}

/// Why the circuit went from one phase to another.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Reason {
    Consecutive(u16),
    FailureShare {
        failures: u64,
        requests: u64,
    },
    SlowShare {
        slow: u64,
        requests: u64,
    },
    /// A probe failed, or was slow.
    ProbeFailed(Call),
    ProbesAnswered(u8),
}

impl fmt::Display for Reason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Reason::Consecutive(failures) => write!(f, "{failures} failures in a row"),
            Reason::FailureShare { failures, requests } => {
                write!(f, "{failures} of {requests} requests failed")
            }
            Reason::SlowShare { slow, requests } => {
                write!(f, "{slow} of {requests} requests were slow")
            }
            Reason::ProbeFailed(Call { failed: true, .. }) => {
                f.write_str("a request that tried it failed")
            }
            Reason::ProbeFailed(_) => f.write_str("a request that tried it was slow"),
            Reason::ProbesAnswered(1) => f.write_str("the request that tried it was answered"),
            Reason::ProbesAnswered(count) => {
                write!(f, "{count} requests that tried it were answered")
            }
        }
    }
}

impl State {
    /// Whether a call may pass. A probe that is never heard of again does not hold the others up for longer than [`PROBE_WAIT`].
    pub fn enter(self, now: u64, policy: &model::CircuitBreaker) -> Entry {
        let granted = match self.phase {
            Phase::Closed { .. } => return Entry::Free,
            Phase::Open if self.is_due(now) => 0,
            Phase::HalfOpen { granted, .. } if granted < policy.half_open_requests => granted,
            Phase::HalfOpen { granted, .. } if self.is_due(now) => granted - 1,
            Phase::Open | Phase::HalfOpen { .. } => return Entry::Refused,
        };
        let answered = match self.phase {
            Phase::HalfOpen { answered, .. } => answered,
            _ => 0,
        };
        Entry::Probe(State {
            phase: Phase::HalfOpen {
                granted: granted + 1,
                answered,
            },
            until: tick_after(now, PROBE_WAIT),
            ..self
        })
    }

    /// The state after a call, and the reason where it is another phase. Equal to `self` when nothing changes, which is the rule.
    pub fn after(
        self,
        seen: &Observation,
        policy: &model::CircuitBreaker,
    ) -> (State, Option<Reason>) {
        match self.phase {
            Phase::Closed { failures } => self.after_in_closed(failures, seen, policy),
            Phase::HalfOpen { granted, answered } if seen.probe == Some(self.openings) => {
                self.after_probe(granted, answered, seen, policy)
            }
            // What began before it opened says nothing new.
            Phase::Open | Phase::HalfOpen { .. } => (self, None),
        }
    }

    pub fn is_due(self, now: u64) -> bool {
        tick(now) >= self.until
    }

    /// When [`State::is_due`] becomes true, in nanoseconds.
    pub fn due(self) -> u64 {
        nanos_of(self.until)
    }

    fn after_in_closed(
        self,
        failures: u16,
        seen: &Observation,
        policy: &model::CircuitBreaker,
    ) -> (State, Option<Reason>) {
        let Some(call) = seen.call else {
            return (self, None);
        };
        let failures = match call.failed {
            true => failures.saturating_add(1),
            false => 0,
        };
        let counted = State {
            phase: Phase::Closed { failures },
            ..self
        };
        match reason_to_open(failures, call, seen.window, policy) {
            Some(reason) => (self.opened(seen, policy), Some(reason)),
            None => (counted, None),
        }
    }

    fn after_probe(
        self,
        granted: u8,
        answered: u8,
        seen: &Observation,
        policy: &model::CircuitBreaker,
    ) -> (State, Option<Reason>) {
        let Some(call) = seen.call else {
            let phase = Phase::HalfOpen {
                granted: granted.saturating_sub(1),
                answered,
            };
            return (State { phase, ..self }, None);
        };
        if call.failed || (call.slow && policy.slow_percent < 100) {
            let opened = self.opened(seen, policy);
            return (opened, Some(Reason::ProbeFailed(call)));
        }
        let answered = answered + 1;
        if answered >= policy.half_open_requests {
            let closed = State {
                phase: Phase::Closed { failures: 0 },
                openings: self.openings,
                until: tick(seen.now),
            };
            return (closed, Some(Reason::ProbesAnswered(answered)));
        }
        let phase = Phase::HalfOpen { granted, answered };
        (State { phase, ..self }, None)
    }

    /// A circuit that has been closed for `open_max` begins with the shortest wait again.
    fn opened(self, seen: &Observation, policy: &model::CircuitBreaker) -> State {
        let closed = matches!(self.phase, Phase::Closed { .. });
        let rested = tick(seen.now) >= tick_after(nanos_of(self.until), policy.open_max);
        let openings = match closed && rested {
            true => 1,
            false => (self.openings + 1).min(OPENINGS_MAX),
        };
        let length = Backoff::new(policy.open, policy.open_max).least(u32::from(openings));
        State {
            phase: Phase::Open,
            openings,
            until: tick_after(seen.now, jittered(length, seen.chance)),
        }
    }

    /// In one word: `until` 40 bits, openings 6, phase 2, what the phase counts 16.
    pub fn pack(self) -> u64 {
        let (phase, count) = match self.phase {
            Phase::Closed { failures } => (0, failures),
            Phase::Open => (1, 0),
            Phase::HalfOpen { granted, answered } => (2, u16::from_be_bytes([granted, answered])),
        };
        self.until << 24 | u64::from(self.openings) << 18 | phase << 16 | u64::from(count)
    }

    pub fn unpack(word: u64) -> State {
        let count = word as u16;
        State {
            phase: match word >> 16 & 0b11 {
                0 => Phase::Closed { failures: count },
                1 => Phase::Open,
                _ => {
                    let [granted, answered] = count.to_be_bytes();
                    Phase::HalfOpen { granted, answered }
                }
            },
            openings: (word >> 18) as u8 & OPENINGS_MAX,
            until: word >> 24,
        }
    }
}

fn reason_to_open(
    failures: u16,
    call: Call,
    window: Counts,
    policy: &model::CircuitBreaker,
) -> Option<Reason> {
    let Counts { requests, .. } = window;
    let enough = requests >= u64::from(policy.requests_min);
    let exceeds = |count: u64, percent: u8| enough && count * 100 > requests * u64::from(percent);
    let limit = policy.consecutive_failures;
    if call.failed && limit > 0 && failures >= limit {
        Some(Reason::Consecutive(failures))
    } else if call.failed && exceeds(window.failures, policy.failure_percent) {
        Some(Reason::FailureShare {
            failures: window.failures,
            requests,
        })
    } else if call.slow && exceeds(window.slow, policy.slow_percent) {
        Some(Reason::SlowShare {
            slow: window.slow,
            requests,
        })
    } else {
        None
    }
}

#[cfg(test)]
#[path = "state_tests.rs"]
mod tests;
