//! `lowest_load`: whoever has reported the lowest load. For comparison, and for callers that are alone.
//!
//! It is a herd: every proxy sees the same lowest report, and sends everything there until the next one comes. Of fifty proxies and
//! twenty endpoints at 75 % load, requests take seconds (`benches/unequal.rs`); `load_factor` is the rule for requests.

/// One of so many endpoints; `load` tells what one has reported, None where that is too old. Who has not reported counts as the
/// lowest that has: it is tried, and shares with that one. Chance among equals.
pub(super) fn pick(
    count: usize,
    load: impl Fn(usize) -> Option<f32>,
    rng: &mut fastrand::Rng,
) -> usize {
    let lowest = (0..count).filter_map(&load).reduce(f32::min);
    // No report is less than any.
    let is_lowest = |index: &usize| load(*index) <= lowest;
    let (mut chosen, mut equals) = (0, 0);
    for index in (0..count).filter(is_lowest) {
        equals += 1;
        if rng.usize(..equals) == 0 {
            chosen = index;
        }
    }
    chosen
}

#[cfg(test)]
mod tests {
    use super::super::sample::assert_shares;
    use super::*;
    use crate::base::rng::for_test;

    fn counts(loads: &[Option<f32>]) -> Vec<usize> {
        let mut rng = for_test();
        let mut counts = vec![0; loads.len()];
        (0..60_000).for_each(|_| counts[pick(loads.len(), |i| loads[i], &mut rng)] += 1);
        counts
    }

    #[test]
    fn the_lowest_gets_everything() {
        let counts = counts(&[Some(0.5), Some(0.2), Some(0.9)]);
        assert_shares(&counts, &[0.0, 1.0, 0.0]);
    }

    #[test]
    fn equals_and_who_has_not_reported_share() {
        let counts = counts(&[Some(0.2), None, Some(0.2), Some(0.9)]);
        assert_shares(&counts, &[1.0 / 3.0, 1.0 / 3.0, 1.0 / 3.0, 0.0]);
    }

    #[test]
    fn without_any_report_it_is_chance() {
        assert_shares(&counts(&[None; 4]), &[0.25; 4]);
    }
}
