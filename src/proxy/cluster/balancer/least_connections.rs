//! `least_connections`: fewest open connections from this proxy against the weight, then fewest requests; for TCP and long
//! sessions. Exact for small clusters; large ones compare a sample.

use super::sample::Sampler;

/// Clusters up to this size are looked at as a whole.
const EXACT_MAX: usize = 64;

/// How many of a larger cluster are compared.
const SAMPLES: usize = 16;

/// One of the sampler's endpoints; `open` tells an endpoint's connections and requests, each divided by its weight.
pub(super) fn pick(
    sampler: &Sampler,
    open: impl Fn(usize) -> (f32, f32),
    rng: &mut fastrand::Rng,
) -> usize {
    let count = sampler.count();
    if count > EXACT_MAX {
        let sample = std::iter::repeat_with(|| sampler.one(rng));
        return least(sample.take(SAMPLES), open);
    }
    // From one drawn by weight on, so that idle ones share by weight.
    let start = sampler.one(rng);
    least((start..count).chain(0..start), open)
}

fn least(indices: impl Iterator<Item = usize>, open: impl Fn(usize) -> (f32, f32)) -> usize {
    let mut best = (0, (f32::INFINITY, f32::INFINITY));
    for index in indices {
        let figures = open(index);
        if figures < best.1 {
            best = (index, figures);
        }
    }
    best.0
}

#[cfg(test)]
mod tests {
    use super::super::sample::assert_shares;
    use super::*;
    use crate::base::rng::for_test;

    #[test]
    fn the_one_with_the_fewest_connections_is_taken() {
        let open = [3.0, 1.0, 2.0];
        let sampler = Sampler::new(&[1; 3]);
        let mut rng = for_test();
        assert!((0..100).all(|_| pick(&sampler, |i| (open[i], 0.0), &mut rng) == 1));
    }

    #[test]
    fn among_equal_connections_the_fewest_requests_decide() {
        let requests = [5.0, 4.0, 9.0];
        let sampler = Sampler::new(&[1; 3]);
        let mut rng = for_test();
        assert!((0..100).all(|_| pick(&sampler, |i| (1.0, requests[i]), &mut rng) == 1));
    }

    #[test]
    fn equals_share_by_weight() {
        let mut rng = for_test();
        let mut counts = [0; 4];
        let sampler = Sampler::new(&[1, 2, 3, 4]);
        (0..40_000).for_each(|_| counts[pick(&sampler, |_| (0.0, 0.0), &mut rng)] += 1);
        assert_shares(&counts, &[0.1, 0.2, 0.3, 0.4]);
    }

    #[test]
    fn a_large_cluster_sends_little_to_its_busier_half() {
        let mut rng = for_test();
        let sampler = Sampler::new(&[1; 200]);
        let open = |index| (if index < 100 { 0.0 } else { 1.0 }, 0.0);
        let busy = (0..20_000)
            .filter(|_| pick(&sampler, open, &mut rng) >= 100)
            .count();
        // All 16 samples from the busy half: once in 65,536.
        assert!(busy < 20, "{busy}");
    }
}
