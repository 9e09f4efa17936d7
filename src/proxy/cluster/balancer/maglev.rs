//! `maglev`: a table in which each endpoint has places in proportion to its weight, and a key leads to one of them.
//!
//! Each endpoint prefers the places in an order of its own, and they take turns at taking the next free one (Eisenbud et al.,
//! "Maglev: A Fast and Reliable Software Network Load Balancer", 3.4), so that whoever comes or goes leaves most of the others
//! theirs. Weights are as in Envoy: an endpoint half as heavy as the heaviest has its turn in every other round.

use super::hashed::Identity;
use crate::base::hash::xxh64;

const FREE: u32 = u32::MAX;

/// Whose each place is, as indices into `endpoints`, of which there is at least one. `size` is a prime.
pub(super) fn places(endpoints: &[Identity], size: u32) -> Box<[u32]> {
    let heaviest = endpoints.iter().map(|endpoint| u64::from(endpoint.weight));
    let heaviest = heaviest.max().unwrap_or(1);
    let mut candidates: Vec<Candidate> = endpoints
        .iter()
        .map(|endpoint| Candidate::new(endpoint, size))
        .collect();
    let mut places = vec![FREE; size as usize].into_boxed_slice();
    let mut left = size;
    for round in 1.. {
        for (index, candidate) in candidates.iter_mut().enumerate() {
            if round * candidate.weight < candidate.due {
                continue;
            }
            candidate.due += heaviest;
            places[candidate.next_free(&places)] = index as u32;
            left -= 1;
            if left == 0 {
                return places;
            }
        }
    }
    places
}

/// One endpoint on its way through the places.
struct Candidate {
    weight: u64,
    /// It has its turn in the round whose number times its weight is that much.
    due: u64,
    next: u32,
    step: u32,
    size: u32,
}

impl Candidate {
    fn new(endpoint: &Identity, size: u32) -> Self {
        let name = endpoint.name();
        let below = |bound: u32, seed| (xxh64(name.as_bytes(), seed) % u64::from(bound)) as u32;
        Self {
            weight: endpoint.weight.into(),
            due: 0,
            next: below(size, 0),
            // Any step but 0 leads to every place, as the size is a prime.
            step: below((size - 1).max(1), 1) + 1,
            size,
        }
    }

    fn next_free(&mut self, places: &[u32]) -> usize {
        loop {
            let place = self.next as usize;
            self.next += self.step;
            if self.next >= self.size {
                self.next -= self.size;
            }
            if places[place] == FREE {
                return place;
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::hashed::identities;
    use super::*;

    const SIZE: u32 = 65_537;

    fn counts(weights: &[u32]) -> Vec<usize> {
        let mut counts = vec![0; weights.len()];
        for owner in places(&identities(weights), SIZE) {
            counts[owner as usize] += 1;
        }
        counts
    }

    #[test]
    fn equal_endpoints_have_as_many_places_but_for_one() {
        for count in [1, 3, 10, 1_000] {
            let counts = counts(&vec![7; count]);
            let least = SIZE as usize / count;
            assert!(counts.iter().all(|n| *n == least || *n == least + 1));
        }
    }

    #[test]
    fn places_are_in_proportion_to_the_weights() {
        let weights = [1, 2, 3, 10, 100];
        let total: u32 = weights.iter().sum();
        for (count, weight) in std::iter::zip(counts(&weights), weights) {
            let share = f64::from(SIZE) * f64::from(weight) / f64::from(total);
            assert!((count as f64 - share).abs() <= 2.0, "{count} of {share}");
        }
    }

    #[test]
    fn more_endpoints_than_places_leave_some_without_one() {
        let counts = places(&identities(&[1; 20]), 7);
        assert_eq!(*counts.iter().max().unwrap(), 6);
        assert_eq!(places(&identities(&[1; 3]), 2).len(), 2);
    }
}
