//! `weighted_round_robin`: turns in proportion to the weights, spread as evenly as can be.
//!
//! The smooth rule (each pick: current += weight, take the largest, current −= total) visits every endpoint and would need a
//! lock; but its sequence repeats after the sum of the weights, so it is worked out once and a pick is one step of a shared
//! counter. Where weights are many or large that table would be too, and another even sequence takes its place.

use std::sync::Arc;

use super::round_robin;

/// The most work (steps × endpoints) that goes into working out one table; about 0.1 ms.
const WORK_MAX: u64 = 65_536;

#[derive(Clone, Debug)]
pub(super) enum Schedule {
    /// One whole period of the smooth rule.
    Smooth(Arc<[u32]>),
    Golden(Golden),
}

impl Schedule {
    /// For at least one weight, all above 0.
    pub(super) fn new(weights: &[u32]) -> Schedule {
        let divisor = u64::from(weights.iter().copied().fold(0, gcd));
        let total: u64 = weights.iter().map(|weight| u64::from(*weight)).sum();
        let period = total / divisor;
        if period * weights.len() as u64 <= WORK_MAX {
            Schedule::Smooth(Smooth::new(weights).take(period as usize).collect())
        } else {
            Schedule::Golden(Golden::new(weights))
        }
    }

    pub(super) fn pick(&self, turn: u64) -> usize {
        match self {
            Schedule::Smooth(table) => table[round_robin::pick(table.len(), turn)] as usize,
            Schedule::Golden(golden) => golden.pick(turn),
        }
    }
}

fn gcd(a: u32, b: u32) -> u32 {
    if b == 0 { a } else { gcd(b, a % b) }
}

/// The smooth rule itself.
struct Smooth {
    weights: Vec<i64>,
    current: Vec<i64>,
    total: i64,
}

impl Smooth {
    fn new(weights: &[u32]) -> Self {
        let weights: Vec<i64> = weights.iter().map(|weight| i64::from(*weight)).collect();
        Self {
            current: vec![0; weights.len()],
            total: weights.iter().sum(),
            weights,
        }
    }
}

impl Iterator for Smooth {
    type Item = u32;

    fn next(&mut self) -> Option<u32> {
        let mut best = 0;
        for index in 0..self.weights.len() {
            self.current[index] += self.weights[index];
            if self.current[index] > self.current[best] {
                best = index;
            }
        }
        self.current[best] -= self.total;
        Some(best as u32)
    }
}

/// The endpoints share a circle in proportion to their weights, and each turn goes on by the golden section of it. The turns
/// of each endpoint then lie at no more than three different distances (the three-gap theorem), for any weights.
#[derive(Clone, Debug)]
pub(super) struct Golden {
    /// Where each endpoint's part of the circle ends.
    ends: Arc<[u64]>,
}

/// 2⁶⁴ divided by the golden ratio.
const GOLDEN: u64 = 0x9E37_79B9_7F4A_7C15;

impl Golden {
    fn new(weights: &[u32]) -> Self {
        let mut end = 0;
        let ends = weights.iter().map(|weight| {
            end += u64::from(*weight);
            end
        });
        Self {
            ends: ends.collect(),
        }
    }

    fn pick(&self, turn: u64) -> usize {
        let total = self.ends.last().copied().unwrap_or(0);
        let place = (u128::from(turn.wrapping_mul(GOLDEN)) * u128::from(total)) >> 64;
        self.ends.partition_point(|end| u128::from(*end) <= place)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn picks(schedule: &Schedule, count: u64) -> Vec<usize> {
        (0..count).map(|turn| schedule.pick(turn)).collect()
    }

    #[test]
    fn the_sequence_is_the_smooth_one() {
        let schedule = Schedule::new(&[5, 1, 1]);
        assert_eq!(picks(&schedule, 14), [0, 0, 1, 0, 2, 0, 0].repeat(2));
    }

    #[test]
    fn weights_with_a_common_divisor_make_a_short_table() {
        let Schedule::Smooth(table) = Schedule::new(&[500_000, 100_000, 100_000]) else {
            panic!("a period of 7 fits");
        };
        assert_eq!(table.len(), 7);
    }

    #[test]
    fn a_light_endpoint_beside_a_heavy_one_has_its_few_turns() {
        let schedule = Schedule::new(&[1_000_000, 1]);
        assert!(matches!(schedule, Schedule::Golden(_)));
        let light = picks(&schedule, 3_000_000)
            .iter()
            .filter(|i| **i == 1)
            .count();
        assert!((2..=4).contains(&light), "{light}");
    }

    proptest! {
        #[test]
        fn a_table_agrees_with_the_smooth_rule_for_ever(
            weights in prop::collection::vec(1u32..30, 1..12)
        ) {
            let schedule = Schedule::new(&weights);
            let oracle: Vec<usize> = Smooth::new(&weights).take(2_000).map(|i| i as usize).collect();
            prop_assert_eq!(picks(&schedule, 2_000), oracle);
        }

        #[test]
        fn after_any_number_of_turns_large_weights_have_had_their_share_within_a_few(
            weights in prop::collection::vec(1u32..1_000_000, 2..40),
            turns in 1u64..5_000
        ) {
            let golden = Golden::new(&weights);
            let total: f64 = weights.iter().map(|w| f64::from(*w)).sum();
            let mut counts = vec![0u32; weights.len()];
            (0..turns).for_each(|turn| counts[golden.pick(turn)] += 1);
            for (count, weight) in counts.iter().zip(&weights) {
                let fair = turns as f64 * f64::from(*weight) / total;
                prop_assert!((f64::from(*count) - fair).abs() < 5.0, "{} against {}", count, fair);
            }
        }
    }
}
