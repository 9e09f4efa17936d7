//! `least_request`: fewest requests in flight of `choices`; with unequal weights, by chance in proportion to
//! weight / (active + 1)^bias.
//!
//! The second rule is for all endpoints at once and would need a look at each of them. It is kept as it stands for up to 16; of
//! more, 16 are drawn by weight and weighed by 1 / (active + 1)^bias, which comes close to the same shares (less so where only a few
//! are idle, as a sample may miss them). `choices` has no part in it: of two that are weighed by chance, the busy one wins too often.

use super::sample::Sampler;
use crate::model::LeastRequest;

/// Up to this many endpoints of unequal weights are all weighed; of more, a sample drawn by weight.
const WEIGHED_MAX: usize = 16;

/// One of the sampler's endpoints; `active` tells how many requests one holds.
pub(super) fn pick(
    sampler: &Sampler,
    settings: LeastRequest,
    active: impl Fn(usize) -> u32,
    rng: &mut fastrand::Rng,
) -> usize {
    let freedom = |index| 1.0 / biased(f64::from(active(index)) + 1.0, settings.bias);
    match sampler.weights() {
        None => fewest(sampler, settings.choices, active, rng),
        Some(weights) if weights.len() <= WEIGHED_MAX => {
            let value = |index: usize| f64::from(weights[index]) * freedom(index);
            weighed(weights.len(), |index| index, value, rng)
        }
        Some(_) => {
            let sample: [usize; WEIGHED_MAX] = std::array::from_fn(|_| sampler.one(rng));
            // The sample was drawn by weight already.
            weighed(sample.len(), |place| sample[place], freedom, rng)
        }
    }
}

/// A power costs as much as the rest of a pick, and most need none.
fn biased(active: f64, bias: f64) -> f64 {
    if bias == 1.0 {
        active
    } else {
        active.powf(bias)
    }
}

/// The first two are different; later ones may be the same again.
fn fewest(
    sampler: &Sampler,
    choices: u8,
    active: impl Fn(usize) -> u32,
    rng: &mut fastrand::Rng,
) -> usize {
    let (first, second) = sampler.two(rng);
    let mut best = (active(first), first);
    let mut compare = |index| {
        let active = active(index);
        if active < best.0 {
            best = (active, index);
        }
    };
    compare(second);
    (2..choices).for_each(|_| compare(sampler.one(rng)));
    best.1
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

    fn counts_with(settings: LeastRequest, weights: &[u32], active: &[u32]) -> Vec<usize> {
        let sampler = Sampler::new(weights);
        let mut rng = for_test();
        let mut counts = vec![0; weights.len()];
        (0..PICKS).for_each(|_| counts[pick(&sampler, settings, |i| active[i], &mut rng)] += 1);
        counts
    }

    fn counts(weights: &[u32], active: &[u32]) -> Vec<usize> {
        counts_with(LeastRequest::default(), weights, active)
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
    fn with_more_choices_only_the_busiest_are_never_taken() {
        let settings = LeastRequest {
            choices: 4,
            ..LeastRequest::default()
        };
        // All of two different ones and two more are among the busiest `count` of 4.
        let among = |count: f64| count / 4.0 * (count - 1.0) / 3.0 * (count / 4.0).powi(2);
        let expected = [
            1.0 - among(3.0),
            among(3.0) - among(2.0),
            among(2.0) - among(1.0),
            0.0,
        ];
        assert_shares(&counts_with(settings, &[1; 4], &[0, 1, 2, 3]), &expected);
    }

    #[test]
    fn the_bias_says_how_much_requests_in_flight_count() {
        let shares = |bias, expected: &[f64]| {
            let settings = LeastRequest {
                bias,
                ..LeastRequest::default()
            };
            assert_shares(&counts_with(settings, &[6, 3, 1], &[2, 0, 0]), expected);
        };
        shares(0.0, &[0.6, 0.3, 0.1]);
        // 6/9, 3, 1
        shares(2.0, &[1.0 / 7.0, 4.5 / 7.0, 1.5 / 7.0]);
        let root = 6.0 / 3.0_f64.sqrt();
        let total = root + 4.0;
        shares(0.5, &[root / total, 3.0 / total, 1.0 / total]);
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
