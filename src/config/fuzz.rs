//! No text makes the reader panic, hang or grow without bound: examples are broken at random, and read.
//!
//! `FUZZ_SECONDS=3600 cargo test --lib config::fuzz` goes on for an hour; a failure prints the seed and the text.

use std::time::Duration;

use proptest::prelude::*;
use tokio::time::Instant;

use super::bootstrap::{self, BootstrapKind};
use super::{Loader, Source, document_identities, problem};

const SEEDS: [&str; 5] = [
    include_str!("golden/wrong.yaml"),
    include_str!("../../config/gateway.yaml"),
    include_str!("../../config/kubernetes-form.yaml"),
    include_str!("../../config/header-routing.yaml"),
    include_str!("../../config/sidecar.yaml"),
];

/// Pieces that mean something to YAML or to us.
const PIECES: [&str; 36] = [
    ":",
    ": ",
    "- ",
    "\n",
    "\n  ",
    "---\n",
    "...\n",
    "[",
    "]",
    "{",
    "}",
    ",",
    "&a ",
    "*a",
    "<<: *a",
    "!!str ",
    "!x ",
    "'",
    "\"",
    "|\n",
    ">-\n",
    "#",
    "? ",
    "%YAML 1.2\n",
    "\t",
    "\u{feff}",
    "\u{85}",
    "ü",
    "\0",
    "~",
    "0",
    "-1",
    "99999999999999999999",
    "kind: Service\nname: x\n",
    "\r\n",
    "\\x",
];

#[test]
fn broken_examples_are_read_without_harm() {
    let seconds = std::env::var("FUZZ_SECONDS")
        .ok()
        .and_then(|text| text.parse().ok());
    let until = seconds.map(|seconds| Instant::now() + Duration::from_secs(seconds));
    let first = if until.is_some() {
        fastrand::u64(..)
    } else {
        1
    };
    for round in 0.. {
        match until {
            Some(until) if Instant::now() >= until => break,
            None if round == 300 => break,
            _ => {}
        }
        let seed = first.wrapping_add(round);
        let text = broken(&mut fastrand::Rng::with_seed(seed));
        let read = std::panic::catch_unwind(|| read(&text));
        assert!(read.is_ok(), "seed {seed} panics:\n{text}");
    }
}

fn broken(rng: &mut fastrand::Rng) -> String {
    let mut text: Vec<char> = rng.choice(SEEDS).unwrap_or_default().chars().collect();
    for _ in 0..rng.usize(1..20) {
        let at = rng.usize(0..=text.len());
        let until = (at + rng.usize(0..12)).min(text.len());
        match rng.u8(0..4) {
            0 => drop(text.drain(at..until)),
            1 => {
                let piece = rng.choice(PIECES).unwrap_or_default();
                text.splice(at..at, piece.chars());
            }
            2 => {
                let from = rng.usize(0..=at);
                let copied = text[from..at].to_vec();
                text.splice(at..at, copied.into_iter().take(200));
            }
            _ => {
                let piece = rng.choice(PIECES).unwrap_or_default();
                text.splice(at..until, piece.chars());
            }
        }
    }
    text.into_iter().collect()
}

/// All that is ever done with a text from outside.
fn read(text: &str) {
    let problems = match Loader::new().load(&[Source::text("fuzz", text)]) {
        Ok(loaded) => loaded.remarks,
        Err(problems) => problems,
    };
    problem::render(&problems, true);
    for problem in &problems {
        assert!(
            problem
                .snippet
                .as_ref()
                .is_none_or(|snippet| snippet.from > 0)
        );
    }
    let _ = document_identities("fuzz", text);
    for kind in [BootstrapKind::Sidecar, BootstrapKind::Registry] {
        bootstrap::validate(kind, "fuzz.yaml".as_ref(), text);
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 200, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn any_bytes_are_read_without_harm(bytes in proptest::collection::vec(any::<u8>(), 0..300)) {
        read(&String::from_utf8_lossy(&bytes));
    }

    #[test]
    fn any_pieces_of_yaml_are_read_without_harm(
        pieces in proptest::collection::vec(proptest::sample::select(PIECES.to_vec()), 0..60),
    ) {
        read(&pieces.concat());
    }
}
