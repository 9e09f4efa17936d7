//! Drawing endpoints by weight in constant time.

use crate::base::rng::{scale, two_below};

#[derive(Debug)]
pub(super) enum Sampler {
    /// Equal weights.
    Uniform { count: u32 },
    /// Unequal weights: the alias method. Slot i is i up to its threshold of 2³², and its alias above.
    Alias {
        slots: Box<[Slot]>,
        weights: Box<[u32]>,
    },
}

#[derive(Clone, Copy, Debug)]
pub(super) struct Slot {
    threshold: u64,
    alias: u32,
}

/// How often a second draw that hit the first one again is repeated before its neighbour is taken.
const REDRAWS: usize = 4;

impl Sampler {
    /// For at least one weight, all above 0, and fewer than 2³² of them.
    pub(super) fn new(weights: &[u32]) -> Self {
        if weights.windows(2).all(|pair| pair[0] == pair[1]) {
            return Sampler::Uniform {
                count: weights.len() as u32,
            };
        }
        Sampler::Alias {
            slots: alias_table(weights),
            weights: weights.into(),
        }
    }

    pub(super) fn count(&self) -> usize {
        match self {
            Sampler::Uniform { count } => *count as usize,
            Sampler::Alias { slots, .. } => slots.len(),
        }
    }

    /// The weights, where they are unequal.
    pub(super) fn weights(&self) -> Option<&[u32]> {
        match self {
            Sampler::Uniform { .. } => None,
            Sampler::Alias { weights, .. } => Some(weights),
        }
    }

    pub(super) fn one(&self, rng: &mut fastrand::Rng) -> usize {
        match self {
            Sampler::Uniform { count } => scale(rng.u32(..), *count) as usize,
            Sampler::Alias { slots, .. } => draw(slots, rng),
        }
    }

    /// Two different ones (the same twice only where there is only one). The first is drawn by weight; so is the second, but
    /// for being another.
    pub(super) fn two(&self, rng: &mut fastrand::Rng) -> (usize, usize) {
        match self {
            Sampler::Uniform { count: 0 | 1 } => (0, 0),
            Sampler::Uniform { count } => {
                let (first, second) = two_below(*count, count - 1, rng);
                let second = second + u32::from(second >= first);
                (first as usize, second as usize)
            }
            Sampler::Alias { slots, .. } => {
                let first = draw(slots, rng);
                let other = (0..REDRAWS)
                    .map(|_| draw(slots, rng))
                    .find(|second| *second != first);
                (first, other.unwrap_or((first + 1) % slots.len()))
            }
        }
    }
}

fn draw(slots: &[Slot], rng: &mut fastrand::Rng) -> usize {
    let bits = rng.u64(..);
    let index = scale(bits as u32, slots.len() as u32) as usize;
    let slot = slots[index];
    if bits >> 32 < slot.threshold {
        index
    } else {
        slot.alias as usize
    }
}

/// Vose's construction: slots that are too full lend to those that are too empty, until each holds one share.
fn alias_table(weights: &[u32]) -> Box<[Slot]> {
    let total: f64 = weights.iter().map(|weight| f64::from(*weight)).sum();
    let whole = (1u64 << 32) as f64;
    let mut shares: Vec<f64> = weights
        .iter()
        .map(|weight| f64::from(*weight) / total * weights.len() as f64)
        .collect();
    let mut slots: Box<[Slot]> = (0..weights.len() as u32)
        .map(|alias| Slot {
            threshold: 1 << 32,
            alias,
        })
        .collect();
    let (mut poor, mut rich): (Vec<usize>, Vec<usize>) =
        (0..weights.len()).partition(|index| shares[*index] < 1.0);
    while let (Some(small), Some(large)) = (poor.pop(), rich.last().copied()) {
        slots[small] = Slot {
            threshold: (shares[small] * whole) as u64,
            alias: large as u32,
        };
        shares[large] -= 1.0 - shares[small];
        if shares[large] < 1.0 {
            poor.extend(rich.pop());
        }
    }
    slots
}

/// Fails where a share is more than 7 standard deviations from the expected one.
#[cfg(test)]
pub(super) fn assert_shares(counts: &[usize], expected: &[f64]) {
    let draws: usize = counts.iter().sum();
    for (count, share) in std::iter::zip(counts, expected) {
        let deviation = (draws as f64 * share * (1.0 - share)).sqrt();
        let off = (*count as f64 - draws as f64 * share).abs();
        assert!(off <= 7.0 * deviation + 1.0, "{counts:?} {expected:?}");
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::base::rng::for_test;

    const DRAWS: usize = 200_000;

    #[test]
    fn draws_follow_the_weights() {
        let weights = [1, 5, 3, 1, 10];
        let sampler = Sampler::new(&weights);
        let mut rng = for_test();
        let mut counts = [0; 5];
        (0..DRAWS).for_each(|_| counts[sampler.one(&mut rng)] += 1);
        assert_shares(&counts, &[0.05, 0.25, 0.15, 0.05, 0.5]);
    }

    #[test]
    fn extreme_weights_keep_the_rare_one_rare_but_possible() {
        let sampler = Sampler::new(&[1_000_000, 1_000]);
        let mut rng = for_test();
        let mut counts = [0; 2];
        (0..DRAWS).for_each(|_| counts[sampler.one(&mut rng)] += 1);
        assert_shares(&counts, &[1000.0 / 1001.0, 1.0 / 1001.0]);
        assert!(counts[1] > 0);
    }

    #[test]
    fn two_are_always_different_where_there_are_two() {
        let mut rng = for_test();
        for weights in [&[1, 1][..], &[1, 1_000_000], &[3, 3, 3, 3], &[1, 2, 3]] {
            let sampler = Sampler::new(weights);
            for _ in 0..1_000 {
                let (first, second) = sampler.two(&mut rng);
                assert!(first != second && first.max(second) < weights.len());
            }
        }
        assert_eq!(Sampler::new(&[7]).two(&mut rng), (0, 0));
    }

    #[test]
    fn every_pair_is_as_likely_with_equal_weights() {
        let sampler = Sampler::new(&[2; 4]);
        let mut rng = for_test();
        let mut counts = vec![0; 16];
        for _ in 0..DRAWS {
            let (first, second) = sampler.two(&mut rng);
            counts[first * 4 + second] += 1;
        }
        let expected: Vec<f64> = (0..16)
            .map(|pair| {
                if pair / 4 == pair % 4 {
                    0.0
                } else {
                    1.0 / 12.0
                }
            })
            .collect();
        assert_shares(&counts, &expected);
    }
}
