//! What `/clusters` and the metrics show of a cluster: each endpoint with its state, its load, and why.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use tokio::time::Instant;

use super::breaker::{Breaker, Phase};
use super::circuit::CircuitReport;
use super::endpoint::Endpoint;
use super::health::State;
use super::plan::Standing;
use super::reported::LoadReport;
use super::time::nanos;
use super::view::returning_share;
use super::{Cluster, Overflow};
use crate::model::EndpointState;

/// A cluster at one moment.
#[derive(Clone, Debug)]
pub struct Report {
    /// More than half of the endpoints are not healthy, so ejected ones are used too.
    pub panic: bool,
    /// None where it has no breaker.
    pub circuit: Option<CircuitReport>,
    /// Requests that hold a lease.
    pub requests: u32,
    /// Requests that wait for a connection.
    pub pending: u32,
    pub connections: u32,
    /// Retries under way.
    pub retrying: u32,
    /// How often each limit has refused something, in the order of [`Overflow::ALL`].
    pub overflows: [u64; Overflow::ALL.len()],
    /// Retries granted in the last 10 s, and how many may be.
    pub retries: (u64, u64),
    /// Ejections since the cluster exists.
    pub ejections: u64,
    pub endpoints: Vec<EndpointReport>,
}

/// An endpoint at one moment.
#[derive(Clone, Debug)]
pub struct EndpointReport {
    pub endpoint: Arc<Endpoint>,
    pub standing: Standing,
    /// One short sentence.
    pub why: Why,
    pub in_flight: u32,
    pub connections: u32,
    /// The average that `peak_ewma` goes by, penalties included; None before the first answer.
    pub latency: Option<Duration>,
    pub failures_in_a_row: u16,
    pub ejections: u64,
    /// What it has last said of its load; None where it never has, or nobody goes by that.
    pub reported: Option<LoadReport>,
}

/// The reason for an endpoint's standing.
#[derive(Clone, PartialEq, Debug)]
pub enum Why {
    Healthy,
    /// Slow start: it gets this part of its share.
    Returning(f64),
    /// Passing, but with failures in a row.
    Failing(u16),
    Draining,
    WeightZero,
    /// The registry says so.
    Critical,
    /// Failures in a row have ejected it; it is tried after this time.
    Ejected(Duration),
    /// A connect failed; it is tried after this time.
    ConnectFailed(Duration),
    /// A connection broke; it is tried after this time.
    ConnectionBroke(Duration),
    /// It came later than the checks of its service began, and has not passed one yet.
    Unproven,
    /// Its health check fails, and what the last one met.
    CheckFails(Arc<str>),
    /// One request is trying it.
    Probing,
    /// The next request tries it.
    ProbeDue,
    Removed,
}

impl fmt::Display for Why {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Why::Healthy => f.write_str("healthy"),
            Why::Returning(share) => {
                let percent = 100.0 * share;
                write!(
                    f,
                    "healthy, on its way back: gets {percent:.0} % of its share"
                )
            }
            Why::Failing(1) => f.write_str("healthy, but its last answer was a failure"),
            Why::Failing(failures) => write!(f, "healthy, but {failures} failures in a row"),
            Why::Draining => f.write_str("draining: finishes what it holds"),
            Why::WeightZero => f.write_str("its weight is 0"),
            Why::Critical => f.write_str("the registry says that it is failing"),
            Why::Ejected(left) => {
                write!(
                    f,
                    "ejected for failures in a row; tried again in {}",
                    seconds(left)
                )
            }
            Why::ConnectFailed(left) => {
                write!(
                    f,
                    "could not be connected to; tried again in {}",
                    seconds(left)
                )
            }
            Why::ConnectionBroke(left) => {
                write!(f, "a connection broke; tried again in {}", seconds(left))
            }
            Why::Unproven => f.write_str("new: its health check has not passed yet"),
            Why::CheckFails(obstacle) => write!(f, "its health check fails: {obstacle}"),
            Why::Probing => f.write_str("half-open: one request is trying it"),
            Why::ProbeDue => f.write_str("half-open: the next request tries it"),
            Why::Removed => f.write_str("removed"),
        }
    }
}

fn seconds(left: &Duration) -> String {
    format!("{:.1} s", left.as_secs_f64())
}

impl Cluster {
    /// How the cluster is at this moment.
    pub fn report(&self, now: Instant) -> Report {
        let now_nanos = nanos(now);
        let limits = self.limits();
        let set = self.endpoints();
        let window = self.service().balance.slow_start.window.as_nanos();
        let window = u64::try_from(window).unwrap_or(u64::MAX);
        Report {
            panic: self.view(now_nanos).panic,
            circuit: self.shared.circuit.get().map(|c| c.report(now_nanos)),
            requests: limits.requests(),
            pending: limits.pending(),
            connections: limits.connections(),
            retrying: limits.retries(),
            overflows: Overflow::ALL.map(|limit| limits.refused(limit)),
            retries: self.retry_budget().used(now),
            ejections: self.ejections_total(),
            endpoints: set
                .endpoints
                .iter()
                .map(|e| e.report(window, now_nanos))
                .collect(),
        }
    }
}

impl Endpoint {
    fn report(self: &Arc<Self>, window: u64, now: u64) -> EndpointReport {
        let breaker = self.breaker();
        EndpointReport {
            endpoint: self.clone(),
            standing: self.standing(),
            why: why(self, breaker, window, now),
            in_flight: self.in_flight(),
            connections: self.connections(),
            latency: self.latency(now),
            failures_in_a_row: breaker.consecutive,
            ejections: self.ejections_total(),
            reported: self
                .load_reported()
                .and_then(|reported| reported.report(now)),
        }
    }
}

fn why(endpoint: &Endpoint, breaker: Breaker, window: u64, now: u64) -> Why {
    let left = Duration::from_nanos(breaker.due().unwrap_or(0).saturating_sub(now));
    let checked = endpoint.health.as_ref().map(|health| health.state());
    match breaker.phase {
        _ if endpoint.model.state == EndpointState::Draining => Why::Draining,
        _ if endpoint.model.weight == 0 => Why::WeightZero,
        Phase::Retired => Why::Removed,
        _ if checked == Some(State::Failing) => Why::CheckFails(obstacle(endpoint)),
        Phase::Closed if endpoint.model.state == EndpointState::Critical => Why::Critical,
        Phase::Closed if checked == Some(State::Unproven) => Why::Unproven,
        Phase::Closed if breaker.consecutive > 0 => Why::Failing(breaker.consecutive),
        Phase::Closed => {
            let share = returning_share(endpoint, window, now);
            share.map_or(Why::Healthy, Why::Returning)
        }
        _ if breaker.is_due(now) => Why::ProbeDue,
        Phase::AvoidedProbe | Phase::OpenProbe => Why::Probing,
        Phase::Open => Why::Ejected(left),
        Phase::Avoided if breaker.unreachable => Why::ConnectFailed(left),
        Phase::Avoided => Why::ConnectionBroke(left),
    }
}

/// What its last check met; after one that passed it is on its way back.
fn obstacle(endpoint: &Endpoint) -> Arc<str> {
    let obstacle = endpoint
        .health
        .as_ref()
        .and_then(|health| health.obstacle());
    obstacle.unwrap_or_else(|| "it has only just passed again".into())
}
