//! What is told of a cluster: each change once, with why and for how long.

use super::*;
use crate::model::Endpoint;

/// The causes and actions so far, from the first on.
fn told(scene: &Scene) -> Vec<(String, String)> {
    let events = scene.cluster.shared.events.since(0, usize::MAX).events;
    let told = |event: crate::api::Event| (event.cause.into_owned(), event.action.into_owned());
    events.into_iter().map(told).collect()
}

fn pairs(expected: &[(&str, &str)]) -> Vec<(String, String)> {
    let owned = |(cause, action): &(&str, &str)| (cause.to_string(), action.to_string());
    expected.iter().map(owned).collect()
}

#[test]
fn an_ejection_and_the_return_are_told_with_their_lengths() {
    let mut scene = Scene::new(round_robin(), 3);
    for _ in 0..5 {
        scene.outcome_at(1, Outcome::Failure5xx);
    }
    scene.now += seconds(40.0);
    let probe = scene.pick();
    scene.settle(probe, Outcome::Success);
    let events = scene.cluster.shared.events.since(0, 9).events;
    let [ejected, returned] = &events[..] else {
        panic!("two events: {events:?}");
    };
    assert_eq!(ejected.service, "default/reviews");
    assert_eq!(ejected.endpoint, Some(address(1).to_string()));
    assert_eq!(ejected.evidence, "5 failures in a row");
    let length = ejected.duration_ms.unwrap();
    assert!((30_000..=33_002).contains(&length), "{length}");
    assert_eq!(
        (&*returned.action, returned.duration_ms),
        ("returned", Some(40_000))
    );
}

#[test]
fn an_endpoint_that_stays_unreachable_is_told_once() {
    let mut scene = Scene::new(without_ejection(), 3);
    scene.outcome_at(1, Outcome::ConnectFailure);
    for _ in 0..5 {
        scene.now += seconds(40.0);
        let probe = scene.pick();
        assert!(probe.is_probe());
        scene.settle(probe, Outcome::ConnectFailure);
    }
    assert_eq!(told(&scene), pairs(&[("connect_failed", "avoided")]));
}

#[test]
fn requests_that_go_to_a_lower_priority_are_told_and_so_is_their_return() {
    let mut scene = Scene::new(without_ejection(), 0);
    let spare = Endpoint {
        priority: 1,
        ..endpoint(2)
    };
    scene.cluster.set_endpoints(vec![endpoint(1), spare]);
    drop(scene.pick());
    assert_eq!(told(&scene), []);
    scene.outcome_at(1, Outcome::ConnectFailure);
    assert_eq!(scene.picked(2, 10), 10);
    scene.now += seconds(2.0);
    let probe = scene.pick();
    scene.settle(probe, Outcome::Success);
    assert_eq!(scene.picked(1, 10), 10);
    let expected = [
        ("connect_failed", "avoided"),
        ("priority", "Requests go to endpoints of a lower priority"),
        ("answered", "returned"),
        (
            "priority",
            "Requests stay at endpoints of a higher priority again",
        ),
    ];
    assert_eq!(told(&scene), pairs(&expected));
}

#[test]
fn panic_is_told_when_it_begins_and_how_long_it_was_when_it_ends() {
    let eager = Outlier {
        consecutive_5xx: 1,
        max_ejection_percent: 100,
        ..Outlier::default()
    };
    let service = Service {
        outlier: eager,
        ..round_robin()
    };
    let mut scene = Scene::new(service, 3);
    for port in [1, 2] {
        scene.outcome_at(port, Outcome::Failure5xx);
    }
    drop(scene.pick());
    scene.now += seconds(40.0);
    for _ in 0..2 {
        let probe = scene.pick();
        assert!(probe.is_probe());
        scene.settle(probe, Outcome::Success);
    }
    drop(scene.pick());
    let events = scene.cluster.shared.events.since(0, 99).events;
    let health: Vec<_> = events
        .iter()
        .filter(|event| event.cause == "health")
        .collect();
    let [began, ended] = &health[..] else {
        panic!("{events:?}");
    };
    assert_eq!(began.evidence, "1 of 3 endpoints healthy");
    assert_eq!(ended.duration_ms, Some(40_000));
}

#[test]
fn an_endpoint_that_was_used_is_missed_when_it_leaves_and_others_are_not() {
    let mut scene = Scene::new(round_robin(), 2);
    let lease = scene.pick();
    let used = lease.endpoint().address;
    scene.settle(lease, Outcome::Success);
    scene.cluster.set_endpoints(vec![endpoint(9)]);
    assert_eq!(told(&scene), pairs(&[("left", "removed")]));
    let events = scene.cluster.shared.events.since(0, 9).events;
    assert_eq!(events[0].endpoint, Some(used.to_string()));
}
