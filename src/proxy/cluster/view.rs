//! Who may be picked just now, ready for picking: a [`Plan`] with its endpoints arranged for their policy.
//!
//! Immutable; the cluster makes a new one when this one is outdated.

use std::sync::Arc;
use std::sync::atomic::AtomicU64;

use super::PickError;
use super::balancer::Balancer;
use super::endpoint::{Endpoint, EndpointId};
use super::members::EndpointSet;
use super::plan::{Candidate, Plan, Standing, plan};
use crate::model::{EndpointState, Policy};

#[derive(Debug)]
pub(super) struct View {
    generation: u64,
    /// When the next ejection or avoidance runs out, in nanoseconds.
    expires: u64,
    levels: Box<[Level]>,
    /// Their time is up: one request each.
    probes: Box<[Arc<Endpoint>]>,
    /// Others that could serve, best first.
    rest: Box<[Arc<Endpoint>]>,
    pub(super) panic: bool,
    nobody: PickError,
}

#[derive(Debug)]
struct Level {
    /// Where its part of all traffic ends; the last one's is 1.
    end: f64,
    balancer: Balancer,
}

impl Default for View {
    fn default() -> Self {
        Self {
            generation: 0,
            expires: u64::MAX,
            levels: Box::default(),
            probes: Box::default(),
            rest: Box::default(),
            panic: false,
            nobody: PickError::NoEndpoint,
        }
    }
}

impl View {
    pub(super) fn new(
        generation: u64,
        set: &EndpointSet,
        policy: Policy,
        zone: Option<&str>,
        now: u64,
    ) -> View {
        let candidates: Vec<Candidate> = set
            .endpoints
            .iter()
            .map(|endpoint| candidate(endpoint, zone))
            .collect();
        let plan = plan(&candidates);
        let chosen = |indices: &[usize]| -> Vec<Arc<Endpoint>> {
            let endpoint = |index: &usize| set.endpoints[*index].clone();
            indices.iter().map(endpoint).collect()
        };
        let usable = || {
            std::iter::zip(&set.endpoints, &candidates)
                .filter(|(_, candidate)| candidate.standing.is_usable())
                .map(|(endpoint, _)| endpoint)
        };
        View {
            generation,
            expires: usable()
                .filter_map(|e| awaited(e, now))
                .min()
                .unwrap_or(u64::MAX),
            levels: levels(&plan, policy, &chosen),
            probes: usable()
                .filter(|e| e.breaker().is_due(now))
                .cloned()
                .collect(),
            rest: chosen(&plan.rest).into(),
            panic: plan.panic,
            nobody: nobody(set),
        }
    }

    /// Somebody's health has changed since, or it is time for somebody's probe.
    pub(super) fn is_outdated(&self, generation: u64, now: u64) -> bool {
        self.generation != generation || now >= self.expires
    }

    /// An endpoint that is not in `avoid`, and whether the pick is its probe.
    pub(super) fn pick(
        &self,
        avoid: &[EndpointId],
        now: u64,
        turn: &AtomicU64,
        rng: &mut fastrand::Rng,
    ) -> Result<(&Arc<Endpoint>, bool), PickError> {
        if let Some(endpoint) = self.probe(avoid, now) {
            return Ok((endpoint, true));
        }
        let level = self.level(rng).ok_or(self.nobody)?;
        let endpoint = level.balancer.pick(now, turn, rng);
        if !avoid.contains(&endpoint.id) {
            return Ok((endpoint, false));
        }
        let other = self.other(level, avoid, now, rng);
        other.map(|other| (other, false)).ok_or(PickError::AllTried)
    }

    fn probe(&self, avoid: &[EndpointId], now: u64) -> Option<&Arc<Endpoint>> {
        self.probes
            .iter()
            .find(|endpoint| !avoid.contains(&endpoint.id) && endpoint.try_probe(now))
    }

    fn level(&self, rng: &mut fastrand::Rng) -> Option<&Level> {
        match &self.levels[..] {
            [] => None,
            [only] => Some(only),
            several => {
                let place = rng.f64();
                several
                    .iter()
                    .find(|level| place < level.end)
                    .or(several.last())
            }
        }
    }

    /// For a retry: from the same level, else from another one, else whoever could serve.
    fn other(
        &self,
        level: &Level,
        avoid: &[EndpointId],
        now: u64,
        rng: &mut fastrand::Rng,
    ) -> Option<&Arc<Endpoint>> {
        let same = level.end;
        let levels = self.levels.iter();
        let first = levels.clone().filter(|level| level.end == same);
        first
            .chain(levels.filter(|level| level.end != same))
            .find_map(|level| level.balancer.pick_other(avoid, now, rng))
            .or_else(|| self.rest.iter().find(|e| !avoid.contains(&e.id)))
    }
}

fn candidate(endpoint: &Endpoint, zone: Option<&str>) -> Candidate {
    Candidate {
        standing: endpoint.standing(),
        priority: endpoint.model.priority,
        local: zone.is_some() && endpoint.model.zone.as_deref() == zone,
    }
}

/// When its time will be up, if it is not yet.
fn awaited(endpoint: &Arc<Endpoint>, now: u64) -> Option<u64> {
    let breaker = endpoint.breaker();
    if breaker.is_due(now) {
        None
    } else {
        breaker.due()
    }
}

fn levels(
    plan: &Plan,
    policy: Policy,
    chosen: &impl Fn(&[usize]) -> Vec<Arc<Endpoint>>,
) -> Box<[Level]> {
    let mut end = 0.0;
    plan.levels
        .iter()
        .map(|level| {
            end += level.share;
            Level {
                end,
                balancer: Balancer::new(policy, chosen(&level.members)),
            }
        })
        .collect()
}

/// What to say when nobody may be picked.
fn nobody(set: &EndpointSet) -> PickError {
    if set.endpoints.is_empty() {
        return PickError::NoEndpoint;
    }
    let (mut draining, mut weightless, mut failing) = (0, 0, 0);
    for endpoint in &set.endpoints {
        match endpoint.standing() {
            _ if endpoint.model.state == EndpointState::Draining => draining += 1,
            _ if endpoint.model.weight == 0 => weightless += 1,
            Standing::Failing => failing += 1,
            _ => {}
        }
    }
    PickError::NoneHealthy {
        draining,
        weightless,
        failing,
    }
}
