//! A hash that is the same in every process, version and machine, for decisions that many proxies must take alike.
//!
//! XXH64, as its specification has it (<https://github.com/Cyan4973/xxHash/blob/dev/doc/xxhash_spec.md>). It is fast and spreads
//! well; who may choose the input can also choose where it falls, so it is for nothing that has to withstand that.

const PRIMES: [u64; 5] = [
    0x9E37_79B1_85EB_CA87,
    0xC2B2_AE3D_27D4_EB4F,
    0x1656_67B1_9E37_79F9,
    0x85EB_CA77_C2B2_AE63,
    0x27D4_EB2F_1656_67C5,
];

/// Bytes that go into the four accumulators at once.
const STRIPE: usize = 32;

pub fn xxh64(bytes: &[u8], seed: u64) -> u64 {
    let mut stripes = bytes.chunks_exact(STRIPE);
    let start = if bytes.len() < STRIPE {
        seed.wrapping_add(PRIMES[4])
    } else {
        accumulated(&mut stripes, seed)
    };
    let hash = start.wrapping_add(bytes.len() as u64);
    avalanche(remainder(hash, stripes.remainder()))
}

/// A number in `0.0..1.0` that follows from a hash; with each seed another one, and none has to do with where else the hash leads.
pub fn unit(hash: u64, seed: u64) -> f64 {
    let bits = avalanche(hash.wrapping_add(PRIMES[2].wrapping_mul(seed + 1)));
    (bits >> 11) as f64 / (1u64 << 53) as f64
}

fn accumulated<'a>(stripes: impl Iterator<Item = &'a [u8]>, seed: u64) -> u64 {
    let mut lanes = [
        seed.wrapping_add(PRIMES[0]).wrapping_add(PRIMES[1]),
        seed.wrapping_add(PRIMES[1]),
        seed,
        seed.wrapping_sub(PRIMES[0]),
    ];
    for stripe in stripes {
        for (lane, word) in std::iter::zip(&mut lanes, stripe.chunks_exact(8)) {
            *lane = round(*lane, word_of(word));
        }
    }
    let turns = std::iter::zip(lanes, [1, 7, 12, 18]);
    let sum = turns.fold(0u64, |sum, (lane, turn)| {
        sum.wrapping_add(lane.rotate_left(turn))
    });
    lanes.into_iter().fold(sum, |hash, lane| {
        let merged = hash ^ round(0, lane);
        merged.wrapping_mul(PRIMES[0]).wrapping_add(PRIMES[3])
    })
}

/// What is left after the last whole stripe.
fn remainder(mut hash: u64, bytes: &[u8]) -> u64 {
    let mut words = bytes.chunks_exact(8);
    for word in &mut words {
        hash ^= round(0, word_of(word));
        hash = hash.rotate_left(27).wrapping_mul(PRIMES[0]);
        hash = hash.wrapping_add(PRIMES[3]);
    }
    let mut halves = words.remainder().chunks_exact(4);
    for half in &mut halves {
        hash ^= word_of(half).wrapping_mul(PRIMES[0]);
        hash = hash.rotate_left(23).wrapping_mul(PRIMES[1]);
        hash = hash.wrapping_add(PRIMES[2]);
    }
    for byte in halves.remainder() {
        hash ^= u64::from(*byte).wrapping_mul(PRIMES[4]);
        hash = hash.rotate_left(11).wrapping_mul(PRIMES[0]);
    }
    hash
}

fn round(lane: u64, word: u64) -> u64 {
    lane.wrapping_add(word.wrapping_mul(PRIMES[1]))
        .rotate_left(31)
        .wrapping_mul(PRIMES[0])
}

fn avalanche(mut hash: u64) -> u64 {
    hash ^= hash >> 33;
    hash = hash.wrapping_mul(PRIMES[1]);
    hash ^= hash >> 29;
    hash = hash.wrapping_mul(PRIMES[2]);
    hash ^ (hash >> 32)
}

/// Up to eight bytes, the first of them the lowest.
fn word_of(bytes: &[u8]) -> u64 {
    let mut word = [0; 8];
    word[..bytes.len()].copy_from_slice(bytes);
    u64::from_le_bytes(word)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Of the reference implementation.
    #[test]
    fn it_is_xxh64() {
        let alphabet: Vec<u8> = (0..=255).collect();
        let table: [(&[u8], u64, u64); 8] = [
            (b"", 0, 0xEF46_DB37_51D8_E999),
            (b"a", 0, 0xD24E_C4F1_A98C_6E5B),
            (b"abc", 0, 0x44BC_2CF5_AD77_0999),
            (b"10.0.0.1:8080", 0, 0xCB97_2177_068E_B685),
            (b"10.0.0.1:8080", 1, 0x0DFC_E9EF_D349_B428),
            (
                b"Nobody inspects the spammish repetition",
                0,
                0xFBCE_A83C_8A37_8BF1,
            ),
            (&alphabet[..32], 0, 0xCBF5_9C51_16FF_32B4),
            (&alphabet[..255], 7, 0x4B52_6A35_91BE_E7C9),
        ];
        for (bytes, seed, expected) in table {
            assert_eq!(xxh64(bytes, seed), expected, "{} bytes", bytes.len());
        }
    }

    #[test]
    fn units_are_spread_and_seeds_make_them_independent() {
        let units: Vec<[f64; 2]> = (0..10_000)
            .map(|hash| [unit(hash, 0), unit(hash, 1)])
            .collect();
        for (at, _) in units[0].iter().enumerate() {
            let mean = units.iter().map(|units| units[at]).sum::<f64>() / 10_000.0;
            assert!((0.49..0.51).contains(&mean), "{mean}");
        }
        let below_half = |unit: &f64| *unit < 0.5;
        let both = units.iter().filter(|units| units.iter().all(below_half));
        let both = both.count();
        assert!((2_300..2_700).contains(&both), "{both}");
    }
}
