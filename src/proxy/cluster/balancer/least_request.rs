//! `least_request`: fewest requests in flight of two; with unequal weights, by chance in proportion to
//! weight / (active + 1).

use super::sample::Sampler;

/// Up to this many endpoints of unequal weights are all weighed; of more, a sample drawn by weight.
const WEIGHED_MAX: usize = 16;

/// One of the sampler's endpoints; `active` tells how many requests one holds.
pub(super) fn pick(
    sampler: &Sampler,
    active: impl Fn(usize) -> u32,
    rng: &mut fastrand::Rng,
) -> usize {
    match sampler.weights() {
        None => fewest_of_two(sampler, active, rng),
        Some(weights) if weights.len() <= WEIGHED_MAX => {
            let index = |index| index;
            let value = |index: usize| f64::from(weights[index]) / (f64::from(active(index)) + 1.0);
            weighed(weights.len(), index, value, rng)
        }
        Some(_) => {
            let sample: [usize; WEIGHED_MAX] = std::array::from_fn(|_| sampler.one(rng));
            // The sample was drawn by weight already.
            let value = |index: usize| 1.0 / (f64::from(active(index)) + 1.0);
            weighed(sample.len(), |place| sample[place], value, rng)
        }
    }
}

fn fewest_of_two(
    sampler: &Sampler,
    active: impl Fn(usize) -> u32,
    rng: &mut fastrand::Rng,
) -> usize {
    let (first, second) = sampler.two(rng);
    if active(second) < active(first) {
        second
    } else {
        first
    }
}

/// One of `count` candidates, each with a chance in proportion to its value.
fn weighed(
    count: usize,
    index: impl Fn(usize) -> usize,
    value: impl Fn(usize) -> f64,
    rng: &mut fastrand::Rng,
) -> usize {
    let mut sums = [0.0; WEIGHED_MAX];
    let mut total = 0.0;
    for (place, sum) in sums.iter_mut().enumerate().take(count) {
        total += value(index(place));
        *sum = total;
    }
    let point = rng.f64() * total;
    let place = sums[..count].partition_point(|sum| *sum <= point);
    index(place.min(count - 1))
}

#[cfg(test)]
mod tests {
    use super::super::sample::assert_shares;
    use super::*;
    use crate::base::rng::for_test;

    const PICKS: usize = 100_000;

    fn counts(weights: &[u32], active: &[u32]) -> Vec<usize> {
        let sampler = Sampler::new(weights);
        let mut rng = for_test();
        let mut counts = vec![0; weights.len()];
        (0..PICKS).for_each(|_| counts[pick(&sampler, |i| active[i], &mut rng)] += 1);
        counts
    }

    #[test]
    fn with_equal_weights_the_busier_of_two_never_wins() {
        // Of 3, each pair comes up in a third of the picks: 0 wins two pairs, 1 one, 2 none.
        assert_shares(&counts(&[1; 3], &[0, 1, 2]), &[2.0 / 3.0, 1.0 / 3.0, 0.0]);
    }

    #[test]
    fn equally_busy_ones_share_evenly() {
        assert_shares(&counts(&[4; 4], &[3; 4]), &[0.25; 4]);
    }

    #[test]
    fn with_unequal_weights_the_share_is_weight_by_active_plus_one() {
        // 6/1, 3/3, 1/1: 6, 1, 1.
        assert_shares(&counts(&[6, 3, 1], &[0, 2, 0]), &[0.75, 0.125, 0.125]);
    }

    #[test]
    fn a_large_cluster_is_sampled_close_to_the_same_shares() {
        let weights: Vec<u32> = (0..40).map(|index| 1 + index % 4).collect();
        let active: Vec<u32> = (0..40)
            .map(|index| if index < 20 { 0 } else { 3 })
            .collect();
        let counts = counts(&weights, &active);
        let idle: usize = counts[..20].iter().sum();
        // Half of the weight is idle (value 1) and half at 3 active (value 1/4): 80 % to the idle half.
        let share = idle as f64 / PICKS as f64;
        assert!((0.77..0.82).contains(&share), "{share}");
    }
}
