//! `peak_ewma`, the default: of two, the one with the lower latency × (requests in flight + 1).
//!
//! Both are drawn by weight, and the requests in flight are taken against the weight: with equal weights that is the
//! rule as it stands, and with unequal ones idle endpoints share by weight and busy ones fill up by weight. Dividing the
//! whole product by the weight would leave a light idle endpoint without any traffic beside a heavy idle one.

use std::time::Duration;

use super::sample::Sampler;

/// What an endpoint that has not answered yet counts as at most: 30 ms.
pub const LATENCY_INITIAL: Duration = Duration::from_millis(30);

const INITIAL_NANOS: f32 = LATENCY_INITIAL.as_nanos() as f32;

/// How fast an endpoint goes.
#[derive(Clone, Copy, Debug)]
pub(super) struct Pace {
    /// Its average in nanoseconds; None before the first answer.
    pub(super) latency: Option<f32>,
    /// Requests in flight against the weight.
    pub(super) queue: f32,
}

impl Pace {
    pub(super) fn cost(self) -> f32 {
        self.cost_at(self.latency.unwrap_or(INITIAL_NANOS))
    }

    fn cost_at(self, latency: f32) -> f32 {
        latency * (self.queue + 1.0)
    }
}

/// One of the sampler's endpoints; `pace` tells how fast one goes.
pub(super) fn pick(
    sampler: &Sampler,
    pace: impl Fn(usize) -> Pace,
    rng: &mut fastrand::Rng,
) -> usize {
    let (first, second) = sampler.two(rng);
    if second_is_cheaper(pace(first), pace(second)) {
        second
    } else {
        first
    }
}

/// One that has not answered yet is taken to be as fast as its rival (30 ms at most): it is tried, but not flooded. At 30 ms flat,
/// a newcomer beside a fast endpoint would wait half a minute for its first request.
fn second_is_cheaper(first: Pace, second: Pace) -> bool {
    let unknown = |rival: Pace| rival.latency.unwrap_or(INITIAL_NANOS).min(INITIAL_NANOS);
    let first_latency = first.latency.unwrap_or_else(|| unknown(second));
    let second_latency = second.latency.unwrap_or_else(|| unknown(first));
    second.cost_at(second_latency) < first.cost_at(first_latency)
}

#[cfg(test)]
mod tests {
    use super::super::sample::assert_shares;
    use super::*;
    use crate::base::rng::for_test;

    const PICKS: usize = 100_000;

    fn pace(millis: f32, queue: f32) -> Pace {
        Pace {
            latency: Some(millis * 1e6),
            queue,
        }
    }

    fn counts(weights: &[u32], paces: &[Pace]) -> Vec<usize> {
        let sampler = Sampler::new(weights);
        let mut rng = for_test();
        let mut counts = vec![0; weights.len()];
        (0..PICKS).for_each(|_| counts[pick(&sampler, |i| paces[i], &mut rng)] += 1);
        counts
    }

    #[test]
    fn the_dearer_of_two_never_wins() {
        // 10 × 1 < 5 × 3 < 20 × 1
        let paces = [pace(10.0, 0.0), pace(5.0, 2.0), pace(20.0, 0.0)];
        assert_shares(&counts(&[1; 3], &paces), &[2.0 / 3.0, 1.0 / 3.0, 0.0]);
    }

    #[test]
    fn equal_costs_share_by_weight() {
        let paces = [pace(1.0, 0.0); 3];
        assert_shares(&counts(&[1; 3], &paces), &[1.0 / 3.0; 3]);
        assert_shares(&counts(&[6, 3, 1], &paces), &[0.6, 0.3, 0.1]);
    }

    #[test]
    fn a_newcomer_is_tried_beside_a_fast_endpoint_but_not_flooded() {
        let newcomer = |queue| Pace {
            latency: None,
            queue,
        };
        assert!(second_is_cheaper(pace(1.0, 1.0), newcomer(0.0)));
        assert!(!second_is_cheaper(pace(1.0, 0.0), newcomer(1.0)));
        assert!(second_is_cheaper(pace(100.0, 0.0), newcomer(1.0)));
    }

    #[test]
    fn a_penalised_endpoint_gets_nothing_while_a_fast_one_has_room() {
        assert!(!second_is_cheaper(pace(2.0, 50.0), pace(5_000.0, 0.0)));
    }
}
