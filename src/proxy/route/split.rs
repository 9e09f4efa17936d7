//! Choosing one of several by weight.

/// Places 0..n with a share each; the sum may be zero.
#[derive(Debug)]
pub struct Split {
    /// The sum of the weights up to and with each place.
    cumulative: Box<[u64]>,
    /// The only place with a weight, which needs no dice.
    only: Option<usize>,
}

impl Split {
    pub fn new(weights: impl Iterator<Item = u32>) -> Self {
        let mut sum = 0;
        let cumulative: Box<[u64]> = weights
            .map(|weight| {
                sum += u64::from(weight);
                sum
            })
            .collect();
        let first = cumulative.partition_point(|so_far| *so_far == 0);
        let only = cumulative.get(first).is_some_and(|weight| *weight == sum);
        Self {
            cumulative,
            only: only.then_some(first),
        }
    }

    /// None where nothing has a weight.
    pub fn pick(&self, rng: &mut fastrand::Rng) -> Option<usize> {
        if self.only.is_some() {
            return self.only;
        }
        let total = *self.cumulative.last().filter(|total| **total > 0)?;
        let dice = rng.u64(0..total);
        Some(self.cumulative.partition_point(|so_far| *so_far <= dice))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn counts(weights: &[u32], picks: usize) -> Vec<usize> {
        let split = Split::new(weights.iter().copied());
        let mut rng = fastrand::Rng::with_seed(7);
        let mut counts = vec![0; weights.len()];
        for _ in 0..picks {
            counts[split.pick(&mut rng).expect("some weight")] += 1;
        }
        counts
    }

    #[test]
    fn each_gets_its_share() {
        let weights = [90, 0, 10, 300, 1_000_000, 0, 600];
        let total: u32 = weights.iter().sum();
        let picks = 1_000_000;
        for (weight, count) in weights.iter().zip(counts(&weights, picks)) {
            let expected = picks as f64 * f64::from(*weight) / f64::from(total);
            // Four standard deviations of a binomial count.
            assert!((count as f64 - expected).abs() <= 4.0 * expected.sqrt());
        }
        let even = counts(&[1, 1], 100_000);
        assert!(even[0].abs_diff(50_000) < 1_000);
    }

    #[test]
    fn weight_zero_gets_nothing_and_all_zero_picks_none() {
        assert_eq!(counts(&[0, 5, 0], 10), [0, 10, 0]);
        assert_eq!(counts(&[0, 1, 1, 0], 1000)[0], 0);
        let mut rng = fastrand::Rng::with_seed(7);
        assert_eq!(Split::new([0, 0].into_iter()).pick(&mut rng), None);
        assert_eq!(Split::new([].into_iter()).pick(&mut rng), None);
    }
}
