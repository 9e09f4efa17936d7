//! What `maglev` and `ring_hash` share: for each key an order of the endpoints, and the first in it that may be picked.
//!
//! The order is of all endpoints that a cluster has, whoever of them is healthy, and follows from their addresses and weights alone.
//! So proxies that know the same endpoints agree on it, whatever each of them thinks of their health; and an endpoint that is
//! ejected loses its keys to those next in their orders and has the same ones again when it is back, while no other key moves.

use std::net::SocketAddr;
use std::sync::Arc;

use super::maglev;
use super::ring_hash::Ring;
use super::sample::Sampler;
use crate::model::{Balance, Hashing, Policy};
use crate::proxy::cluster::endpoint::Endpoint;

/// How far a key's order is followed. Who is not found by then is one of very few that may be picked.
const STEPS_MAX: usize = 1_024;

/// Not among those that may be picked.
const ABSENT: u32 = u32::MAX;

/// The orders of all keys.
#[derive(Debug)]
pub(in crate::proxy::cluster) struct Table {
    policy: Policy,
    hashing: Arc<Hashing>,
    /// By address, so that the order in which they became known makes no difference.
    endpoints: Box<[Identity]>,
    order: Order,
}

/// What makes an endpoint the same one everywhere.
#[derive(PartialEq, Eq, PartialOrd, Ord, Debug)]
pub(super) struct Identity {
    pub(super) address: SocketAddr,
    pub(super) weight: u32,
}

#[derive(Debug)]
enum Order {
    Maglev(Box<[u32]>),
    Ring(Ring),
}

impl Table {
    /// Of all endpoints that have a weight; None where the policy does not hash, or there are none. Working one out takes
    /// milliseconds, so one that stays right is kept.
    pub(in crate::proxy::cluster) fn of(
        endpoints: &[Arc<Endpoint>],
        balance: &Balance,
        before: Option<Arc<Table>>,
    ) -> Option<Arc<Table>> {
        let hashing = balance.hashing()?;
        let with_weight = endpoints.iter().filter(|one| one.model.weight > 0);
        let mut identities: Vec<Identity> = with_weight
            .map(|endpoint| Identity {
                address: endpoint.address,
                weight: endpoint.model.weight,
            })
            .collect();
        identities.sort_unstable();
        match before {
            _ if identities.is_empty() => None,
            Some(before) if before.is_of(balance.policy, &hashing, &identities) => Some(before),
            _ => Some(Arc::new(Table::new(
                balance.policy,
                hashing,
                identities.into(),
            ))),
        }
    }

    fn is_of(&self, policy: Policy, hashing: &Hashing, endpoints: &[Identity]) -> bool {
        self.policy == policy && *self.hashing == *hashing && *self.endpoints == *endpoints
    }

    fn new(policy: Policy, hashing: Arc<Hashing>, endpoints: Box<[Identity]>) -> Table {
        let order = match policy {
            Policy::RingHash => Order::Ring(Ring::new(&endpoints, &hashing.ring_size)),
            _ => Order::Maglev(maglev::places(&endpoints, hashing.table_size)),
        };
        Table {
            policy,
            hashing,
            endpoints,
            order,
        }
    }

    /// The endpoints in a key's order, as indices by address; the same ones again and again.
    fn walk(&self, key: u64) -> impl Iterator<Item = usize> {
        let (owners, start) = match &self.order {
            Order::Maglev(owners) => (owners, (key % owners.len() as u64) as usize),
            Order::Ring(ring) => (&ring.owners, ring.place(key)),
        };
        let (before, from) = owners.split_at(start);
        let order = from.iter().chain(before).take(STEPS_MAX);
        order.map(|owner| *owner as usize)
    }
}

impl Identity {
    /// What is hashed of it.
    pub(super) fn name(&self) -> String {
        self.address.to_string()
    }
}

/// The part of a table that may be picked.
#[derive(Debug)]
pub(super) struct Hashed {
    table: Arc<Table>,
    /// Which member each of the table's endpoints is, or [`ABSENT`].
    members: Box<[u32]>,
    /// For requests without a key, and for keys that lead to nobody.
    sampler: Sampler,
    /// How much of the mean a member may hold.
    bound: Option<f32>,
}

impl Hashed {
    pub(super) fn new(table: &Arc<Table>, endpoints: &[Arc<Endpoint>], weights: &[u32]) -> Self {
        let mut members = vec![ABSENT; table.endpoints.len()].into_boxed_slice();
        for (member, endpoint) in endpoints.iter().enumerate() {
            let by_address = |one: &Identity| one.address.cmp(&endpoint.address);
            if let Ok(index) = table.endpoints.binary_search_by(by_address) {
                members[index] = member as u32;
            }
        }
        let percent = table.hashing.bounded_load_percent;
        Self {
            table: table.clone(),
            members,
            sampler: Sampler::new(weights),
            bound: percent.map(|percent| percent as f32 / 100.0),
        }
    }

    /// One of the members: the first in the key's order with room under the bound, where there is one.
    pub(super) fn pick(
        &self,
        key: Option<u64>,
        has_room: impl Fn(usize, f32) -> bool,
        rng: &mut fastrand::Rng,
    ) -> usize {
        let Some(key) = key else {
            return self.sampler.one(rng);
        };
        self.bound
            .and_then(|bound| self.first(key, |member| has_room(member, bound)))
            .or_else(|| self.first(key, |_| true))
            .unwrap_or_else(|| self.sampler.one(&mut fastrand::Rng::with_seed(key)))
    }

    /// The first member in the key's order that may be taken.
    pub(super) fn first(&self, key: u64, may_be_taken: impl Fn(usize) -> bool) -> Option<usize> {
        self.table
            .walk(key)
            .map(|index| self.members[index])
            .filter(|member| *member != ABSENT)
            .map(|member| member as usize)
            .find(|member| may_be_taken(*member))
    }
}

/// What a member may hold, one request more included, where all hold so many: this much of its share by weight, rounded up so that
/// there is always one that has room (Mirrokni et al., "Consistent Hashing with Bounded Loads").
pub(super) fn capacity(bound: f32, held_by_all: u32, share: f32) -> u32 {
    (bound * (held_by_all as f32 + 1.0) * share).ceil() as u32
}

/// Of these weights, at 10.0.0.1 and so on.
#[cfg(test)]
pub(super) fn identities(weights: &[u32]) -> Vec<Identity> {
    let identity = |(number, weight): (u32, &u32)| Identity {
        address: (std::net::Ipv4Addr::from(0x0A00_0001 + number), 8080).into(),
        weight: *weight,
    };
    std::iter::zip(0.., weights).map(identity).collect()
}

#[cfg(test)]
mod tests {
    use std::collections::HashMap;

    use super::*;
    use crate::base::hash::xxh64;

    const POLICIES: [Policy; 2] = [Policy::Maglev, Policy::RingHash];
    const KEYS: u64 = 20_000;

    fn table(policy: Policy, endpoints: Vec<Identity>) -> Table {
        Table::new(policy, Arc::default(), endpoints.into())
    }

    fn keys() -> impl Iterator<Item = u64> {
        (0..KEYS).map(|number| xxh64(&number.to_le_bytes(), 0))
    }

    fn owner(table: &Table, key: u64) -> SocketAddr {
        table.endpoints[table.walk(key).next().unwrap()].address
    }

    /// How many of the keys lead elsewhere, of those whose endpoint both tables have, and of all others.
    fn moved(before: &Table, after: &Table) -> (f64, f64) {
        let is_in_both = |address: &SocketAddr| {
            [before, after]
                .iter()
                .all(|table| table.endpoints.iter().any(|one| one.address == *address))
        };
        let (mut needlessly, mut of_necessity) = (0.0, 0.0);
        for key in keys() {
            match (owner(before, key), owner(after, key)) {
                (was, is) if was == is => {}
                (was, is) if is_in_both(&was) && is_in_both(&is) => needlessly += 1.0,
                _ => of_necessity += 1.0,
            }
        }
        (needlessly / KEYS as f64, of_necessity / KEYS as f64)
    }

    #[test]
    fn the_removal_of_one_moves_little_but_its_own_keys() {
        for policy in POLICIES {
            for count in [10, 30] {
                let all = table(policy, identities(&vec![1; count]));
                let mut rest = identities(&vec![1; count]);
                rest.remove(count / 2);
                let (needlessly, of_necessity) = moved(&all, &table(policy, rest));
                let share = of_necessity * count as f64;
                assert!((0.6..1.5).contains(&share), "{policy:?} {count} {share}");
                // A ring's points stay where they are; a table's free places are fought for.
                let limit = if policy == Policy::RingHash {
                    0.0
                } else {
                    0.05
                };
                assert!(needlessly <= limit, "{policy:?} {count} {needlessly}");
            }
        }
    }

    #[test]
    fn keys_follow_the_weights() {
        let weights = [1, 2, 3, 4];
        for policy in POLICIES {
            let table = table(policy, identities(&weights));
            let mut counts = HashMap::new();
            keys().for_each(|key| *counts.entry(owner(&table, key)).or_insert(0.0) += 1.0);
            for (endpoint, weight) in std::iter::zip(&table.endpoints, weights) {
                let share = counts[&endpoint.address] / KEYS as f64;
                let expected = f64::from(weight) / 10.0;
                // Chance makes one of twenty at least of it; a ring's points are few.
                let off = if policy == Policy::RingHash {
                    0.5
                } else {
                    0.12
                };
                assert!(
                    (share / expected - 1.0).abs() < off,
                    "{policy:?} {share} of {expected}"
                );
            }
        }
    }

    /// Another hash or another order would part the sidecars of one version from those of another.
    #[test]
    fn every_version_takes_the_same_endpoint() {
        let owners = |policy| -> Vec<usize> {
            let table = table(policy, identities(&[1, 1, 2, 1, 3]));
            let users = ["alice", "bob", "carol", "dave", "erin", "frank"];
            users
                .iter()
                .map(|user| table.walk(xxh64(user.as_bytes(), 0)).next().unwrap())
                .collect()
        };
        assert_eq!(owners(Policy::Maglev), [3, 2, 0, 2, 1, 2]);
        assert_eq!(owners(Policy::RingHash), [4, 4, 0, 2, 0, 4]);
    }

    #[test]
    fn there_is_always_one_with_room_under_the_bound() {
        // 10 at most of 3 equal ones hold 4 at most at 100 %: all at 4 would be 12.
        assert_eq!(capacity(1.0, 10, 1.0 / 3.0), 4);
        assert_eq!(capacity(1.25, 0, 0.001), 1);
        assert_eq!(capacity(1.25, 99, 0.5), 63);
    }
}
