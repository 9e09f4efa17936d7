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

#[cfg(test)]
mod tests {
    use super::*;

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
