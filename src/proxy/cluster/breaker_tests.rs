//! The breaker's transitions, one observation at a time.

use super::*;
use crate::proxy::cluster::time::TICK_MAX;

const SECOND: u64 = 1_000_000_000;

fn outlier() -> Outlier {
    Outlier::default()
}

fn seen(verdict: Verdict, now: u64) -> Observation {
    Observation {
        verdict,
        probe: false,
        runs: Runs::default(),
        may_eject: true,
        now,
        chance: 0,
    }
}

fn probe(verdict: Verdict, now: u64) -> Observation {
    Observation {
        probe: true,
        ..seen(verdict, now)
    }
}

fn fail(mut breaker: Breaker, times: usize, now: u64) -> Breaker {
    for _ in 0..times {
        breaker = breaker.after(seen(Verdict::Failure, now), &outlier());
    }
    breaker
}

fn open(now: u64) -> Breaker {
    fail(Breaker::default(), 5, now)
}

#[test]
fn five_failures_in_a_row_eject_and_four_do_not() {
    assert_eq!(fail(Breaker::default(), 4, 0).phase, Phase::Closed);
    assert_eq!(open(0).phase, Phase::Open);
}

#[test]
fn a_success_between_failures_starts_the_count_again() {
    let breaker = fail(Breaker::default(), 4, 0).after(seen(Verdict::Success, 0), &outlier());
    assert_eq!(fail(breaker, 4, 0).phase, Phase::Closed);
}

#[test]
fn a_refusal_for_want_of_capacity_is_no_failure() {
    let mut breaker = Breaker::default();
    for _ in 0..100 {
        breaker = breaker.after(seen(Verdict::Refused, 0), &outlier());
    }
    assert_eq!(breaker, Breaker::default());
}

#[test]
fn without_room_below_the_ejection_limit_it_stays_closed() {
    let full = Observation {
        may_eject: false,
        ..seen(Verdict::Failure, 0)
    };
    let mut breaker = Breaker::default();
    for _ in 0..10_000 {
        breaker = breaker.after(full, &outlier());
    }
    assert_eq!((breaker.phase, breaker.consecutive), (Phase::Closed, 4_095));
}

#[test]
fn ejection_switched_off_never_ejects() {
    let off = Outlier {
        consecutive_5xx: 0,
        ..outlier()
    };
    let mut breaker = Breaker::default();
    for _ in 0..100 {
        breaker = breaker.after(seen(Verdict::Failure, 0), &off);
    }
    assert_eq!(breaker.phase, Phase::Closed);
}

#[test]
fn the_first_ejection_lasts_thirty_seconds_and_then_one_request_probes() {
    let breaker = open(0);
    assert_eq!(breaker.probing(29 * SECOND), None);
    let probing = breaker.probing(30 * SECOND + 2_000_000).unwrap();
    assert_eq!(probing.phase, Phase::OpenProbe);
    assert_eq!(probing.probing(31 * SECOND), None, "one probe at a time");
}

#[test]
fn a_probe_without_a_verdict_in_ten_seconds_lets_another_try() {
    let probing = open(0).probing(31 * SECOND).unwrap();
    assert!(probing.probing(42 * SECOND).is_some());
}

#[test]
fn only_the_probes_own_verdict_closes_an_open_breaker() {
    let probing = open(0).probing(31 * SECOND).unwrap();
    let other = probing.after(seen(Verdict::Success, 31 * SECOND), &outlier());
    assert_eq!(other, probing);
    let closed = probing.after(probe(Verdict::Success, 31 * SECOND), &outlier());
    assert_eq!((closed.phase, closed.ejections), (Phase::Closed, 1));
}

#[test]
fn each_failed_probe_ejects_for_longer_up_to_the_maximum() {
    let mut breaker = open(0);
    let mut now = 0;
    let mut lengths = Vec::new();
    for _ in 0..12 {
        let due = breaker.due().unwrap();
        lengths.push((due - now) / SECOND);
        now = due;
        breaker = breaker.probing(now).unwrap();
        breaker = breaker.after(probe(Verdict::Failure, now), &outlier());
    }
    assert_eq!(lengths[..4], [30, 60, 90, 120]);
    assert_eq!(lengths[11], 300);
}

#[test]
fn jitter_makes_ejections_up_to_a_tenth_longer() {
    let late = Observation {
        chance: u32::MAX,
        ..seen(Verdict::Failure, 0)
    };
    let breaker = fail(Breaker::default(), 4, 0).after(late, &outlier());
    assert_eq!(breaker.due().unwrap() / 1_000_000_000, 33);
}

#[test]
fn a_cancelled_probe_makes_the_next_request_the_probe() {
    let probing = open(0).probing(31 * SECOND).unwrap();
    let again = probing.after(probe(Verdict::None, 0), &outlier());
    assert_eq!(again.phase, Phase::Open);
    assert!(again.probing(31 * SECOND).is_some());
}

#[test]
fn quiet_spells_take_ejections_off_its_record() {
    let closed = open(0)
        .probing(31 * SECOND)
        .unwrap()
        .after(probe(Verdict::Success, 31 * SECOND), &outlier());
    let soon = closed.after(seen(Verdict::Success, 100 * SECOND), &outlier());
    assert_eq!(soon.ejections, 1);
    let later = closed.after(seen(Verdict::Success, 340 * SECOND), &outlier());
    assert_eq!(later.ejections, 0);
}

#[test]
fn one_connect_failure_has_it_avoided_for_a_second_then_longer() {
    let first = Breaker::default().after(seen(Verdict::Unreachable, 0), &outlier());
    assert_eq!((first.phase, first.unreachable), (Phase::Avoided, true));
    assert_eq!(first.due().unwrap() / SECOND, 1);
    let now = first.due().unwrap();
    let second = first
        .probing(now)
        .unwrap()
        .after(probe(Verdict::Unreachable, now), &outlier());
    assert_eq!((second.due().unwrap() - now) / SECOND, 2);
}

#[test]
fn many_connects_that_fail_together_do_not_prolong_the_avoidance_but_count() {
    let first = Breaker::default().after(seen(Verdict::Unreachable, 0), &outlier());
    let second = first.after(seen(Verdict::Unreachable, 0), &outlier());
    assert_eq!((second.due(), second.consecutive), (first.due(), 2));
    let mut fifth = second;
    for _ in 0..3 {
        fifth = fifth.after(seen(Verdict::Unreachable, 0), &outlier());
    }
    assert_eq!((fifth.phase, fifth.unreachable), (Phase::Open, true));
}

#[test]
fn any_answer_ends_an_avoidance() {
    let avoided = Breaker::default().after(seen(Verdict::Unreachable, 0), &outlier());
    let success = avoided.after(seen(Verdict::Success, 0), &outlier());
    assert_eq!((success.phase, success.consecutive), (Phase::Closed, 0));
    let failure = avoided.after(seen(Verdict::Failure, 0), &outlier());
    assert_eq!((failure.phase, failure.consecutive), (Phase::Closed, 2));
    assert!(!failure.unreachable);
}

#[test]
fn a_retired_breaker_says_nothing_more() {
    let retired = open(0).retired();
    assert_eq!(
        retired.after(probe(Verdict::Success, 0), &outlier()),
        retired
    );
    assert_eq!((retired.probing(u64::MAX), retired.due()), (None, None));
}

#[test]
fn every_state_survives_packing() {
    for phase in Phase::ALL {
        for (unreachable, ejections, consecutive, until) in [
            (false, 0, 0, 0),
            (true, u8::MAX, CONSECUTIVE_MAX, TICK_MAX),
            (true, 3, 77, 12_345),
        ] {
            let breaker = Breaker {
                phase,
                unreachable,
                ejections,
                consecutive,
                until,
            };
            assert_eq!(Breaker::unpack(breaker.pack()), breaker);
        }
    }
}

#[test]
fn failures_of_one_sort_in_a_row_have_thresholds_of_their_own() {
    let only = |gateway, local| Outlier {
        consecutive_5xx: 0,
        consecutive_gateway: gateway,
        consecutive_local: local,
        ..outlier()
    };
    let phase = |verdicts: &[Verdict], outlier: &Outlier| {
        let (mut breaker, mut runs) = (Breaker::default(), Runs::default());
        for verdict in verdicts {
            runs = Runs::unpack(runs.after(*verdict).pack());
            let seen = Observation {
                runs,
                ..seen(*verdict, 0)
            };
            breaker = breaker.after(seen, outlier);
        }
        breaker.phase
    };
    use Verdict::{Failure, Gateway, Late};
    assert_eq!(phase(&[Gateway, Gateway], &only(2, 0)), Phase::Open);
    assert_eq!(
        phase(&[Gateway, Failure, Gateway], &only(2, 0)),
        Phase::Closed
    );
    assert_eq!(phase(&[Gateway, Gateway], &only(0, 2)), Phase::Closed);
    assert_eq!(phase(&[Late, Late], &only(0, 2)), Phase::Open);
    assert_eq!(phase(&[Late, Gateway, Late], &only(0, 2)), Phase::Closed);
}
