//! The circuit breaker of a service in this proxy: while it is open, requests are refused at once, or another service takes over.
//!
//! It judges what the *client* got, after retries, and not each attempt: an attempt that a retry made good is nothing that the
//! client should be spared, and a single bad endpoint is taken out by its own breaker ([`super::breaker`]) long before the service
//! is. What is refused for want of capacity (429, `x-mesh-shed`, a limit of this proxy) and what its client gave up say nothing.
//!
//! All workers share one [`CircuitBreaker`]; passing a closed one writes nothing. It leaves out where refused requests go, and
//! does not wait: a probe is an ordinary request.

mod pass;
mod state;
mod window;

use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use arc_swap::ArcSwapOption;
use tokio::time::Instant;

pub use self::pass::Pass;
use self::state::{Call, Entry, Observation, Phase, Reason, State};
use self::window::Window;
use super::time::nanos;
use crate::model;
use crate::proxy::events::{Cause, Events, Subject};

/// Where a circuit stands, by its name in metrics and on the admin page.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub enum Standing {
    Closed,
    Open,
    HalfOpen,
}

impl Standing {
    pub const ALL: [Standing; 3] = [Standing::Closed, Standing::Open, Standing::HalfOpen];

    pub fn as_str(self) -> &'static str {
        match self {
            Standing::Closed => "closed",
            Standing::Open => "open",
            Standing::HalfOpen => "half_open",
        }
    }
}

/// The circuit refuses a request.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct CircuitOpen {
    /// Why it opened.
    pub why: String,
    /// Until requests are let in to try it; None while those that do are under way.
    pub left: Option<Duration>,
}

impl fmt::Display for CircuitOpen {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let why = &self.why;
        match self.left {
            Some(left) => write!(f, "{why}; tried again in {:.1} s", left.as_secs_f64()),
            None => write!(f, "{why}; being tried again just now"),
        }
    }
}

/// A circuit at one moment.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct CircuitReport {
    pub standing: Standing,
    /// What it refuses, and why; None while it is closed.
    pub refusal: Option<CircuitOpen>,
    /// How often it came into each standing, in the order of [`Standing::ALL`].
    pub transitions: [u64; Standing::ALL.len()],
    /// Requests that it refused, or left to the service that takes over.
    pub refused: u64,
}

/// Where a cluster keeps its circuit breaker, if it is to have one.
#[derive(Default, Debug)]
pub(super) struct Slot {
    /// Read by every request; there is a breaker.
    armed: AtomicBool,
    breaker: ArcSwapOption<CircuitBreaker>,
}

impl Slot {
    /// Takes a service's policy over. Where it changes, an open circuit stays open, and what was counted is forgotten.
    pub(super) fn set(&self, service: &model::Service, label: &Arc<str>, events: &Events) {
        let policy = service.circuit.breaker.as_ref();
        let before = self.breaker.load_full();
        let next = match (policy, &before) {
            (Some(policy), Some(before)) if before.policy == *policy => Some(before.clone()),
            (Some(policy), before) => Some(Arc::new(CircuitBreaker::new(
                policy,
                label,
                events,
                before.as_deref(),
            ))),
            (None, _) => None,
        };
        if let Some(next) = &next {
            let other = service.failover.as_ref();
            let other = other.map(|other| Arc::new(other.service.clone()));
            next.takes_over.store(other);
        }
        self.armed.store(next.is_some(), Ordering::Release);
        self.breaker.store(next);
    }

    #[inline]
    pub(super) fn get(&self) -> Option<Arc<CircuitBreaker>> {
        if !self.armed.load(Ordering::Acquire) {
            return None;
        }
        self.breaker.load_full()
    }

    pub(super) fn is_open(&self) -> bool {
        self.get().is_some_and(|breaker| breaker.is_open())
    }
}

/// The circuit of a service, shared by all workers.
#[derive(Debug)]
pub(super) struct CircuitBreaker {
    policy: model::CircuitBreaker,
    service: Arc<str>,
    events: Events,
    /// [`State`].
    word: AtomicU64,
    window: Window,
    /// Why it is open, for those whom it refuses.
    reason: ArcSwapOption<Reason>,
    /// Since when it has not been closed, in nanoseconds.
    opened: AtomicU64,
    transitions: [AtomicU64; Standing::ALL.len()],
    refused: AtomicU64,
    /// Who gets its requests while it is open.
    takes_over: ArcSwapOption<model::Name>,
}

impl CircuitBreaker {
    fn new(
        policy: &model::CircuitBreaker,
        service: &Arc<str>,
        events: &Events,
        before: Option<&CircuitBreaker>,
    ) -> Self {
        let copy = |of: fn(&CircuitBreaker) -> &AtomicU64| {
            AtomicU64::new(before.map_or(0, |before| of(before).load(Ordering::Relaxed)))
        };
        let transitions = |index: usize| {
            let count = before.map(|before| before.transitions[index].load(Ordering::Relaxed));
            AtomicU64::new(count.unwrap_or(0))
        };
        Self {
            policy: policy.clone(),
            service: service.clone(),
            events: events.clone(),
            word: before.map_or_else(
                || AtomicU64::new(State::default().pack()),
                |before| AtomicU64::new(before.word.load(Ordering::Acquire)),
            ),
            window: Window::new(policy.window),
            reason: ArcSwapOption::new(before.and_then(|before| before.reason.load_full())),
            opened: copy(|before| &before.opened),
            transitions: std::array::from_fn(transitions),
            refused: copy(|before| &before.refused),
            takes_over: ArcSwapOption::empty(),
        }
    }

    /// The right to send a request, or why there is none.
    pub(super) fn enter(self: Arc<Self>, now: Instant, chance: u32) -> Result<Pass, CircuitOpen> {
        let mut word = self.word.load(Ordering::Acquire);
        if State::unpack(word).standing() == Standing::Closed {
            return Ok(Pass::new(self, None, chance));
        }
        let now = nanos(now);
        loop {
            let state = State::unpack(word);
            let next = match state.enter(now, &self.policy) {
                Entry::Free => return Ok(Pass::new(self, None, chance)),
                Entry::Refused => return Err(self.refuse(state, now)),
                Entry::Probe(next) => next,
            };
            match self.swap(word, next) {
                Ok(()) => {
                    if state.phase == Phase::Open {
                        self.tell_half_open(now);
                    }
                    return Ok(Pass::new(self, Some(next.openings), chance));
                }
                Err(current) => word = current,
            }
        }
    }

    fn judge(&self, call: Option<Call>, probe: Option<u8>, now: u64, chance: u32) {
        let state = State::unpack(self.word.load(Ordering::Acquire));
        if let Some(call) = call
            && state.standing() == Standing::Closed
        {
            self.window.record(call, now);
            let good = !call.failed && !call.slow;
            if good && state.phase == (Phase::Closed { failures: 0 }) {
                return;
            }
        }
        self.move_on(&Observation {
            call,
            probe,
            window: self.window.counts(now),
            now,
            chance,
        });
    }

    /// A call that has been judged as answered has failed all the same.
    fn judge_late_failure(&self, probe: Option<u8>, now: u64, chance: u32) {
        if !self.is_open() {
            self.window.record_late_failure(now);
        }
        let call = Call {
            failed: true,
            slow: false,
        };
        self.move_on(&Observation {
            call: Some(call),
            probe,
            window: self.window.counts(now),
            now,
            chance,
        });
    }

    fn move_on(&self, seen: &Observation) {
        let mut word = self.word.load(Ordering::Acquire);
        loop {
            let before = State::unpack(word);
            let (next, reason) = before.after(seen, &self.policy);
            if next == before {
                return;
            }
            match self.swap(word, next) {
                Ok(()) => {
                    if let Some(reason) = reason {
                        self.moved(before, next, reason, seen.now);
                    }
                    return;
                }
                Err(current) => word = current,
            }
        }
    }

    /// Bookkeeping of a transition this thread has made.
    fn moved(&self, before: State, after: State, reason: Reason, now: u64) {
        let evidence = reason.to_string();
        let standing = after.standing();
        self.transitions[standing as usize].fetch_add(1, Ordering::Relaxed);
        if standing == Standing::Closed {
            self.reason.store(None);
            let lasted = now.saturating_sub(self.opened.load(Ordering::Relaxed));
            return self.record(Cause::Answered, evidence, "circuit closed", Some(lasted));
        }
        self.reason.store(Some(Arc::new(reason)));
        self.window.forget();
        if before.standing() == Standing::Closed {
            self.opened.store(now, Ordering::Relaxed);
        }
        let lasts = after.due().saturating_sub(now);
        let evidence = match &*self.takes_over.load() {
            Some(other) => format!("{evidence}; {other} takes over"),
            None => evidence,
        };
        self.record(cause(reason), evidence, "circuit opened", Some(lasts));
    }

    fn tell_half_open(&self, now: u64) {
        self.transitions[Standing::HalfOpen as usize].fetch_add(1, Ordering::Relaxed);
        let lasted = now.saturating_sub(self.opened.load(Ordering::Relaxed));
        let evidence = format!(
            "its time is up; {} may try it",
            self.policy.half_open_requests
        );
        self.record(Cause::WaitOver, evidence, "circuit half-open", Some(lasted));
    }

    fn record(&self, cause: Cause, evidence: String, action: &'static str, nanos: Option<u64>) {
        let service = &*self.service;
        tracing::info!(service, evidence, "{action}");
        let subject = Subject {
            service,
            endpoint: None,
            instance: None,
        };
        let duration = nanos.map(Duration::from_nanos);
        self.events
            .record(subject, cause, evidence, action, duration);
    }

    #[cold]
    fn refuse(&self, state: State, now: u64) -> CircuitOpen {
        self.refused.fetch_add(1, Ordering::Relaxed);
        self.refusal(state, now)
    }

    fn refusal(&self, state: State, now: u64) -> CircuitOpen {
        let reason = self.reason.load();
        CircuitOpen {
            // The reason follows its transition a moment later.
            why: reason.as_ref().map_or_else(
                || "it has only just opened".into(),
                |reason| reason.to_string(),
            ),
            left: (state.phase == Phase::Open)
                .then(|| Duration::from_nanos(state.due().saturating_sub(now))),
        }
    }

    fn is_open(&self) -> bool {
        State::unpack(self.word.load(Ordering::Acquire)).standing() != Standing::Closed
    }

    pub(super) fn report(&self, now: u64) -> CircuitReport {
        let state = State::unpack(self.word.load(Ordering::Acquire));
        let standing = state.standing();
        let get = |count: &AtomicU64| count.load(Ordering::Relaxed);
        CircuitReport {
            standing,
            refusal: (standing != Standing::Closed).then(|| self.refusal(state, now)),
            transitions: std::array::from_fn(|index| get(&self.transitions[index])),
            refused: get(&self.refused),
        }
    }

    fn swap(&self, word: u64, next: State) -> Result<(), u64> {
        self.word
            .compare_exchange(word, next.pack(), Ordering::AcqRel, Ordering::Acquire)
            .map(drop)
    }
}

impl State {
    fn standing(self) -> Standing {
        match self.phase {
            Phase::Closed { .. } => Standing::Closed,
            Phase::Open => Standing::Open,
            Phase::HalfOpen { .. } => Standing::HalfOpen,
        }
    }
}

fn cause(reason: Reason) -> Cause {
    match reason {
        Reason::Consecutive(_) => Cause::ConsecutiveFailures,
        Reason::FailureShare { .. } => Cause::FailureShare,
        Reason::SlowShare { .. } => Cause::Slow,
        Reason::ProbeFailed(_) => Cause::ProbeFailed,
        Reason::ProbesAnswered(_) => Cause::Answered,
    }
}

#[cfg(test)]
mod tests;
