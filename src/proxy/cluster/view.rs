//! Who may be picked just now, ready for picking: a [`Plan`] with its endpoints arranged for their policy.
//!
//! Immutable; the cluster makes a new one when this one is outdated.

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::AtomicU64;
use std::time::Duration;

use super::balancer::{Balancer, Table};
use super::endpoint::{Endpoint, EndpointId};
use super::members::EndpointSet;
use super::plan::{Candidate, Plan, Standing, plan};
use super::{PickError, Shared};
use crate::base::hash;
use crate::model::{Balance, EndpointState, Gray};
use crate::proxy::events::{Cause, Subject};

/// The share of its weight that an endpoint gets right after its return: 10 %.
const SLOW_START_MIN: f64 = 0.1;

#[derive(Debug)]
pub(super) struct View {
    generation: u64,
    /// When the next ejection, avoidance or slow start runs out, in nanoseconds.
    expires: u64,
    /// How long a slow start lasts in nanoseconds, where one is under way.
    slow_start: Option<u64>,
    levels: Box<[Level]>,
    /// Their time is up: one request each.
    probes: Box<[Arc<Endpoint>]>,
    /// Others that could serve, best first.
    rest: Box<[Arc<Endpoint>]>,
    pub(super) panic: bool,
    /// Where requests go, for telling when that changes.
    course: Course,
    nobody: PickError,
    /// Of a service with traffic lanes, who may be picked in each; who is in none is picked here.
    lanes: Option<HashMap<Arc<str>, View>>,
}

/// Where requests go, by and large.
#[derive(Clone, Copy, Default, Debug)]
struct Course {
    /// The last priority that gets requests; None where nobody does.
    priority: Option<u8>,
    /// All that get requests are in the proxy's own zone.
    near: bool,
    healthy: usize,
    endpoints: usize,
    /// Since when ejected endpoints are used too, in nanoseconds.
    panic_since: Option<u64>,
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
            slow_start: None,
            levels: Box::default(),
            probes: Box::default(),
            rest: Box::default(),
            panic: false,
            course: Course::default(),
            nobody: PickError::NoEndpoint,
            lanes: None,
        }
    }
}

impl View {
    pub(super) fn new(
        generation: u64,
        set: &EndpointSet,
        balance: &Balance,
        table: Option<&Arc<Table>>,
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
        let window = u64::try_from(balance.slow_start.window.as_nanos()).unwrap_or(u64::MAX);
        let returning = || usable().filter_map(|e| e.returning_since(window, now));
        View {
            generation,
            expires: usable()
                .filter_map(|e| awaited(e, now))
                .chain(returning().map(|since| since.saturating_add(window)))
                .min()
                .unwrap_or(u64::MAX),
            slow_start: returning().next().map(|_| window),
            levels: levels(&plan, balance, table, &chosen, now),
            probes: usable()
                .filter(|e| e.breaker().is_due(now))
                .cloned()
                .collect(),
            rest: chosen(&plan.rest).into(),
            panic: plan.panic,
            course: Course::of(&candidates, &plan, now),
            nobody: nobody(set),
            lanes: None,
        }
    }

    /// A view of those without a lane, with one of each lane.
    pub(super) fn with_lanes(
        set: &EndpointSet,
        gray: &Gray,
        view: impl Fn(&EndpointSet) -> View,
    ) -> View {
        let mut base = EndpointSet::default();
        let mut lanes: HashMap<Arc<str>, EndpointSet> = HashMap::new();
        for endpoint in &set.endpoints {
            let own = match endpoint.lane(gray) {
                None => &mut base,
                Some(lane) => lanes.entry(lane.into()).or_default(),
            };
            own.endpoints.push(endpoint.clone());
        }
        let lanes = lanes.into_iter().map(|(lane, set)| (lane, view(&set)));
        let lanes: HashMap<_, _> = lanes.collect();
        let base = view(&base);
        View {
            expires: lanes
                .values()
                .map(|view| view.expires)
                .fold(base.expires, u64::min),
            lanes: Some(lanes),
            ..base
        }
    }

    /// Who may be picked in a lane; None where it has nobody to serve, so that those without one do.
    pub(super) fn lane_in_force(&self, lane: Option<&str>) -> Option<&View> {
        let of_lane = self.lanes.as_ref()?.get(lane?)?;
        (!of_lane.is_out()).then_some(of_lane)
    }

    /// This view in the place of another: tells what has become of requests, where that is another thing than before.
    pub(super) fn after(mut self, before: &View, now: u64, shared: &Shared) -> View {
        let then = before.course;
        if self.panic {
            self.course.panic_since = then.panic_since.or(Some(now));
        }
        // The first endpoints are no change of course.
        if then.endpoints > 0 {
            self.course.tell_change(then, now, shared);
        }
        self
    }

    /// Somebody's health has changed since, or it is time for somebody's probe.
    pub(super) fn is_outdated(&self, generation: u64, now: u64) -> bool {
        self.generation != generation || now >= self.expires
    }

    pub(super) fn is_out(&self) -> bool {
        self.course.healthy == 0 && self.probes.is_empty()
    }

    /// An endpoint that is not in `avoid`, and whether the pick is its probe. What chance decides is the same for the same `key`.
    pub(super) fn pick(
        &self,
        key: Option<u64>,
        avoid: &[EndpointId],
        now: u64,
        turn: &AtomicU64,
        rng: &mut fastrand::Rng,
    ) -> Result<(&Arc<Endpoint>, bool), PickError> {
        if let Some(endpoint) = self.probe(avoid, now) {
            return Ok((endpoint, true));
        }
        let level = self.level(key, rng).ok_or(self.nobody)?;
        let mut endpoint = level.balancer.pick(key, now, turn, rng);
        if let Some(window) = self.slow_start
            && is_held_back(endpoint, window, now, key, rng)
        {
            let other = level.balancer.pick_other(key, &[endpoint.id], now, rng);
            endpoint = other.unwrap_or(endpoint);
        }
        if !avoid.contains(&endpoint.id) {
            return Ok((endpoint, false));
        }
        let other = self.other(level, key, avoid, now, rng);
        other.map(|other| (other, false)).ok_or(PickError::AllTried)
    }

    fn probe(&self, avoid: &[EndpointId], now: u64) -> Option<&Arc<Endpoint>> {
        self.probes
            .iter()
            .find(|endpoint| !avoid.contains(&endpoint.id) && endpoint.try_probe(now))
    }

    fn level(&self, key: Option<u64>, rng: &mut fastrand::Rng) -> Option<&Level> {
        match &self.levels[..] {
            [] => None,
            [only] => Some(only),
            several => {
                let place = chance(key, 0, rng);
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
        key: Option<u64>,
        avoid: &[EndpointId],
        now: u64,
        rng: &mut fastrand::Rng,
    ) -> Option<&Arc<Endpoint>> {
        let same = level.end;
        let levels = self.levels.iter();
        let first = levels.clone().filter(|level| level.end == same);
        first
            .chain(levels.filter(|level| level.end != same))
            .find_map(|level| level.balancer.pick_other(key, avoid, now, rng))
            .or_else(|| self.rest.iter().find(|e| !avoid.contains(&e.id)))
    }
}

/// Whether a request that fell to it goes elsewhere, as it is on its way back to its whole share.
fn is_held_back(
    endpoint: &Endpoint,
    window: u64,
    now: u64,
    key: Option<u64>,
    rng: &mut fastrand::Rng,
) -> bool {
    let share = returning_share(endpoint, window, now);
    share.is_some_and(|share| chance(key, 1, rng) >= share)
}

/// The part of its share that it gets, while it is on its way back to the whole.
pub(super) fn returning_share(endpoint: &Endpoint, window: u64, now: u64) -> Option<f64> {
    let since = endpoint.returning_since(window, now)?;
    let share = now.saturating_sub(since) as f64 / window as f64;
    Some(share.max(SLOW_START_MIN))
}

/// Chance in `0.0..1.0`; of a key, always the same for the same question.
fn chance(key: Option<u64>, question: u64, rng: &mut fastrand::Rng) -> f64 {
    match key {
        Some(key) => hash::unit(key, question),
        None => rng.f64(),
    }
}

impl Course {
    fn of(candidates: &[Candidate], plan: &Plan, now: u64) -> Course {
        let mut served = plan.levels.iter().flat_map(|level| &level.members);
        let of = |index: &usize| &candidates[*index];
        let healthy = |one: &&Candidate| one.standing == Standing::Healthy;
        Course {
            priority: served.clone().map(|index| of(index).priority).max(),
            near: !plan.levels.is_empty() && served.all(|index| of(index).local),
            healthy: candidates.iter().filter(healthy).count(),
            endpoints: candidates.len(),
            panic_since: plan.panic.then_some(now),
        }
    }

    fn tell_change(self, then: Course, now: u64, shared: &Shared) {
        let (healthy, endpoints) = (self.healthy, self.endpoints);
        let failover = shared.service.load().failover.clone();
        let tell = |cause, action: &'static str, lasted| {
            let mut evidence = format!("{healthy} of {endpoints} endpoints healthy");
            if let (0, Some(other)) = (healthy, &failover) {
                evidence.push_str(&format!("; {} takes over", other.service));
            }
            tracing::info!(service = %shared.label, evidence, "{action}");
            let subject = Subject {
                service: &shared.label,
                endpoint: None,
                instance: None,
            };
            shared
                .events
                .record(subject, cause, evidence, action, lasted);
        };
        match (then.panic_since, self.panic_since) {
            (None, Some(_)) => tell(
                Cause::Health,
                "Ejected endpoints are used too (panic)",
                None,
            ),
            (Some(since), None) => {
                let lasted = Duration::from_nanos(now.saturating_sub(since));
                tell(
                    Cause::Health,
                    "Ejected endpoints rest again (end of panic)",
                    Some(lasted),
                );
            }
            _ => {}
        }
        let takes_over = failover.is_some();
        if takes_over {
            match (then.healthy, self.healthy) {
                (1.., 0) => tell(Cause::Health, "Another service takes over", None),
                (0, 1..) => tell(Cause::Health, "Requests are served here again", None),
                _ => {}
            }
        }
        match (then.priority, self.priority) {
            (Some(_), None) | (None, Some(_)) if takes_over => {}
            (Some(_), None) => tell(
                Cause::Health,
                "Requests are refused: no endpoint is left",
                None,
            ),
            (None, Some(_)) => tell(Cause::Health, "Requests are served again", None),
            (Some(then), Some(now)) if now > then => {
                tell(
                    Cause::Priority,
                    "Requests go to endpoints of a lower priority",
                    None,
                );
            }
            (Some(then), Some(now)) if now < then => {
                tell(
                    Cause::Priority,
                    "Requests stay at endpoints of a higher priority again",
                    None,
                );
            }
            _ => {}
        }
        match (then.near, self.near) {
            _ if then.priority.is_none() || self.priority.is_none() => {}
            (true, false) => tell(Cause::Zone, "Requests leave the zone", None),
            (false, true) => tell(Cause::Zone, "Requests stay in the zone again", None),
            _ => {}
        }
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
    balance: &Balance,
    table: Option<&Arc<Table>>,
    chosen: &impl Fn(&[usize]) -> Vec<Arc<Endpoint>>,
    now: u64,
) -> Box<[Level]> {
    let mut end = 0.0;
    plan.levels
        .iter()
        .map(|level| {
            end += level.share;
            Level {
                end,
                balancer: Balancer::new(balance, chosen(&level.members), table, now),
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
