//! `least_connections`: fewest open connections from this proxy against the weight, then fewest requests; for TCP and long
//! sessions. Exact for small clusters; large ones compare a sample.

use crate::base::rng::scale;

/// Clusters up to this size are looked at as a whole.
const EXACT_MAX: usize = 64;

/// How many of a larger cluster are compared.
const SAMPLES: usize = 16;

/// One of `count` endpoints; `open` tells an endpoint's connections and requests, each divided by its weight.
pub(super) fn pick(
    count: usize,
    open: impl Fn(usize) -> (f32, f32),
    rng: &mut fastrand::Rng,
) -> usize {
    if count > EXACT_MAX {
        let sample = std::iter::repeat_with(|| scale(rng.u32(..), count as u32) as usize);
        return least(sample.take(SAMPLES), open);
    }
    // From a random one on, so that equals share.
    let start = scale(rng.u32(..), count as u32) as usize;
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
        let mut rng = for_test();
        assert!((0..100).all(|_| pick(3, |i| (open[i], 0.0), &mut rng) == 1));
    }

    #[test]
    fn among_equal_connections_the_fewest_requests_decide() {
        let requests = [5.0, 4.0, 9.0];
        let mut rng = for_test();
        assert!((0..100).all(|_| pick(3, |i| (1.0, requests[i]), &mut rng) == 1));
    }

    #[test]
    fn equals_share_evenly() {
        let mut rng = for_test();
        let mut counts = [0; 4];
        (0..40_000).for_each(|_| counts[pick(4, |_| (0.0, 0.0), &mut rng)] += 1);
        assert_shares(&counts, &[0.25; 4]);
    }

    #[test]
    fn a_large_cluster_sends_little_to_its_busier_half() {
        let mut rng = for_test();
        let busy = (0..20_000)
            .filter(|_| pick(200, |i| (if i < 100 { 0.0 } else { 1.0 }, 0.0), &mut rng) >= 100)
            .count();
        // All 16 samples from the busy half: once in 65,536.
        assert!(busy < 20, "{busy}");
    }
}
