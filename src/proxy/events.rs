//! What this proxy has detected and done about it: the latest events, for the admin page, the registry and `pillion events`.
//!
//! An event is a change: an endpoint taken out or back, traffic that goes elsewhere. What happens on every request is no event,
//! so recording takes a lock and allocates. Where it is told is the app's to decide.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use crate::api;
use crate::base::recent::Recent;

/// Older ones are forgotten.
pub const EVENTS_MAX: usize = 1024;

/// A longer evidence is cut.
const EVIDENCE_CHARS_MAX: usize = 300;

/// Why something changed.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Cause {
    ConnectFailed,
    ConnectionBroke,
    ConsecutiveFailures,
    FailureShare,
    SuccessRate,
    Slow,
    /// A request that tried an open circuit.
    ProbeFailed,
    /// An open circuit's time is up.
    WaitOver,
    /// It has answered again.
    Answered,
    HealthCheck,
    /// The registry or the document does not list it any more.
    Left,
    /// Too few endpoints of a priority are healthy, or enough again.
    Priority,
    /// Too few endpoints of the own zone are healthy, or enough again.
    Zone,
    /// Too few endpoints are healthy at all, or enough again.
    Health,
}

impl Cause {
    pub const ALL: [Cause; 14] = [
        Cause::ConnectFailed,
        Cause::ConnectionBroke,
        Cause::ConsecutiveFailures,
        Cause::FailureShare,
        Cause::SuccessRate,
        Cause::Slow,
        Cause::ProbeFailed,
        Cause::WaitOver,
        Cause::Answered,
        Cause::HealthCheck,
        Cause::Left,
        Cause::Priority,
        Cause::Zone,
        Cause::Health,
    ];

    pub fn as_str(self) -> &'static str {
        match self {
            Cause::ConnectFailed => "connect_failed",
            Cause::ConnectionBroke => "connection_broke",
            Cause::ConsecutiveFailures => "consecutive_failures",
            Cause::FailureShare => "failure_share",
            Cause::SuccessRate => "success_rate",
            Cause::Slow => "slow",
            Cause::ProbeFailed => "probe_failed",
            Cause::WaitOver => "wait_over",
            Cause::Answered => "answered",
            Cause::HealthCheck => "health_check",
            Cause::Left => "left",
            Cause::Priority => "priority",
            Cause::Zone => "zone",
            Cause::Health => "health",
        }
    }
}

/// Who an event is about.
#[derive(Clone, Copy, Debug)]
pub struct Subject<'a> {
    /// `namespace/name`, with `/subset` where it is one.
    pub service: &'a str,
    pub endpoint: Option<SocketAddr>,
    pub instance: Option<&'a str>,
}

/// The latest events of a process. Cloning gives another handle to the same.
#[derive(Clone, Default, Debug)]
pub struct Events(Arc<Log>);

#[derive(Debug)]
struct Log {
    recent: Recent<api::Event>,
    totals: [AtomicU64; Cause::ALL.len()],
}

impl Default for Log {
    fn default() -> Self {
        Self {
            recent: Recent::new(EVENTS_MAX),
            totals: Default::default(),
        }
    }
}

impl Events {
    /// `duration` is how long the action will last, or how long what it ends has lasted.
    pub fn record(
        &self,
        subject: Subject<'_>,
        cause: Cause,
        evidence: String,
        action: &'static str,
        duration: Option<Duration>,
    ) {
        self.0.totals[cause as usize].fetch_add(1, Ordering::Relaxed);
        self.0.recent.push(|id| api::Event {
            id,
            time: jiff::Timestamp::now().to_string(),
            sidecar: None,
            service: subject.service.to_owned(),
            endpoint: subject.endpoint.map(|address| address.to_string()),
            instance: subject.instance.map(str::to_owned),
            cause: cause.as_str().into(),
            evidence: evidence.chars().take(EVIDENCE_CHARS_MAX).collect(),
            action: action.into(),
            duration_ms: duration.map(|duration| duration.as_millis() as u64),
        });
    }

    /// Those that came after this id, the oldest first, `max` at most.
    pub fn since(&self, id: u64, max: usize) -> api::Events {
        api::Events {
            last: self.0.recent.last(),
            events: self.0.recent.since(id, max),
        }
    }

    /// How many there have been for each cause.
    pub fn totals(&self) -> impl Iterator<Item = (Cause, u64)> {
        let total = |cause: Cause| self.0.totals[cause as usize].load(Ordering::Relaxed);
        Cause::ALL
            .into_iter()
            .map(move |cause| (cause, total(cause)))
    }
}
