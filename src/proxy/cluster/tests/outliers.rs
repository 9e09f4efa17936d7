//! What comparing endpoints does, and how they come back.

use super::*;

/// Answers as `outcome` says of the port, `count` requests for each of the endpoints.
fn answer(
    scene: &mut Scene,
    endpoints: u16,
    count: usize,
    outcome: impl Fn(u16, usize) -> Outcome,
) {
    let mut asked = vec![0; usize::from(endpoints) + 1];
    while asked[1..].iter().any(|asked| *asked < count) {
        let lease = scene.pick();
        let port = lease.endpoint().address.port();
        asked[usize::from(port)] += 1;
        let outcome = outcome(port, asked[usize::from(port)]);
        scene.settle(lease, outcome);
    }
}

/// Lets an interval pass and looks.
fn evaluate(scene: &mut Scene) {
    scene.now += seconds(10.0);
    let mut rng = for_test();
    scene.cluster.evaluate(scene.now, &mut rng);
}

fn ejected(scene: &Scene, endpoints: u16) -> Vec<u16> {
    let is_ejected = |port: &u16| matches!(scene.why(*port), Why::Ejected(_));
    (1..=endpoints).filter(is_ejected).collect()
}

#[test]
fn who_fails_more_often_than_the_others_is_ejected_though_never_five_times_in_a_row() {
    let mut scene = Scene::new(round_robin(), 6);
    evaluate(&mut scene);
    answer(&mut scene, 6, 120, |port, request| match port {
        4 if request % 4 == 0 => Outcome::Failure5xx,
        _ => Outcome::Success,
    });
    assert_eq!(ejected(&scene, 6), [0; 0]);
    evaluate(&mut scene);
    assert_eq!(ejected(&scene, 6), [4]);
    let events = scene.cluster.shared.events.since(0, 9).events;
    assert_eq!(&*events[0].cause, "success_rate");
    assert_eq!(
        events[0].evidence,
        "75.0% of its requests succeeded, 95.8% on average"
    );
}

#[test]
fn who_answers_five_times_as_slowly_is_ejected() {
    let mut scene = Scene::new(round_robin(), 3);
    evaluate(&mut scene);
    for _ in 0..90 {
        let lease = scene.pick();
        let slow = lease.endpoint().address.port() == 2;
        let took = if slow { 60 } else { 10 } * MILLISECOND;
        lease.settle(Outcome::Success, took, scene.now);
    }
    evaluate(&mut scene);
    assert_eq!(ejected(&scene, 3), [2]);
}

#[test]
fn what_was_before_the_interval_does_not_count() {
    let mut scene = Scene::new(round_robin(), 3);
    for _ in 0..300 {
        let lease = scene.pick();
        let slow = lease.endpoint().address.port() == 2;
        let took = if slow { 60 } else { 10 } * MILLISECOND;
        lease.settle(Outcome::Success, took, scene.now);
    }
    // The first look only begins the first interval.
    evaluate(&mut scene);
    answer(&mut scene, 3, 30, |_, _| Outcome::Success);
    evaluate(&mut scene);
    assert_eq!(ejected(&scene, 3), [0; 0]);
}

#[test]
fn no_more_are_ejected_than_may_be() {
    let only_compared = Outlier {
        failure_percent: 85,
        ..Outlier::none()
    };
    let service = Service {
        outlier: only_compared,
        ..round_robin()
    };
    let mut scene = Scene::new(service, 5);
    evaluate(&mut scene);
    answer(&mut scene, 5, 60, |port, _| match port {
        1..=3 => Outcome::Failure5xx,
        _ => Outcome::Success,
    });
    evaluate(&mut scene);
    assert_eq!(ejected(&scene, 5).len(), 1);
    assert_eq!(scene.cluster.ejections_total(), 1);
}

#[test]
fn an_endpoint_that_is_back_gets_its_share_little_by_little() {
    let mut scene = Scene::new(round_robin(), 2);
    for _ in 0..5 {
        scene.outcome_at(1, Outcome::Failure5xx);
    }
    scene.now += seconds(40.0);
    let probe = scene.pick();
    scene.settle(probe, Outcome::Success);
    let shares: Vec<usize> = (0..6)
        .map(|_| {
            let share = scene.picked(1, 1_000);
            scene.now += seconds(2.5);
            share
        })
        .collect();
    // A tenth, a quarter, a half and three quarters of one half, then all of it.
    for (share, expected) in shares.iter().zip([50, 125, 250, 375]) {
        assert!(share.abs_diff(expected) < 75, "{shares:?}");
    }
    assert_eq!(shares[4..], [500, 500]);
}

#[test]
fn all_may_be_ejected_where_another_service_takes_over_until_one_is_tried_again() {
    let service = Service {
        failover: Some(crate::model::ClusterKey {
            service: crate::model::Name::local("spare"),
            ..key()
        }),
        ..round_robin()
    };
    let mut scene = Scene::new(service, 3);
    for port in 1..=3 {
        assert!(!scene.cluster.is_out(None, scene.now));
        for _ in 0..5 {
            scene.outcome_at(port, Outcome::Failure5xx);
        }
    }
    assert!(scene.cluster.is_out(None, scene.now));
    scene.now += seconds(40.0);
    // Each of them is tried by one request, and while that is under way the others go elsewhere.
    let probes: Vec<Lease> = (0..3)
        .map(|_| {
            assert!(!scene.cluster.is_out(None, scene.now));
            scene.pick()
        })
        .collect();
    assert!(probes.iter().all(Lease::is_probe) && scene.cluster.is_out(None, scene.now));
    for probe in probes {
        scene.settle(probe, Outcome::Success);
    }
    assert!(!scene.cluster.is_out(None, scene.now));
}
