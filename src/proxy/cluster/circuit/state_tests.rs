//! The circuit's transitions, one call at a time, and walks by chance against a model that keeps a list.

use super::*;
use crate::base::rng;
use crate::model::CircuitBreaker;

const SECOND: u64 = 1_000_000_000;
const GOOD: Call = Call {
    failed: false,
    slow: false,
};
const BAD: Call = Call {
    failed: true,
    slow: false,
};
const SLOW: Call = Call {
    failed: false,
    slow: true,
};

fn policy() -> CircuitBreaker {
    CircuitBreaker {
        consecutive_failures: 3,
        ..CircuitBreaker::default()
    }
}

fn seen(call: impl Into<Option<Call>>, now: u64) -> Observation {
    Observation {
        call: call.into(),
        probe: None,
        window: Counts::default(),
        now,
        chance: 0,
    }
}

fn after(state: State, call: Call, now: u64) -> State {
    state.after(&seen(call, now), &policy()).0
}

fn opened(now: u64) -> State {
    (0..3).fold(State::default(), |state, _| after(state, BAD, now))
}

/// Its time is up, and so many requests try it.
fn probed(state: State, probes: usize) -> State {
    (0..probes).fold(state, |state, _| {
        match state.enter(state.due().max(SECOND), &policy()) {
            Entry::Probe(next) => next,
            other => panic!("{other:?}"),
        }
    })
}

fn after_probe(state: State, call: impl Into<Option<Call>>, now: u64) -> (State, Option<Reason>) {
    let probe = Some(state.openings);
    let seen = Observation {
        probe,
        ..seen(call, now)
    };
    state.after(&seen, &policy())
}

fn length(state: State, now: u64) -> u64 {
    state.due().saturating_sub(now).div_ceil(SECOND / 10)
}

#[test]
fn failures_in_a_row_open_and_a_success_between_them_starts_again() {
    assert_eq!(opened(0).phase, Phase::Open);
    let mut state = State::default();
    for call in [BAD, BAD, GOOD, BAD, BAD] {
        state = after(state, call, 0);
    }
    assert_eq!(state.phase, Phase::Closed { failures: 2 });
}

#[test]
fn what_says_nothing_changes_nothing() {
    let state = after(State::default(), BAD, 0);
    assert_eq!(state.after(&seen(None, 0), &policy()), (state, None));
}

#[test]
fn a_larger_share_of_failures_opens_from_the_least_number_of_requests_on() {
    let policy = CircuitBreaker {
        consecutive_failures: 0,
        ..policy()
    };
    let reason = |call: Call, requests, failures, slow| {
        let window = Counts {
            requests,
            failures,
            slow,
        };
        let seen = Observation {
            window,
            ..seen(call, 0)
        };
        State::default().after(&seen, &policy).1
    };
    let found = Reason::FailureShare {
        failures: 11,
        requests: 20,
    };
    assert_eq!(reason(BAD, 20, 11, 0), Some(found));
    assert_eq!(reason(BAD, 20, 10, 0), None, "half is not more than 50 %");
    assert_eq!(reason(BAD, 19, 19, 0), None, "too few requests");
    assert_eq!(reason(GOOD, 20, 11, 0), None, "a success opens nothing");
    assert_eq!(reason(SLOW, 20, 0, 20), None, "no limit is set");
}

#[test]
fn a_larger_share_of_slow_requests_opens() {
    let policy = CircuitBreaker {
        slow_percent: 80,
        ..policy()
    };
    let window = Counts {
        requests: 100,
        failures: 0,
        slow: 81,
    };
    let seen = Observation {
        window,
        ..seen(SLOW, 0)
    };
    let (state, reason) = State::default().after(&seen, &policy);
    assert_eq!(state.phase, Phase::Open);
    let reason = reason.map(|reason| reason.to_string());
    assert_eq!(reason.as_deref(), Some("81 of 100 requests were slow"));
}

#[test]
fn an_open_circuit_refuses_until_its_time_is_up_and_then_lets_a_few_in() {
    let state = opened(0);
    assert_eq!(length(state, 0), 51, "5 s, rounded up");
    assert_eq!(state.enter(5 * SECOND - 1, &policy()), Entry::Refused);
    let half_open = probed(state, 3);
    let due = state.due();
    assert_eq!(half_open.enter(due, &policy()), Entry::Refused);
}

#[test]
fn as_many_good_probes_as_are_asked_for_close_it() {
    let mut state = probed(opened(0), 3);
    for _ in 0..2 {
        let (next, reason) = after_probe(state, GOOD, SECOND);
        assert_eq!(reason, None);
        state = next;
    }
    let (closed, reason) = after_probe(state, GOOD, SECOND);
    assert_eq!(closed.phase, Phase::Closed { failures: 0 });
    assert_eq!(reason, Some(Reason::ProbesAnswered(3)));
}

#[test]
fn each_failed_probe_opens_it_for_twice_as_long_up_to_the_maximum() {
    let mut state = opened(0);
    let mut lengths = Vec::new();
    for _ in 0..7 {
        lengths.push(length(state, 0) / 10);
        state = after_probe(probed(state, 1), BAD, 0).0;
    }
    assert_eq!(lengths, [5, 10, 20, 40, 60, 60, 60]);
}

#[test]
fn a_slow_probe_is_a_failed_one_where_slowness_counts() {
    let state = probed(opened(0), 1);
    assert_eq!(after_probe(state, SLOW, 0).1, None);
    let strict = CircuitBreaker {
        slow_percent: 50,
        ..policy()
    };
    let seen = Observation {
        probe: Some(state.openings),
        ..seen(SLOW, 0)
    };
    assert_eq!(state.after(&seen, &strict).0.phase, Phase::Open);
}

#[test]
fn a_circuit_that_opens_again_soon_after_it_has_closed_waits_longer() {
    let closed_at = 100 * SECOND;
    let closed = (0..3).fold(probed(opened(0), 3), |state, _| {
        after_probe(state, GOOD, closed_at).0
    });
    let again = |now| (0..3).fold(closed, |state, _| after(state, BAD, now));
    assert_eq!(length(again(closed_at), closed_at) / 10, 10);
    let later = closed_at + 61 * SECOND;
    assert_eq!(length(again(later), later) / 10, 5);
}

#[test]
fn what_began_before_it_opened_closes_nothing_and_opens_nothing() {
    for state in [opened(0), probed(opened(0), 1)] {
        for call in [GOOD, BAD] {
            assert_eq!(after(state, call, 0), state);
            let stale = Observation {
                probe: Some(state.openings + 1),
                ..seen(call, 0)
            };
            assert_eq!(state.after(&stale, &policy()).0, state);
        }
    }
}

#[test]
fn a_probe_that_tells_nothing_makes_room_for_another() {
    let full = probed(opened(0), 3);
    let (state, _) = after_probe(full, None, 0);
    assert!(matches!(
        state.enter(state.due() - 1, &policy()),
        Entry::Probe(_)
    ));
}

#[test]
fn probes_that_are_never_heard_of_again_hold_nobody_up_for_ever() {
    let full = probed(opened(0), 3);
    assert_eq!(full.enter(full.due() - 1, &policy()), Entry::Refused);
    let Entry::Probe(next) = full.enter(full.due(), &policy()) else {
        panic!("one more is let in");
    };
    assert_eq!(next.enter(full.due(), &policy()), Entry::Refused);
}

#[test]
fn jitter_adds_up_to_a_tenth() {
    let seen = Observation {
        chance: u32::MAX,
        ..seen(BAD, 0)
    };
    let state = (0..3).fold(State::default(), |state, _| state.after(&seen, &policy()).0);
    assert_eq!(length(state, 0), 56, "5.5 s, rounded up");
}

#[test]
fn every_state_survives_packing() {
    let half_open = |granted, answered| Phase::HalfOpen { granted, answered };
    for phase in [
        Phase::Closed { failures: 0 },
        Phase::Closed { failures: u16::MAX },
        Phase::Open,
        half_open(0, 0),
        half_open(100, 99),
    ] {
        for (openings, until) in [(0, 0), (OPENINGS_MAX, (1 << 40) - 1), (7, 12_345)] {
            let state = State {
                phase,
                openings,
                until,
            };
            assert_eq!(State::unpack(state.pack()), state);
        }
    }
}

/// Walks of calls, refusals, silences and waits: whatever comes, the rules hold.
#[test]
fn by_whatever_way_nobody_passes_too_early_and_no_more_probes_than_allowed_are_under_way() {
    let mut rng = rng::for_test();
    let policy = policy();
    for _ in 0..300 {
        let (mut state, mut now) = (State::default(), 0);
        let mut under_way: Vec<Option<u8>> = Vec::new();
        let mut opened_at = 0;
        for _ in 0..400 {
            now += [0, 0, 0, SECOND / 10, SECOND][rng.usize(..5)];
            if rng.bool() {
                match state.enter(now, &policy) {
                    Entry::Free => under_way.push(None),
                    Entry::Probe(next) => {
                        assert!(now >= opened_at + 5 * SECOND, "too early");
                        let probes = under_way.iter().flatten();
                        let current = probes.filter(|opening| **opening == state.openings);
                        // After each silence of ten seconds one more.
                        let silences = (now - opened_at) / (10 * SECOND);
                        let most = usize::from(policy.half_open_requests) + silences as usize;
                        assert!(current.count() < most);
                        under_way.push(Some(next.openings));
                        state = next;
                    }
                    Entry::Refused => assert!(!matches!(state.phase, Phase::Closed { .. })),
                }
            } else if !under_way.is_empty() {
                let probe = under_way.swap_remove(rng.usize(..under_way.len()));
                let call = [Some(GOOD), Some(BAD), Some(BAD), None][rng.usize(..4)];
                let seen = Observation {
                    probe,
                    chance: rng.u32(..),
                    ..seen(call, now)
                };
                let (next, reason) = state.after(&seen, &policy);
                let moved =
                    std::mem::discriminant(&next.phase) != std::mem::discriminant(&state.phase);
                assert_eq!(moved, reason.is_some());
                if moved && next.phase == Phase::Open {
                    opened_at = now;
                    assert!(next.due() >= now + 5 * SECOND);
                    assert!(next.due() <= now + 67 * SECOND);
                }
                state = State::unpack(next.pack());
                assert_eq!(state, next);
            }
        }
    }
}
