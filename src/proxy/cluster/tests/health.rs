//! What verdicts do: avoidance, ejection, probes, penalties.

use super::*;

#[test]
fn an_endpoint_whose_connect_failed_is_left_alone_for_a_second_and_then_tried_once() {
    let mut scene = Scene::new(without_ejection(), 3);
    scene.outcome_at(1, Outcome::ConnectFailure);
    assert_eq!(scene.picked(1, 100), 0);
    assert!(matches!(scene.why(1), Why::ConnectFailed(_)));
    scene.now += seconds(1.2);
    assert_eq!(scene.why(1), Why::ProbeDue);
    let probe = scene.pick();
    assert!(probe.is_probe() && probe.endpoint().address.port() == 1);
    assert_eq!(scene.why(1), Why::Probing);
    assert_eq!(scene.picked(1, 100), 0);
    scene.settle(probe, Outcome::Success);
    assert_eq!(scene.picked(1, 99), 33);
}

#[test]
fn an_endpoint_that_stays_unreachable_is_tried_less_and_less() {
    let mut scene = Scene::new(without_ejection(), 2);
    scene.outcome_at(1, Outcome::ConnectFailure);
    let start = scene.now;
    let mut probes = Vec::new();
    while scene.now < start + seconds(200.0) {
        scene.now += seconds(0.1);
        let lease = scene.pick();
        let port = lease.endpoint().address.port();
        let outcome = match port {
            1 => Outcome::ConnectFailure,
            _ => Outcome::Success,
        };
        scene.settle(lease, outcome);
        if port == 1 {
            probes.push((scene.now - start).as_secs());
        }
    }
    // 1 + 2 + 4 + 8 + 16 s, then every 30 to 33 s.
    assert!((8..=11).contains(&probes.len()), "{probes:?}");
}

#[test]
fn the_only_endpoint_is_tried_even_right_after_its_connect_failed() {
    let mut scene = Scene::new(service(), 1);
    for _ in 0..20 {
        scene.outcome_at(1, Outcome::ConnectFailure);
    }
    assert_eq!(scene.pick().endpoint().address.port(), 1);
}

#[test]
fn five_failures_in_a_row_eject_and_one_probe_brings_back() {
    let mut scene = Scene::new(round_robin(), 3);
    for _ in 0..5 {
        scene.outcome_at(1, Outcome::Failure5xx);
    }
    assert!(matches!(scene.why(1), Why::Ejected(_)));
    assert_eq!(scene.picked(1, 100), 0);
    scene.now += seconds(29.0);
    assert_eq!(scene.picked(1, 100), 0);
    scene.now += seconds(5.0);
    let probe = scene.pick();
    assert!(probe.is_probe());
    assert_eq!(scene.picked(1, 100), 0);
    scene.settle(probe, Outcome::Success);
    assert!(scene.picked(1, 990) > 0);
    scene.now += seconds(11.0);
    assert_eq!(scene.picked(1, 99), 33);
    let ejections = scene.cluster.endpoints().endpoints[0].ejections_total();
    assert_eq!((ejections, scene.cluster.ejections_total()), (1, 1));
}

#[test]
fn an_endpoint_that_is_back_gets_its_share_at_once_however_fast_the_others_are() {
    let mut scene = Scene::new(service(), 2);
    for port in [1, 2] {
        scene.outcome_at(port, Outcome::Success);
    }
    scene.outcome_at(1, Outcome::ConnectFailure);
    scene.now += seconds(1.2);
    let probe = scene.pick();
    assert!(probe.is_probe());
    scene.settle(probe, Outcome::Success);
    assert!((30..=70).contains(&scene.picked(1, 100)));
}

#[test]
fn a_dropped_probe_leaves_the_next_request_to_probe() {
    let mut scene = Scene::new(round_robin(), 3);
    for _ in 0..5 {
        scene.outcome_at(1, Outcome::Timeout);
    }
    scene.now += seconds(40.0);
    drop(scene.pick());
    let probe = scene.pick();
    assert!(probe.is_probe() && probe.endpoint().address.port() == 1);
}

#[test]
fn a_probe_refused_by_a_limit_leaves_the_next_request_to_probe() {
    let mut scene = Scene::new(round_robin(), 2);
    for _ in 0..5 {
        scene.outcome_at(1, Outcome::Failure5xx);
    }
    scene.now += seconds(40.0);
    let full = Service {
        circuit: Circuit {
            requests_max: 0,
            ..Circuit::default()
        },
        ..round_robin()
    };
    scene.cluster.update_service(&Arc::new(full));
    let error = scene.pick_avoiding(&[]).unwrap_err();
    assert_eq!(error, PickError::Overflow(Overflow::Requests));
    scene.cluster.update_service(&Arc::new(round_robin()));
    assert!(scene.pick().is_probe());
}

#[test]
fn an_answer_judges_a_probe_before_its_body_ends() {
    let mut scene = Scene::new(round_robin(), 2);
    for _ in 0..5 {
        scene.outcome_at(1, Outcome::Failure5xx);
    }
    scene.now += seconds(40.0);
    let mut probe = scene.pick();
    probe.answered(Outcome::Success, MILLISECOND, scene.now);
    assert_eq!(scene.why(1), Why::Returning(0.1));
    assert_eq!(probe.endpoint().in_flight(), 1);
    scene.now += seconds(5.0);
    assert_eq!(scene.why(1), Why::Returning(0.5));
    scene.now += seconds(5.0);
    assert_eq!(scene.why(1), Why::Healthy);
    probe.settle(Outcome::Reset, MILLISECOND, scene.now);
    assert!(matches!(scene.why(1), Why::ConnectionBroke(_)));
}

#[test]
fn no_more_than_a_tenth_is_ejected_but_always_one() {
    for (endpoints, ejected) in [(3, 1), (30, 3)] {
        let mut scene = Scene::new(round_robin(), endpoints);
        for _ in 0..20 * endpoints {
            let lease = scene.pick();
            scene.settle(lease, Outcome::Failure5xx);
        }
        let report = scene.cluster.report(scene.now);
        let found = report.endpoints.iter();
        let found = found.filter(|e| matches!(e.why, Why::Ejected(_))).count();
        assert_eq!(found, ejected);
    }
}

#[test]
fn an_ejected_endpoint_that_is_removed_leaves_its_place_to_another() {
    let mut scene = Scene::new(round_robin(), 3);
    for _ in 0..5 {
        scene.outcome_at(1, Outcome::Failure5xx);
    }
    scene.cluster.set_endpoints(vec![endpoint(2), endpoint(3)]);
    for _ in 0..5 {
        scene.outcome_at(2, Outcome::Failure5xx);
    }
    assert!(matches!(scene.why(2), Why::Ejected(_)));
}

#[test]
fn shed_requests_and_cancelled_ones_eject_nobody() {
    let mut scene = Scene::new(round_robin(), 2);
    for _ in 0..100 {
        let lease = scene.pick();
        scene.settle(lease, Outcome::Shed { retry_after: None });
        let lease = scene.pick();
        scene.settle(lease, Outcome::Cancelled);
    }
    assert_eq!((scene.why(1), scene.why(2)), (Why::Healthy, Why::Healthy));
}

#[test]
fn a_failing_or_shedding_endpoint_does_not_attract_traffic_by_its_speed() {
    for outcome in [
        Outcome::Shed { retry_after: None },
        Outcome::Failure5xx,
        Outcome::GatewayFailure,
    ] {
        let never = Outlier {
            consecutive_5xx: 0,
            ..Outlier::default()
        };
        let mut scene = Scene::new(
            Service {
                outlier: never,
                ..service()
            },
            2,
        );
        scene.outcome_at(1, outcome);
        scene.outcome_at(2, Outcome::Success);
        assert_eq!(scene.picked(1, 100), 0, "{outcome:?}");
    }
}

#[test]
fn retry_after_is_honoured_up_to_five_minutes() {
    let latency = |asked: u64| {
        let mut scene = Scene::new(service(), 1);
        let retry_after = Some(Duration::from_secs(asked));
        let lease = scene.pick();
        scene.settle(lease, Outcome::Shed { retry_after });
        let report = scene.cluster.report(scene.now);
        report.endpoints[0].latency.unwrap().as_secs_f64().round()
    };
    assert_eq!([1, 60, 9_999].map(latency), [5.0, 60.0, 300.0]);
}

#[test]
fn a_failure_told_at_the_head_and_again_at_the_end_counts_once() {
    let mut scene = Scene::new(round_robin(), 1);
    let mut lease = scene.pick();
    lease.answered(Outcome::Failure5xx, MILLISECOND, scene.now);
    scene.settle(lease, Outcome::Failure5xx);
    assert_eq!(scene.why(1), Why::Failing(1));
}

#[test]
fn traffic_splits_between_priorities_by_what_the_first_can_carry() {
    let mut scene = Scene::new(without_ejection(), 0);
    let at = |port, priority| model::Endpoint {
        priority,
        ..endpoint(port)
    };
    scene
        .cluster
        .set_endpoints(vec![at(1, 0), at(2, 0), at(3, 1)]);
    scene.outcome_at(1, Outcome::ConnectFailure);
    let second = scene.picked(3, 10_000);
    // Half of the first priority × 1.4 carries 70 %.
    assert!((2_700..3_300).contains(&second), "{second}");
}

#[test]
fn outcomes_are_counted_by_kind() {
    let mut scene = Scene::new(round_robin(), 1);
    for outcome in [Outcome::Success, Outcome::Success, Outcome::Timeout] {
        scene.outcome_at(1, outcome);
    }
    drop(scene.pick());
    let totals = scene.cluster.endpoints().endpoints[0].totals();
    let named: Vec<_> = std::iter::zip(Outcome::NAMES, totals)
        .filter(|(_, total)| *total > 0)
        .collect();
    assert_eq!(named, [("success", 2), ("timeout", 1), ("cancelled", 1)]);
}
