//! When each endpoint is asked: one loop on the control thread, and few questions at once.
//!
//! Each endpoint is asked an interval after it was asked last, give or take a tenth, so that proxies that started together do not
//! ask together. Those that are there at the beginning have their first turn within their interval, and newcomers sooner, as
//! their traffic waits for it.

use std::cmp::Reverse;
use std::collections::{BinaryHeap, HashMap};
use std::sync::Arc;
use std::time::Duration;

use tokio::task::{Id, JoinError, JoinSet};
use tokio::time::Instant;

use super::probe::probe;
use super::targets::{Target, TargetChange, TargetId};
use super::{Progress, State};
use crate::base::rng;
use crate::identity::{ClientConfigs, ClientTls, TlsError, server_name};
use crate::model::{HealthProbe, Protocol};
use crate::proxy::cluster::Clusters;
use crate::proxy::destination::{Handshake, alpn};
use crate::proxy::events::{Cause, Events, Subject};

/// Questions under way at once; where that is not enough, all wait longer.
pub const PROBES_MAX: usize = 64;

/// Within this time a newcomer is asked: 1 s, or its interval where that is shorter.
pub const NEWCOMER_WAIT: Duration = Duration::from_secs(1);

/// How far a wait is from the interval at most, as a share of it.
const JITTER: f64 = 0.1;

/// Checks the endpoints of these clusters for as long as it is polled; dropping it ends all questions.
pub async fn run(clusters: Arc<Clusters>, tls: Arc<ClientConfigs>) {
    let mut prober = Prober::new(clusters.clone(), tls);
    loop {
        let next = prober.next();
        tokio::select! {
            changes = clusters.target_changes() => {
                let now = Instant::now();
                for change in changes {
                    prober.follow(change, now);
                }
            }
            Some(answered) = prober.asking.join_next_with_id() => prober.answered(answered, Instant::now()),
            () = until(next) => prober.ask_due(Instant::now()),
        }
    }
}

async fn until(time: Option<Instant>) {
    match time {
        Some(time) => tokio::time::sleep_until(time).await,
        None => std::future::pending().await,
    }
}

struct Prober {
    clusters: Arc<Clusters>,
    tls: Arc<ClientConfigs>,
    checked: HashMap<TargetId, Checked>,
    /// Whose turn is when. Of a target that is gone, its turn remains until it has come.
    turns: BinaryHeap<Reverse<(Instant, TargetId)>>,
    /// Dropping it ends them all.
    asking: JoinSet<Result<(), String>>,
    asked: HashMap<Id, TargetId>,
    rng: fastrand::Rng,
}

struct Checked {
    target: Arc<Target>,
    progress: Progress,
    /// When its state began, as far as is known.
    since: Instant,
    /// The last question's begin.
    asked: Instant,
    /// Made with the first question; kept, so that certificates are read again only when they change.
    tls: Option<Arc<ClientTls>>,
}

impl Prober {
    fn new(clusters: Arc<Clusters>, tls: Arc<ClientConfigs>) -> Self {
        Self {
            clusters,
            tls,
            checked: HashMap::new(),
            turns: BinaryHeap::new(),
            asking: JoinSet::new(),
            asked: HashMap::new(),
            rng: rng::fresh(),
        }
    }

    fn follow(&mut self, change: TargetChange, now: Instant) {
        match change {
            TargetChange::Begin(target) => {
                let state = target.health.state();
                let within = match state {
                    State::Unproven => target.check.interval.min(NEWCOMER_WAIT),
                    _ => target.check.interval,
                };
                let turn = now + within.mul_f64(self.rng.f64());
                self.turns.push(Reverse((turn, target.id)));
                let checked = Checked {
                    progress: Progress::at(state),
                    since: now,
                    asked: now,
                    tls: None,
                    target,
                };
                self.checked.insert(checked.target.id, checked);
            }
            TargetChange::End(id) => {
                self.checked.remove(&id);
            }
        }
    }

    /// When somebody is to be asked; None while there is nobody, or while enough are being asked.
    fn next(&self) -> Option<Instant> {
        let Reverse((turn, _)) = self.turns.peek()?;
        (self.asking.len() < PROBES_MAX).then_some(*turn)
    }

    /// Asks those whose turn it is, as many as may be asked.
    fn ask_due(&mut self, now: Instant) {
        while self.next().is_some_and(|turn| turn <= now) {
            let Some(Reverse((_, id))) = self.turns.pop() else {
                return;
            };
            let Some(checked) = self.checked.get_mut(&id) else {
                continue;
            };
            checked.asked = now;
            let target = checked.target.clone();
            let handshake = checked.handshake(&self.tls);
            let handshake = handshake.map_err(|error| error.to_string());
            let asking = self
                .asking
                .spawn(async move { probe(&target, handshake?).await });
            self.asked.insert(asking.id(), id);
        }
    }

    fn answered(&mut self, answered: Result<(Id, Result<(), String>), JoinError>, now: Instant) {
        let (task, result) = match answered {
            Ok(answered) => answered,
            Err(error) => (error.id(), Err(format!("the probe ended: {error}"))),
        };
        let id = self.asked.remove(&task);
        let Some((id, checked)) = id.and_then(|id| Some((id, self.checked.get_mut(&id)?))) else {
            return;
        };
        let interval = checked.target.check.interval;
        let wait = interval.mul_f64(1.0 - JITTER + 2.0 * JITTER * self.rng.f64());
        let turn = (checked.asked + wait).max(now);
        self.turns.push(Reverse((turn, id)));
        let before = checked.progress.state;
        checked.progress = checked
            .progress
            .after(result.is_ok(), &checked.target.check);
        checked.target.health.count(&result);
        if checked.progress.state != before {
            checked.target.health.set(checked.progress.state);
            let lasted = now - std::mem::replace(&mut checked.since, now);
            tell(
                self.clusters.events(),
                &checked.target,
                before,
                lasted,
                &result,
            );
            let target = &checked.target;
            let returned = before == State::Failing;
            self.clusters
                .health_changed(&target.service, target.address, returned, now);
        }
    }
}

fn tell(
    events: &Events,
    target: &Target,
    before: State,
    lasted: Duration,
    result: &Result<(), String>,
) {
    let (service, endpoint) = (target.service.to_string(), target.address);
    let (evidence, action, lasted) = match result {
        // Nobody had doubted it.
        Ok(()) if before == State::Assumed => return,
        Ok(()) => {
            tracing::info!(service, %endpoint, "Health check passes");
            (
                "its health check passes".to_owned(),
                "returned",
                Some(lasted),
            )
        }
        Err(reason) => {
            tracing::warn!(service, %endpoint, %reason, "Health check fails");
            (reason.clone(), "taken out", None)
        }
    };
    let subject = Subject {
        service: &service,
        endpoint: Some(endpoint),
        instance: target.instance.as_deref(),
    };
    events.record(subject, Cause::HealthCheck, evidence, action, lasted);
}

impl Checked {
    /// What TLS needs, where the service speaks it.
    fn handshake(&mut self, configs: &ClientConfigs) -> Result<Option<Handshake>, TlsError> {
        let target = &self.target;
        let Some(settings) = &target.tls else {
            return Ok(None);
        };
        let protocol = match target.check.probe {
            HealthProbe::Grpc { .. } => Some(Protocol::Grpc),
            HealthProbe::Http { .. } | HealthProbe::Tcp => target.protocol,
        };
        let tls = match &self.tls {
            Some(tls) => tls,
            None => self.tls.insert(configs.get(settings, alpn(protocol))?),
        };
        let name = server_name(settings, &target.written, &target.service)?;
        Ok(Some((tls.config(), name)))
    }
}

#[cfg(test)]
#[path = "prober_tests.rs"]
mod tests;
