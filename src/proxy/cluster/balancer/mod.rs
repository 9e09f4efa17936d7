//! Choosing one of several endpoints that may all be picked: one file for each policy.
//!
//! The decisions are pure functions of figures and chance; this file brings them together with the live figures. It knows
//! nothing of health: [`super::view`] has already decided who may be picked.
//!
//! `maglev` and `ring_hash` share [`hashed`], which has the order of endpoints for each key. Two have no file: `random` is one draw
//! of a [`Sampler`], and `load_factor` is [`peak_ewma`] over a [`Sampler`] of the weights that endpoints report
//! ([`super::reported`]).

mod hashed;
mod least_connections;
mod least_request;
mod lowest_load;
mod maglev;
mod peak_ewma;
mod ring_hash;
mod round_robin;
mod sample;
mod weighted_round_robin;

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use hashed::Hashed;
pub(super) use hashed::Table;
pub use peak_ewma::LATENCY_INITIAL;
use sample::Sampler;
use weighted_round_robin::Schedule;

use super::endpoint::{Endpoint, EndpointId, LATENCY_DECAY};
use super::reported;
use crate::model::{self, Balance, Policy};

/// The endpoints of one priority level, arranged for their policy.
#[derive(Debug)]
pub(super) struct Balancer {
    members: Box<[Member]>,
    rule: Rule,
}

#[derive(Debug)]
struct Member {
    endpoint: Arc<Endpoint>,
    /// The mean weight divided by its own: what one request weighs here against the others.
    burden: f32,
}

#[derive(Debug)]
enum Rule {
    Random(Sampler),
    RoundRobin,
    WeightedRoundRobin(Schedule),
    LeastRequest(Sampler, model::LeastRequest),
    LeastConnections(Sampler),
    PeakEwma(Sampler),
    LowestLoad,
    Hashed(Hashed),
}

impl Balancer {
    /// For endpoints of weights above 0; there is at least one. `now` is for those who go by reports, whose weights take the place
    /// of the configured ones while there are any. `table` is that of all endpoints, for those who hash.
    pub(super) fn new(
        balance: &Balance,
        endpoints: Vec<Arc<Endpoint>>,
        table: Option<&Arc<Table>>,
        now: u64,
    ) -> Self {
        let weights: Vec<u32> = endpoints.iter().map(|e| e.model.weight).collect();
        let reported = match balance.policy.weighs_by_load() {
            true => reported_weights(&endpoints, now),
            false => None,
        };
        let drawn_by = reported.as_ref().unwrap_or(&weights);
        let rule = match table {
            Some(table) => Rule::Hashed(Hashed::new(table, &endpoints, drawn_by)),
            None => Rule::new(balance, drawn_by),
        };
        let total: f64 = drawn_by.iter().map(|weight| f64::from(*weight)).sum();
        let mean = total / drawn_by.len() as f64;
        let burden = |weight: &u32| match (&rule, &reported) {
            // How fast it goes tells already how much it can hold.
            (Rule::PeakEwma(_), Some(_)) => 1.0,
            _ => (mean / f64::from(*weight)) as f32,
        };
        let members = std::iter::zip(endpoints, drawn_by).map(|(endpoint, weight)| Member {
            endpoint,
            burden: burden(weight),
        });
        Self {
            members: members.collect(),
            rule,
        }
    }

    /// One of the endpoints. `key` is what the request is, for the policies that hash; `turn` counts the picks of the cluster, for those
    /// that go in turns.
    pub(super) fn pick(
        &self,
        key: Option<u64>,
        now: u64,
        turn: &AtomicU64,
        rng: &mut fastrand::Rng,
    ) -> &Arc<Endpoint> {
        let count = self.members.len();
        let index = match &self.rule {
            _ if count == 1 => 0,
            Rule::Random(sampler) => sampler.one(rng),
            Rule::RoundRobin => round_robin::pick(count, turn.fetch_add(1, Ordering::Relaxed)),
            Rule::WeightedRoundRobin(schedule) => {
                schedule.pick(turn.fetch_add(1, Ordering::Relaxed))
            }
            Rule::LeastRequest(sampler, settings) => {
                least_request::pick(sampler, *settings, |index| self.in_flight(index), rng)
            }
            Rule::LeastConnections(sampler) => {
                least_connections::pick(sampler, |index| self.open(index), rng)
            }
            Rule::PeakEwma(sampler) => peak_ewma::pick(sampler, |index| self.pace(index, now), rng),
            Rule::LowestLoad => lowest_load::pick(count, |index| self.reported(index, now), rng),
            Rule::Hashed(hashed) => {
                hashed.pick(key, |index, bound| self.has_room(index, bound), rng)
            }
        };
        &self.members[index].endpoint
    }

    /// The best of those not in `avoid`: for retries. All of them are looked at; but who hashes takes the next one in the key's order.
    pub(super) fn pick_other(
        &self,
        key: Option<u64>,
        avoid: &[EndpointId],
        now: u64,
        rng: &mut fastrand::Rng,
    ) -> Option<&Arc<Endpoint>> {
        if let Some(next) = self.next_in_order(key, avoid) {
            return Some(next);
        }
        let mut best: Option<(f32, &Arc<Endpoint>)> = None;
        for (index, member) in self.members.iter().enumerate() {
            if avoid.contains(&member.endpoint.id) {
                continue;
            }
            let cost = self.cost(index, now, rng);
            if best.is_none_or(|(least, _)| cost < least) {
                best = Some((cost, &member.endpoint));
            }
        }
        best.map(|(_, endpoint)| endpoint)
    }

    fn next_in_order(&self, key: Option<u64>, avoid: &[EndpointId]) -> Option<&Arc<Endpoint>> {
        let Rule::Hashed(hashed) = &self.rule else {
            return None;
        };
        let is_new = |index: usize| !avoid.contains(&self.members[index].endpoint.id);
        let index = hashed.first(key?, is_new)?;
        Some(&self.members[index].endpoint)
    }

    /// What the policy compares, with chance among equals; where it does not compare, chance by weight alone.
    fn cost(&self, index: usize, now: u64, rng: &mut fastrand::Rng) -> f32 {
        let chance = rng.f32();
        match &self.rule {
            Rule::Random(_) | Rule::RoundRobin | Rule::WeightedRoundRobin(_) | Rule::Hashed(_) => {
                // The least of exponential variables is each one with a chance by its rate.
                -(1.0 - chance).ln() * self.members[index].burden
            }
            Rule::LeastRequest(..) => {
                (self.in_flight(index) as f32 + chance) * self.members[index].burden
            }
            Rule::LeastConnections(_) => self.open(index).0 + chance * 1e-3,
            Rule::PeakEwma(_) => self.pace(index, now).cost() * (1.0 + chance * 1e-3),
            Rule::LowestLoad => self.reported(index, now).unwrap_or(0.0) + chance * 1e-3,
        }
    }

    /// Whether it may hold one request more, where nobody is to hold more than so much of the mean. Those that the whole cluster holds
    /// are taken for those of its members.
    fn has_room(&self, index: usize, bound: f32) -> bool {
        let Member { endpoint, burden } = &self.members[index];
        let share = 1.0 / (self.members.len() as f32 * burden);
        let held_by_all = endpoint.shared().limits.requests();
        endpoint.in_flight() < hashed::capacity(bound, held_by_all, share)
    }

    fn in_flight(&self, index: usize) -> u32 {
        self.members[index].endpoint.in_flight()
    }

    /// Connections, then requests, both against the weight.
    fn open(&self, index: usize) -> (f32, f32) {
        let Member { endpoint, burden } = &self.members[index];
        (
            endpoint.connections() as f32 * burden,
            endpoint.in_flight() as f32 * burden,
        )
    }

    fn reported(&self, index: usize, now: u64) -> Option<f32> {
        self.members[index].endpoint.load_reported()?.load(now)
    }

    fn pace(&self, index: usize, now: u64) -> peak_ewma::Pace {
        let Member { endpoint, burden } = &self.members[index];
        peak_ewma::Pace {
            latency: endpoint.load().latency.read(now, LATENCY_DECAY),
            queue: endpoint.in_flight() as f32 * burden,
        }
    }
}

impl Rule {
    fn new(balance: &Balance, weights: &[u32]) -> Rule {
        let equal = weights.windows(2).all(|pair| pair[0] == pair[1]);
        match balance.policy {
            // Who hashes has a table, unless there is nobody to pick.
            Policy::Random | Policy::Maglev | Policy::RingHash => {
                Rule::Random(Sampler::new(weights))
            }
            Policy::RoundRobin | Policy::WeightedRoundRobin | Policy::AutoWeightedRoundRobin => {
                match equal {
                    true => Rule::RoundRobin,
                    false => Rule::WeightedRoundRobin(Schedule::new(weights)),
                }
            }
            Policy::LeastRequest => {
                Rule::LeastRequest(Sampler::new(weights), balance.least_request)
            }
            Policy::LeastConnections => Rule::LeastConnections(Sampler::new(weights)),
            Policy::PeakEwma | Policy::LoadFactor => Rule::PeakEwma(Sampler::new(weights)),
            Policy::LowestLoad => Rule::LowestLoad,
        }
    }
}

fn reported_weights(endpoints: &[Arc<Endpoint>], now: u64) -> Option<Vec<u32>> {
    let weight = |endpoint: &Arc<Endpoint>| endpoint.load_reported()?.weight(now);
    let weights: Vec<Option<f64>> = endpoints.iter().map(weight).collect();
    reported::weights(&weights)
}
