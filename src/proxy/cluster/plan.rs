//! Who may be picked just now: health, priorities, zone and panic, worked out once after each change instead of at each pick.

use std::collections::BTreeMap;

/// How a level's health counts for more than it is, so that a few missing endpoints do not spill traffic to the next
/// priority: by 1.4, a level serves all of its traffic while 5 in 7 of its endpoints are healthy.
pub const OVERPROVISIONING: f64 = 1.4;

/// While at least this share of the own zone's endpoints is healthy, they get all the traffic: 70 %.
pub const ZONE_HEALTHY_MIN: f64 = 0.7;

/// Below this share of healthy endpoints, ejections are taken to be a symptom of something else, and ejected endpoints
/// are used too: 50 %.
pub const PANIC_BELOW: f64 = 0.5;

/// What an endpoint may be used for, best first. Who is worse than [`Standing::Healthy`] serves only where better ones are missing.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub enum Standing {
    Healthy,
    /// Its breaker is open, or a connection to it broke a moment ago.
    Ejected,
    /// It joined a service whose endpoints are checked, and has not passed a check yet.
    Unproven,
    /// The registry says that it is failing.
    Critical,
    /// Its connect failed.
    Unreachable,
    /// Its health check fails: not even the last resort, but its priority misses it.
    Failing,
    /// Draining, or of weight 0: gets nothing new.
    Out,
}

impl Standing {
    /// It may serve, if only where nobody better is left.
    pub fn is_usable(self) -> bool {
        !matches!(self, Standing::Failing | Standing::Out)
    }
}

/// What the plan needs to know of an endpoint.
#[derive(Clone, Copy, Debug)]
pub(super) struct Candidate {
    pub(super) standing: Standing,
    pub(super) priority: u8,
    /// It is in the proxy's own zone.
    pub(super) local: bool,
}

/// Who gets new requests, as indices into the candidates.
#[derive(PartialEq, Debug, Default)]
pub(super) struct Plan {
    pub(super) levels: Vec<Level>,
    /// The others that could serve, best first: for retries when the levels' endpoints have all been tried.
    pub(super) rest: Vec<usize>,
    pub(super) panic: bool,
}

#[derive(PartialEq, Debug)]
pub(super) struct Level {
    /// Of all levels' traffic; the shares sum up to 1.
    pub(super) share: f64,
    pub(super) members: Vec<usize>,
}

/// Works out who gets new requests.
pub(super) fn plan(candidates: &[Candidate]) -> Plan {
    let priorities = Priority::all(candidates);
    let healths: Vec<f64> = priorities.iter().map(Priority::health).collect();
    let total: f64 = healths.iter().sum();
    let mut plan = if total > 0.0 {
        by_health(&priorities, &healths, total)
    } else {
        last_resort(candidates)
    };
    plan.rest = rest(candidates, &plan.levels);
    plan
}

struct Priority {
    healthy: Vec<usize>,
    ejected: Vec<usize>,
    /// Of the healthy ones, those in the own zone, where enough of that zone is healthy.
    near: Vec<usize>,
    size: usize,
}

impl Priority {
    /// The endpoints by priority, the first to be used first. Newcomers that nobody knows yet are not missed.
    fn all(candidates: &[Candidate]) -> Vec<Priority> {
        let mut groups: BTreeMap<u8, Vec<usize>> = BTreeMap::new();
        for (index, candidate) in candidates.iter().enumerate() {
            if !matches!(candidate.standing, Standing::Unproven | Standing::Out) {
                groups.entry(candidate.priority).or_default().push(index);
            }
        }
        groups
            .into_values()
            .map(|members| Priority::of(candidates, &members))
            .collect()
    }

    fn of(candidates: &[Candidate], members: &[usize]) -> Priority {
        let with = |standing| -> Vec<usize> {
            let has = |index: &usize| candidates[*index].standing == standing;
            members.iter().copied().filter(has).collect()
        };
        let healthy = with(Standing::Healthy);
        let local = |index: &&usize| candidates[**index].local;
        let near: Vec<usize> = healthy.iter().filter(local).copied().collect();
        let zone_size = members.iter().filter(local).count();
        let enough = !near.is_empty() && near.len() as f64 >= ZONE_HEALTHY_MIN * zone_size as f64;
        Priority {
            ejected: with(Standing::Ejected),
            near: if enough { near } else { Vec::new() },
            size: members.len(),
            healthy,
        }
    }

    fn healthy_share(&self) -> f64 {
        self.healthy.len() as f64 / self.size as f64
    }

    fn health(&self) -> f64 {
        (self.healthy_share() * OVERPROVISIONING).min(1.0)
    }

    /// Who serves this priority's share, and whether that is by panic. Panic is only where all priorities together cannot carry
    /// the traffic.
    fn members(&self, enough: bool) -> (Vec<usize>, bool) {
        if !enough && self.healthy_share() < PANIC_BELOW && !self.ejected.is_empty() {
            let mut all = [&self.healthy[..], &self.ejected[..]].concat();
            all.sort_unstable();
            return (all, true);
        }
        let near = !self.near.is_empty();
        let members = if near { &self.near } else { &self.healthy };
        (members.clone(), false)
    }
}

/// Each priority takes what its health can carry of what the ones before it left; where all together cannot carry it, each
/// takes a share by its health.
fn by_health(priorities: &[Priority], healths: &[f64], total: f64) -> Plan {
    let mut plan = Plan::default();
    let enough = total >= 1.0;
    let mut left = 1.0;
    for (priority, health) in std::iter::zip(priorities, healths) {
        let share = if enough {
            health.min(left)
        } else {
            health / total
        };
        left -= share;
        // Rounding may leave a last, tiny share.
        if share > 1e-9 {
            let (members, panic) = priority.members(enough);
            plan.panic |= panic;
            plan.levels.push(Level { share, members });
        }
    }
    plan
}

/// Nobody is healthy: all of the best kind there is, of the first priority that has it.
fn last_resort(candidates: &[Candidate]) -> Plan {
    let kind = |candidate: &Candidate| (candidate.standing, candidate.priority);
    let usable = |candidate: &&Candidate| candidate.standing.is_usable();
    let Some(best) = candidates.iter().filter(usable).map(kind).min() else {
        return Plan::default();
    };
    let members = (0..candidates.len())
        .filter(|index| kind(&candidates[*index]) == best)
        .collect();
    Plan {
        levels: vec![Level {
            share: 1.0,
            members,
        }],
        panic: best.0 == Standing::Ejected,
        ..Plan::default()
    }
}

fn rest(candidates: &[Candidate], levels: &[Level]) -> Vec<usize> {
    let mut used = vec![false; candidates.len()];
    for index in levels.iter().flat_map(|level| &level.members) {
        used[*index] = true;
    }
    let mut rest: Vec<usize> = (0..candidates.len())
        .filter(|index| !used[*index] && candidates[*index].standing.is_usable())
        .collect();
    rest.sort_by_key(|index| (candidates[*index].standing, candidates[*index].priority));
    rest
}

#[cfg(test)]
mod tests {
    use super::Standing::*;
    use super::*;

    fn at(priority: u8, standings: &[Standing]) -> Vec<Candidate> {
        let candidate = |standing: &Standing| Candidate {
            standing: *standing,
            priority,
            local: false,
        };
        standings.iter().map(candidate).collect()
    }

    fn shares(plan: &Plan) -> Vec<f64> {
        let rounded = |level: &Level| (level.share * 100.0).round() / 100.0;
        plan.levels.iter().map(rounded).collect()
    }

    #[test]
    fn the_healthy_serve_and_the_others_are_left_for_retries() {
        let plan = plan(&at(
            0,
            &[Healthy, Unreachable, Healthy, Ejected, Healthy, Out],
        ));
        assert_eq!(plan.levels[0].members, [0, 2, 4]);
        assert_eq!(plan.rest, [3, 1]);
        assert!(!plan.panic);
    }

    #[test]
    fn a_priority_keeps_all_traffic_while_five_in_seven_are_healthy() {
        let first = at(
            0,
            &[
                Healthy, Healthy, Healthy, Healthy, Healthy, Ejected, Ejected,
            ],
        );
        let plan = plan(&[first, at(1, &[Healthy])].concat());
        assert_eq!(shares(&plan), [1.0]);
        assert_eq!(plan.rest[0], 7, "the next priority serves retries first");
    }

    #[test]
    fn what_a_priority_cannot_carry_goes_to_the_next() {
        let first = at(0, &[Healthy, Unreachable]);
        let plan = plan(&[first, at(7, &[Healthy, Healthy])].concat());
        assert_eq!(shares(&plan), [0.7, 0.3]);
        assert_eq!(plan.levels[1].members, [2, 3]);
    }

    #[test]
    fn a_dead_priority_leaves_everything_to_the_next() {
        let plan = plan(&[at(0, &[Unreachable; 3]), at(1, &[Healthy; 2])].concat());
        assert_eq!(shares(&plan), [1.0]);
        assert_eq!(plan.levels[0].members, [3, 4]);
    }

    #[test]
    fn below_half_healthy_the_ejected_serve_too_but_not_those_whose_connect_failed() {
        let plan = plan(&at(0, &[Healthy, Ejected, Ejected, Unreachable, Critical]));
        assert!(plan.panic);
        assert_eq!(plan.levels[0].members, [0, 1, 2]);
        assert_eq!(plan.rest, [4, 3]);
    }

    #[test]
    fn half_healthy_is_no_panic() {
        let plan = plan(&at(0, &[Healthy, Ejected]));
        assert!(!plan.panic);
        assert_eq!(plan.levels[0].members, [0]);
    }

    #[test]
    fn there_is_no_panic_while_another_priority_can_carry_the_traffic() {
        let plan = plan(&[at(0, &[Healthy, Ejected, Ejected]), at(1, &[Healthy])].concat());
        assert!(!plan.panic);
        assert_eq!(plan.levels[0].members, [0]);
        assert_eq!(shares(&plan), [0.47, 0.53]);
    }

    #[test]
    fn without_healthy_ones_the_best_kind_left_serves() {
        let best = |standings: &[Standing]| plan(&at(0, standings)).levels[0].members.clone();
        assert_eq!(best(&[Unreachable, Critical, Ejected]), [2]);
        assert_eq!(best(&[Unreachable, Critical]), [1]);
        assert_eq!(best(&[Unreachable, Unreachable]), [0, 1]);
    }

    #[test]
    fn the_critical_serve_only_when_nothing_better_is_left() {
        let plan = plan(&[at(0, &[Critical]), at(1, &[Healthy])].concat());
        assert_eq!(plan.levels[0].members, [1]);
        assert_eq!(plan.rest, [0]);
    }

    #[test]
    fn who_fails_its_health_check_is_missed_and_not_used() {
        let first = at(0, &[Healthy, Failing]);
        let spilling = plan(&[first.clone(), at(1, &[Healthy])].concat());
        assert_eq!(shares(&spilling), [0.7, 0.3]);
        let alone = plan(&at(0, &[Healthy, Failing, Failing, Ejected]));
        assert!(alone.panic);
        assert_eq!(alone.levels[0].members, [0, 3]);
        assert_eq!(alone.rest, [0; 0]);
    }

    #[test]
    fn newcomers_that_nobody_knows_yet_wait_while_others_are_healthy() {
        let plan_of = |standings: &[Standing]| plan(&at(0, standings));
        let scaled_up = plan_of(&[Healthy, Unproven, Unproven, Unproven]);
        assert!(!scaled_up.panic);
        assert_eq!(scaled_up.levels[0].members, [0]);
        assert_eq!(plan_of(&[Failing, Unproven]).levels[0].members, [1]);
    }

    #[test]
    fn nobody_usable_makes_an_empty_plan() {
        assert_eq!(plan(&at(0, &[Out, Out, Failing])), Plan::default());
        assert_eq!(plan(&[]), Plan::default());
    }

    #[test]
    fn the_own_zone_serves_alone_while_enough_of_it_is_healthy() {
        let zoned = |standings: &[Standing]| {
            let mut near = at(0, standings);
            near.iter_mut().for_each(|candidate| candidate.local = true);
            plan(&[near, at(0, &[Healthy; 10])].concat()).levels[0]
                .members
                .len()
        };
        assert_eq!(zoned(&[Healthy; 3]), 3);
        assert_eq!(zoned(&[Healthy, Healthy, Healthy, Ejected]), 3);
        assert_eq!(zoned(&[Healthy, Healthy, Ejected]), 12);
    }
}
