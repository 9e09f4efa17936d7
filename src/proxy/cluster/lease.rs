//! One request's hold on an endpoint, and what it says of the endpoint in the end.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use tokio::time::Instant;

use super::balancer::LATENCY_INITIAL;
use super::breaker::Verdict;
use super::endpoint::{Endpoint, EndpointId, LATENCY_DECAY};
use super::time::nanos;
use crate::base::ewma;

/// What a failure or a refusal counts as in the latency average, so that failing fast attracts no traffic: 5 s.
pub const PENALTY: Duration = Duration::from_secs(5);

/// The longest `Retry-After` that is believed: 300 s.
pub const RETRY_AFTER_MAX: Duration = Duration::from_secs(300);

/// How an attempt ended, as far as its endpoint is concerned.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Outcome {
    /// Answered, whatever the status below 500 (but see `Shed`).
    Success,
    /// A 5xx other than the gateway ones.
    Failure5xx,
    /// 502, 503, 504.
    GatewayFailure,
    /// No connection: refused, unreachable, timed out, TLS failed.
    ConnectFailure,
    /// The connection broke, or spoke nonsense, before the answer was complete.
    Reset,
    /// No answer in time.
    Timeout,
    /// 429, RESOURCE_EXHAUSTED or a proxy's refusal: a latency penalty, but not a failure.
    Shed { retry_after: Option<Duration> },
    /// Given up by us or the client: nothing is known.
    Cancelled,
}

impl Outcome {
    pub const COUNT: usize = 8;

    /// The outcomes that speak against an endpoint, by their index.
    pub const FAILURES: std::ops::RangeInclusive<usize> = 1..=5;

    /// As metrics name them, in the order of [`Outcome::index`].
    pub const NAMES: [&'static str; Self::COUNT] = [
        "success",
        "failure_5xx",
        "gateway_failure",
        "connect_failure",
        "reset",
        "timeout",
        "shed",
        "cancelled",
    ];

    pub fn index(self) -> usize {
        match self {
            Outcome::Success => 0,
            Outcome::Failure5xx => 1,
            Outcome::GatewayFailure => 2,
            Outcome::ConnectFailure => 3,
            Outcome::Reset => 4,
            Outcome::Timeout => 5,
            Outcome::Shed { .. } => 6,
            Outcome::Cancelled => 7,
        }
    }

    pub(super) fn verdict(self) -> Verdict {
        match self {
            Outcome::Success => Verdict::Success,
            Outcome::Failure5xx => Verdict::Failure,
            Outcome::GatewayFailure => Verdict::Gateway,
            Outcome::Timeout => Verdict::Late,
            Outcome::ConnectFailure => Verdict::Unreachable,
            Outcome::Reset => Verdict::Broken,
            Outcome::Shed { .. } => Verdict::Refused,
            Outcome::Cancelled => Verdict::None,
        }
    }
}

/// Owns one request's place at an endpoint and under the cluster's `requests_max`.
///
/// Keep it until the answer's last byte and [`Lease::settle`] it. Dropping it unsettled gives both places back and counts as
/// cancelled: no verdict on the endpoint, and a half-open endpoint whose probe it was is probed by the next request.
#[must_use = "dropping the lease cancels it"]
#[derive(Debug)]
pub struct Lease {
    endpoint: Arc<Endpoint>,
    /// Random bits drawn at the pick, for the jitter of an ejection.
    chance: u32,
    /// It is the one request that tries a half-open or avoided endpoint.
    probe: bool,
    judged: Option<Verdict>,
    counted: bool,
}

impl Lease {
    /// The caller has taken its places under `requests_max` and `endpoint_requests_max`, which this lease now owns.
    pub(super) fn new(endpoint: Arc<Endpoint>, probe: bool, chance: u32) -> Self {
        Self {
            endpoint,
            chance,
            probe,
            judged: None,
            counted: false,
        }
    }

    pub fn endpoint(&self) -> &Arc<Endpoint> {
        &self.endpoint
    }

    /// It is the one request that tries an endpoint which has failed before.
    pub fn is_probe(&self) -> bool {
        self.probe
    }

    /// Gives the places back as if it had never been picked.
    pub(super) fn not_used(mut self) -> EndpointId {
        self.counted = true;
        self.endpoint.id
    }

    /// The answer's head has come: judges the endpoint now instead of when the body ends, which may be days later. The hold
    /// goes on. `latency` is the time since the request was sent.
    pub fn answered(&mut self, outcome: Outcome, latency: Duration, now: Instant) {
        self.judge(outcome, latency, nanos(now));
    }

    /// The exchange is over. After [`Lease::answered`] only a failure says something new (the body broke off), and not if it was
    /// one already; `latency` does not count again.
    pub fn settle(mut self, outcome: Outcome, latency: Duration, now: Instant) {
        let now = nanos(now);
        match self.judged {
            None => self.judge(outcome, latency, now),
            Some(before) if outcome.verdict().is_failure() && !before.is_failure() => {
                self.endpoint
                    .judge(outcome.verdict(), false, now, self.chance);
            }
            Some(_) => {}
        }
        self.count(outcome);
    }

    fn judge(&mut self, outcome: Outcome, latency: Duration, now: u64) {
        if self.judged.is_some() {
            return;
        }
        let verdict = outcome.verdict();
        self.judged = Some(verdict);
        self.observe(outcome, latency, now);
        self.endpoint.judge(verdict, self.probe, now, self.chance);
    }

    fn observe(&self, outcome: Outcome, latency: Duration, now: u64) {
        let load = self.endpoint.load();
        let average = &load.latency;
        if outcome == Outcome::Success {
            load.time_to_answers
                .fetch_add(ewma::nanos(latency) as u64, Ordering::Relaxed);
            self.endpoint.shared().retry_budget.answered(now);
        }
        match outcome {
            // The breaker has kept the traffic away for as long as that was right; what the failures cost ends with it.
            Outcome::Success if self.probe => average.restart(now, ewma::nanos(latency)),
            Outcome::Success => average.observe(now, ewma::nanos(latency), LATENCY_DECAY),
            Outcome::Cancelled => {
                let initial = ewma::nanos(LATENCY_INITIAL);
                average.observe_at_least(now, ewma::nanos(latency), initial, LATENCY_DECAY);
            }
            Outcome::Shed { retry_after } => {
                let asked = retry_after.unwrap_or(PENALTY);
                let penalty = asked.clamp(PENALTY, RETRY_AFTER_MAX);
                average.observe(now, ewma::nanos(penalty), LATENCY_DECAY);
            }
            _ => average.observe(now, ewma::nanos(latency.max(PENALTY)), LATENCY_DECAY),
        }
    }

    fn count(&mut self, outcome: Outcome) {
        self.counted = true;
        self.endpoint.load().totals[outcome.index()].fetch_add(1, Ordering::Relaxed);
    }
}

impl Drop for Lease {
    fn drop(&mut self) {
        if self.judged.is_none() && self.probe {
            self.endpoint.judge(Verdict::None, true, 0, self.chance);
        }
        if !self.counted {
            self.count(Outcome::Cancelled);
        }
        self.endpoint
            .shared()
            .limits
            .release_request(&self.endpoint);
    }
}
