//! Chance, passed in: every decision that involves it takes a `&mut fastrand::Rng`, so that a test can repeat it.
//!
//! Not for secrets; cookies and tokens take theirs from the TLS library's generator.

/// A generator of its own for each worker or task, seeded from the operating system's entropy, so that many proxies started
/// at the same moment do not choose alike.
pub fn fresh() -> fastrand::Rng {
    fastrand::Rng::new()
}

/// A generator for a test. `PILLION_SEED`, set when the tests are compiled, repeats a run; the seed is printed, and so appears where the test fails.
#[cfg(test)]
pub fn for_test() -> fastrand::Rng {
    let seed = option_env!("PILLION_SEED")
        .and_then(|text| text.parse().ok())
        .unwrap_or_else(|| fastrand::u64(..));
    println!("PILLION_SEED={seed}");
    fastrand::Rng::with_seed(seed)
}

/// Two numbers below their bounds from one draw: enough for picking among endpoints, with a bias below one in a million
/// for bounds up to 4,096.
pub fn two_below(first: u32, second: u32, rng: &mut fastrand::Rng) -> (u32, u32) {
    let draw = rng.u64(..);
    (
        scale(draw as u32, first),
        scale((draw >> 32) as u32, second),
    )
}

/// Maps 32 random bits onto `0..below`.
pub fn scale(bits: u32, below: u32) -> u32 {
    ((u64::from(bits) * u64::from(below)) >> 32) as u32
}

/// How often something happens.
#[derive(Clone, Copy, PartialEq, Debug)]
pub struct Chance(f64);

impl Chance {
    pub const ALWAYS: Chance = Chance(1.0);

    /// 0 is never, 1 always.
    pub fn of(share: f64) -> Self {
        Self(share)
    }

    pub fn share(self) -> f64 {
        self.0
    }

    /// Whether it happens this time.
    pub fn falls(self, rng: &mut fastrand::Rng) -> bool {
        rng.f64() < self.0
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_chance_falls_as_often_as_it_says() {
        let mut rng = for_test();
        for share in [0.0, 0.001, 0.3, 1.0] {
            let chance = Chance::of(share);
            let fallen = (0..100_000).filter(|_| chance.falls(&mut rng)).count() as f64 / 100_000.0;
            // Six standard deviations.
            let off = 6.0 * (share * (1.0 - share) / 100_000.0_f64).sqrt();
            assert!((fallen - share).abs() <= off, "{fallen} of {share}");
        }
    }

    #[test]
    fn numbers_stay_below_their_bounds_and_reach_all_of_them() {
        let mut rng = for_test();
        let mut seen = [[0u32; 3]; 5];
        for _ in 0..15_000 {
            let (first, second) = two_below(5, 3, &mut rng);
            seen[first as usize][second as usize] += 1;
        }
        assert!(
            seen.iter().flatten().all(|&n| (700..1_300).contains(&n)),
            "{seen:?}"
        );
    }
}
