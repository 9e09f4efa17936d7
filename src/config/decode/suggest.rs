use std::cell::Cell;

/// The candidate that `word` most probably means: near by edit distance, the same but for case and separators, or the only
/// one that begins or ends with it.
pub fn closest<'c>(word: &str, candidates: impl IntoIterator<Item = &'c str>) -> Option<&'c str> {
    let wanted = folded(word);
    let allowed = (wanted.len() / 3).clamp(1, 3);
    let mut nearest: Option<(usize, &str)> = None;
    let mut longer = Vec::new();
    for candidate in candidates {
        let folded = folded(candidate);
        if let Some(distance) = distance(&wanted, &folded, allowed)
            && nearest.is_none_or(|(least, _)| distance < least)
        {
            nearest = Some((distance, candidate));
        }
        if wanted.len() >= PART_LENGTH_MIN
            && (folded.starts_with(&wanted) || folded.ends_with(&wanted))
        {
            longer.push(candidate);
        }
    }
    match (nearest, &longer[..]) {
        (Some((_, candidate)), _) => Some(candidate),
        (None, [candidate]) => Some(*candidate),
        _ => None,
    }
}

/// Shorter words begin and end too many others.
const PART_LENGTH_MIN: usize = 4;

/// Most names that all suggestions of one load are looked for among, as thousands of wrong references to thousands of
/// services would take forever otherwise; then there are no more suggestions.
const COMPARED_MAX: usize = 1_000_000;

/// Suggestions among many names, within [`COMPARED_MAX`].
#[derive(Default)]
pub struct Suggester {
    compared: Cell<usize>,
}

impl Suggester {
    pub fn closest<'c>(
        &self,
        word: &str,
        candidates: impl ExactSizeIterator<Item = &'c str>,
    ) -> Option<&'c str> {
        let compared = self.compared.get() + candidates.len();
        if compared > COMPARED_MAX {
            return None;
        }
        self.compared.set(compared);
        closest(word, candidates)
    }
}

/// Words longer than this are not compared.
const WORD_LENGTH_MAX: usize = 64;

fn folded(word: &str) -> Vec<char> {
    let kept = word.chars().filter(|c| !matches!(c, '_' | '-' | '.'));
    kept.flat_map(char::to_lowercase)
        .take(WORD_LENGTH_MAX)
        .collect()
}

/// Edits (insert, delete, replace, swap of neighbours) from one word to the other, where they are at most `allowed`.
fn distance(from: &[char], to: &[char], allowed: usize) -> Option<usize> {
    if from.len().abs_diff(to.len()) > allowed {
        return None;
    }
    let mut before: Vec<usize> = Vec::new();
    let mut row: Vec<usize> = (0..=to.len()).collect();
    for (i, a) in from.iter().enumerate() {
        let mut next = vec![i + 1];
        for (j, b) in to.iter().enumerate() {
            let replace = row[j] + usize::from(a != b);
            let mut best = replace.min(row[j + 1] + 1).min(next[j] + 1);
            if i > 0 && j > 0 && *a == to[j - 1] && from[i - 1] == *b {
                best = best.min(before[j - 1] + 1);
            }
            next.push(best);
        }
        before = std::mem::replace(&mut row, next);
    }
    row.last().copied().filter(|distance| *distance <= allowed)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_slip_of_the_finger_finds_the_word_meant() {
        let known = [
            "hostnames",
            "backendRefs",
            "attempts",
            "max_ejection",
            "ports",
            "name",
        ];
        let table = [
            ("hostname", Some("hostnames")),
            ("backend_refs", Some("backendRefs")),
            ("atempts", Some("attempts")),
            ("maxEjection", Some("max_ejection")),
            ("prots", Some("ports")),
            ("Name", Some("name")),
            ("ejection", Some("max_ejection")),
            ("colour", None),
            ("x", None),
        ];
        for (word, meant) in table {
            assert_eq!(closest(word, known), meant, "{word}");
        }
    }
}
