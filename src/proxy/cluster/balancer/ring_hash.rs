//! `ring_hash`: each endpoint has points on a ring in proportion to its weight, and a key leads to the next point (ketama).
//!
//! As long as an endpoint's points stay the same, who comes or goes moves nothing but its own share. So their number does not
//! follow from how many endpoints there are, but where that would make the ring too small or too large.

use std::ops::RangeInclusive;

use super::hashed::Identity;
use crate::base::hash::xxh64;

/// Points of an endpoint of mean weight. The share of one with so many points is off by a tenth, give or take.
const POINTS: u64 = 128;

#[derive(Debug)]
pub(super) struct Ring {
    /// Where the points lie, in order.
    hashes: Box<[u64]>,
    /// Whose each of them is, as indices into the endpoints.
    pub(super) owners: Box<[u32]>,
    /// Of as many equal parts of the ring as there are points or more: the first point that lies in it or behind it.
    starts: Box<[u32]>,
}

impl Ring {
    /// For at least one endpoint. Each has a point at least, so the ring may become that much larger than it should.
    pub(super) fn new(endpoints: &[Identity], size: &RangeInclusive<u32>) -> Ring {
        let total: f64 = endpoints.iter().map(|one| f64::from(one.weight)).sum();
        let size =
            (POINTS * endpoints.len() as u64).clamp((*size.start()).into(), (*size.end()).into());
        let mut points: Vec<(u64, u32)> = Vec::with_capacity(size as usize + endpoints.len());
        for (index, endpoint) in endpoints.iter().enumerate() {
            let share = f64::from(endpoint.weight) / total;
            let count = ((size as f64 * share).round() as u64).max(1);
            let name = endpoint.name();
            let point = |number| (xxh64(name.as_bytes(), number), index as u32);
            points.extend((0..count).map(point));
        }
        points.sort_unstable();
        let (hashes, owners): (Vec<u64>, Vec<u32>) = points.into_iter().unzip();
        Ring {
            starts: starts(&hashes),
            hashes: hashes.into(),
            owners: owners.into(),
        }
    }

    /// The point that a key leads to.
    pub(super) fn place(&self, key: u64) -> usize {
        let start = self.starts[part(key, self.starts.len())] as usize;
        let before = |hash: &&u64| **hash < key;
        let place = start + self.hashes[start..].iter().take_while(before).count();
        if place == self.hashes.len() { 0 } else { place }
    }
}

fn starts(hashes: &[u64]) -> Box<[u32]> {
    let parts = hashes.len().next_power_of_two();
    let mut starts = Vec::with_capacity(parts);
    for (index, hash) in hashes.iter().enumerate() {
        while starts.len() <= part(*hash, parts) {
            starts.push(index as u32);
        }
    }
    starts.resize(parts, hashes.len() as u32);
    starts.into()
}

/// In which of so many equal parts of the ring a hash lies.
fn part(hash: u64, parts: usize) -> usize {
    ((u128::from(hash) * parts as u128) >> 64) as usize
}

#[cfg(test)]
mod tests {
    use super::super::hashed::identities;
    use super::*;
    use crate::base::rng::for_test;

    const SIZE: RangeInclusive<u32> = 1_024..=8_388_608;

    #[test]
    fn a_key_leads_to_the_first_point_that_is_not_before_it() {
        let mut rng = for_test();
        for count in [1, 3, 40] {
            let ring = Ring::new(&identities(&vec![1; count]), &SIZE);
            let on_points = ring
                .hashes
                .iter()
                .flat_map(|hash| [*hash, hash.wrapping_add(1)]);
            let keys = on_points
                .chain([0, u64::MAX])
                .chain((0..1_000).map(|_| rng.u64(..)));
            for key in keys {
                let oracle = ring.hashes.partition_point(|hash| *hash < key);
                assert_eq!(ring.place(key), oracle % ring.hashes.len());
            }
        }
    }

    #[test]
    fn the_ring_is_as_large_as_it_should_be() {
        let points = |count, size| Ring::new(&identities(&vec![1; count]), &size).owners.len();
        assert_eq!(points(2, SIZE), 1_024);
        assert_eq!(points(20, SIZE), 20 * 128);
        assert_eq!(points(20, 1..=100), 100);
        assert_eq!(points(20, 1..=10), 20);
    }

    #[test]
    fn arcs_are_in_proportion_to_the_weights_as_far_as_points_can_tell() {
        let weights = [1, 2, 3, 4, 10];
        let ring = Ring::new(&identities(&weights), &(100_000..=100_000));
        let mut arcs = [0.0; 5];
        let mut before = *ring.hashes.last().unwrap();
        for (hash, owner) in std::iter::zip(&ring.hashes, &ring.owners) {
            arcs[*owner as usize] += hash.wrapping_sub(before) as f64 / 2.0_f64.powi(64);
            before = *hash;
        }
        for (arc, weight) in std::iter::zip(arcs, weights) {
            let share = f64::from(weight) / 20.0;
            // The sum of so many random arcs, to six standard deviations.
            let off = 6.0 / (100_000.0 * share).sqrt();
            assert!((arc / share - 1.0).abs() < off, "{arc} of {share}");
        }
    }
}
