//! `round_robin`: each in turn. With unequal weights it is the smooth sequence of [`super::weighted_round_robin`].

/// In 32 bits, where a division is fast; that the turns start anew after four billion of them does not matter.
pub(super) fn pick(count: usize, turn: u64) -> usize {
    (turn as u32 % count as u32) as usize
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_endpoint_has_its_turn() {
        let picks: Vec<usize> = (0..7).map(|turn| pick(3, turn)).collect();
        assert_eq!(picks, [0, 1, 2, 0, 1, 2, 0]);
    }
}
