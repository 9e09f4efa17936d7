//! Active health checks: whether an endpoint says itself that it can serve, apart from what its requests show.
//!
//! [`targets`] knows who is to be asked, [`prober`] when, and [`probe`] is one question with its answer. [`Health`] is what has
//! come of it, shared by all clusters and workers that have the endpoint; a pick meets it only as somebody's standing.
//!
//! All of it runs on the control thread. It leaves out what requests say of an endpoint ([`super::breaker`]), and the application
//! beside this sidecar, whose state the sidecar itself tells the registry.

pub mod probe;
pub mod prober;
pub mod targets;

use std::sync::atomic::{AtomicU8, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use crate::model::HealthCheck;

/// What the checks say of an endpoint.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum State {
    /// It was there when the checks of its service began and has not been judged yet: used until then, since of all that are
    /// there nobody has, and the first to pass would get everything.
    Assumed,
    /// It came later and has not been judged yet: not used while others are.
    Unproven,
    Passing,
    /// Never used.
    Failing,
}

impl State {
    const ALL: [State; 4] = [
        State::Assumed,
        State::Unproven,
        State::Passing,
        State::Failing,
    ];

    /// As `/clusters` and events name it.
    pub fn as_str(self) -> &'static str {
        match self {
            State::Assumed => "assumed",
            State::Unproven => "unproven",
            State::Passing => "passing",
            State::Failing => "failing",
        }
    }
}

/// A state, and how many results in a row have spoken against it.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Progress {
    pub state: State,
    pub against: u32,
}

impl Progress {
    pub fn at(state: State) -> Self {
        Self { state, against: 0 }
    }

    /// After one more result. Who has not been judged yet is judged by one.
    pub fn after(self, passed: bool, check: &HealthCheck) -> Self {
        let needed = match (self.state, passed) {
            (State::Passing, true) | (State::Failing, false) => return Self::at(self.state),
            (State::Passing, false) => check.unhealthy_threshold,
            (State::Failing, true) => check.healthy_threshold,
            (State::Assumed | State::Unproven, _) => 1,
        };
        let against = self.against.saturating_add(1);
        match passed {
            _ if against < needed => Self { against, ..self },
            true => Self::at(State::Passing),
            false => Self::at(State::Failing),
        }
    }
}

/// What the checks have said of one endpoint so far.
#[derive(Debug)]
pub struct Health {
    state: AtomicU8,
    checks: AtomicU64,
    failures: AtomicU64,
    /// Why the last check failed; None after one that passed.
    obstacle: Mutex<Option<Arc<str>>>,
}

impl Health {
    pub fn new(state: State) -> Arc<Self> {
        Arc::new(Self {
            state: AtomicU8::new(state as u8),
            checks: AtomicU64::new(0),
            failures: AtomicU64::new(0),
            obstacle: Mutex::default(),
        })
    }

    pub fn state(&self) -> State {
        // Only `set` writes it, so the index is that of a state.
        State::ALL[usize::from(self.state.load(Ordering::Acquire))]
    }

    /// Checks so far.
    pub fn checks(&self) -> u64 {
        self.checks.load(Ordering::Relaxed)
    }

    /// Checks so far that failed.
    pub fn failures(&self) -> u64 {
        self.failures.load(Ordering::Relaxed)
    }

    /// Why the last check failed; None after one that passed.
    pub fn obstacle(&self) -> Option<Arc<str>> {
        let obstacle = self.obstacle.lock();
        obstacle.unwrap_or_else(PoisonError::into_inner).clone()
    }

    fn set(&self, state: State) {
        self.state.store(state as u8, Ordering::Release);
    }

    fn count(&self, result: &Result<(), String>) {
        self.checks.fetch_add(1, Ordering::Relaxed);
        if result.is_err() {
            self.failures.fetch_add(1, Ordering::Relaxed);
        }
        let obstacle = result.as_ref().err().map(|reason| reason.as_str().into());
        *self.obstacle.lock().unwrap_or_else(PoisonError::into_inner) = obstacle;
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::model::HealthProbe;

    fn check() -> HealthCheck {
        HealthCheck {
            probe: HealthProbe::Tcp,
            interval: Duration::from_secs(5),
            timeout: Duration::from_secs(2),
            healthy_threshold: 2,
            unhealthy_threshold: 3,
        }
    }

    fn after(state: State, results: &str) -> State {
        let results = results.chars().map(|result| result == '+');
        let progress = results.fold(Progress::at(state), |so_far, passed| {
            so_far.after(passed, &check())
        });
        progress.state
    }

    #[test]
    fn a_passing_endpoint_fails_after_three_failures_in_a_row() {
        assert_eq!(after(State::Passing, "--+--+--"), State::Passing);
        assert_eq!(after(State::Passing, "--+---"), State::Failing);
    }

    #[test]
    fn a_failing_endpoint_passes_after_two_passes_in_a_row() {
        assert_eq!(after(State::Failing, "+-+-+"), State::Failing);
        assert_eq!(after(State::Failing, "+-++"), State::Passing);
    }

    #[test]
    fn who_has_not_been_judged_is_judged_by_one_result() {
        for state in [State::Assumed, State::Unproven] {
            assert_eq!(after(state, ""), state);
            assert_eq!(after(state, "+"), State::Passing);
            assert_eq!(after(state, "-"), State::Failing);
        }
    }
}
